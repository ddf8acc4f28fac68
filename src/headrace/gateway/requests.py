"""What can be done with a request that lives already, by its id: for now, stop it.

`PUT /{owner}/{alias}/requests/{id}/cancel` and its answers are fal's (protocol section 7). An endpoint's path may
stand before `/requests/`, as some clients write it; it says nothing more than the id does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from headrace.core.routes import RouteTable, UnknownPath
from headrace.gateway.answers import Answer, value_answer
from headrace.gateway.calls import Call
from headrace.supervisor.dispatch import Dispatcher

_CANCEL: Final = re.compile(r"(?:/.*)?/requests/([^/]+)/cancel")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that a path names."""

    app: str
    id: str


def asked_of(path: str, routes: RouteTable) -> Asked | None:
    """Return the request that a path asks to cancel, if it does that."""
    try:
        app, below = routes.app_of(path)
    except UnknownPath:
        return None
    match = _CANCEL.fullmatch(below)
    return None if match is None else Asked(app.name, match[1])


def cancel(asked: Asked, call: Call, dispatcher: Dispatcher) -> Answer:
    """Stop a request, whatever its policy for readers that leave.

    202 once it was told to stop, and again while it stops; 404 for one that is over, unknown, or another key's.
    """
    live = dispatcher.find(asked.id, call.owner)
    if live is None or live.route.app.name != asked.app:
        return value_answer(404, {"status": "NOT_FOUND"}, call.id)
    live.cancel("client_cancelled", "The request was stopped by a call to its cancel route.")
    return value_answer(202, {"status": "CANCELLATION_REQUESTED"}, call.id)
