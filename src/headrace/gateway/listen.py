"""The listeners: sockets, and the guarded protocol on each connection; their opening, draining and closing.

uvicorn brings its protocol and nothing else: its own server, signal handling and lifespan stay unused.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from uvicorn import Config as UvicornConfig
from uvicorn.server import ServerState

from headrace.core.limits import Limits
from headrace.gateway.app import Gateway
from headrace.gateway.guard import Guard
from headrace.gateway.protocol import GuardedProtocol

_BACKLOG = 2048


class Listeners:
    """Every socket of one gateway, and the connections that came in by them."""

    def __init__(self, gateway: Gateway, guard: Guard, limits: Limits, new_id: Callable[[], str]) -> None:
        self._limits = limits
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        settings = UvicornConfig(
            gateway,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(limits.idle_timeout_s),
        )
        settings.load()
        self._protocol = functools.partial(GuardedProtocol, settings, self._state, {}, guard=guard, new_id=new_id)

    async def open(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections on a bound socket, by TLS if a context is given."""
        limits = self._limits
        options = {
            "ssl": tls,
            "ssl_handshake_timeout": limits.header_timeout_s,
            # By TLS, closing means: send what waits, say goodbye, hear the client's. It must not cost a slow
            # client the end of its answer.
            "ssl_shutdown_timeout": limits.stall_timeout_s,
        }
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._protocol, sock=sock, backlog=_BACKLOG, **(options if tls else {}))  # type: ignore[call-overload]
        self._servers.append(server)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._state.connections)

    async def keep_date(self) -> None:
        """Renew the Date header once a second, as an origin server with a clock must (RFC 9110, 6.6.1)."""
        while True:
            self._state.default_headers = [(b"date", email.utils.formatdate(usegmt=True).encode())]
            await asyncio.sleep(1.0)

    def close(self) -> None:
        """Take no new connection, and no further request on those there are."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._state.connections):
            connection.shutdown()

    async def finished(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Wait until every request is answered, until told to hurry, or for `timeout_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._state.tasks and not hurry.is_set():
                    await asyncio.wait({*self._state.tasks}, timeout=0.1)

    def hang_up(self) -> None:
        """Close every connection that is still open."""
        for connection in tuple(self._state.connections):
            connection.transport.close()


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises `OSError`."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Bound but deaf, a port can be bound by another with SO_REUSEADDR; listening settles it.
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def next_free_port(host: str, port: int) -> int | None:
    """Return the next port after `port` that can be listened on, or None."""
    for candidate in range(port + 1, min(port + 100, 65_536)):
        with suppress(OSError):
            bind(host, candidate).close()
            return candidate
    return None
