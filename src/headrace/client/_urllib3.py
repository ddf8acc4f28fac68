"""HTTP exchanges over urllib3: open, read, close, with every foreign error made one of ours.

urllib3 finds the way (pools, TLS, proxies) and sends; the body we read ourselves, in big pieces from its socket
(`_body` says why). `_aiohttp` is the same for asyncio. Knows nothing of items.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
from typing import Any, Final

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from headrace.client import errors
from headrace.client._answer import Head, cut, not_http
from headrace.client._body import BadFraming, Body, ChunkedBody, OpenBody, SizedBody
from headrace.client._request import PIECE_BYTES, Patience, Request, Target

#: Idle connections kept to one server. More may be open at once: a pool never makes a stream wait.
_IDLE_CONNECTIONS_MAX: Final = 100


class _LastLine:
    """The file a head is read from; remembers the last line, which must be the blank one."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file
        self.line = b""
        self.close = file.close

    def readline(self, size: int) -> bytes:
        self.line = self.file.readline(size)
        return self.line


class _Answer(http.client.HTTPResponse):
    """The standard library's response, without its one laxness: a head that a cut ends passes for a whole one."""

    fp: Any

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.sock = sock

    def begin(self) -> None:
        watched = _LastLine(self.fp)
        self.fp = watched
        try:
            super().begin()
        except http.client.BadStatusLine:
            if watched.line.endswith(b"\n"):
                raise
        finally:
            if self.fp is watched:
                self.fp = watched.file
        if not watched.line.endswith(b"\n"):
            raise http.client.RemoteDisconnected("the connection ended inside the head of the answer")


class _Http(HTTPConnection):
    """A connection that shows its answer as the standard library sees it, with the socket."""

    answer: _Answer

    def response_class(self, sock: socket.socket, **options: Any) -> _Answer:  # type: ignore[override]
        self.answer = _Answer(sock, **options)
        return self.answer


class _Https(HTTPSConnection):
    """The same over TLS. A handshake that takes too long is a connection that took too long."""

    answer: _Answer
    response_class = _Http.response_class  # type: ignore[assignment]

    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError as error:
            raise exceptions.ConnectTimeoutError(self, "the TLS handshake took too long") from error


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


def new_pool(target: Target) -> urllib3.PoolManager:
    """Return where connections to a server come from: no limit on their number. Safe among threads."""
    options: dict[str, Any] = {"maxsize": _IDLE_CONNECTIONS_MAX, "block": False}
    proxy = target.proxy
    if "https:" in {target.url[:6], proxy.url[:6] if proxy else ""}:
        options["ssl_context"] = ssl.create_default_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR
    if proxy is None:
        pool = urllib3.PoolManager(**options)
    else:
        pool = urllib3.ProxyManager(proxy.url, proxy_headers=proxy.headers, **options)
    pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return pool


class Exchange:
    """One request and its answer. Owns the connection from the head of the answer to its end, or to `close`."""

    def __init__(self, request: Request, response: urllib3.BaseHTTPResponse) -> None:
        connection: Any = response.connection
        self._answer: _Answer = connection.answer
        self._request = request
        self._response = response
        self._is_closed = False
        self.head = Head(
            self._answer.status, {name.lower(): value for name, value in self._answer.headers.items()}
        )
        self._body = self._framing()
        if self._body.is_whole:
            self._release()

    @classmethod
    def open(cls, pool: urllib3.PoolManager, request: Request, patience: Patience, waited_s: float) -> Exchange:
        """Send a request, once, and return with the head of the answer. Raises `HeadraceError`."""
        timeout = urllib3.Timeout(connect=patience.to_connect(waited_s), read=patience.to_read(waited_s))
        try:
            response = pool.urlopen(
                request.method,
                request.url,
                body=request.body,
                headers=dict(request.headers),
                timeout=timeout,
                redirect=False,
                retries=False,
                preload_content=False,
            )
        except exceptions.HTTPError as error:
            raise _typed(error, request, patience, waited_s) from error
        except (OSError, UnicodeError) as error:
            raise errors.ConnectionFailed(f"{request}: {error}") from error
        return cls(request, response)

    def read(self, patience: Patience, waited_s: float) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raises `HeadraceError`."""
        while not self._is_closed:
            data = self._receive(patience, waited_s)
            try:
                payload = self._body.feed(data)
            except BadFraming as error:
                raise not_http(self._request, error) from error
            if self._body.is_whole:
                self._release()
            elif not data:
                self.close()
            if payload:
                return payload
        return b""

    def close(self) -> None:
        """Close the connection, now, whoever may be reading. After a whole answer it is given back already."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            # A thread that is reading holds the file's lock; this wakes it, and tells the server.
            self._answer.sock.shutdown(socket.SHUT_RDWR)
        self._response.close()

    def _framing(self) -> Body:
        if self._answer.chunked:
            return ChunkedBody()
        if self._answer.length is not None:
            return SizedBody(self._answer.length)
        if "content-length" in self.head.headers:
            self._is_closed = True
            self._response.close()
            raise not_http(self._request, "the Content-Length is not a number")
        return OpenBody()

    def _receive(self, patience: Patience, waited_s: float) -> bytes:
        """Return what is there, waiting for it if nothing is; b"" at the end of a body that has no other."""
        try:
            self._answer.sock.settimeout(patience.to_read(waited_s))
            data: bytes = self._answer.fp.read1(PIECE_BYTES)
        except TimeoutError as error:
            raise patience.read_expired(self._request, waited_s, self.head.request_id) from error
        except (OSError, ValueError, AttributeError) as error:
            if self._is_closed:  # by another thread: the file is gone under our hands, and nobody wants the rest
                return b""
            raise cut(self._request, self.head, str(error)) from error
        if not data and not self._is_closed and not isinstance(self._body, OpenBody):
            raise cut(self._request, self.head, "the connection was closed")
        return data

    def _release(self) -> None:
        """Give the connection back for the next request, unless more came than was asked for."""
        if self._body.has_surplus:
            self.close()
            return
        self._is_closed = True
        self._answer.close()
        self._response.release_conn()


def _typed(
    error: exceptions.HTTPError, request: Request, patience: Patience, waited_s: float
) -> errors.HeadraceError:
    """Say in our words what kept an answer from beginning."""
    where = ""
    cause: BaseException = error
    if isinstance(error, exceptions.ProxyError):
        where = "through the proxy: "
        cause = error.original_error
    if isinstance(cause, exceptions.ConnectTimeoutError) and not isinstance(cause, exceptions.NewConnectionError):
        return patience.connect_expired(request, waited_s)
    if isinstance(cause, exceptions.ReadTimeoutError):
        return patience.read_expired(request, waited_s)
    if isinstance(cause, (exceptions.ProtocolError, exceptions.SSLError)):
        is_tls = isinstance(cause, exceptions.SSLError)
        cause = next((part for part in reversed(cause.args) if isinstance(part, BaseException)), cause)
        if is_tls and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return errors.TLSFailed(f"{request}: {where}{cause}")
        if isinstance(cause, TimeoutError):
            limit = patience.to_connect(waited_s)
            return errors.ReadTimeout(f"{request}: the server did not take it within {limit:g} s", timeout=limit)
    if isinstance(cause, exceptions.NewConnectionError):  # its own text names our connection class
        cause = cause.__cause__ or cause
    if isinstance(cause, (OSError, exceptions.NewConnectionError)):
        return errors.ConnectionFailed(f"{request}: {where}{cause}")
    return not_http(request, cause)
