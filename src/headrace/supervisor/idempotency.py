"""A caller's own key for a request, so that a call sent twice is one request (`Idempotency-Key`).

The key is good for one caller and one endpoint, for as long as its request is known. The body belongs to it: with
another one, the same key is somebody's mistake.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.routes import Route
from headrace.supervisor.streams import LiveRequest

_TEXT: Final = re.compile(r"[\x21-\x7e]{1,255}")


def idempotency_key_of(headers: Mapping[str, str]) -> str | None:
    """Return the key that a call brings, if any. Raises `RequestError` (400) for a text that is no key."""
    text = headers.get("idempotency-key")
    if text is not None and not _TEXT.fullmatch(text):
        message = "The header Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID."
        raise RequestError("bad_request", message)
    return text


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What makes two calls the same one, but for their bodies."""

    owner: KeyId | None
    app: str
    endpoint: str
    text: str

    @classmethod
    def of(cls, text: str, route: Route, owner: KeyId | None) -> IdempotencyKey:
        """Return the key of a call."""
        return cls(owner, route.app.name, route.endpoint.path, text)


@dataclass(frozen=True, slots=True)
class Known:
    """The request that a key was first used for."""

    live: LiveRequest
    body_hash: bytes

    def same_as(self, body: bytes) -> LiveRequest:
        """Return the request, for a call with this body. Raises `RequestError` (422) if it had another one."""
        if hash_of(body) != self.body_hash:
            message = "This Idempotency-Key was used with another body; take a new key for a new request."
            raise RequestError("idempotency_conflict", message)
        return self.live


def hash_of(body: bytes) -> bytes:
    """Return what stands for a body here."""
    return hashlib.sha256(body).digest()
