"""The local CA and the server's certificate, in DATA_DIR/tls: made once, renewed at a start, never by hand.

    ca.pem        the CA's certificate: what clients are told to trust
    ca-key.pem    its key, 0600
    server.pem    the server's key and certificate, 0600: one file, so the pair is replaced together

This file does not know what stands in a certificate (`store.certificates`), nor who listens.
"""

from __future__ import annotations

import datetime as dt
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headrace.store import files
from headrace.store.certificates import (
    Identity,
    Names,
    is_due,
    make_authority,
    make_leaf,
    names_in,
    why_not_authority,
    why_not_leaf,
)

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TlsState:
    """What is in the folder, for `headrace doctor`."""

    fault: str | None  # why clients would refuse it; None if they would not
    names: str = ""
    ca_until: dt.date | None = None
    leaf_until: dt.date | None = None


class TlsFolder:
    """DATA_DIR/tls. Safe to share between processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.ca_key = folder / "ca-key.pem"
        self.server = folder / "server.pem"

    def prepare(self, names: Names, now: dt.datetime) -> str | None:
        """Make what is missing, nearly over, or for other names. Returns a line on a new CA, or None.

        Raises `OSError`, and `FileBusy` when another process is at it and does not end.
        """
        for folder in (self.folder.parent, self.folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.locked(self.folder / ".lock"):
            authority = _read_identity(self.ca, self.ca_key)
            reason = why_not_authority(authority, names, now) if authority else "is damaged"
            told = None
            if authority is None or reason is not None:
                told = f"Made a local CA: {self.ca}"
                if self.ca.exists():
                    told = f"Made a new local CA, since the old one {reason}: {self.ca}"
                authority = make_authority(names, now)
                # The key first: between the two they do not match, and the next start makes others.
                files.replace(self.ca_key, _key_pem(authority.key))
                files.replace(self.ca, _pem(authority.certificate), mode=0o644)
            leaf = _read_identity(self.server, self.server)
            if leaf is None or is_due(leaf, authority.certificate, names, now):
                leaf = make_leaf(authority, names, now)
                files.replace(self.server, _key_pem(leaf.key) + _pem(leaf.certificate))
        return told

    def context(self) -> ssl.SSLContext:
        """Return what a listener needs: TLS 1.2 or later, HTTP/1.1. Call `prepare` before."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.server)
        return context

    def state(self, now: dt.datetime) -> TlsState | None:
        """Return how things are, or None where nothing was ever made. Raises `OSError`."""
        if not self.ca.exists():
            return None
        authority, leaf = _read_identity(self.ca, self.ca_key), _read_identity(self.server, self.server)
        if authority is None or leaf is None:
            return TlsState(f"{self.ca if authority is None else self.server} or its key is missing or damaged")
        fault = why_not_leaf(leaf, authority.certificate, now)
        if not authority.is_pair:
            fault = f"{self.ca_key} is not the key of {self.ca}"
        return TlsState(
            fault,
            str(names_in(leaf.certificate)),
            authority.certificate.not_valid_after_utc.date(),
            leaf.certificate.not_valid_after_utc.date(),
        )

    def write_trust(self, name: str, others: Iterable[Path]) -> Path:
        """Write the CA's certificate, then those in `others`, each once, to the file `name`, and return it.

        A file of ours among `others` brings what it was made of, but not the CA of that time, which stands
        first in it. Raises `OSError`.
        """
        target = self.folder / name
        blocks = _PEM.findall(self.ca.read_bytes())
        for other in others:
            found = _PEM.findall(other.read_bytes())
            blocks += found[1:] if other == target else found
        files.replace(target, b"\n".join(dict.fromkeys(blocks)) + b"\n", mode=0o644)
        return target


def _read_identity(certificate: Path, key: Path) -> Identity | None:
    """Return what the files hold; None when one is missing or damaged, since either can be made anew."""
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return Identity(found, private) if isinstance(private, ec.EllipticCurvePrivateKey) else None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
