"""`/fal/proxy`: the convention of fal's JavaScript client for calls that go by a server (protocol section 14).

The client sends every call to this one URL and names the real one in `x-fal-target-url`. Official proxies fetch
that URL; we are what it names, so nothing is ever fetched: the host is compared and the path dispatched here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from headrace.core.errors import RequestError
from headrace.core.stored_file import PATH as FILES

PATH: Final = "/fal/proxy"
TARGET: Final = "x-fal-target-url"

#: The host of a target, and what stands in front of its path on this server.
_PREFIXES: Final[Mapping[str, str]] = {"fal.run": "", "queue.fal.run": "/queue", "rest.fal.ai": ""}


def path_for(host: str, path: str) -> str:
    """Return the path on this server of a request to `host`, its Host header: `queue.` names bring a prefix.

    Not to a file, whose address is on the host that its request came to, nor to one that is sent.
    """
    is_files = path.startswith((FILES, "/storage/"))
    return "/queue" + path if is_queue_host(host) and not is_files else path


def is_queue_host(host: str) -> bool:
    """Whether a Host header names the queue, as `queue.fal.run` does."""
    return host.lower().startswith("queue.")


def target_of(headers: Mapping[str, str]) -> tuple[str, str]:
    """Return the path and query on this server that a proxied call is for.

    Raises `RequestError`: 400 without a target, 412 for one that is not ours to answer, as fal's recipe has it.
    """
    url = headers.get(TARGET)
    if url is None:
        raise RequestError("bad_request", f"A call to {PATH} names its target in the header {TARGET}.")
    try:
        parts = urlsplit(url)
        has_more = parts.username is not None or parts.port not in {None, 443}
    except ValueError:
        raise _refused(url) from None
    # The exact host, never a suffix: `evilfal.run` ends in `fal.run` too.
    prefix = _PREFIXES.get((parts.hostname or "").lower())
    if prefix is None or parts.scheme != "https" or has_more:
        raise _refused(url)
    return prefix + (unquote(parts.path) or "/"), parts.query


def _refused(url: str) -> RequestError:
    hosts = " and ".join(f"https://{host}" for host in _PREFIXES)
    return RequestError("bad_request", f"The target {url[:200]!r} is not on {hosts}.", status=412)
