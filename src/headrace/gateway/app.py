"""The ASGI application: which path goes where, and every failure as a JSON answer with a request id.

Paths are looked up in two tables: the server's own (five of them, here) and the apps' views (`core.routes`).
Nothing here waits for a model; the views do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.routes import UnknownPath, View
from headrace.core.spec import AppSpec
from headrace.core.stored_file import PATH as FILES
from headrace.gateway import (
    llms,
    ops,
    page_sessions,
    playground,
    proxy,
    requests,
    static_files,
    tokens,
    uploads,
    webhooks,
)
from headrace.gateway.addresses import Addresses
from headrace.gateway.answers import (
    Receive,
    Scope,
    Send,
    error_answer,
    json_answer,
    request_id_header,
    text_answer,
    value_answer,
)
from headrace.gateway.auth import Authenticator
from headrace.gateway.body import ClientLeft
from headrace.gateway.calls import Call
from headrace.gateway.files import FileView
from headrace.gateway.openapi import openapi
from headrace.gateway.origins import Origins, is_preflight, preflight
from headrace.gateway.outlet import OUTLET
from headrace.gateway.page_sessions import PageSessions
from headrace.gateway.queue import QueueView, store_faults_told
from headrace.gateway.run import run
from headrace.gateway.stream import stream
from headrace.gateway.tokens import ReadingTokens
from headrace.gateway.uploads import UploadView
from headrace.gateway.webhooks import WebhookView
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.meters import Meters

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in: the rules that a call meets before any route."""

    authenticator: Authenticator
    sessions: PageSessions | None  # of the page; None without authentication
    origins: Origins
    addresses: Addresses


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the routes lead to."""

    dispatcher: Dispatcher
    queue: QueueView
    webhooks: WebhookView
    files: FileView
    uploads: UploadView
    tokens: ReadingTokens
    jwks: bytes  # the key that our webhooks are signed with, for whoever receives one
    meters: Meters


class Gateway:
    """What uvicorn's protocol calls for every request."""

    def __init__(self, rooms: Rooms, door: Door, limits: Limits) -> None:
        self._rooms = rooms
        self._dispatcher = rooms.dispatcher
        self._catalog = rooms.dispatcher.catalog
        self._door = door
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer one request. Every answer goes by the call's outlet, none by `send`."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = proxy.path_for(headers.get("host", ""), scope["path"])
        own_url = self._door.addresses.own(scope, headers)
        # Taken out of the scope, which it holds: a circle would be left to the garbage collector.
        outlet = scope["extensions"].pop(OUTLET)
        call = Call(
            self._dispatcher.new_id(), headers, scope, receive, outlet, path=path, extra=[], base_url=own_url
        )
        await outlet.catch_up(self._limits)
        try:
            if (file := static_files.PUBLIC.get(path)) is not None:
                static_files.answer(file, call)
                return
            if "origin" in headers:
                call.extra.extend(self._door.origins.judge(headers, own_url))
            if is_preflight(call.method, headers):
                call.answer((204, [*preflight(headers), request_id_header(call.id)], b""))
            else:
                await self._answer(call)
        except RequestError as error:
            error.__traceback__ = None  # a request keeps its error, and these frames would keep the connection
            call.refuse(error)
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
        call.answer(error_answer(fault, call.id))

    async def _answer(self, call: Call) -> None:
        path = call.path
        if path == "/health":
            _tell(call, 200, ops.health())
            return
        if path == "/ready":
            _tell(call, *ops.ready(self._dispatcher))
            return
        if path == "/.well-known/jwks.json":
            call.allow("GET", "HEAD")
            call.answer(json_answer(200, self._rooms.jwks, call.id))
            return
        if path.startswith(uploads.PREFIXES) and await self._by_address(call):
            return
        if (page := playground.page_for(call, self._catalog.routes)) is not None:
            static_files.answer(page, call)
            return
        if path == "/v1/page-session":
            await page_sessions.answer_session(call, self._door.sessions, self._dispatcher, self._limits)
            return
        if path == proxy.PATH:
            call = self._proxied(call)
            path = call.path
        else:
            call.owner = self._owner_of(call)
        if path == "/v1/apps":
            _tell(call, 200, ops.apps(self._catalog))
        elif path == "/v1/page-link":
            page_sessions.answer_link(call, self._door.sessions)
        elif path.startswith(webhooks.PATH):
            with store_faults_told():
                await self._rooms.webhooks.answer(call)
        elif path.startswith("/queue/"):
            await self._queued(call)
        elif uploads.is_upload(call.method, path):
            with store_faults_told():
                await self._rooms.uploads.answer(call)
        elif path == "/metrics":
            call.allow("GET", "HEAD")
            call.answer(text_answer(*self._rooms.meters.text(), call.id))
        elif path.endswith("/openapi.json"):
            _tell(call, 200, openapi(self._described(call, "/openapi.json"), call.base_url))
        elif path.endswith("/llms.txt"):
            call.allow("GET", "HEAD")
            call.answer(text_answer(b"text/markdown; charset=utf-8", self._llms(call).encode(), call.id))
        else:
            await self._view(call)

    async def _by_address(self, call: Call) -> bool:
        """Answer a call about a file whose address is all that is needed; return whether it was one."""
        call.is_file_coming = uploads.brings_file(call.method, call.path)
        if uploads.is_signed(call.path):  # whoever has it may send the file
            with store_faults_told():
                await self._rooms.uploads.answer_signed(call)
        elif not uploads.is_upload(call.method, call.path):  # whoever has it may read the file
            await self._rooms.files.answer(call)
        else:
            return False
        return True

    def _owner_of(self, call: Call) -> KeyId | None:
        """Return whose call it is, by its key; to watch a request or to send a file, a token for that will do."""
        authenticator = self._door.authenticator
        if call.path.startswith(FILES):
            return self._rooms.uploads.owner(call, authenticator)
        token = None if authenticator.is_open else tokens.token_of(call)
        if token is not None and not call.path.startswith("/queue/"):
            asked = requests.asked_of(call.path, self._catalog.routes)
            if asked is not None and asked.action == "stream":
                return self._rooms.tokens.owner(token, asked.id, authenticator)
        return authenticator.authenticate(call.headers)

    def _proxied(self, call: Call) -> Call:
        """Return the call that a call to the proxy route stands for.

        Its page needs no key where the server itself vouches for it, as fal's own proxies do for theirs.
        """
        owner = None
        if "authorization" in call.headers or not self._door.origins.trusts_page(call.headers):
            owner = self._door.authenticator.authenticate(call.headers)
        path, query = proxy.target_of(call.headers)
        return replace(call, path=path, owner=owner, scope={**call.scope, "query_string": query.encode("latin-1")})

    async def _queued(self, call: Call) -> None:
        is_by_host = proxy.is_queue_host(call.headers.get("host", ""))
        await self._rooms.queue.answer(
            call, call.path.removeprefix("/queue"), call.base_url + ("" if is_by_host else "/queue")
        )

    async def _view(self, call: Call) -> None:
        try:
            route = self._catalog.routes.find(call.path)
        except UnknownPath as unknown:
            if (asked := requests.asked_of(call.path, self._catalog.routes)) is not None:
                call.allow(*requests.METHODS[asked.action])
                with store_faults_told():
                    await self._by_id(asked, call)
                return
            raise RequestError("not_found", str(unknown)) from None
        call.allow("POST")
        view = stream if route.view is View.STREAM else run
        resends = self._rooms.queue.resends
        try:
            await view(call, route, self._dispatcher, self._limits, resends)
        finally:
            if call.sent is not None and call.outlet.is_gone and not call.outlet.has_started:
                resends.remember(call.sent, call.id)

    async def _by_id(self, asked: requests.Asked, call: Call) -> None:
        live = await requests.find(asked, call, self._dispatcher, self._rooms.queue)
        if asked.action == "token" and live is not None:
            await tokens.answer(live, call, self._rooms.tokens, self._dispatcher, self._limits)
        else:
            await requests.answer(asked, live, call, self._dispatcher, self._rooms.queue, self._limits)

    def _llms(self, call: Call) -> str:
        if call.path == "/llms.txt":
            return llms.server_text(self._catalog.routes.apps.values(), call.base_url)
        return llms.app_text(self._described(call, "/llms.txt"), call.base_url)

    def _described(self, call: Call, document: str) -> AppSpec:
        """Return the app that a document is asked of. Raises `RequestError` (404)."""
        try:
            app, below = self._catalog.routes.app_of(call.path)
        except UnknownPath as unknown:
            raise RequestError("not_found", str(unknown)) from None
        if below != document:
            raise RequestError("not_found", f"Path {below} not found; it is at /{app.name}{document}")
        return app


def _tell(call: Call, status: int, value: object) -> None:
    call.allow("GET", "HEAD")
    call.answer(value_answer(status, value, call.id))
