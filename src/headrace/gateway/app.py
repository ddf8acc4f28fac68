"""The ASGI application: which path goes where, and every failure as a JSON answer with a request id.

Paths are looked up in two tables: the server's own (five of them, here) and the apps' views (`core.routes`).
Nothing here waits for a model; the views do.
"""

from __future__ import annotations

import logging

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.routes import RouteTable, UnknownPath, View
from headrace.gateway import ops
from headrace.gateway.answers import Receive, Scope, Send, error_answer, value_answer
from headrace.gateway.auth import Authenticator
from headrace.gateway.body import ClientLeft
from headrace.gateway.calls import Call
from headrace.gateway.openapi import openapi
from headrace.gateway.run import run
from headrace.gateway.stream import stream
from headrace.supervisor.dispatch import Dispatcher

_log = logging.getLogger(__name__)


class Gateway:
    """What uvicorn's protocol calls for every request."""

    def __init__(
        self, routes: RouteTable, dispatcher: Dispatcher, authenticator: Authenticator, limits: Limits
    ) -> None:
        self._routes = routes
        self._dispatcher = dispatcher
        self._authenticator = authenticator
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        call = Call(self._dispatcher.new_id(), headers, scope, receive, send)
        try:
            await self._answer(call)
        except RequestError as error:
            if error.status in {408, 413}:  # a body that stalls, or is too large, is not waited for
                call.outlet.answer_and_leave(error_answer(error, call.id))
            else:
                await call.answer(error_answer(error, call.id))
        except ClientLeft:
            pass
        except Exception:  # the last line: a fault of ours costs this request alone, and says its id
            _log.exception("request %s: a fault of Headrace's own", call.id)
            await self._own_fault(call)

    async def _own_fault(self, call: Call) -> None:
        if call.outlet.has_started:
            await call.outlet.cut(self._limits)
            return
        fault = RequestError("internal_error", "Headrace failed; its log has the request id.")
        await call.answer(error_answer(fault, call.id))

    async def _answer(self, call: Call) -> None:
        path = call.path
        if path == "/health":
            await _tell(call, 200, ops.health())
            return
        if path == "/ready":
            await _tell(call, *ops.ready(self._dispatcher))
            return
        self._authenticator.authenticate(call.headers)
        if path == "/v1/apps":
            await _tell(call, 200, ops.apps(self._routes, self._dispatcher))
        elif path.endswith("/openapi.json"):
            await _tell(call, 200, self._openapi(call))
        else:
            await self._view(call)

    async def _view(self, call: Call) -> None:
        try:
            route = self._routes.find(call.path)
        except UnknownPath as unknown:
            raise RequestError("not_found", str(unknown)) from None
        _allow(call, "POST")
        view = stream if route.view is View.STREAM else run
        await view(call, route, self._dispatcher, self._limits)

    def _openapi(self, call: Call) -> object:
        try:
            app, below = self._routes.app_of(call.path)
        except UnknownPath as unknown:
            raise RequestError("not_found", str(unknown)) from None
        if below != "/openapi.json":
            raise RequestError("not_found", f"Path {below} not found; the schema is at /{app.name}/openapi.json")
        return openapi(app, f"{call.scope['scheme']}://{call.headers.get('host', 'localhost')}")


async def _tell(call: Call, status: int, value: object) -> None:
    _allow(call, "GET", "HEAD")
    await call.answer(value_answer(status, value, call.id))


def _allow(call: Call, *methods: str) -> None:
    if call.method not in methods:
        raise RequestError("method_not_allowed", "Method Not Allowed", headers={"Allow": ", ".join(methods)})
