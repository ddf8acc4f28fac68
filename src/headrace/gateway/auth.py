"""Who is calling: the key of a request, or the word of the operator that none is needed."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId, parse_authorization
from headrace.store.port import KeyStore


class Authenticator:
    """Checks `Authorization: Key <id>:<secret>` (or `Bearer …`) against the key store.

    With `keys=None` (`--no-auth`, loopback binds only) any key or none is good.
    """

    def __init__(self, keys: KeyStore | None) -> None:
        self._keys = keys

    @property
    def is_open(self) -> bool:
        """Whether any key or none is good."""
        return self._keys is None

    def knows(self, owner: KeyId | None) -> bool:
        """Whether this key is good now."""
        return self._keys is None or (owner is not None and self._keys.knows(owner))

    def authenticate(self, headers: Mapping[str, str]) -> KeyId | None:
        """Return whose call this is. Raises `RequestError` (401); its text never repeats the key."""
        if self._keys is None:
            return None
        value = headers.get("authorization")
        if value is None:
            raise RequestError("unauthorized", "A key is needed: send 'Authorization: Key <key>'.")
        text = parse_authorization(value)
        if text is None:
            raise RequestError("unauthorized", "The Authorization header must read 'Key <key>'.")
        key_id = self._keys.verify(text)
        if key_id is None:
            raise RequestError("unauthorized", "This key is not known here, or was revoked.")
        return key_id
