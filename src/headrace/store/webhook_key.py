"""The key that signs webhooks, in DATA_DIR/webhook-key.pem: Ed25519, 0600, made when it is first wanted.

Receivers learn the public half from the JWKS document (RFC 7517, RFC 8037) at /.well-known/jwks.json. To change
the key, stop the server, remove the file, start it: receivers that look again when no key fits notice nothing.

A file that cannot be understood is never written over. This file does not know what is signed (`core.webhook`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headrace.core.keys import KeyFault
from headrace.store import files


class WebhookKey:
    """The key in one file. Safe to share between processes and threads."""

    def __init__(self, path: Path) -> None:
        """Read `path`, or make it. Raises `KeyFault` when it is damaged, or not ours to read or write."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with files.locked(path.with_name(f"{path.name}.lock")):
                if not path.exists():
                    files.replace(path, _pem(Ed25519PrivateKey.generate()))
                content = path.read_bytes()
        except files.FileBusy as busy:
            raise KeyFault(str(busy)) from None
        except OSError as error:
            raise KeyFault(
                f"{path}: cannot be read or made ({error.strerror}); check the folder's owner and free space, "
                "or choose another with --data-dir"
            ) from error
        self._key = _read(path, content)
        self.jwks = _jwks(self._key)  #: the public half, as the JSON document that receivers fetch

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, 64 bytes (RFC 8032)."""
        return self._key.sign(message)


def _read(path: Path, content: bytes) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFault(f"{path}: not an Ed25519 key; restore it from a backup, or remove it to have one made")
    return key


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _jwks(key: Ed25519PrivateKey) -> bytes:
    fields = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_key().public_bytes_raw())}
    # The thumbprint of RFC 7638: these three members, sorted, without a space.
    thumbprint = hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode("ascii")).digest()
    described = {**fields, "alg": "EdDSA", "use": "sig", "kid": _base64url(thumbprint)}
    return json.dumps({"keys": [described]}).encode("ascii")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
