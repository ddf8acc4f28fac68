"""The load generator: raw sockets and epoll in one thread, so that it costs little and never wakes the server's core.

It knows just enough HTTP for this: it checks the status once per answer, and counts the blank lines that end
events. `receives` tells the regime: with one event per receive the client keeps up and the server pays a wake-up
for each write; with several, writes are cheaper for the server. Compare servers only at a similar regime.
"""

import re
import select
import socket
import time

#: Bytes taken from a socket at once: more than a server writes between two looks.
RECEIVE_BYTES = 256 * 1024
#: Seconds a single answer may take.
ANSWER_S = 10.0

END_OF_EVENT = b"\n\n"
END_OF_HEAD = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")
LAST_CHUNK = b"0\r\n\r\n"
END_OF_BODY = b"\r\n" + LAST_CHUNK  # in a whole answer, where the last chunk follows a line


class BadAnswer(Exception):
    """A server answered something else than a stream."""


def post(target: str, body: bytes) -> bytes:
    """Return a POST of a JSON body, ready to send."""
    head = f"POST {target} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def get(target: str) -> bytes:
    """Return a GET, ready to send."""
    return f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


def answer_of(port: int, request: bytes) -> bytes:
    """Return the body of one answer, chunk framing included."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
        connection.sendall(request)
        answer = b""
        while not answer.endswith(END_OF_BODY):
            piece = connection.recv(RECEIVE_BYTES)
            if not piece:
                raise BadAnswer(f"cut after {answer[:400]!r}")
            answer += piece
            _check_status(answer)
    return answer.partition(END_OF_HEAD)[2]


def _check_status(answer: bytes | bytearray) -> None:
    if not answer.startswith(b"HTTP/1.1 200"):
        raise BadAnswer(bytes(answer[:400]).decode(errors="replace"))


class Streams:
    """Several open streams, read as fast as they come: `events` and `receives` count what came."""

    def __init__(self) -> None:
        self.events = 0
        self.receives = 0
        self._epoll = select.epoll()
        self._connections: dict[int, socket.socket] = {}
        self._silent: set[int] = set()  # streams that have not said anything yet
        self._half: set[int] = set()  # streams whose last piece ended in the middle of a blank line
        self._buffer = bytearray(RECEIVE_BYTES)

    @property
    def opened(self) -> int:
        """Return how many streams are open."""
        return len(self._connections)

    @property
    def silent(self) -> int:
        """Return how many streams have not said anything yet."""
        return len(self._silent)

    def open(self, port: int, request: bytes) -> None:
        """Open one more stream."""
        connection = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        connection.sendall(request)
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        self._silent.add(connection.fileno())
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def read_until(self, deadline: float) -> None:
        """Read until `deadline` (of time.monotonic), or until every stream has ended."""
        while self._connections and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._epoll.poll(left):
                self._read(descriptor)

    def read_until_begun(self, deadline: float) -> None:
        """Read until every stream has said something. Raises TimeoutError at `deadline` (of time.monotonic)."""
        while self._silent:
            self.read_until(min(deadline, time.monotonic() + 0.01))
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{self.silent} of {self.opened} streams have not said anything")

    def _read(self, descriptor: int) -> None:
        buffer = self._buffer
        size = self._connections[descriptor].recv_into(buffer)
        self.receives += 1
        if size == 0:
            self._close(descriptor)
            return
        start = self._end_of_head(descriptor, size) if descriptor in self._silent else 0
        self.events += buffer.count(END_OF_EVENT, start, size)
        if descriptor in self._half:
            self._half.discard(descriptor)
            self.events += buffer[0] == 0x0A
        if buffer[size - 1] == 0x0A:
            if buffer.endswith(LAST_CHUNK, start, size):
                self._close(descriptor)
            elif buffer[size - 2] != 0x0A:
                self._half.add(descriptor)

    def _end_of_head(self, descriptor: int, size: int) -> int:
        """Return where the body begins in a stream's first piece; raise BadAnswer when it is no stream."""
        self._silent.discard(descriptor)
        _check_status(self._buffer[:size])
        return self._buffer.index(END_OF_HEAD, 0, size) + len(END_OF_HEAD)

    def _close(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        self._connections.pop(descriptor).close()
        self._silent.discard(descriptor)

    def close(self) -> None:
        """Leave all streams."""
        for descriptor in list(self._connections):
            self._close(descriptor)
        self._epoll.close()


class Caller:
    """One connection that asks again as soon as it has its answer: a closed loop, kept alive as SDKs do."""

    def __init__(self, port: int, request: bytes) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self.ask()

    def ask(self) -> None:
        """Send the request."""
        self._answer = bytearray()
        self._has_event = False
        self.asked = time.perf_counter()
        self.connection.sendall(self._request)

    def read(self, first_events_s: list[float]) -> bool:
        """Take what came, note how long a first event took; return whether the answer is complete."""
        piece = self.connection.recv(RECEIVE_BYTES)
        self._answer += piece
        _check_status(self._answer)
        if not piece:
            raise BadAnswer(f"cut after {bytes(self._answer[-400:])!r}")
        if not self._has_event and END_OF_EVENT in self._answer:
            first_events_s.append(time.perf_counter() - self.asked)
            self._has_event = True
        return self._answer.endswith(END_OF_BODY)

    def close(self) -> None:
        """Leave."""
        self.connection.close()


class Submitter(Caller):
    """A caller whose answer has a length, as a submit's; what it notes is how long that took."""

    def read(self, first_events_s: list[float]) -> bool:
        """Take what came, note how long the answer took; return whether it is complete."""
        piece = self.connection.recv(RECEIVE_BYTES)
        self._answer += piece
        _check_status(self._answer)
        if not piece:
            raise BadAnswer(f"cut after {bytes(self._answer[-400:])!r}")
        head, _, self.body = bytes(self._answer).partition(END_OF_HEAD)
        if not self.body or len(self.body) < int(CONTENT_LENGTH.findall(head)[0]):
            return False
        first_events_s.append(time.perf_counter() - self.asked)
        return True


class Callers:
    """Several callers at a time: `answers` counts theirs, `first_events_s` holds what each first event took."""

    def __init__(self, port: int, request: bytes, concurrency: int, kind: type[Caller] = Caller) -> None:
        self.answers = 0
        self.first_events_s: list[float] = []
        self._epoll = select.epoll()
        self._callers: dict[int, Caller] = {}
        for _ in range(concurrency):
            caller = kind(port, request)
            self._callers[caller.connection.fileno()] = caller
            self._epoll.register(caller.connection.fileno(), select.EPOLLIN)

    def call_until(self, deadline: float) -> None:
        """Ask and ask again until `deadline` (of time.monotonic)."""
        while (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._epoll.poll(left):
                caller = self._callers[descriptor]
                if caller.read(self.first_events_s):
                    self.answers += 1
                    caller.ask()

    def finish(self, deadline: float) -> None:
        """Take the answers that are on their way, so that nobody is left in the middle of one."""
        waiting = set(self._callers)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._epoll.poll(left):
                if self._callers[descriptor].read(self.first_events_s):
                    waiting.discard(descriptor)

    def close(self) -> None:
        """Leave."""
        for caller in self._callers.values():
            caller.close()
        self._epoll.close()
