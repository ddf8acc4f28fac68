"""Which web pages may call: the same-origin rules of browsers, decided over values.

A page's requests carry its `Origin`. Ours are the server's own origin, any page of this machine when the server
is bound to loopback, and those the operator names (`--origin`). All others get a 403 even where no key is needed:
a browser would send a "simple" request without asking first, and the model would run.

Programs other than browsers send no Origin, and are not judged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from headrace.core.errors import RequestError
from headrace.gateway.answers import Headers
from headrace.gateway.guard import is_loopback

#: What a page may send, and what it may read of an answer (protocol section 4).
_METHODS: Final = b"GET, HEAD, POST, PUT, DELETE"
_EXPOSED: Final = (
    b"x-fal-request-id, x-fal-request-timeout-type, x-fal-error-type, x-fal-retryable, x-fal-needs-retry, "
    b"retry-after, etag, accept-ranges, content-range, content-disposition"
)

#: Seconds a browser may keep the answer to a preflight; fal's own runtime says the same.
_MAX_AGE: Final = b"600"


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins whose pages may call this server."""

    loopback_only: bool
    allowed: frozenset[str] = frozenset()

    def judge(self, headers: Mapping[str, str], own: str) -> Headers:
        """Return the CORS headers for the answer, none without an Origin. `own` is the server's own origin.

        Raises `RequestError` (403) for a page from anywhere else.
        """
        origin = headers.get("origin")
        if origin is None:
            return []
        if not self._is_ours(origin, own):
            message = (
                f"Pages from {origin[:200]!r} may not call this server; the operator can allow one by --origin."
            )
            raise RequestError("forbidden", message)
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]

    def trusts_page(self, headers: Mapping[str, str]) -> bool:
        """Whether the caller is a page that the proxy route adds the key for: local, on a loopback bind."""
        origin = headers.get("origin")
        return self.loopback_only and origin is not None and (origin in self.allowed or _is_local(origin))

    def _is_ours(self, origin: str, own: str) -> bool:
        return origin == own or origin in self.allowed or (self.loopback_only and _is_local(origin))


def preflight(headers: Mapping[str, str]) -> Headers:
    """Return what a preflight's answer says beside `Origins.judge` (Fetch standard, CORS-preflight fetch)."""
    asked = headers.get("access-control-request-headers", "authorization, content-type")
    answer = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", asked.encode("latin-1")),
        (b"access-control-max-age", _MAX_AGE),
        (b"vary", b"Access-Control-Request-Headers"),
    ]
    if headers.get("access-control-request-private-network") == "true":
        answer.append((b"access-control-allow-private-network", b"true"))
    return answer


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks what a page may do, before it does it."""
    return method == "OPTIONS" and "access-control-request-method" in headers


def _is_local(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and is_loopback(parts.hostname or "")
