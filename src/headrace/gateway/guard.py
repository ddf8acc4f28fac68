"""What is refused before a request is looked at: decisions over the head of a request, as values.

httptools refuses broken framing and smuggling (both `Content-Length` and `Transfer-Encoding`, folded headers,
bare LF) by itself; it takes a missing or doubled `Host`, other people's hosts, and headers of any size. These
are refused here. Nothing here reads a socket.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.core.errors import RequestError
from headrace.core.limits import Limits

_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


@functools.lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine (RFC 6761, section 6.3)."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules for the head of a request.

    A server bound to loopback answers to loopback names alone, whoever asks: a page that rebinds its DNS name
    to 127.0.0.1 sends its own name as `Host`. `allowed_hosts` adds names; with any other bind and no list,
    every name is good, since we cannot know ours.
    """

    limits: Limits
    loopback_only: bool
    allowed_hosts: frozenset[str] = frozenset()

    def check_header_size(self, line_bytes: int, total_bytes: int, count: int) -> None:
        """Refuse a header line, or all of them so far, over the limits (RFC 6585, section 5)."""
        limits = self.limits
        if line_bytes > limits.header_bytes_max or total_bytes > limits.headers_bytes_max:
            raise RequestError(
                "request_header_fields_too_large",
                f"A header may have {limits.header_bytes_max} bytes, all of them {limits.headers_bytes_max}.",
            )
        if count > limits.headers_max:
            raise RequestError(
                "request_header_fields_too_large", f"A request may have {limits.headers_max} headers."
            )

    def check_target_size(self, target_bytes: int) -> None:
        """Refuse a path and query over the limit (RFC 9110, section 15.5.15)."""
        if target_bytes > self.limits.target_bytes_max:
            raise RequestError("uri_too_long", f"A path and query may have {self.limits.target_bytes_max} bytes.")

    def check_pipeline(self, waiting: int) -> None:
        """Refuse one request too many that was sent before earlier ones were answered."""
        if waiting >= self.limits.pipelined_max:
            raise RequestError("bad_request", f"At most {self.limits.pipelined_max} requests may be pipelined.")

    def check_head(self, target: bytes, http_version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Refuse a head whose target or `Host` is not for us (RFC 9112, section 3.2). Names are lower-case."""
        if not target.startswith(b"/"):
            raise RequestError("bad_request", "The request target must be a path, beginning with '/'.")
        hosts = [value for name, value in headers if name == b"host"]
        if not hosts and http_version == "1.0":
            return
        if len(hosts) != 1:
            raise RequestError(
                "bad_request", f"A request needs exactly one Host header; this one has {len(hosts)}."
            )
        match = _HOST.fullmatch(hosts[0].strip())
        if match is None:
            raise RequestError("bad_request", "The Host header is not a host with an optional port.")
        self._check_name(match[1].decode("ascii").lower())

    def _check_name(self, name: str) -> None:
        if name in self.allowed_hosts or (not self.loopback_only and not self.allowed_hosts):
            return
        if self.loopback_only and is_loopback(name):
            return
        raise RequestError("bad_request", f"This server does not answer to the host {name!r}.")
