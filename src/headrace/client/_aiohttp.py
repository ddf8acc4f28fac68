"""HTTP exchanges over aiohttp: open, read, close, with every foreign error made one of ours.

The asyncio twin of `_urllib3`. aiohttp finds the way and takes the chunks out (in C); its own ideas of time are
off, for they would end a stream after five minutes. Knows nothing of items.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from headrace.client import errors
from headrace.client._answer import Head, cut, not_http
from headrace.client._request import PIECE_BYTES, Patience, Pieces, Request, Target

#: Bytes of a header line, as many as the sync shell takes.
_LINE_BYTES_MAX: Final = 64 * 1024


class Sessions:
    """One aiohttp session for each event loop, closed when its loop ends.

    aiohttp binds connections to the loop they were made in, and complains of those nobody closed. So each
    session is held by an asynchronous generator: the loop itself finishes those before it ends
    (`loop.shutdown_asyncgens`, which `asyncio.run` calls), and so it does when the client is collected earlier.
    """

    def __init__(self, target: Target) -> None:
        self.proxy = target.proxy
        self._target = target
        self._by_loop: dict[
            asyncio.AbstractEventLoop, tuple[AsyncGenerator[aiohttp.ClientSession, None], aiohttp.ClientSession]
        ] = {}

    async def get(self) -> aiohttp.ClientSession:
        """Return the session of the running loop."""
        loop = asyncio.get_running_loop()
        if (held := self._by_loop.get(loop)) is None or held[1].closed:
            self._by_loop = {other: held for other, held in self._by_loop.items() if not other.is_closed()}
            holder = _hold_session(self._target)
            held = self._by_loop[loop] = holder, await anext(holder)
        return held[1]

    async def close(self) -> None:
        """Close the session of the running loop."""
        if held := self._by_loop.pop(asyncio.get_running_loop(), None):
            await held[0].aclose()


async def _hold_session(target: Target) -> AsyncGenerator[aiohttp.ClientSession, None]:
    proxy = target.proxy
    is_tls = "https:" in {target.url[:6], proxy.url[:6] if proxy else ""}
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            # Made anew, so that SSL_CERT_FILE and SSL_CERT_DIR are read now and not when aiohttp was imported.
            ssl=ssl.create_default_context() if is_tls else True,
        ),
        response_class=_Response,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,  # see _proxy
        max_line_size=_LINE_BYTES_MAX,
        max_field_size=_LINE_BYTES_MAX,
        read_bufsize=PIECE_BYTES,
    )
    try:
        yield session
    finally:
        await session.close()


class _Response(aiohttp.ClientResponse):
    """aiohttp's, which drops its connection when it is closed before its end.

    aiohttp's own farewell waits until the server has taken what was written, and the one of TLS for the server's.
    """

    def close(self) -> None:
        connection = self.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        super().close()


class Exchange:
    """One request and its answer. Owns the connection from the head of the answer to its end, or to `close`."""

    def __init__(self, request: Request, response: aiohttp.ClientResponse) -> None:
        self.head = Head(response.status, {name.lower(): value for name, value in response.headers.items()})
        self._request = request
        self._response = response
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        if response.connection is not None and (protocol := response.connection.protocol) is not None:
            # From here on `read` watches the time, and only while somebody waits.
            protocol.read_timeout = None
            protocol.start_timeout()
            _tell_reader_of_the_end(protocol, response.content)

    @classmethod
    async def open(cls, sessions: Sessions, request: Request, patience: Patience, waited_s: float) -> Exchange:
        """Send a request, once, and return with the head of the answer. Raises `HeadraceError`."""
        session = await sessions.get()
        connect_s, read_s = patience.to_connect(waited_s), patience.to_read(waited_s)
        proxy, headers = sessions.proxy, request.headers
        if proxy is not None and request.url.startswith("http:"):
            # Of a request that is no tunnel, the proxy reads the head itself; aiohttp leaves it as it is.
            headers = {**headers, **proxy.headers}
        body = request.body
        try:
            async with asyncio.timeout(None) as clock:
                response = await session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    data=body if body is None or isinstance(body, bytes) else _watched(body, clock, read_s),
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=connect_s, sock_read=read_s),
                    proxy=None if proxy is None else proxy.url,
                    proxy_headers=None if proxy is None else proxy.headers,
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            is_reworded = _words(error, request) != str(error)  # a key was in it: no traceback tells that either
            raise _typed(error, request, patience, waited_s) from (error.__cause__ if is_reworded else error)
        return cls(request, response)

    async def read(self, patience: Patience, waited_s: float) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raises `HeadraceError`."""
        content = self._response.content
        try:
            limit = patience.to_read(waited_s)
            if limit is None:
                return await content.readany()
            async with asyncio.timeout(limit):
                return await content.readany()
        except TimeoutError as error:
            raise patience.read_expired(self._request, waited_s, self.head.request_id) from error
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            if self._is_closed:  # by another task: nobody wants the rest
                return b""
            # aiohttp tells of a cut before it hands over what came before it: we want that first.
            if rest := content._read_nowait(-1):  # noqa: SLF001
                return rest
            if isinstance(error, HttpProcessingError):
                raise not_http(self._request, error.message) from error
            raise cut(self._request, self.head, str(error)) from error

    def close(self) -> None:
        """Close the connection, now. After a whole answer it is given back already."""
        self._is_closed = True
        if _is_running(self._loop):
            self._response.close()
            return
        with suppress(RuntimeError):  # of a loop that is closed, or closes meanwhile
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._response.close)
                return
            # The session closed the socket with the loop; this tells aiohttp's objects, which would complain.
            self._response.close()
            if self._response.connection is not None:
                self._response.connection.close()


async def _watched(body: Pieces, clock: asyncio.Timeout, limit_s: float | None) -> AsyncIterator[bytes]:
    """Hand over a body's pieces, and set the clock for each: aiohttp has none while it sends."""
    loop = asyncio.get_running_loop()
    async for piece in body:  # what it raises, a RuntimeError too, is the caller's own
        if not _set(clock, None if limit_s is None else loop.time() + limit_s):
            return
        yield piece
    _set(clock, None)


def _set(clock: asyncio.Timeout, when: float | None) -> bool:
    """Set a clock; False for one that stands, for the answer is there already."""
    try:
        clock.reschedule(when)
    except RuntimeError:
        return False
    return True


def _tell_reader_of_the_end(protocol: ResponseHandler, content: aiohttp.StreamReader) -> None:
    """Fail a read whose connection is gone. After chunks that are none, aiohttp closes and leaves it waiting."""
    closed = protocol.closed
    if closed is None or content.is_eof():
        return

    def tell(future: asyncio.Future[None]) -> None:
        future.exception()  # seen
        if not content.is_eof() and content.exception() is None:
            content.set_exception(protocol.exception() or aiohttp.ClientPayloadError("the connection was closed"))

    def forget() -> None:
        closed.remove_done_callback(tell)

    closed.add_done_callback(tell)
    content.on_eof(forget)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _typed(error: Exception, request: Request, patience: Patience, waited_s: float) -> errors.HeadraceError:
    """Say in our words what kept an answer from beginning."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return patience.connect_expired(request, waited_s)
    if isinstance(error, TimeoutError):
        return patience.read_expired(request, waited_s)
    words = _words(error, request)
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return errors.TLSFailed(f"{request}: {words}")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return errors.ConnectionFailed(f"{request}: through the proxy: {error.status} {error.message}")
    if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
        return errors.ConnectionFailed(f"{request}: {words}")
    return not_http(request, words)


def _words(error: Exception, request: Request) -> str:
    """Return what an error says without the query of the URL, which some of aiohttp's tell: it can be a key."""
    _, mark, query = request.url.partition("?")
    return str(error).replace(mark + query, "") if query else str(error)
