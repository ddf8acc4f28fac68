"""Readers who come later, or again: where in a request's log they begin, and whether that is still there.

Everything that is wrong with what they ask for is told before any event (400, 404, 412).
"""

from __future__ import annotations

from urllib.parse import parse_qs

from headrace.core.errors import RequestError
from headrace.core.event_ids import EventId, Labels, parse_event_id
from headrace.core.limits import Limits
from headrace.core.routes import Route
from headrace.gateway.answers import request_id_header
from headrace.gateway.calls import Call
from headrace.gateway.events import EventWriter, rollback_event
from headrace.gateway.reading import write_to_its_end
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.streams import LiveRequest


async def watch(
    live: LiveRequest,
    seen: EventId | None,
    call: Call,
    dispatcher: Dispatcher,
    limits: Limits,
    *,
    with_ids: bool = True,
) -> None:
    """Write a request's events behind the one that the reader saw last, and the same ending.

    This reader slows nobody down, unless it is the one that the request waits for. 204 tells a browser's
    EventSource that nothing more will come.
    """
    call.id = live.id
    is_stale = seen is not None and seen.request == live.id and seen.attempt < live.attempt
    # To a reader who has seen an earlier attempt the current one is new from its start.
    position = position_behind(None if is_stale else seen, live)
    if seen is not None and live.is_over and position > _last_position(live):
        call.answer((204, [request_id_header(live.id)], b""))
        return
    writer = EventWriter(
        live,
        call.outlet,
        limits,
        dispatcher.meters_of(live),
        extra=call.extra,
        labels=Labels(live.id, live.attempt) if with_ids else None,
        position=min(position, live.replay.end),
    )
    if seen is not None:
        writer.begin()  # it is in the midst of a stream: an ending is an event to it, not a status
        if is_stale:
            call.outlet.write(Labels(live.id, seen.attempt).line(seen.number) + rollback_event(live.attempt))
    await write_to_its_end(writer, live, call, limits, paces=live.waits_for_reader)


async def watch_again(seen: EventId, route: Route, call: Call, dispatcher: Dispatcher, limits: Limits) -> None:
    """Go on with the stream that an event id is of. Raises `RequestError` (412) if it is not here any more."""
    live = dispatcher.find(seen.request, call.owner)
    if live is None or live.route.endpoint != route.endpoint:
        raise RequestError("replay_gone", "The request of the last event id is not here, or not any more.")
    await watch(live, seen, call, dispatcher, limits)


def last_seen(call: Call) -> EventId | None:
    """Return the id of the last event that a reader says it has: `?after=`, or the header `Last-Event-ID`.

    Raises `RequestError` (400) for what is no id of ours.
    """
    query = call.scope["query_string"]
    text = call.headers.get("last-event-id", "")
    if query:
        text = parse_qs(query.decode("latin-1")).get("after", [text])[-1]
    if not text:
        return None
    try:
        return parse_event_id(text)
    except ValueError as error:
        raise RequestError("bad_request", str(error)) from None


def position_behind(seen: EventId | None, live: LiveRequest) -> int:
    """Return where in a request's log a reader goes on. Raises `RequestError` (412) where that is not possible."""
    if seen is None:
        position = 0
    elif seen.request != live.id:
        raise RequestError("replay_gone", "The last event id is another request's.")
    elif seen.attempt != live.attempt or seen.number > live.replay.end:
        raise RequestError("replay_gone", "There is no event with that id.")
    else:
        position = seen.number + 1
    if position < live.replay.first:
        raise RequestError("replay_gone", f"The events before number {live.replay.first} are not kept any more.")
    return position


def _last_position(live: LiveRequest) -> int:
    """Return the position of the last thing that an ended request has: its last event, or its error event."""
    return live.replay.end - 1 if live.error is None else live.replay.end
