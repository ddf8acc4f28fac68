"""The certificates of a server that is its own CA: named, made and judged, all over values.

Whoever trusts the CA should risk nothing by it. So it may vouch for the names of this server and no others
(a critical name constraint, RFC 5280 section 4.2.1.10), for servers only, and through no further CA. What
OpenSSL's strict mode asks for (Python 3.13's default) is in both certificates.

This file does not know where they are kept. Time is passed in.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Days a server's certificate is good: what Apple's systems take at most is 398 (support.apple.com/102028).
LEAF_DAYS: Final = 397

#: Days before its end at which a start renews it. A node that starts once a quarter never serves a stale one.
RENEW_DAYS: Final = 90

#: Days a CA is good. Clients hold a copy of it, so it changes as seldom as can be.
CA_DAYS: Final = 3650

#: How far back both begin, for clients whose clocks are behind.
_HEAD_START: Final = dt.timedelta(days=1)

#: The names of fal's that a server takes on when it impersonates them.
FAL_NAMES: Final = ("fal.run", "queue.fal.run", "rest.fal.ai")

_LOOPBACK_NETWORKS: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))
_LOOPBACK_ADDRESSES: Final = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


# --- names --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Names:
    """What a server is called by its clients."""

    hosts: tuple[str, ...]  # DNS names, lower case
    addresses: tuple[_Address, ...]

    def __str__(self) -> str:
        """Return them all, for a line of text."""
        return ", ".join((*self.hosts, *map(str, self.addresses)))


def names_of(host: str, more: Sequence[str] = (), *, impersonate: bool = False) -> Names:
    """Return the names for a server bound to `host`: loopback's, `host` itself, `more`, and fal's if asked for.

    An address that means every interface names none.
    """
    hosts, addresses = ["localhost"], list(_LOOPBACK_ADDRESSES)
    for name in (host, *more, *(FAL_NAMES if impersonate else ())):
        try:
            # A zone (fe80::1%eth0) is this machine's own word; a certificate has no room for it.
            address = ipaddress.ip_address(ipaddress.ip_address(name).packed)
        except ValueError:
            hosts.append(name.lower())
        else:
            if not address.is_unspecified:
                addresses.append(address)
    return Names(tuple(dict.fromkeys(hosts)), tuple(dict.fromkeys(addresses)))


# --- certificates: decided and made over values -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def is_pair(self) -> bool:
        """Whether the one belongs to the other."""
        return self.certificate.public_key() == self.key.public_key()


def make_authority(names: Names, now: dt.datetime) -> Identity:
    """Return a new CA that may vouch for `names`, for loopback, and for nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A client may hold several of these, of several servers; a name of its own keeps them apart.
    subject = _subject(f"Headrace local CA {secrets.token_hex(4)}")
    permitted: list[x509.GeneralName] = [x509.DNSName(host) for host in names.hosts]
    networks = {*_LOOPBACK_NETWORKS, *map(ipaddress.ip_network, names.addresses)}
    permitted += [x509.IPAddress(network) for network in sorted(networks, key=str)]
    certificate = (
        _builder(subject, subject, key, key, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key)


def make_leaf(authority: Identity, names: Names, now: dt.datetime) -> Identity:
    """Return a server's certificate for `names`, issued by `authority`."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in names.hosts]
    alternatives += [x509.IPAddress(address) for address in names.addresses]
    certificate = (
        _builder(_subject("Headrace"), authority.certificate.subject, key, authority.key, now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Identity(certificate, key)


def why_not_authority(authority: Identity, names: Names, now: dt.datetime) -> str | None:
    """Return why `authority` cannot issue a certificate for `names` now, or None if it can."""
    certificate = authority.certificate
    if not authority.is_pair:
        return "has another's key"
    # What it issues must not outlive it.
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _days(LEAF_DAYS):
        return f"is good from {_span(certificate)} only"
    try:
        permitted = certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    except (x509.ExtensionNotFound, ValueError):
        permitted = None
    values = [name.value for name in permitted or ()]
    bases = [value for value in values if isinstance(value, str)]
    networks = [value for value in values if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network)]
    missing = [host for host in names.hosts if not any(_is_below(host, base) for base in bases)]
    missing += [str(one) for one in names.addresses if not any(one in network for network in networks)]
    return f"does not permit {', '.join(missing)}" if missing else None


def why_not_leaf(leaf: Identity, authority: x509.Certificate, now: dt.datetime) -> str | None:
    """Return why clients that trust `authority` would refuse `leaf` now, or None if they would not."""
    certificate = leaf.certificate
    if not leaf.is_pair:
        return "the server's key is not its certificate's"
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        return f"the server's certificate was good from {_span(certificate)}"
    if not authority.not_valid_before_utc <= now < authority.not_valid_after_utc:
        return f"the CA was good from {_span(authority)}"
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return "the server's certificate was not issued by this CA"
    return None


def is_due(leaf: Identity, authority: x509.Certificate, names: Names, now: dt.datetime) -> bool:
    """Whether a start should issue another certificate: for other names, refused now, or soon."""
    whys = (why_not_leaf(leaf, authority, when) for when in (now, now + _days(RENEW_DAYS)))
    return names_in(leaf.certificate) != names or any(why is not None for why in whys)


def names_in(certificate: x509.Certificate) -> Names:
    """Return the names that a server's certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return Names((), ())
    addresses = names.get_values_for_type(x509.IPAddress)
    return Names(
        tuple(names.get_values_for_type(x509.DNSName)),
        tuple(one for one in addresses if isinstance(one, ipaddress.IPv4Address | ipaddress.IPv6Address)),
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    days: int,
) -> x509.CertificateBuilder:
    """Return what both kinds have in common."""
    start = (now - _HEAD_START).replace(microsecond=0)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        # The last second counts (RFC 5280, section 4.1.2.5).
        .not_valid_after(start + _days(days) - dt.timedelta(seconds=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _is_below(host: str, base: str) -> bool:
    """Whether a constraint on `base` permits `host`: the name itself, or one under it."""
    return host == base or host.endswith(f".{base}")


def _days(count: int) -> dt.timedelta:
    return dt.timedelta(days=count)


def _span(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
