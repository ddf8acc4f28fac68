"""Which proxy the environment names for a server: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY (either case).

Read here, once for both shells: urllib3 does not look, and aiohttp's own look adds passwords from `~/.netrc` to
requests that should carry none, in a thread of its own for each.
"""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

_SCHEMES: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's address without its password, and the headers that carry it."""

    url: str
    headers: Mapping[str, str] = field(repr=False)


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy to a server, or None. Raises `ValueError` for one that is neither http nor https."""
    target = urlsplit(url)
    named = urllib.request.getproxies()
    address = named.get(target.scheme) or named.get("all")
    if not address or urllib.request.proxy_bypass(target.netloc.rpartition("@")[2]):
        return None
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError(
            f"the environment's proxy for {target.scheme} is {parts.scheme}://…; expected http:// or https://"
        )
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["proxy-authorization"] = f"Basic {base64.b64encode(login).decode()}"
    return Proxy(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", "")), headers)
