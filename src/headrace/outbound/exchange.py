"""One guarded request and its answer, over a connection of its own.

A connection is never used twice: the next call asks for the name's addresses again, and is judged again. Time and
bytes are bounded here; redirects are not followed. Knows nothing of webhooks or files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, Literal, TypeAlias

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from headrace.core.netguard import Policy, Target
from headrace.outbound.resolver import Lookup, Pinned, SystemLookup, resolve

#: Bytes that aiohttp reads ahead of us.
_READ_AHEAD_BYTES: Final = 64 * 1024

_HEADERS: Final = {
    # Compressed, a small answer could be a large one; nobody here unpacks any.
    "Accept-Encoding": "identity",
    "User-Agent": f"headrace/{version('headrace')}",
}

#: What can go wrong on the way. None of it says anything about another try.
Kind: TypeAlias = Literal[
    "lookup", "connect", "tls", "timeout", "http", "cut", "too-large", "encoded", "redirects"
]


class CallFailed(Exception):
    """A call that brought no answer, or not the whole of it."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take, in seconds. The total is the caller's, who may make several."""

    connect_s: float = 10.0  # from the first packet to the end of the TLS handshake
    idle_s: float = 30.0  # without a byte


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked for."""

    method: str
    target: Target
    headers: Mapping[str, str]
    body: bytes | None = None


class Answer:
    """The head of an answer, and its body piece by piece."""

    def __init__(self, target: Target, response: aiohttp.ClientResponse, deadline: float) -> None:
        self.target = target
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._deadline = deadline

    async def pieces(self, bytes_max: int) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises `CallFailed`: too large, too slow, or cut before its end."""
        if (self._response.content_length or 0) > bytes_max:
            raise self._too_large(bytes_max)
        taken = 0
        while piece := await self._read():
            taken += len(piece)
            if taken > bytes_max:
                raise self._too_large(bytes_max)
            yield piece

    async def _read(self) -> bytes:
        with _translated(self.target):
            async with asyncio.timeout_at(self._deadline):
                return await self._response.content.readany()

    def _too_large(self, bytes_max: int) -> CallFailed:
        return CallFailed("too-large", f"{self.target.origin}: the answer has more than {bytes_max} bytes")


class Outbound:
    """The way out, under one policy. Holds no connection, so there is nothing to close."""

    def __init__(self, policy: Policy, *, lookup: Lookup | None = None, tls: ssl.SSLContext | None = None) -> None:
        """`tls` says whom to trust; by default the system's roots, or what `SSL_CERT_FILE` names."""
        self.policy = policy
        self._lookup = SystemLookup() if lookup is None else lookup
        self._tls = ssl.create_default_context() if tls is None else tls

    @contextlib.asynccontextmanager
    async def call(self, call: Call, patience: Patience, deadline: float) -> AsyncIterator[Answer]:
        """Send one request, once; give the answer, and close its connection, however the block ends.

        `deadline` is a time of the running loop's clock, for everything up to the last piece. Raises `UrlRefused`
        when the name leads where the policy forbids, and `CallFailed`.
        """
        target = call.target
        async with contextlib.AsyncExitStack() as stack:
            with _translated(target):
                async with asyncio.timeout_at(deadline):
                    try:
                        addresses = await resolve(target, self.policy, self._lookup)
                    except OSError as error:
                        raise CallFailed("lookup", f"{target.origin}: {error.strerror or error}") from error
                    session = await stack.enter_async_context(
                        self._session(Pinned(target.host, addresses), patience)
                    )
                    response = await session.request(
                        call.method,
                        URL(target.url, encoded=True),
                        data=call.body,
                        headers={**_HEADERS, **call.headers},
                        allow_redirects=False,
                    )
            stack.callback(response.close)
            yield Answer(target, response, deadline)

    def _session(self, pinned: Pinned, patience: Patience) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=pinned,
                socket_factory=pinned.socket_to,
                use_dns_cache=False,
                force_close=True,
                ssl=self._tls,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=patience.connect_s, sock_read=patience.idle_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # neither proxies nor netrc
            read_bufsize=_READ_AHEAD_BYTES,
        )


@contextlib.contextmanager
def _translated(target: Target) -> Iterator[None]:
    """Make every error of the way a `CallFailed`, without the path, which may hold a token."""
    try:
        yield
    except CallFailed:
        raise
    except TimeoutError as error:
        raise CallFailed("timeout", f"{target.origin}: took too long") from error
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise CallFailed("tls", f"{target.origin}: {error}") from error
    except aiohttp.ClientPayloadError as error:
        raise CallFailed("cut", f"{target.origin}: the answer was cut before its end") from error
    except (aiohttp.ClientResponseError, HttpProcessingError, ValueError) as error:
        raise CallFailed("http", f"{target.origin}: what came back is not HTTP") from error
    except (aiohttp.ClientError, OSError) as error:
        # Not the error's own words: they name the address, which may be inside an allowed network.
        errno = error.errno if isinstance(error, OSError) else None
        why = os.strerror(errno) if errno else "the connection could not be made, or was lost"
        raise CallFailed("connect", f"{target.origin}: {why}") from error
