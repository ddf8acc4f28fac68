"""GET what the URL in a caller's input names: a few redirects, each judged like the first URL; a bounded body."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from headrace.core.netguard import check_redirect, check_url
from headrace.outbound.exchange import Answer, Call, CallFailed, Outbound, Patience

#: Redirects of one fetch. What serves files needs one or two: to https, and to a store.
REDIRECTS_MAX: Final = 3

#: Those with a `Location` to GET (RFC 9110 section 15.4).
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class FetchPatience:
    """How long one fetch may take, in seconds, redirects and the whole body included."""

    total_s: float = 60.0
    each: Patience = field(default_factory=Patience)


@contextlib.asynccontextmanager
async def fetched(outbound: Outbound, url: str, patience: FetchPatience) -> AsyncIterator[Answer]:
    """Give the answer to a GET of `url`, whatever its status but a redirect; read its `pieces` in the block.

    Raises `UrlRefused` for a URL, first or later, that must not be called, and `CallFailed`.
    """
    deadline = asyncio.get_running_loop().time() + patience.total_s
    target = check_url(url, outbound.policy)
    for _ in range(1 + REDIRECTS_MAX):
        async with outbound.call(Call("GET", target, {}), patience.each, deadline) as answer:
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    raise CallFailed("encoded", f"{target.origin}: the answer is compressed, unasked")
                yield answer
                return
        target = check_redirect(target, location, outbound.policy)
    raise CallFailed("redirects", f"{target.origin}: more than {REDIRECTS_MAX} redirects")
