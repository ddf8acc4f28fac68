"""How a key is made, read and compared.

    key text     <key id>:<secret>          what a caller holds; fal's clients take any `id:secret`
    key id       hr_ + 12 letters, base32   public: it may stand in logs and lists
    secret       43 letters, base64url      256 random bits, shown once and kept nowhere

At rest there is only the SHA-256 of the secret. That needs no salt and no slow hash: both answer guessable
passwords, and nobody guesses 256 random bits.

This file does not know where keys are kept or where random bytes come from; both are passed in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NewType

#: The public half of a key.
KeyId = NewType("KeyId", str)

#: Random bytes that `make_key` needs: 8 for the id (of which 60 bits are used), 32 for the secret.
KEY_RANDOM_BYTES: Final = 40
_ID_RANDOM_BYTES: Final = 8
_ID_LETTERS: Final = 12

_KEY_ID: Final = re.compile(r"hr_[a-z2-7]{12}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")

#: Compared with when the id is unknown, so that a wrong id costs the time of a wrong secret.
_NOBODY: Final = "0" * 64


class KeyFault(Exception):
    """The keys cannot be read or changed. The message is for the operator and ends with what to do."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of one key. Times are seconds since 1970, UTC."""

    id: KeyId
    name: str  # the operator's word for whoever holds it
    hash: str = field(repr=False)  # SHA-256 of the secret, hex
    created: int
    revoked: int | None = None  # when it was revoked; None while it is good

    def __post_init__(self) -> None:
        """Raise `ValueError` for a record that no `make_key` ever made."""
        if not isinstance(self.id, str) or not _KEY_ID.fullmatch(self.id):
            raise ValueError("a key's id is not hr_ and 12 letters")
        if not isinstance(self.hash, str) or not _HASH.fullmatch(self.hash):
            raise ValueError(f"the hash of {self.id} is not 64 hex digits")
        if not isinstance(self.name, str):
            raise ValueError(f"the name of {self.id} is not a text")  # noqa: TRY004 - all are damage to the file
        if type(self.created) is not int or (self.revoked is not None and type(self.revoked) is not int):
            raise ValueError(f"the times of {self.id} are not whole seconds")


def make_key(random: bytes, *, name: str, now: int) -> tuple[KeyRecord, str]:
    """Return a new key: what is kept, and the text that its holder is shown once.

    `random` is `KEY_RANDOM_BYTES` from the system's generator; `now` is seconds since 1970.
    """
    if len(random) != KEY_RANDOM_BYTES:
        raise ValueError(f"make_key needs {KEY_RANDOM_BYTES} random bytes, not {len(random)}")
    letters = base64.b32encode(random[:_ID_RANDOM_BYTES]).decode("ascii").lower()
    id_ = KeyId(f"hr_{letters[:_ID_LETTERS]}")
    secret = base64.urlsafe_b64encode(random[_ID_RANDOM_BYTES:]).decode("ascii").rstrip("=")
    return KeyRecord(id_, name, hash_secret(secret), now), f"{id_}:{secret}"


def hash_secret(secret: str) -> str:
    """Return what is kept of a secret. Any text is taken: a caller may send what no key has."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def verify_key(text: str, records: Mapping[KeyId, KeyRecord]) -> KeyId | None:
    """Return whose key `text` is, or None: no such id, another secret, or revoked.

    The record is found by its public id and the digests are compared in constant time (reliability A1).
    """
    id_, _, secret = text.partition(":")
    record = records.get(KeyId(id_))
    is_right = hmac.compare_digest(hash_secret(secret), record.hash if record else _NOBODY)
    if record is None or not is_right or record.revoked is not None:
        return None
    return record.id


def parse_authorization(value: str) -> str | None:
    """Return the key text in an `Authorization` header, or None where there is none.

    `Key <text>` is fal's scheme, `Bearer <text>` everybody else's (RFC 6750 section 2.1). Schemes are
    compared without case (RFC 9110 section 11.1).
    """
    scheme, _, text = value.strip(" \t").partition(" ")
    text = text.strip(" \t")
    return text if text and scheme.lower() in {"key", "bearer"} else None
