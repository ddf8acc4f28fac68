"""The gateway's side of one client's connection: a transport, the kernel's buffer behind it, and the real outlet.

It behaves as uvicorn's protocol and asyncio's transports do, as far as `headrace.gateway.outlet` can tell. What the
client does with the bytes is not its business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from contextvars import Context
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from headrace.gateway.answers import Answer
from headrace.gateway.outlet import Outlet, head


#: How the write of one ends. Nobody minds that a reader does not take it, until there are events to take.
_HEARTBEAT = b": ping\n\r\n"


class SimOutlet(Outlet):
    """The real outlet, which asks the simulated kernel what the client has not taken yet."""

    @property
    def untaken_bytes(self) -> int:
        """As `Outlet.untaken_bytes`, without an ioctl."""
        transport: Transport = self._connection.transport
        return transport.get_write_buffer_size() + len(transport.sent)


class Transport(asyncio.Transport):
    """What asyncio's transport and the kernel hold of an answer. `on_bytes` is called when there is more to take.

    It is called in whatever context there is.
    """

    def __init__(self, room_bytes: int, high_bytes: int, context: Context, on_bytes: Callable[[], None]) -> None:
        super().__init__()
        self._context = context  # of the node that has it
        self.flow = FlowControl(self)
        self.is_held_up = False  # by a reader who does not take events
        self.sent = bytearray()  # in the kernel
        self.has_answer = False  # something was written
        self.on_ready: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._on_bytes = on_bytes
        self._loop = asyncio.get_running_loop()
        self._room_bytes = room_bytes
        self._high_bytes = high_bytes
        self._unsent = bytearray()
        self._is_closed = False
        self._is_lost = False

    def write(self, data: bytes) -> None:
        """Send what the kernel has room for, and keep the rest."""
        assert not self._is_closed, "uvloop raises for a write to a closed connection"
        self.has_answer = True
        self._unsent += data
        self.push()
        if len(self._unsent) > self._high_bytes and not self.flow.write_paused:
            self.is_held_up = not data.endswith(_HEARTBEAT)
            self.flow.pause_writing()

    def take(self, count: int) -> bytes:
        """Return what the client takes of the bytes that were sent; `push` then sends more."""
        taken = bytes(self.sent[:count])
        del self.sent[:count]
        return taken

    def push(self) -> None:
        """Give the kernel what it has room for, and tell who waits for that."""
        count = min(len(self._unsent), self._room_bytes - len(self.sent))
        if count > 0:
            self.sent += self._unsent[:count]
            del self._unsent[:count]
            self._on_bytes()
        if self.flow.write_paused and len(self._unsent) <= self._high_bytes // 4:
            self.flow.resume_writing()
            self.is_held_up = False
            self._context.copy().run(self.on_ready)
        if self._is_closed and not self._unsent:
            self._lose()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the kernel has no room for."""
        return len(self._unsent)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def close(self) -> None:
        """Send all there is, and hang up."""
        if not self._is_closed:
            self._is_closed = True
            self.push()

    def abort(self) -> None:
        """Hang up."""
        self._is_closed = True
        self._unsent.clear()
        self._lose()

    def die(self) -> None:
        """The node is gone. The kernel hangs up behind what it has; nobody is told."""
        self._is_closed = self._is_lost = True
        self._unsent.clear()

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._loop.call_soon(self._tell_lost, context=self._context.copy())

    def _tell_lost(self) -> None:
        self.flow.resume_writing()
        self.on_lost()

    def pause_reading(self) -> None:
        """The request is read already."""

    resume_reading = pause_reading


class Cycle:
    """What an outlet asks of uvicorn's cycle of request and response."""

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.scope = scope
        self.response_started = self.response_complete = False
        self.keep_alive = True
        self.more_body = True  # it may come late
        self.default_headers: list[tuple[bytes, bytes]] = []
        self.message_event = asyncio.Event()

    def on_response(self) -> None:
        """There is no second request on this connection."""


class Connection:
    """What an outlet needs of its protocol, for one request."""

    def __init__(self, scope: MutableMapping[str, Any], transport: Transport) -> None:
        self.transport = transport
        self.flow = transport.flow
        self.is_lost = asyncio.Event()
        self.outlet = SimOutlet(self, Cycle(scope))
        transport.on_ready = self._ready
        transport.on_lost = self._lost

    def answer_and_leave(self, answer: Answer) -> None:
        """As GuardedProtocol's: a refusal before the body was read."""
        status, headers, body = answer
        self.transport.write(head(status, headers) + body)
        self.transport.close()

    def _ready(self) -> None:
        if self.outlet.on_ready is not None:
            self.outlet.on_ready()

    def _lost(self) -> None:
        self.outlet.lost()
        self.is_lost.set()
