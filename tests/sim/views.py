"""The gateway's views of requests, as a call meets them behind the door: run, stream, watch, cancel, and the queue.

What stands before them in the real gateway (keys, origins, the server's own pages) is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.netguard import Policy
from headrace.core.routes import UnknownPath, View
from headrace.gateway import requests
from headrace.gateway.answers import Receive, Scope, error_answer
from headrace.gateway.body import ClientLeft
from headrace.gateway.calls import Call
from headrace.gateway.outlet import OUTLET
from headrace.gateway.queue import PREFIX, QueueView, store_faults_told
from headrace.gateway.resends import Resends
from headrace.gateway.run import run
from headrace.gateway.stream import stream

if TYPE_CHECKING:
    from tests.sim.node import Node


class Views:
    """Answers calls, each by its connection's outlet."""

    def __init__(self, node: Node, limits: Limits, clock: Callable[[], float]) -> None:
        self._catalog = node.catalog
        self._dispatcher = node.dispatcher
        self._limits = limits
        resends = Resends(clock=clock)
        self._queue = QueueView(node.queue, node.store, node.dispatcher, Policy(), limits, resends)

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
        if call.path.startswith(f"{PREFIX}/"):
            await self._queue.answer(call, call.path.removeprefix(PREFIX), f"http://127.0.0.1:8080{PREFIX}")
            return
        try:
            route = self._catalog.routes.find(call.path)
        except UnknownPath as unknown:
            asked = requests.asked_of(call.path, self._catalog.routes)
            if asked is None:
                raise RequestError("not_found", str(unknown)) from None
            with store_faults_told():
                live = await requests.find(asked, call, self._dispatcher, self._queue)
                await requests.answer(asked, live, call, self._dispatcher, self._queue, self._limits)
            return
        view = stream if route.view is View.STREAM else run
        try:
            await view(call, route, self._dispatcher, self._limits, self._queue.resends)
        finally:
            if call.sent is not None and call.outlet.is_gone and not call.outlet.has_started:
                self._queue.resends.remember(call.sent, call.id)
