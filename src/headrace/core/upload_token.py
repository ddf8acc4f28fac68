"""A token with which its bearer may send files: what fal's Python client fetches with its key before it uploads.

    hru_<seconds since 1970 when it expires>.<id of the key it was made for, if any>.<mac>

The mac is HMAC-SHA256 (RFC 2104), in base64url, over what stands before it. Nothing is kept of a token, which
ends by itself, or with its key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from headrace.core.keys import KeyId

#: Seconds a token is good for. fal's client fetches another when it has passed.
LIFE_S: Final = 3_600

#: So that no mac of another purpose, under the same secret, is ever one of these.
_PURPOSE: Final = "headrace: send files"

_TEXT: Final = re.compile(r"hru_([0-9]{1,12})\.(hr_[a-z2-7]{12})?\.([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class UploadToken:
    """What a token says."""

    expires_at: int  # seconds since 1970
    owner: KeyId | None  # None where the node asks for no key


def token_text(token: UploadToken, secret: bytes) -> str:
    """Return a token as its bearer holds it."""
    said = f"{token.expires_at}.{token.owner or ''}"
    return f"hru_{said}.{_mac(said, secret)}"


def read_token(text: str, secret: bytes) -> UploadToken | None:
    """Return what a token says, or None when it is none of ours.

    The mac is compared in constant time. Whether it is still good is for the caller to judge.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    said = text.removeprefix("hru_").rpartition(".")[0]
    if not hmac.compare_digest(match[3], _mac(said, secret)):
        return None
    return UploadToken(int(match[1]), KeyId(match[2]) if match[2] else None)


def _mac(said: str, secret: bytes) -> str:
    digest = hmac.digest(secret, f"{_PURPOSE}\n{said}".encode("ascii"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
