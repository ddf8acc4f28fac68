"""A reader's stay at a request: from its first look at the log to its last byte.

Headers are held until the first event, the end, or a while (`limits.headers_hold_s`), so that whatever fails
early is an ordinary HTTP answer with a JSON body. Afterwards the writer tells failures in the stream itself.
"""

from __future__ import annotations

from headrace.core.limits import Limits
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
    writer.break_silence(limits.headers_hold_start_timeout_s if has_start_timeout else limits.headers_hold_s)
    try:
        writer.wake()
        await writer.ended
        if writer.has_begun:
            await writer.close()
        elif live.error is not None and not call.outlet.is_lost:
            raise live.error
    finally:
        writer.stop()
        live.detach(writer)
