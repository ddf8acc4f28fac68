"""Read-only tokens: a link to one request's events, for whoever has no key and no way to send one.

    POST    /{owner}/{alias}/requests/{id}/token   {"expires_in": seconds}  ->  {"token", "expires_at"}
    DELETE  /{owner}/{alias}/requests/{id}/token   ends all tokens of the request

A token comes back as `?fal_jwt_token=` of `GET …/requests/{id}/stream`, and is good for nothing else. It is a
secret in a URL, so no URL and no query is logged anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import orjson

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.reading_token import LIFE_S, LIFE_S_MAX, PARAMETER, ReadingToken, read_token, token_text
from headrace.gateway.answers import request_id_header, value_answer
from headrace.gateway.auth import Authenticator
from headrace.gateway.body import HeldBytes, check_media_type, check_object, read_body
from headrace.gateway.calls import Call
from headrace.store.port import StoreBusy, StoreUnavailable, TokenStore
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.streams import LiveRequest

#: Serials are microseconds since 1970, so that they rise across restarts too.
_SERIALS_PER_S: Final = 1_000_000


class ReadingTokens:
    """Makes, checks and revokes the tokens of a node."""

    def __init__(self, store: TokenStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._last_serial = 0
        self._revoking = asyncio.Lock()

    def make(self, live: LiveRequest, life_s: int) -> ReadingToken:
        """Return a new token for a request."""
        serial = max(self._next_serial(), self._store.revoked(live.id) + 1)
        return ReadingToken(live.id, int(self._clock()) + life_s, serial, live.owner)

    def text(self, token: ReadingToken) -> str:
        """Return a token as its bearer holds it."""
        return token_text(token, self._store.secret)

    def owner(self, text: str, request: str, authenticator: Authenticator) -> KeyId | None:
        """Return whose request a token opens. Raises `RequestError` (401) when it does not open this one now."""
        token = read_token(text, request, self._store.secret)
        if token is None:
            raise RequestError("unauthorized", "This token is not one for this request.")
        if token.expires_at <= self._clock():
            raise RequestError("unauthorized", "This token has expired.")
        if token.serial <= self._store.revoked(request):
            raise RequestError("unauthorized", "This token was revoked.")
        if not authenticator.knows(token.owner):
            raise RequestError("unauthorized", "The key that made this token was revoked.")
        return token.owner

    async def revoke(self, request: str) -> None:
        """End all tokens of a request, for good. Raises `StoreBusy` and `StoreUnavailable`."""
        async with self._revoking:
            serial = max(self._next_serial(), self._store.revoked(request) + 1)
            # A token lives a day at most, so a revocation of longer ago has nothing left to end.
            oldest = serial - (LIFE_S_MAX + 1) * _SERIALS_PER_S
            await asyncio.to_thread(self._store.revoke, request, serial, oldest=oldest)

    def _next_serial(self) -> int:
        self._last_serial = max(int(self._clock() * _SERIALS_PER_S), self._last_serial + 1)
        return self._last_serial


def token_of(call: Call) -> str | None:
    """Return the token that a call brings instead of a key."""
    query = call.scope["query_string"]
    if not query or call.method != "GET" or "authorization" in call.headers:
        return None
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get(PARAMETER)
    return values[-1] if values else None


async def answer(
    live: LiveRequest, call: Call, tokens: ReadingTokens, dispatcher: Dispatcher, limits: Limits
) -> None:
    """Make a token for a request, or end all there are. Raises `RequestError`."""
    if call.method == "DELETE":
        await _revoke(live, tokens)
        call.answer((204, [request_id_header(call.id)], b""))
        return
    held = HeldBytes(dispatcher.bodies, call.owner)
    try:
        body = await read_body(call.receive, call.headers, limits, held)
        check_media_type(call.headers, body)
        token = tokens.make(live, _life_of(check_object(body, limits)))
    finally:
        held.let_go()
    told = {"token": tokens.text(token), "expires_at": token.expires_at}
    call.extra.append((b"cache-control", b"no-store"))
    call.answer(value_answer(200, told, call.id))


async def _revoke(live: LiveRequest, tokens: ReadingTokens) -> None:
    try:
        await tokens.revoke(live.id)
    except StoreBusy:
        message = "Too many requests' tokens were revoked within a day; those of this one are still good."
        raise RequestError("overloaded", message, headers={"Retry-After": "60"}) from None
    except StoreUnavailable:
        message = "The data directory cannot be written now; nothing was revoked."
        raise RequestError("store_unavailable", message, headers={"Retry-After": "5"}) from None


def _life_of(body: bytes) -> int:
    life_s = orjson.loads(body).get("expires_in", LIFE_S)
    if type(life_s) is not int or not 1 <= life_s <= LIFE_S_MAX:
        message = f"Input should be whole seconds from 1 to {LIFE_S_MAX}"
        detail = [{"loc": ["body", "expires_in"], "msg": message, "type": "int_range", "input": life_s}]
        raise RequestError("validation_error", message, detail=detail)
    return life_s
