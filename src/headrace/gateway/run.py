"""The run view: a request's last item, as one JSON answer."""

from __future__ import annotations

from headrace.core.limits import Limits
from headrace.core.routes import Route
from headrace.gateway.answers import json_answer
from headrace.gateway.body import UNCOUNTED_BYTES, ClientLeft, HeldBytes
from headrace.gateway.calls import Call, open_request
from headrace.gateway.resends import Resends
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.streams import EndWaiter


async def run(call: Call, route: Route, dispatcher: Dispatcher, limits: Limits, resends: Resends) -> None:
    """Answer with the result, or raise the `RequestError` that ended the request.

    A client that leaves detaches its reader; what follows is the request's policy (`core.disconnect`). Raises
    `ClientLeft` then.
    """
    live, _ = await open_request(call, route, dispatcher, limits, resends)
    waiter = EndWaiter(live)
    live.attach(waiter)
    call.outlet.on_lost = lambda: waiter.give_up(ClientLeft())
    try:
        result = await waiter.wait()
    finally:
        live.detach(waiter)
    if len(result) <= UNCOUNTED_BYTES:
        call.answer(json_answer(200, result, live.id))
        return
    held = HeldBytes(dispatcher.bodies, call.owner)
    try:
        held.grow_to(len(result))
        call.answer(json_answer(200, result, live.id))
        await call.outlet.flushed(limits)
    finally:
        held.let_go()
