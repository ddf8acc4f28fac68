"""Who sits at the page: single-use codes in links, and the keys that they are exchanged for.

    POST  /v1/page-link     with a key     ->  {"url", "expires_at"}   a link to the page, a code in its fragment
    POST  /v1/page-session  {"code": …}    ->  {"key", "expires_at"}   once, and for as long as the code is good

A code is 256 random bits and stands in a URL's fragment, which no browser sends and no log holds. The key that it
gives is the session's own: it stands for the key that the link was made with, so that the page sees that key's
requests, and ends with the node, after `SESSION_S`, or when that key is revoked. It makes no links itself, or it
would never end. Nothing is written to a disk.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId, parse_authorization
from headrace.core.limits import Limits
from headrace.gateway.answers import value_answer
from headrace.gateway.body import UNCOUNTED_BYTES, HeldBytes, check_media_type, check_object, read_body
from headrace.gateway.calls import Call
from headrace.store.port import KeyStore
from headrace.supervisor.dispatch import Dispatcher

#: Seconds for which a link is good: time enough to find the window, not to find the paper it was printed on.
CODE_S: Final = 600

#: Seconds for which a page may use the key it got: a working day.
SESSION_S: Final = 12 * 3600

#: Codes and sessions of one key that are good at once; of more, its oldest end, and nobody else's.
CODES_MAX: Final = 32
SESSIONS_MAX: Final = 128

#: The same of all keys; the next is refused. Each costs some 300 bytes.
ALL_MAX: Final = 1_024

_RANDOM_BYTES: Final = 32

#: Before a session's key, to tell it from others in the eyes of people; fal's clients take any `id:secret`.
_KEY_PREFIX: Final = "page:"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a code or a session's key stands for."""

    owner: KeyId
    expires_at: int  # seconds since 1970


class PageSessions:
    """A node's key store, and the sessions of its page beside it."""

    def __init__(self, keys: KeyStore, *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        # By the hash of their text: what a lookup's time tells of a hash tells nothing of the text.
        self._codes: dict[bytes, Grant] = {}
        self._sessions: dict[bytes, Grant] = {}

    def new_code(self, owner: KeyId) -> tuple[str, int]:
        """Return a code that can be exchanged once for a session of this key, and when it ends.

        Raises `RequestError` (429), as `exchange` does, where all keys together have too many.
        """
        return self._add(self._codes, CODES_MAX, owner, CODE_S, "")

    def exchange(self, code: str) -> tuple[str, int] | None:
        """Return a session's key and when it ends, or None for a code that is unknown, used or too old."""
        digest = _digest(code)
        grant = self._codes.get(digest)
        if grant is None or not self._is_good(grant):
            return None
        session = self._add(self._sessions, SESSIONS_MAX, grant.owner, SESSION_S, _KEY_PREFIX)
        del self._codes[digest]  # not before: a code that was refused for want of room is still good
        return session

    def verify(self, text: str) -> KeyId | None:
        """Return whose key `text` is, a session's included."""
        if not text.startswith(_KEY_PREFIX):
            return self._keys.verify(text)
        grant = self._sessions.get(_digest(text))
        return grant.owner if grant is not None and self._is_good(grant) else None

    def knows(self, id_: KeyId) -> bool:
        """Whether there is such a key, and it was not revoked."""
        return self._keys.knows(id_)

    def _is_good(self, grant: Grant) -> bool:
        return self._clock() < grant.expires_at and self._keys.knows(grant.owner)

    def _add(
        self, grants: dict[bytes, Grant], count_max: int, owner: KeyId, life_s: int, prefix: str
    ) -> tuple[str, int]:
        for digest in [digest for digest, grant in grants.items() if not self._is_good(grant)]:
            del grants[digest]
        own = [digest for digest, grant in grants.items() if grant.owner == owner]
        for digest in own[: max(0, len(own) - count_max + 1)]:
            del grants[digest]
        if len(grants) >= ALL_MAX:
            message = "More pages are open, or about to be, than may be at once; try again."
            raise RequestError("overloaded", message, headers={"Retry-After": "60"})
        text = prefix + secrets.token_urlsafe(_RANDOM_BYTES)
        grant = Grant(owner, int(self._clock()) + life_s)
        grants[_digest(text)] = grant
        return text, grant.expires_at


def link(url: str, code: str) -> str:
    """Return the link that opens a node's page with a code."""
    return f"{url}/#code={code}"


def answer_link(call: Call, sessions: PageSessions | None) -> None:
    """Make a link for the caller's key; without authentication (`sessions` is None) the page needs no code.

    Raises `RequestError`: 401 without a key, 403 for one that a link brought.
    """
    call.allow("POST")
    told: dict[str, object] = {"url": f"{call.base_url}/", "expires_at": None}
    if sessions is not None:
        if call.owner is None:  # a page of this machine, by the proxy route: the server vouches for it, as nobody
            raise RequestError("unauthorized", "A link stands for a key: send 'Authorization: Key <key>'.")
        if (parse_authorization(call.headers.get("authorization", "")) or "").startswith(_KEY_PREFIX):
            message = "A page's own key makes no links; use the key that its link was made with."
            raise RequestError("forbidden", message)
        code, expires_at = sessions.new_code(call.owner)
        told = {"url": link(call.base_url, code), "expires_at": expires_at}
    call.extra.append((b"cache-control", b"no-store"))
    call.answer(value_answer(200, told, call.id))


async def answer_session(
    call: Call, sessions: PageSessions | None, dispatcher: Dispatcher, limits: Limits
) -> None:
    """Exchange a code for a session's key. Raises `RequestError` (401) for one that gives none."""
    call.allow("POST")
    code = await _code_of(call, dispatcher, limits)
    if sessions is None:
        told: dict[str, object] = {"key": None, "expires_at": None}
    elif (session := sessions.exchange(code)) is not None:
        told = {"key": session[0], "expires_at": session[1]}
    else:
        raise RequestError(
            "unauthorized",
            "This link was used before, or is older than ten minutes. "
            "On the server's machine, `headrace page` prints another.",
        )
    call.extra.append((b"cache-control", b"no-store"))
    call.answer(value_answer(200, told, call.id))


async def _code_of(call: Call, dispatcher: Dispatcher, limits: Limits) -> str:
    held = HeldBytes(dispatcher.bodies, call.owner)
    try:
        # Of a stranger, so no byte of it may come from what is there for bodies of callers.
        body = await read_body(call.receive, call.headers, limits, held, bytes_max=UNCOUNTED_BYTES)
        check_media_type(call.headers, body)
        code = orjson.loads(check_object(body, limits)).get("code")
    finally:
        held.let_go()
    if not isinstance(code, str):
        message = "Input should be a text"
        detail = [{"loc": ["body", "code"], "msg": message, "type": "string_type", "input": code}]
        raise RequestError("validation_error", message, detail=detail)
    return code


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
