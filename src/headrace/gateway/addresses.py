"""By what address a client knows this server: for same-origin checks and for the URLs we give out.

`--public-url` wins. Else it is the scheme and Host of the request itself, or what a proxy says they were
(`X-Forwarded-Proto`, `X-Forwarded-Host`), if that proxy is one the operator trusts: anybody can write headers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from headrace.gateway.answers import Scope

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Addresses:
    """How to tell our own address from a request."""

    public_url: str | None = None
    trusted_proxies: tuple[Network, ...] = ()

    def own(self, scope: Scope, headers: Mapping[str, str]) -> str:
        """Return our base URL as this client knows it, without a slash at its end."""
        if self.public_url is not None:
            return self.public_url
        scheme, host = str(scope["scheme"]), headers.get("host", "localhost")
        if self._is_trusted(scope):
            scheme = _last(headers.get("x-forwarded-proto")) or scheme
            host = _last(headers.get("x-forwarded-host")) or host
        return f"{scheme}://{host}"

    def _is_trusted(self, scope: Scope) -> bool:
        client = scope.get("client")
        if not self.trusted_proxies or client is None:
            return False
        try:
            peer = ipaddress.ip_address(client[0])
        except ValueError:
            return False
        return any(peer in network for network in self.trusted_proxies)


def _last(value: str | None) -> str | None:
    """Return the last of a list in a header: what the nearest proxy wrote itself."""
    return value.rpartition(",")[2].strip() if value else None
