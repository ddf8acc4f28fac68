"""What a stream that survives cuts is tested with: a wire that is cut where a test says, and a server of recorded bytes.

    with cut_wire(port, [100, 20]) as wire:     the first connection's answer ends behind 100 bytes, the second's behind 20
    with recorded_server() as server:           starts a request once for each key, and goes on behind an id

`SHELLS` are the two shells of the SDK as functions from a URL to what became of one resumed stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace import AsyncClient, Client
from headrace.client.errors import HeadraceError
from tests.support.scripted import LAST_CHUNK, Received, _read_request, answer, chunk

DEADLINE_S = 20.0

#: One stream as a server of ours writes it to a reader with ids: its items, then its bytes.
REQUEST_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
ITEMS: list[dict[str, Any]] = [
    *({"i": at, "text": text} for at, text in enumerate(["", "é", "🌅", "a\nb", "id: 7", "data: x", ": ping"])),
    *({"i": at, "pad": "x" * at} for at in range(7, 12)),
    {"total": 12},
]
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 20:00:00 GMT\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\n"
    b"x-fal-request-id: " + REQUEST_ID.encode() + b"\r\ntransfer-encoding: chunked\r\n\r\n"
)


def recorded(first: int = 0) -> bytes:
    """The answer to a reader that has the events before `first`."""
    if first == len(ITEMS):
        return b"HTTP/1.1 204 No Content\r\nx-fal-request-id: " + REQUEST_ID.encode() + b"\r\n\r\n"
    chunks = []
    for at in range(first, len(ITEMS)):
        data = json.dumps(ITEMS[at], separators=(",", ":")).encode("ascii")
        chunks.append(chunk(b"id: %s.1.%d\ndata: %b\n\n" % (REQUEST_ID.encode(), at, data)))
        if at % 4 == 1:
            chunks.append(chunk(b": ping\n"))
    return HEAD + b"".join(chunks) + LAST_CHUNK


# --- the two shells --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a stream: the items that were handed over, and what ended it but its end."""

    items: list[Any]
    error: BaseException | None = None


def read_sync(url: str, application: str = "me/app", arguments: Any = None, **options: Any) -> Outcome:
    """Read a stream to its end."""
    items: list[Any] = []
    with Client(url, "id:secret") as client:
        try:
            items += client.stream(application, arguments, **{"resume": True, **options})
        except HeadraceError as error:
            return Outcome(items, error)
    return Outcome(items)


def read_async(url: str, application: str = "me/app", arguments: Any = None, **options: Any) -> Outcome:
    """Read a stream to its end."""

    async def main() -> Outcome:
        items: list[Any] = []
        client = AsyncClient(url, "id:secret")
        try:
            async for item in client.stream(application, arguments, **{"resume": True, **options}):
                items.append(item)
        except HeadraceError as error:
            return Outcome(items, error)
        finally:
            await client.close()
        return Outcome(items)

    return asyncio.run(main())


SHELLS = {"sync": read_sync, "async": read_async}


# --- the wire --------------------------------------------------------------------------------------------------------


@dataclass
class Wire:
    """A way to a server that is cut, connection by connection, behind a number of the answer's bytes."""

    port: int
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def cut_wire(upstream_port: int | Sequence[int], cuts: Sequence[int], *, resets: bool = False) -> Iterator[Wire]:
    """Lead to a server. The n-th connection ends behind `cuts[n]` bytes of the answer; those beyond are whole.

    With `resets` a cut is an RST to both sides, else a FIN. Of several ports, each connection gets the next one.
    """
    ports = [upstream_port] if isinstance(upstream_port, int) else list(upstream_port)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    wire = Wire(listener.getsockname()[1])
    is_over, stop = socket.socketpair()  # readable when the block ends
    threads: list[threading.Thread] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                left = cuts[wire.connections] if wire.connections < len(cuts) else None
                port = ports[min(wire.connections, len(ports) - 1)]
                wire.connections += 1
                thread = threading.Thread(target=carry, args=(client, port, left), daemon=True)
                threads.append(thread)
                thread.start()

    def carry(client: socket.socket, port: int, left: int | None) -> None:
        """Carry bytes both ways until one side is done or the answer's bytes are used up; then close both."""
        with client, contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as upstream:
                while left is None or left > 0:
                    ready, _, _ = select.select([client, upstream, is_over], [], [], DEADLINE_S)
                    source = next(iter(ready), is_over)
                    data = b"" if source is is_over else source.recv(65_536)
                    if not data:
                        return
                    (client if source is upstream else upstream).sendall(
                        data[:left] if source is upstream else data
                    )
                    if source is upstream and left is not None:
                        left -= len(data)
                if resets:
                    for end in (client, upstream):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield wire
    finally:
        stop.close()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(DEADLINE_S)  # first, for it may start one more
        for thread in (acceptor, *threads):
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "the wire's thread does not end"
        is_over.close()


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass
class RecordedServer:
    """A server whose one request has been recorded. It starts it once for each key, and notes whatever it is asked."""

    port: int
    requests: list[Received] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)  # by Idempotency-Key
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer_to(self, received: Received) -> bytes:
        with self._lock:
            self.requests.append(received)
            method, path, _ = received.line.split()
            seen = received.headers.get("last-event-id", "")
            first = int(seen.rpartition(".")[2]) + 1 if seen else 0
            if (method, path) == ("POST", "/me/app/stream"):
                key = received.headers["idempotency-key"]
                assert "1" == received.headers["x-headrace-event-ids"]
                assert "grace:30" == received.headers["x-headrace-on-disconnect"]
                self.starts[key] += key not in self.starts
                return recorded(first)
            if (method, path) == ("GET", f"/me/app/requests/{REQUEST_ID}/stream"):
                return recorded(first)
        return answer(404, b'{"detail": "what?"}')


@contextlib.contextmanager
def recorded_server() -> Iterator[RecordedServer]:
    """Run a `RecordedServer` in threads until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = RecordedServer(listener.getsockname()[1])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as file:
            connection.settimeout(DEADLINE_S)
            while (received := _read_request(file)) is not None:
                connection.sendall(server.answer_to(received))

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(DEADLINE_S)
