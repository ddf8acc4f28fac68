"""Where a URL that a caller gave may lead: to the public internet, and to what an operator allows, nowhere else.

A server that calls the URLs of strangers is their hand inside its network (SSRF). Two questions are answered here:

    check_url(text, policy)   is it a plain URL, and what does it name?
    policy.why_not(address)   may a connection go to this address?

The second is asked of every address that a name has. A URL is read strictly, not helpfully: a spelling that two
parsers could read in two ways is refused, with the rule that refused it.

`ipaddress.is_global` is no guard by itself: it is True for 64:ff9b::7f00:1 (loopback through NAT64), for
2002:7f00:1:: (through 6to4) and for 224.0.0.1. So the table below is our own: IANA's registries of special-purpose
addresses, and of IPv6 only what is given out at all. This file resolves no name and opens nothing.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import quote, urljoin

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Letters of a URL. Browsers took 2,083 for decades, so nothing of the web is longer.
URL_LETTERS_MAX: Final = 2_048

#: Letters of a name (RFC 1035 section 2.3.4). Checked before anything slow looks at it.
_HOST_LETTERS_MAX: Final = 253

#: What a spelling can be refused for, and what the caller is told.
URL_RULES: Final[Mapping[str, str]] = {
    "too-long": f"it has more than {URL_LETTERS_MAX} letters",
    "character": "it has white space, a control character, or one that does not show",
    "backslash": "it has a backslash, which some read as a slash",
    "not-a-url": "it does not read scheme://host/path",
    "scheme": "it is not https, nor http where that is allowed",
    "userinfo": "it has a user name or a password before the host",
    "port": "its port is not a number, or not one of those allowed",
    "zone": "its IPv6 address has a zone",
    "host": "its host is neither a name nor an address",
    "address-spelling": "it ends in a number, but is not an address of four plain decimal numbers",
    "local-name": "its host is a name that only a private network knows",
}

#: Which addresses are not the public internet, and why. The longest prefix that fits decides; "" is public.
ADDRESS_RULES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("0.0.0.0/0", "2000::/3"),  # of IPv6, IANA gives out this eighth alone
    "unspecified": ("0.0.0.0/8", "::/128"),  # Linux takes 0.0.0.0 for this machine
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "unique-local": ("fc00::/7",),
    "carrier-grade-nat": ("100.64.0.0/10",),
    "link-local": ("169.254.0.0/16", "fe80::/10"),  # clouds keep credentials at 169.254.169.254
    "site-local": ("fec0::/10",),
    "cloud-platform": ("168.63.129.16/32",),  # Azure's inside service: routed like a public address
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "broadcast": ("255.255.255.255/32",),
    "reserved": ("240.0.0.0/4", "::/0"),
    "protocol-assignment": ("192.0.0.0/24", "2001::/23"),
    "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    "benchmarking": ("198.18.0.0/15", "2001:2::/48"),
    "discard": ("100::/64",),
    "orchid": ("2001:10::/28", "2001:20::/28"),
    # An IPv4 address inside an IPv6 one; whoever unpacks it on the way may be inside.
    "v4-compatible": ("::/96",),
    "v4-mapped": ("::ffff:0:0/96",),
    "v4-translated": ("::ffff:0:0:0/96",),
    "nat64": ("64:ff9b::/96", "64:ff9b:1::/48"),
    "6to4": ("192.88.99.0/24", "2002::/16"),
    "teredo": ("2001::/32",),
    "isatap": (),  # not a prefix: see `why_not_public`
}

_BY_PREFIX: Final[list[tuple[Network, str]]] = sorted(
    ((ipaddress.ip_network(text), rule) for rule, texts in ADDRESS_RULES.items() for text in texts),
    key=lambda row: row[0].prefixlen,
    reverse=True,
)

#: Domains of private networks: RFC 6761, RFC 6762, RFC 8375, and ICANN's resolution of 2024 on `internal`.
_LOCAL_DOMAINS: Final = ("localhost", "local", "home.arpa", "internal")

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_URL: Final = re.compile(r"[A-Za-z]+://([^/?#]*)([^#]*)(?:#.*)?")
_BRACKETS: Final = re.compile(r"\[([^\[\]]*)\](?::(.*))?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
#: What makes a host an IPv4 address to some parser: its last label (WHATWG URL, "ends in a number").
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
#: Letters that IDNA 2003 and IDNA 2008 turn into different names (RFC 5892's deviations; the joiners are unseen).
_AMBIGUOUS: Final = frozenset("ßς")


class UrlRefused(Exception):
    """A URL that we do not call. `rule` is a key of `URL_RULES` or `ADDRESS_RULES`."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{message} (rule: {rule})")
        self.rule = rule
        self.message = message


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator lets the URLs of callers lead to. The default is the public internet, by https."""

    allow_http: bool = False
    #: A port that is not here is not called: 22 and 6379 speak no HTTP, but may act on it.
    ports: frozenset[int] = frozenset({80, 443, 8080, 8443})
    #: Networks that may be called although they are not public. Exactly these, in the family they are written in.
    allowed: tuple[Network, ...] = ()

    def why_not(self, address: Address) -> str | None:
        """Return the rule by which no connection may go to `address`, or None if one may."""
        if any(address in network for network in self.allowed):
            return None
        return why_not_public(address)


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names, in one spelling."""

    scheme: str  # "https" or "http"
    host: str  # ASCII, lower case, no final dot; an IPv6 address without its brackets
    port: int
    path: str  # path and query, as they are sent
    address: Address | None  # where the URL itself says it

    @property
    def origin(self) -> str:
        """Scheme, host and port: what may stand in a log. A path may hold a token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        """The whole, in its one spelling."""
        return self.origin + self.path


def why_not_public(address: Address) -> str | None:
    """Return the rule by which `address` is not on the public internet, or None if it is."""
    rule = next(rule for network, rule in _BY_PREFIX if address in network)
    if not rule and isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return "zone"
        # ISATAP, RFC 5214 section 6.1: 0000:5efe or 0200:5efe, then an IPv4 address, under any prefix.
        if (int(address) >> 32) & 0xFDFF_FFFF == 0x5EFE:
            return "isatap"
    return rule or None


def check_url(text: str, policy: Policy) -> Target:
    """Read a URL that a caller gave. Raises `UrlRefused`.

    A name is not resolved: whoever connects asks `policy.why_not` about every address it has. An IPv4 address
    counts only as four decimal numbers: 127.1, 0x7f000001, 017700000001 and 2130706433 are all one to `inet_aton`,
    and are refused for their spelling, whatever they lead to.
    """
    _refuse_odd_text(text)
    scheme = match[1].lower() if (match := _SCHEME.match(text)) else ""
    if not scheme or (scheme in _DEFAULT_PORTS and not _URL.fullmatch(text)):
        raise _refused("not-a-url")
    if scheme not in _DEFAULT_PORTS or (scheme == "http" and not policy.allow_http):
        raise _refused("scheme")
    authority, path = _URL.fullmatch(text).groups()  # type: ignore[union-attr]  # it matched above
    if "@" in authority:
        raise _refused("userinfo")
    host, port, address = _read_authority(authority, _DEFAULT_PORTS[scheme])
    if port not in policy.ports:
        raise UrlRefused("port", f"the URL is refused: port {port} is not among {sorted(policy.ports)}")
    if address is not None and (rule := policy.why_not(address)) is not None:
        raise UrlRefused(rule, f"the URL is refused: {address} is not a public address")
    if address is None and not policy.allowed and _is_local(host):
        raise _refused("local-name")
    path = quote(path if path.startswith("/") else f"/{path}", safe="/?:@!$&'()*+,;=-._~%[]")
    return Target(scheme, host, port, path, address)


def check_redirect(source: Target, location: str, policy: Policy) -> Target:
    """Read the `Location` of a redirect from `source`, relative or not. Raises `UrlRefused`."""
    _refuse_odd_text(location)  # before it is joined: `urljoin` drops what it does not like
    try:
        text = urljoin(source.url, location)
    except ValueError:  # brackets that are no address
        raise _refused("not-a-url") from None
    return check_url(text, policy)


def _refused(rule: str) -> UrlRefused:
    return UrlRefused(rule, f"the URL is refused: {URL_RULES[rule]}")


def _refuse_odd_text(text: str) -> None:
    if len(text) > URL_LETTERS_MAX:
        raise _refused("too-long")
    if any(unicodedata.category(letter) in _UNSEEN for letter in text):
        raise _refused("character")
    if "\\" in text:
        raise _refused("backslash")


def _read_authority(authority: str, default_port: int) -> tuple[str, int, Address | None]:
    """Return host, port, and the address where the host is one."""
    if brackets := _BRACKETS.fullmatch(authority):
        if "%" in brackets[1]:
            raise _refused("zone")
        try:
            address = ipaddress.IPv6Address(brackets[1])
        except ValueError:
            raise _refused("host") from None
        return str(address), _read_port(brackets[2], default_port), address
    name, colon, port = authority.partition(":")
    host = _read_name(name)
    return host, _read_port(port if colon else None, default_port), _read_ipv4(host)


def _read_port(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not _PORT.fullmatch(text):
        raise _refused("port")
    return int(text)


def _read_name(name: str) -> str:
    """Return a host as the network spells it: compatible forms unfolded, lower case, punycode, no final dot."""
    # NFKC makes ① a 1 and a wide letter a plain one; the ideographic full stop it leaves alone (UTS 46 does not).
    host = unicodedata.normalize("NFKC", name).replace("\u3002", ".").lower().removesuffix(".")
    if not host or len(host) > _HOST_LETTERS_MAX or not _AMBIGUOUS.isdisjoint(host):
        raise _refused("host")
    try:
        host = host.encode("idna").decode("ascii")
    except UnicodeError:
        raise _refused("host") from None
    if len(host) > _HOST_LETTERS_MAX or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise _refused("host")
    return host


def _read_ipv4(host: str) -> ipaddress.IPv4Address | None:
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return None
    try:
        return ipaddress.IPv4Address(host)
    except ValueError:
        raise _refused("address-spelling") from None


def _is_local(host: str) -> bool:
    return "." not in host or host.endswith(tuple(f".{domain}" for domain in _LOCAL_DOMAINS))
