"""A reader's stay at a request: from its first look at the log to its last byte.

Headers are held until the first event, the end, or a while (`limits.headers_hold_s`), so that whatever fails
early is an ordinary HTTP answer with a JSON body. Afterwards the writer tells failures in the stream itself.
"""

from __future__ import annotations

import asyncio

from headrace.core.limits import Limits
from headrace.core.request import State
from headrace.gateway.calls import Call
from headrace.gateway.events import EventWriter
from headrace.supervisor.streams import LiveRequest


async def write_to_its_end(
    writer: EventWriter,
    live: LiveRequest,
    call: Call,
    limits: Limits,
    *,
    paces: bool = False,
    has_start_timeout: bool = False,
) -> None:
    """Have a reader write all there is to come, or raise the `RequestError` that came before its first event."""
    live.attach(writer, paces=paces)
    hold = _Hold(writer, live, limits, has_start_timeout=has_start_timeout)
    try:
        writer.wake()
        await writer.ended
        if writer.has_begun:
            await writer.close()
        elif live.error is not None and not call.outlet.is_lost:
            raise live.error
    finally:
        hold.cancel()
        live.detach(writer)


class _Hold:
    """The time for which a silent stream's headers are held; then they are sent, and a first heartbeat.

    A caller with a start timeout is told by status when it passes: its headers are held until the request has
    a slot, at most `headers_hold_start_timeout_s`.
    """

    def __init__(self, writer: EventWriter, live: LiveRequest, limits: Limits, *, has_start_timeout: bool) -> None:
        self._writer = writer
        self._live = live
        self._loop = asyncio.get_running_loop()
        longest_s = limits.headers_hold_start_timeout_s if has_start_timeout else limits.headers_hold_s
        self._deadline = self._loop.time() + longest_s
        self._timer = self._loop.call_later(limits.headers_hold_s, self._is_due)

    def _is_due(self) -> None:
        if self._live.state is State.QUEUED and self._loop.time() < self._deadline:
            self._timer = self._loop.call_later(0.1, self._is_due)
        else:
            self._writer.begin_in_silence()

    def cancel(self) -> None:
        self._timer.cancel()
