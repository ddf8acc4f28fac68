"""A token with which its bearer may read one request: for shared links, and for EventSource, which sends no key.

    <seconds since 1970 when it expires>.<serial>.<id of the key that made it, if any>.<mac>

The mac is HMAC-SHA256 (RFC 2104), in base64url, over the request's id and all that stands before it. The request
is not named: it is in the path of the link, and with any other one the mac is wrong. The serial rises with each
token that is made and each revocation; a revocation ends all tokens with a smaller one.

This file does not know where the secret or the revocations are kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from headrace.core.keys import KeyId

#: The query parameter that brings a token: the name that fal's JavaScript client has for it.
PARAMETER: Final = "fal_jwt_token"

#: Seconds a token is good for, unless its maker says otherwise, and at most.
LIFE_S: Final = 3_600
LIFE_S_MAX: Final = 86_400

SECRET_BYTES: Final = 32

#: So that no mac of another purpose, under the same secret, is ever one of these.
_PURPOSE: Final = "headrace: read one request"

_TEXT: Final = re.compile(r"([0-9]{1,12})\.([0-9]{1,18})\.(hr_[a-z2-7]{12})?\.([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ReadingToken:
    """What a token says."""

    request: str
    expires_at: int  # seconds since 1970
    serial: int
    owner: KeyId | None  # whose request it is; None where the node asks for no key


def token_text(token: ReadingToken, secret: bytes) -> str:
    """Return a token as its bearer holds it."""
    said = f"{token.expires_at}.{token.serial}.{token.owner or ''}"
    return f"{said}.{_mac(token.request, said, secret)}"


def read_token(text: str, request: str, secret: bytes) -> ReadingToken | None:
    """Return what a token says of a request, or None when it is none of ours for it.

    The mac is compared in constant time. Whether it has expired or was revoked is for the caller to judge.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    said = text.rpartition(".")[0]
    if not hmac.compare_digest(match[4], _mac(request, said, secret)):
        return None
    return ReadingToken(request, int(match[1]), int(match[2]), KeyId(match[3]) if match[3] else None)


def _mac(request: str, said: str, secret: bytes) -> str:
    message = f"{_PURPOSE}\n{request}\n{said}".encode("utf-8", "surrogatepass")
    digest = hmac.digest(secret, message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
