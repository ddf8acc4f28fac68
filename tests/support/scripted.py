"""A TCP server that does to its clients exactly what a script says, in bytes, and remembers what they did.

A script is a list of steps, played once for each request that arrives:

    bytes             sent as they are
    Wait(seconds)     nothing happens, unless the client leaves
    Beat(data, …)     the same bytes again and again, until the client leaves
    HOLD              nothing more happens until the client leaves
    TAKEN             nothing happens until the client has read all that was sent, unless it leaves
    CLOSE             FIN
    RESET             RST
    a function        the step that it makes of the request

After the last step the connection waits for another request. `on_connect` is played before any request is read.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

HOLD = object()
TAKEN = object()
CLOSE = object()
RESET = object()

TLS_CERTIFICATE = Path(__file__).parent / "tls" / "localhost.pem"
"""A self-signed certificate for 127.0.0.1 and localhost, with its key. It protects nothing but tests."""

DEADLINE_S = 20.0

STRETCHES = (1, 10)
"""What the short limits of a test are taken times: as they are, and once more for a machine that was too slow for them.

What is tested is what happens when a limit passes, or that it does not: the same whatever its length.
"""


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Beat:
    data: bytes
    every_s: float = 0.02


Step = bytes | Wait | Beat | Callable[["Received"], "Step"] | object


@dataclass(frozen=True)
class Received:
    """A request as it came: the head as text, the body as bytes."""

    head: str
    body: bytes
    connection: int = 0  # the number of its connection, in the order in which they were made

    @property
    def line(self) -> str:
        return self.head.split("\r\n", 1)[0]

    @property
    def headers(self) -> dict[str, str]:
        pairs = (line.split(": ", 1) for line in self.head.split("\r\n")[1:] if line)
        return {name.lower(): value for name, value in pairs}


@dataclass
class Scripted:
    """The running server, as a test sees it."""

    port: int
    is_tls: bool = False
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    left_at: list[float] = field(default_factory=list)
    _left: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://127.0.0.1:{self.port}"

    def wait_for_leavers(self, count: int = 1) -> list[float]:
        """Wait until so many clients have closed their connections; return when they did."""
        with self._left:
            assert self._left.wait_for(lambda: len(self.left_at) >= count, DEADLINE_S), "no client left"
            return list(self.left_at)

    def _note_leaver(self) -> None:
        with self._left:
            self.left_at.append(time.monotonic())
            self._left.notify_all()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(json: bytes) -> bytes:
    """One chunk with one event."""
    return chunk(b"data: " + json + b"\n\n")


LAST_CHUNK = b"0\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"x-fal-request-id: req-1\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def answer(status: int, body: bytes, *headers: str, content_type: str = "application/json") -> bytes:
    """A whole answer with a Content-Length."""
    lines = [
        f"HTTP/1.1 {status} Reason",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "x-fal-request-id: req-1",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def scripted(script: Sequence[Step], *, on_connect: Sequence[Step] = (), tls: bool = False) -> Iterator[Scripted]:
    """Run a server in threads until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = Scripted(listener.getsockname()[1], tls)
    open_sockets: set[socket.socket] = set()
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_sockets.add(connection)
            server.connections += 1
            thread = threading.Thread(target=serve, args=(connection, server.connections), daemon=True)
            threads.append(thread)
            thread.start()

    def serve(connection: socket.socket, number: int) -> None:
        try:
            with contextlib.suppress(OSError):
                _serve(connection, number, server, script, on_connect)
        finally:
            connection.close()
            open_sockets.discard(connection)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(DEADLINE_S)  # from here on there are no new connections
        for connection in list(open_sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in [acceptor, *threads]:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "the scripted server did not stop"


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """The address of a port that refuses, and that nobody else is given as long as the block runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def _serve(
    connection: socket.socket, number: int, server: Scripted, script: Sequence[Step], on_connect: Sequence[Step]
) -> None:
    if not all(_play(connection, step, server) for step in on_connect):
        return
    if server.is_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS_CERTIFICATE)
        connection = context.wrap_socket(connection, server_side=True)
    try:
        with connection.makefile("rb") as file:
            while (received := _read_request(file)) is not None:
                server.requests.append(replace(received, connection=number))
                for step in script:
                    if not _play(connection, step, server):
                        return
    except OSError:
        server._note_leaver()
    else:
        server._note_leaver()
    finally:
        connection.close()


def _read_request(file) -> Received | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            return None
        head += line
    received = Received(head.decode("latin-1").removesuffix("\r\n\r\n"), b"")
    return Received(received.head, file.read(int(received.headers.get("content-length", "0"))))


def _play(connection: socket.socket, step: Step, server: Scripted) -> bool:
    """Do one step; return whether the script goes on."""
    if isinstance(step, bytes):
        connection.sendall(step)
    elif callable(step):
        return _play(connection, step(server.requests[-1]), server)
    elif isinstance(step, Wait):
        return not _has_left(connection, step.seconds, server)
    elif isinstance(step, Beat):
        while not _has_left(connection, step.every_s, server):
            connection.sendall(step.data)
        return False
    elif step is TAKEN:
        while not _has_taken_all(connection):
            if _has_left(connection, 0.005, server):
                return False
    elif step is HOLD:
        while not _has_left(connection, DEADLINE_S, server):
            pass
        return False
    elif step is CLOSE:
        connection.shutdown(socket.SHUT_WR)
        return False
    elif step is RESET:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        return False
    else:
        raise TypeError(step)
    return True


def _has_taken_all(connection: socket.socket) -> bool:
    """Whether nothing of what was sent waits any more in the kernel, on this side or on the client's."""
    ends = [
        "%08X:%04X" % (struct.unpack("=I", socket.inet_aton(host))[0], port)
        for host, port in (connection.getsockname(), connection.getpeername())
    ]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [line[4] for line in lines if line[1:3] in (ends, ends[::-1])]
    return all(queue == "00000000:00000000" for queue in queues)


def _has_left(connection: socket.socket, seconds: float, server: Scripted) -> bool:
    """Watch for the client's FIN or RST for so long. A script that waits expects no bytes."""
    connection.settimeout(seconds)
    try:
        gone = connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        gone = True
    finally:
        with contextlib.suppress(OSError):
            connection.settimeout(None)
    if gone:
        server._note_leaver()
    return gone
