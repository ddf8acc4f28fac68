"""An internet of one process: names with scripted answers, public addresses that lead to servers of the test.

    internet = Internet()
    internet.name("hooks.example.com", "93.184.216.34")            the same answer every time
    internet.name("rebind.example.com", "93.184.216.34", "127.0.0.1")  another one at the second question
    internet.site("93.184.216.34", 443, [answer, …], tls=context)  a real server, which answers in bytes
    internet.run(main)                                             with a loop that routes, and remembers each connect

What is not a site is unreachable: nothing of a test leaves the machine. Loopback is a site like any other, so that a
connection to it would be served, and seen.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headrace.core.netguard import Address

T = TypeVar("T")

#: Scripted bytes; or a function that writes the answer itself.
Script = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Heard:
    """A request as it came to a site."""

    line: str
    headers: dict[str, str]  # by lower-case name
    body: bytes


@dataclass
class Site:
    """A server at one address. Its answers are given in turn, the last one ever after."""

    answers: Sequence[Script]
    tls: ssl.SSLContext | None
    heard: list[Heard] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)  # told by TLS (SNI)
    connections: int = 0
    port: int = 0  # where it really listens, on 127.0.0.1
    _server: asyncio.Server | None = None
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        if self.tls is not None:
            self.tls.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._serving.add(task := asyncio.current_task())
        task.add_done_callback(self._serving.discard)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (row.split(": ", 1) for row in rest)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.heard.append(Heard(line, headers, body))
            script = self.answers[min(len(self.heard), len(self.answers)) - 1]
            if isinstance(script, bytes):
                writer.write(script)
                await writer.drain()
            else:
                await script(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        finally:
            writer.close()


class Internet:
    """Names and sites, and what was asked of them."""

    def __init__(self) -> None:
        self.lookups: list[str] = []
        self.connects: list[str] = []  # "address:port", in their order
        self._names: dict[str, list[list[Address]]] = {}
        self._sites: dict[tuple[str, int], Site] = {}

    def name(self, host: str, *answers: str) -> None:
        """Script the answers about a name, each one or more addresses; the last one stays."""
        self._names[host] = [[ipaddress.ip_address(word) for word in text.split()] for text in answers]

    def site(
        self, address: str, port: int, answers: Sequence[Script], *, tls: ssl.SSLContext | None = None
    ) -> Site:
        site = self._sites[address, port] = Site(answers, tls)
        return site

    def remove(self, address: str, port: int) -> None:
        del self._sites[address, port]

    async def lookup(self, host: str, port: int) -> Sequence[Address]:
        self.lookups.append(host)
        if host not in self._names:
            raise OSError(f"{host}: no such name")
        answers = self._names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Run `main` with every site up."""

        async def with_sites() -> T:
            sites = list(self._sites.values())
            for site in sites:
                await site.open()
            try:
                return await main()
            finally:
                for site in sites:
                    await site.close()

        with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
            return runner.run(with_sites())

    def route(self, address: tuple[Any, ...]) -> tuple[str, int]:
        """Where a connection to `address` really goes. Raises `OSError` where nobody lives."""
        host, port = address[:2]
        self.connects.append(f"{host}:{port}")
        if (site := self._sites.get((host, port))) is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody lives at {host}:{port}")
        return "127.0.0.1", site.port


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose connections all go through the routes of an `Internet`."""

    def __init__(self, internet: Internet) -> None:
        super().__init__()
        self._internet = internet

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await super().sock_connect(sock, self._internet.route(address))
