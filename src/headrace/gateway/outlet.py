"""The outlet: where the bytes of one answer go, written without waiting and ended on purpose.

The stream route writes gathered chunks straight to the transport through it, and learns at once that the client
left or caught up: no coroutine is woken per event. An answer ends here in one of three ways: cleanly, which for a
client means success; by a cut, which is flushed and then ended by FIN; or aborted.

`Connection: close` is never sent on a stream: with it, Node takes a cut for a clean end.
"""

from __future__ import annotations

import asyncio
import fcntl
import http
import sys
import termios
from collections.abc import Callable
from typing import Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from headrace.core.limits import Limits
from headrace.gateway.answers import Answer, Headers

#: The ASGI extension under which an `Outlet` is found in `scope["extensions"]`.
OUTLET: Final = "headrace.outlet"

CLOSE: Final = (b"connection", b"close")
_FINAL_CHUNK: Final = b"0\r\n\r\n"

#: The words behind a status, with nginx's for the one that fal took from it. An app may choose one without a name.
_PHRASES: Final = {
    **{status.value: status.phrase.encode() for status in http.HTTPStatus},
    499: b"Client Closed Request",
}


class Connection(Protocol):
    """What an outlet needs of the protocol it belongs to."""

    transport: asyncio.Transport
    flow: FlowControl

    def answer_and_leave(self, answer: Answer) -> None:
        """Write an answer to a request that was not read to its end, and close."""


class Outlet:
    """One answer to one request.

    `on_ready` is called when a paused outlet takes bytes again, `on_lost` once when the client is gone.
    Between a client's leaving and the word of it, writes go nowhere and raise nothing.
    """

    __slots__ = (
        "_connection",
        "_cycle",
        "_flow",
        "_has_final_chunk",
        "_has_length",
        "_head",
        "_is_chunked",
        "_transport",
        "_written_bytes",
        "is_lost",
        "on_lost",
        "on_ready",
    )

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._flow = connection.flow
        self._cycle = cycle
        self._head = b""  # of a stream, until its first bytes go with it
        self._is_chunked = True
        self._has_length = False
        self._has_final_chunk = False
        self._written_bytes = 0
        self.is_lost = False
        self.on_ready: Callable[[], None] | None = None
        self.on_lost: Callable[[], None] | None = None

    @property
    def has_started(self) -> bool:
        """Whether the answer has begun."""
        return self._cycle.response_started

    @property
    def is_gone(self) -> bool:
        """Whether what is written goes nowhere: the client is gone, whether that was told or not."""
        return self.is_lost or self._transport.is_closing()

    @property
    def is_done(self) -> bool:
        """Whether the answer is complete."""
        return self._cycle.response_complete

    @property
    def is_body_coming(self) -> bool:
        """Whether the client has not sent its whole request yet."""
        return self._cycle.more_body

    @property
    def is_paused(self) -> bool:
        """Whether more than the transport's high-water mark (64 KiB) waits to be sent."""
        return self._flow.write_paused

    @property
    def buffered_bytes(self) -> int:
        """Bytes written and not yet taken by the kernel."""
        return self._transport.get_write_buffer_size()

    @property
    def untaken_bytes(self) -> int:
        """Bytes written that the client's side has not acknowledged, where the kernel tells: on Linux."""
        transport = self._transport
        if sys.platform != "linux" or transport.is_closing():
            return self.buffered_bytes
        # A full buffer takes more only once a third of it is free: at 1 KB/s in a minute and a half, when a reader
        # that moves has long passed for one that does not. So the kernel is asked (SIOCOUTQ, tcp(7)).
        fd = transport.get_extra_info("socket").fileno()
        return self.buffered_bytes + int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    @property
    def taken_bytes(self) -> int:
        """Bytes of this answer that the client's side has: while any are untaken, growth is its sign of life."""
        return self._written_bytes - self.untaken_bytes

    async def catch_up(self, limits: Limits) -> None:
        """Wait until the client has taken earlier answers: one that pipelines and never reads gets no more."""
        if self.is_paused:
            await self.flushed(limits)

    async def flushed(self, limits: Limits) -> None:
        """Wait until the client has taken all there is; drop one that takes no byte for `stall_timeout_s`."""
        loop = asyncio.get_running_loop()
        taken, since = self.taken_bytes, loop.time()
        while self.buffered_bytes and not self.is_lost:
            await asyncio.sleep(0.05)
            if self.taken_bytes != taken:
                taken, since = self.taken_bytes, loop.time()
            elif loop.time() - since >= limits.stall_timeout_s:
                self.abort()
                return

    # --- a whole answer ---------------------------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        """Write a whole answer, in one write."""
        status, headers, body = answer
        cycle = self._cycle
        headers = [*cycle.default_headers, *headers]
        if not cycle.keep_alive:
            headers.append(CLOSE)
        cycle.response_started = True
        self._send(head(status, headers))
        # A HEAD has the headers of a GET and no body (RFC 9110, section 9.3.2). A large body is not copied.
        if cycle.scope["method"] != "HEAD":
            self._send(body)
        self._complete()

    def answer_and_leave(self, answer: Answer) -> None:
        """Answer a request whose body was not read to its end, and close the connection behind it."""
        self._cycle.response_started = self._cycle.response_complete = True
        self._connection.answer_and_leave(answer)

    # --- a stream ---------------------------------------------------------------------------------------

    def start(self, status: int, headers: Headers, *, has_length: bool = False) -> None:
        """Begin a stream; its head leaves with its first bytes. For HTTP/1.0 it ends with the connection.

        With `has_length` the headers say how many bytes will be written: no more and no fewer.
        """
        cycle = self._cycle
        self._has_length = has_length
        self._is_chunked = cycle.scope["http_version"] != "1.0" and not has_length
        headers = [*cycle.default_headers, *headers]
        if has_length and not cycle.keep_alive:
            headers.append(CLOSE)
        if self._is_chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        cycle.response_started = True
        self._head = head(status, headers)

    def write(self, body: bytes, is_last: bool = False) -> None:
        """Write a piece of the body, whatever waits already; ask `is_paused` first.

        With `is_last` the final chunk goes with it; `end` must follow.
        """
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked else body
        if is_last and self._is_chunked:
            chunk += _FINAL_CHUNK
            self._has_final_chunk = True
        if self._head:
            chunk, self._head = self._head + chunk, b""
        self._send(chunk)

    def end(self) -> None:
        """End the body cleanly: for a client, that means success."""
        if self._is_chunked and not self._has_final_chunk:
            self._send(self._head + _FINAL_CHUNK)
        self._complete()

    async def cut(self, limits: Limits) -> None:
        """End the connection without ending the body, so that the client knows: flush, wait a moment, FIN."""
        transport = self._transport
        self._cycle.response_complete = True
        if self.is_lost:
            return
        try:
            async with asyncio.timeout(limits.flush_timeout_s):
                while transport.get_write_buffer_size() and not self.is_lost:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(limits.cut_delay_s)
                transport.close()
                while not self.is_lost:  # by TLS, closing takes the client's goodbye
                    await asyncio.sleep(0.01)
        except TimeoutError:
            transport.abort()

    def abort(self) -> None:
        """Drop the connection and what waits in it: this client is not coming back for it."""
        self._transport.abort()

    # --- the connection's side --------------------------------------------------------------------------

    def lost(self) -> None:
        """The connection is gone."""
        self.is_lost = True
        if self.on_lost is not None:
            self.on_lost()

    def _send(self, data: bytes) -> None:
        # After a reset, uvloop's handle is closed before `connection_lost` says so, and a write would raise.
        if not self.is_gone:
            self._written_bytes += len(data)
            self._transport.write(data)

    def _complete(self) -> None:
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not (cycle.keep_alive and (self._is_chunked or self._has_length)):
            self._transport.close()
        cycle.on_response()


def head(status: int, headers: Headers) -> bytes:
    """Return a status line and headers, ready to be written."""
    lines = [b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b"Error"))]
    lines += [b"%b: %b" % pair for pair in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"
