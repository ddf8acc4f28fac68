"""What can be done with a request by its id: watch it, stop it, and let others watch it.

    GET, POST     /{owner}/{alias}/requests/{id}/stream   its events: from the start, or behind the last one seen
    PUT           /{owner}/{alias}/requests/{id}/cancel   stop it, whatever its policy for readers that leave
    POST, DELETE  /{owner}/{alias}/requests/{id}/token    make a token with which it can be watched; end them all

The second is fal's (protocol section 7); the others are ours. An endpoint's path may stand before `/requests/`, as
some clients write it; it says nothing more than the id does. Another key's request is as unknown as any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.routes import RouteTable, UnknownPath
from headrace.gateway.answers import value_answer
from headrace.gateway.attach import last_seen, watch
from headrace.gateway.calls import Call
from headrace.gateway.queue import QueueView
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.streams import LiveRequest

_PATH: Final = re.compile(r"(?:/.*)?/requests/([^/]+)/(stream|cancel|token)")

#: The methods of each action.
METHODS: Final = {"stream": ("GET", "POST"), "cancel": ("PUT",), "token": ("POST", "DELETE")}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a path asks of which request."""

    app: str
    id: str
    action: str  # a key of METHODS


def asked_of(path: str, routes: RouteTable) -> Asked | None:
    """Return what a path asks of a request, if it names one."""
    try:
        app, below = routes.app_of(path)
    except UnknownPath:
        return None
    match = _PATH.fullmatch(below)
    return None if match is None else Asked(app.name, match[1], match[2])


async def find(asked: Asked, call: Call, dispatcher: Dispatcher, queue: QueueView) -> LiveRequest | None:
    """Return the request, if its caller has one of that id."""
    live = dispatcher.find(asked.id, call.owner) or await queue.find(asked.id, call.owner)
    return live if live is not None and live.route.app.name == asked.app else None


async def answer(
    asked: Asked, live: LiveRequest | None, call: Call, dispatcher: Dispatcher, queue: QueueView, limits: Limits
) -> None:
    """Do what is asked. Raises `RequestError`."""
    if asked.action == "cancel" and live is not None and queue.queue.ticket(asked.id) is not None:
        await queue.cancel(live.id, call)
    elif asked.action == "cancel":
        status, told = _cancel(live)
        call.answer(value_answer(status, told, call.id))
    elif live is None:
        # One that is over for longer than it is kept looks the same; both are told before any event.
        raise RequestError("not_found", f"There is no request {asked.id!r} here, or not any more.")
    else:
        await watch(live, last_seen(call), call, dispatcher, limits)


def _cancel(live: LiveRequest | None) -> tuple[int, dict[str, str]]:
    if live is None:
        return 404, {"status": "NOT_FOUND"}
    if live.is_final:
        return 400, {"status": "ALREADY_COMPLETED"}
    live.cancel("client_cancelled", "The request was stopped by a call to its cancel route.")
    return 202, {"status": "CANCELLATION_REQUESTED"}
