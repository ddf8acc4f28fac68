"""The gateway's views of requests, as a call meets them behind the door: run, stream, watch and cancel.

What stands before them in the real gateway (keys, origins, the queue, the server's own pages) is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.core.errors import RequestError
from headrace.core.routes import UnknownPath, View
from headrace.gateway.answers import Receive, Scope, error_answer, value_answer
from headrace.gateway.attach import last_seen, watch
from headrace.gateway.body import ClientLeft
from headrace.gateway.calls import Call
from headrace.gateway.outlet import OUTLET
from headrace.gateway.resends import Resends
from headrace.gateway.run import run
from headrace.gateway.stream import stream

if TYPE_CHECKING:
    from headrace.supervisor.streams import LiveRequest
    from tests.sim.world import World


class Views:
    """Answers calls, each by its connection's outlet."""

    def __init__(self, world: World) -> None:
        self._catalog = world.catalog
        self._dispatcher = world.dispatcher
        self._limits = world.limits
        self._resends = Resends(clock=world.loop.time)

    async def __call__(self, scope: Scope, receive: Receive) -> None:
        """Answer one call. Whatever is raised is a fault of Headrace's own."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        outlet = scope["extensions"].pop(OUTLET)
        call = Call(self._dispatcher.new_id(), headers, scope, receive, outlet, path=scope["path"], extra=[])
        try:
            await self._answer(call)
        except RequestError as error:
            call.answer(error_answer(error, call.id))
        except ClientLeft:
            pass

    async def _answer(self, call: Call) -> None:
        try:
            route = self._catalog.routes.find(call.path)
        except UnknownPath:
            await self._answer_by_id(call)
            return
        view = stream if route.view is View.STREAM else run
        try:
            await view(call, route, self._dispatcher, self._limits, self._resends)
        finally:
            if call.sent is not None and call.outlet.is_gone and not call.outlet.has_started:
                self._resends.remember(call.sent, call.id)

    async def _answer_by_id(self, call: Call) -> None:
        *_, id_, action = call.path.split("/")
        live = self._dispatcher.find(id_, None)
        if action == "cancel":
            status = _cancel(live)
            call.answer(value_answer(status, {"status": status}, call.id))
        elif live is None:
            raise RequestError("not_found", "There is no such request.")
        else:
            await watch(live, last_seen(call), call, self._dispatcher, self._limits)


def _cancel(live: LiveRequest | None) -> int:
    if live is None:
        return 404
    if live.is_final:
        return 400
    live.cancel("client_cancelled", "The request was stopped by a call to its cancel route.")
    return 202
