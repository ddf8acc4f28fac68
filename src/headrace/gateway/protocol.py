"""uvicorn's HTTP protocol with what it lacks: a deadline for headers, bounds, and our own refusals.

Each request gets an `Outlet` beside its scope; the application answers by that alone, never by ASGI's `send`.
uvicorn is pinned exactly because this file subclasses its protocol and touches the cycle of a request.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from headrace.core.errors import RequestError
from headrace.gateway.answers import Answer, error_answer
from headrace.gateway.guard import Guard
from headrace.gateway.outlet import CLOSE, OUTLET, Outlet, head

#: Bytes that may wait in a transport before it says so. uvloop's own choice for TCP; by TLS it takes 512 KiB.
_HIGH_WATER_BYTES = 64 * 1024


class GuardedProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        guard: Guard,
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._guard = guard
        self._limits = guard.limits
        self._new_id = new_id
        self._header_bytes = 0  # of the headers that are complete
        self._unfinished_bytes = 0  # of a head whose end has not come
        self._is_in_head = True  # the next request's, of which nothing need have come
        self._header_timer: asyncio.TimerHandle | None = None
        self._is_watched_by_kernel = True  # against clients that vanish
        self._is_lingering = False  # answered for good; what still comes is thrown away
        self._outlets: list[Outlet] = []  # of the requests in hand; more than one when they are pipelined

    # --- the connection ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the kernel's buffer, refuse a connection too many, and start the clock for the headers."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._limits.connections_max:
            self.transport.abort()
            return
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            # The kernel doubles what it is asked for (socket(7)).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.socket_buffer_bytes // 2)
            if _can_vanish(sock):
                self._notice_who_vanished(sock)
        self.transport.set_write_buffer_limits(_HIGH_WATER_BYTES)
        self._start_header_clock()

    def _notice_who_vanished(self, sock: socket.socket) -> None:
        """End the connection of a client that left without a FIN: it acknowledges nothing any more (tcp(7)).

        A stream has heartbeats to acknowledge; for a run that says nothing until its end, the kernel asks.
        """
        self._is_watched_by_kernel = True
        # The kernel counts from its first retransmission, up to a second later: 5 s behind the stall's in all.
        vanished_ms = int((self._limits.stall_timeout_s + 4) * 1_000)
        ask_every_s = max(1, round(self._limits.heartbeat_s))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, vanished_ms)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ask_every_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ask_every_s)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the stream, if one is being written."""
        self._stop_header_clock()
        super().connection_lost(exc)
        for outlet in self._outlets:
            outlet.lost()
        self._outlets.clear()

    def pause_writing(self) -> None:
        """The client is behind; from now on whoever writes to it watches it, and the kernel does not.

        The kernel would end one that reads slowly: it counts all the time for which the client's window is too
        small for what comes next, though bytes go through.
        """
        super().pause_writing()
        sock: socket.socket = self.transport.get_extra_info("socket")
        if _can_vanish(sock):
            self._is_watched_by_kernel = False
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)

    def resume_writing(self) -> None:
        """The client caught up."""
        super().resume_writing()
        for outlet in self._outlets:
            if outlet.on_ready is not None:
                outlet.on_ready()

    def _start_header_clock(self) -> None:
        self._header_timer = self.loop.call_later(self._limits.header_timeout_s, self._headers_too_slow)

    def _stop_header_clock(self) -> None:
        self._unfinished_bytes = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    # --- the head of a request --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request, with its own count of header bytes."""
        super().on_message_begin()
        self._header_bytes = 0
        self._is_in_head = True

    def on_url(self, url: bytes) -> None:
        """Collect the target, within its bound."""
        super().on_url(url)
        self._guard.check_target_size(len(self.url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, within the bounds."""
        super().on_header(name, value)
        size = len(name) + len(value) + 4
        self._header_bytes += size
        self._guard.check_header_size(size, self._header_bytes, len(self.headers))

    def on_headers_complete(self) -> None:
        """Check the head as a whole, then let the application have it, with an outlet."""
        self._is_in_head = False
        self._stop_header_clock()
        if not self._is_watched_by_kernel:  # it was behind in an earlier answer, and is not any more
            self._notice_who_vanished(self.transport.get_extra_info("socket"))
        self._guard.check_pipeline(len(self.pipeline))
        self._guard.check_head(self.url, self.parser.get_http_version(), self.headers)
        super().on_headers_complete()
        outlet = Outlet(self, self.cycle)
        self._outlets = [*(other for other in self._outlets if not other.is_done), outlet]
        self.scope["extensions"] = {OUTLET: outlet}  # type: ignore[dict-item]

    def data_received(self, data: bytes) -> None:
        """Parse; bound a head that does not end, since httptools keeps an unfinished header to itself."""
        if self._is_lingering:
            return
        super().data_received(data)
        if not self._is_in_head or self._is_lingering:
            return
        if self._header_timer is None:  # most heads come whole, and need no clock
            self._start_header_clock()
        self._unfinished_bytes += len(data)
        if self._unfinished_bytes > self._limits.headers_bytes_max + self._limits.target_bytes_max:
            message = f"The head of a request may have {self._limits.headers_bytes_max} bytes of headers."
            self._refuse(RequestError("request_header_fields_too_large", message))

    # --- refusals ---------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser stopped at: a refusal of ours, which lies in its exception, or its own."""
        stopped = sys.exception()
        refusal = stopped.__context__ if stopped is not None else None
        self._refuse(refusal if isinstance(refusal, RequestError) else RequestError("bad_request", msg))

    def _refuse(self, refusal: RequestError) -> None:
        """Answer what cannot become a request, in JSON like every other answer, and hang up."""
        if any(outlet.has_started and not outlet.is_done for outlet in self._outlets):
            self.transport.close()  # in the midst of an answer: nothing can be said any more
            return
        self.answer_and_leave(error_answer(refusal, self._new_id()))

    def answer_and_leave(self, answer: Answer) -> None:
        """Write an answer to a request that was not read to its end, and close without losing the answer.

        Closing at once would reset the connection, since the client still sends, and take the answer with it
        (RFC 9112, section 9.6): so only our half is closed, and what comes is thrown away for a moment.
        """
        if self.transport.is_closing():
            return  # the client is gone; uvloop raises for a write after that
        status, headers, body = answer
        self._stop_header_clock()
        self.pipeline.clear()
        for outlet in self._outlets:
            if not outlet.is_done:
                outlet.lost()  # this answer is the last: whatever is still being worked on has nowhere to go
        self.transport.write(head(status, [*self.server_state.default_headers, *headers, CLOSE]) + body)
        self._is_lingering = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(self._limits.linger_s, self.transport.close)


def _can_vanish(sock: socket.socket) -> bool:
    """Whether the kernel can tell that the other end of a connection is gone without a word."""
    return hasattr(socket, "TCP_USER_TIMEOUT") and sock.family != socket.AF_UNIX
