"""The stream view: a request's items as server-sent events, and a real HTTP status when there is none.

A call that brings the id of an event of ours comes back to a stream that was cut: it goes on behind that event,
and nothing is started. So does one with the `Idempotency-Key` of a request that is still known. Ids are for those
who come back; the first call gets them if it asks for them, and so does one sent again for want of an answer.
"""

from __future__ import annotations

from typing import Final

from headrace.core.event_ids import Labels
from headrace.core.limits import Limits
from headrace.core.routes import Route
from headrace.gateway.attach import last_seen, watch, watch_again
from headrace.gateway.calls import Call, open_request
from headrace.gateway.events import EventWriter
from headrace.gateway.reading import write_to_its_end
from headrace.gateway.resends import Resends
from headrace.supervisor.dispatch import Dispatcher

#: The request header with which a call asks for the ids of its events, where it is `1`; our own, our SDK's.
IDS_HEADER: Final = "x-headrace-event-ids"


async def stream(call: Call, route: Route, dispatcher: Dispatcher, limits: Limits, resends: Resends) -> None:
    """Write the stream to its end, or raise the `RequestError` that came before its first event.

    This reader sets the pace of its request; what its leaving means is the request's policy (`core.disconnect`).
    """
    seen = last_seen(call)
    if seen is not None:
        await watch_again(seen, route, call, dispatcher, limits)
        return
    own_id = call.id
    live, start_timeout_s = await open_request(call, route, dispatcher, limits, resends)
    wants_ids = call.headers.get(IDS_HEADER) == "1"
    if live.id != own_id:
        is_back = "idempotency-key" in call.headers
        await watch(live, None, call, dispatcher, limits, with_ids=is_back or wants_ids)
        return
    labels = Labels(live.id, live.attempt) if wants_ids else None
    writer = EventWriter(
        live, call.outlet, limits, dispatcher.meters_of(live), extra=call.extra, labels=labels, is_first=True
    )
    has_start_timeout = start_timeout_s is not None
    await write_to_its_end(writer, live, call, limits, paces=True, has_start_timeout=has_start_timeout)
