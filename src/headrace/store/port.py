"""What the rest of the node may ask of the store. Protocols only: nothing here knows a file or a database."""

from __future__ import annotations

from typing import Protocol

from headrace.core.keys import KeyId


class KeyStore(Protocol):
    """The gateway's only view of keys."""

    def verify(self, text: str) -> KeyId | None:
        """Return whose key `text` is, or None if it opens nothing. Never blocks for long, never raises."""
        ...
