"""What makes and ends the tokens for reading one request, in DATA_DIR/reading-tokens.json (0600).

    {"version": 1, "secret": "<64 hex digits>", "revoked": {"<request id>": <serial>, …}}

Without the file all tokens are void: to end every one there is, stop the server, remove it, start it. A file that
cannot be understood is never written over. This file does not know what a token is (`core.reading_token`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from headrace.core.keys import KeyFault
from headrace.core.reading_token import SECRET_BYTES
from headrace.store import files
from headrace.store.port import StoreBusy, StoreUnavailable

#: Requests whose tokens were revoked within the life of a token. The whole file is written with each.
REVOKED_MAX: Final = 10_000

_VERSION: Final = 1


class TokenFile:
    """The secret and the revocations in one file, which belongs to one node at a time."""

    def __init__(self, path: Path) -> None:
        """Read `path`, or make it. Raises `KeyFault` when it is damaged, or not ours to read or write."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                files.replace(path, _encode(secrets.token_bytes(SECRET_BYTES), {}))
            content = path.read_bytes()
        except OSError as error:
            raise KeyFault(
                f"{path}: cannot be read or made ({error.strerror}); check the folder's owner and free space, "
                "or choose another with --data-dir"
            ) from error
        try:
            self.secret, self._revoked = _decode(content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise KeyFault(
                f"{path}: damaged; restore it from a backup, or remove it, which ends all tokens"
            ) from error

    def revoked(self, request: str) -> int:
        """Return the serial of a request's last revocation, 0 when there was none."""
        return self._revoked.get(request, 0)

    def revoke(self, request: str, serial: int, *, oldest: int) -> None:
        """Keep a revocation for good; forget those before `oldest`, whose tokens have expired by themselves.

        Raises `StoreBusy` when there are too many, `StoreUnavailable` when the file cannot be written.
        """
        revoked = {id_: at for id_, at in self._revoked.items() if at >= oldest} | {request: serial}
        if len(revoked) > REVOKED_MAX:
            raise StoreBusy
        try:
            files.replace(self._path, _encode(self.secret, revoked))
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error.strerror}") from error
        self._revoked = revoked


def _encode(secret: bytes, revoked: Mapping[str, int]) -> bytes:
    document = {"version": _VERSION, "secret": secret.hex(), "revoked": revoked}
    return json.dumps(document).encode("ascii") + b"\n"


def _decode(content: bytes) -> tuple[bytes, dict[str, int]]:
    document: Any = json.loads(content)
    random = bytes.fromhex(document["secret"])
    if document["version"] != _VERSION or len(random) != SECRET_BYTES:
        raise ValueError(f"not a token file of version {_VERSION}")
    return random, {str(request): int(serial) for request, serial in document["revoked"].items()}
