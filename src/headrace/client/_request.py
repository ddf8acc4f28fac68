"""One half of the SDK's thinking: what to send, and how long to wait. The other half is `_answer`.

    Target        the server and the key: what a client is bound to
    build         a call to a `Request`
    Patience      which limit of time comes first

What concerns the queue alone is in `_queue`.

Values in, values out: no socket, no clock, no thread. `_sync` and `_async` are the two shells that act on it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from math import isfinite
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import orjson

from headrace.client import errors
from headrace.client._proxy import Proxy, proxy_for
from headrace.client.credentials import Key, origin_of, own_queue_url, resolve_key, server_url
from headrace.core.routes import parse_endpoint_id

#: Seconds to a connection (name, TCP, TLS). Linux itself would try for two minutes.
CONNECT_TIMEOUT_S: Final = 30.0
#: Bytes taken from a connection at a time.
PIECE_BYTES: Final = 64 * 1024

JSON_TYPE: Final = "application/json"
STREAM_TYPE: Final = "text/event-stream"
_PATH_SAFE: Final = "/-._~!$&'()*+,;=:@"  # RFC 3986 section 3.3: what stands in a path as it is

#: An absolute URL, as bytes go over the wire. No `@` and no backslash: nothing that two parsers read as two hosts.
_ABSOLUTE_URL: Final = re.compile(r"https?://[^\s\\@#]+", re.ASCII | re.IGNORECASE)

#: What describes the connection or the body's bytes is the HTTP library's to say, not the caller's.
_OWN_HEADERS: Final = frozenset({
    "host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect",
    "accept-encoding",
})  # fmt: skip

#: Options of fal's `submit` and `subscribe` that a direct stream has no use for.
_QUEUE_OPTIONS: Final = frozenset({"hint", "priority", "start_timeout", "client_timeout"})


@dataclass(frozen=True, slots=True)
class Target:
    """The server a client talks to, the key it sends, the proxy between them; the queue's address if it is set."""

    url: str
    key: Key | None
    proxy: Proxy | None
    own_queue_url: str | None = None

    @property
    def queue_url(self) -> str:
        """Where the server's queue is."""
        return self.own_queue_url or f"{self.url}/queue"

    @classmethod
    def resolve(cls, url: str | None, key: str | None) -> Target:
        """Find all four; see `headrace.client.credentials` and `proxy_for` for where, and what is raised."""
        base = server_url(url)
        return cls(base, resolve_key(base, key), proxy_for(base), own_queue_url(url))


class Pieces(Protocol):
    """A body that is sent piece by piece, from the first one each time. Its length is in the headers."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What goes over the wire."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)  # has the key
    body: bytes | Pieces | None = field(repr=False)

    def __str__(self) -> str:
        # Without the query: it can be a key.
        return f"{self.method} {self.url.partition('?')[0]}"


@cache
def user_agent() -> str:
    """Return what we call ourselves."""
    return f"headrace/{version('headrace')} (python)"


def build(
    target: Target,
    application: str,
    arguments: Mapping[str, Any] | None,
    *,
    path: str,
    headers: Mapping[str, str] | None,
    accept: str = JSON_TYPE,
    method: str = "POST",
    base: str | None = None,
) -> Request:
    """Make the request of a call to an endpoint, below `base`, which is the server's address unless given.

    `path` is joined to the id with exactly one slash; "" means the id itself. Raises `ValueError` for an id, a
    path or a header that cannot be sent, `TypeError` for arguments that are no JSON object.
    """
    id_ = parse_endpoint_id(application)
    below = path.strip("/")
    full = f"/{id_.app}{id_.path}/{below}" if below else f"/{id_.app}{id_.path}"
    body = None if method == "GET" else _json(arguments)
    url = (target.url if base is None else base) + _quoted(full)
    return Request(method, url, _headers(target, accept, body) | _checked_headers(headers), body)


def build_own(target: Target, method: str, path: str) -> Request:
    """Make a request without a body to one of the server's own pages, such as `/v1/apps`."""
    return build_at(target, method, target.url + _quoted(path))


def build_at(target: Target, method: str, url: str, *, accept: str = JSON_TYPE) -> Request:
    """Make a request without a body for a whole URL, which must be the server's: the key goes with it."""
    return Request(method, url, _headers(target, accept, None), None)


def build_json(
    target: Target,
    url: str,
    value: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    with_key: bool = True,
) -> Request:
    """Make a POST of a JSON object to a whole URL, which must be the server's if the key goes with it."""
    body = _json(value)
    own = _headers(target if with_key else replace(target, key=None), JSON_TYPE, body)
    return Request("POST", url, own | {name.lower(): text for name, text in (headers or {}).items()}, body)


def build_put(url: str, body: Pieces, *, size: int, content_type: str) -> Request:
    """Make a PUT of `size` bytes to a URL that is a key itself: ours does not go there."""
    headers = {
        "accept": JSON_TYPE,
        "accept-encoding": "identity",
        "user-agent": user_agent(),
        "content-type": content_type,
        "content-length": str(size),
    }
    return Request("PUT", url, headers, body)


def own_url(target: Target, url: str) -> str | None:
    """Return a server's URL at the address that this client was given; None if it leads elsewhere.

    What goes there is secret, so an answer may choose the path, and never the host.
    """
    if _ABSOLUTE_URL.fullmatch(url) and url.isascii():
        for base in (target.queue_url, target.url):
            try:
                is_ours = origin_of(url) == origin_of(base)
            except ValueError:  # a port that is none
                continue
            if is_ours:
                own, given = urlsplit(base), urlsplit(url)
                return urlunsplit((own.scheme, own.netloc, given.path, given.query, ""))
    return None


def _quoted(path: str) -> str:
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"the path {path!r} has a segment '.' or '..', which HTTP libraries would resolve")
    return quote(path, safe=_PATH_SAFE)


def _headers(target: Target, accept: str, body: bytes | None) -> dict[str, str]:
    own = {"accept": accept, "accept-encoding": "identity", "user-agent": user_agent()}
    if body is not None:
        own["content-type"] = JSON_TYPE
    if target.key is not None:
        own["authorization"] = f"Key {target.key.text}"
    return own


def _json(arguments: Mapping[str, Any] | None) -> bytes:
    if arguments is None:
        return b"{}"
    if not isinstance(arguments, Mapping):
        raise TypeError(f"arguments must be a dict (a JSON object) or None, not {type(arguments).__name__}")
    try:
        return orjson.dumps(arguments if isinstance(arguments, dict) else dict(arguments))
    except TypeError as error:  # orjson's own error is one
        raise TypeError(f"the arguments cannot be sent as JSON: {error}") from None


def _checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    checked = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"a header is two strings, not {name!r}: {type(value).__name__}")
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"the header {name!r} is the SDK's to send; leave it out")
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{name!r} is not a header's name")
        if not value.isascii() or not (value.isprintable() or not value):
            raise ValueError(f"the header {name!r} has characters that a header cannot have")
        checked[name.lower()] = value
    return checked


def refuse_options(options: Mapping[str, object]) -> None:
    """Raise `TypeError` for keywords that `stream` does not take; of fal's queue options, say where they go."""
    for name in options:
        if name in _QUEUE_OPTIONS:
            raise TypeError(
                f"stream() takes no {name!r}: a stream goes straight to a runner and never waits in a queue. "
                f"Use submit() or subscribe(), on the server's queue, which take {name!r}"
            )
        raise TypeError(f"stream() got an unexpected keyword argument {name!r}")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds: to a connection, for a byte, for an event. None: without limit.

    `waited_s` is the time since the caller began to wait for the event.
    """

    connect_s: float
    bytes_s: float | None
    event_s: float | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("connect_timeout", self.connect_s), ("timeout", self.bytes_s), ("event_timeout", self.event_s)
        ):  # fmt: skip
            if value is not None and not (isfinite(value) and value > 0):
                raise ValueError(f"{name}={value!r} must be a number of seconds over 0, or None")

    def to_connect(self, waited_s: float) -> float:
        """Return the longest the connection may take: it sees the bytes' limit and the event's as well."""
        limit = self.to_read(waited_s)
        return self.connect_s if limit is None else min(self.connect_s, limit)

    def to_read(self, waited_s: float) -> float | None:
        """Return the longest the next read may take."""
        left = self._event_left(waited_s)
        if left is None or self.bytes_s is None:
            return self.bytes_s if left is None else left
        return min(left, self.bytes_s)

    def left_of(self, seconds: float, waited_s: float) -> float:
        """Return `seconds`, or what is left of the time for an event, if that is less."""
        left = self._event_left(waited_s)
        return seconds if left is None else min(seconds, left)

    def read_expired(self, request: Request, waited_s: float, request_id: str | None = None) -> errors.Timeout:
        """Return the error for a read that took longer than `to_read(waited_s)`."""
        left = self._event_left(waited_s)
        if left is not None and self.event_s is not None and (self.bytes_s is None or left <= self.bytes_s):
            return errors.EventTimeout(
                f"{request}: no event for {self.event_s:g} s (event_timeout)",
                timeout=self.event_s,
                request_id=request_id,
            )
        seconds = self.bytes_s or 0.0
        return errors.ReadTimeout(
            f"{request}: not a byte for {seconds:g} s (timeout)", timeout=seconds, request_id=request_id
        )

    def connect_expired(self, request: Request, waited_s: float) -> errors.Timeout:
        """Return the error for a connection that took longer than `to_connect(waited_s)`."""
        left = self._event_left(waited_s)
        limit = self.connect_s if self.bytes_s is None else min(self.connect_s, self.bytes_s)
        if left is not None and left < limit:
            return self.read_expired(request, waited_s)
        return errors.ConnectTimeout(
            f"{request}: no connection within {limit:g} s. Is the server's address right?", timeout=limit
        )

    def _event_left(self, waited_s: float) -> float | None:
        # Never quite 0: that would mean "do not block" to a socket.
        return None if self.event_s is None else max(self.event_s - waited_s, 0.001)
