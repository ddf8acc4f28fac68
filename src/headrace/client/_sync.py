"""`Client` and `Stream`: the SDK for programs without asyncio.

A thin shell. What is sent and what an answer means stands in `_request` and `_answer`, the connection in
`_urllib3`; here is only the order of things. `_async` has the same shape, and a test compares the two.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Never, Self

import urllib3

from headrace.client import errors
from headrace.client._answer import (
    ERROR_BODY_BYTES_MAX,
    ERROR_BODY_WAIT_S,
    RESULT_BYTES_MAX,
    Items,
    api_error,
    check_stream,
    is_success,
    result_of,
    result_too_large,
)
from headrace.client._request import (
    CONNECT_TIMEOUT_S,
    STREAM_TYPE,
    Patience,
    Request,
    Target,
    build,
    build_get,
    refuse_options,
)
from headrace.client._sync_queue import QueueCalls
from headrace.client._urllib3 import Exchange, new_pool


class Client(QueueCalls):
    """Calls the endpoints of one server. Safe among threads; make one and keep it.

    - `url`: the server's address; by default HEADRACE_URL, FAL_RUN_HOST (https), `http://127.0.0.1:8080`
    - `key`: by default HEADRACE_KEY, FAL_KEY, FAL_KEY_ID with FAL_KEY_SECRET, the credentials file; none is fine
      for a server that wants none
    - `timeout`: seconds without a byte after which a call gives up, where the call names none; None: never
    - `connect_timeout`: seconds to a connection

    Raises `ValueError` for an address, a proxy or a key that cannot be one, `BadCredentials` for a damaged
    credentials file. No stream and no run is ever sent twice, and no redirect is followed.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float | None = None,
        connect_timeout: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Bind to a server; nothing is sent, and connections are made when they are needed."""
        self._target = Target.resolve(url, key)
        self._default = Patience(connect_timeout, timeout)
        self._connections: urllib3.PoolManager | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._target.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return self._target.url

    def close(self) -> None:
        """Close idle connections. Open streams go on; the client can be used again."""
        with self._lock:
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.clear()

    def stream(
        self,
        application: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        path: str = "/stream",
        timeout: float | None = None,
        event_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        **refused: Never,
    ) -> Stream:
        """Return the items that an endpoint yields, each as soon as it is made.

            for item in client.stream("me/hello", {"name": "Ada"}):
                print(item)

        Nothing is sent before the first iteration. Leaving the loop closes the connection, and the server stops
        the work.

        - `application`: "owner/alias" or "owner/alias/path"
        - `arguments`: a JSON object
        - `path`: joined to the id; the stream views are at "/stream". "" is the id itself
        - `timeout`: seconds without a byte; heartbeats count. By default the client's
        - `event_timeout`: seconds without an event; heartbeats do not count
        - `headers`: sent with the rest, and over them

        Raises `TypeError` or `ValueError` here for what cannot be sent; while iterating, `APIError` before the
        first item, `StreamError` or `StreamCut` after any, and the rest of `headrace.client.errors`.
        """
        refuse_options(refused)
        request = build(self._target, application, arguments, path=path, headers=headers, accept=STREAM_TYPE)
        return Stream(self, request, self._patience(timeout, event_timeout))

    def run(
        self,
        application: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        path: str = "",
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call an endpoint and return its result, the JSON of the answer.

        The parameters are those of `stream`. Raises what `stream` raises, but `StreamError` and `EventTimeout`.
        """
        return self._call("POST", application, arguments, path=path, timeout=timeout, headers=headers)

    def _call(
        self,
        method: str,
        application: str,
        arguments: Mapping[str, Any] | None,
        *,
        path: str,
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> Any:
        request = build(self._target, application, arguments, path=path, headers=headers, method=method)
        return self._fetch(request, self._patience(timeout))

    def _get_json(self, path: str) -> Any:
        """Return the JSON of one of the server's own pages, such as `/v1/apps`."""
        return self._fetch(build_get(self._target, path), self._default)

    def _patience(self, timeout: float | None, event_timeout: float | None = None) -> Patience:
        return Patience(
            self._default.connect_s, self._default.bytes_s if timeout is None else timeout, event_timeout
        )

    def _fetch(self, request: Request, patience: Patience) -> Any:
        began = time.monotonic()
        exchange = self._open(request, patience, 0.0)
        try:
            body = bytearray()
            while piece := exchange.read(patience, time.monotonic() - began):
                body += piece
                if len(body) > RESULT_BYTES_MAX:
                    raise result_too_large(request, exchange.head)
        finally:
            exchange.close()
        return result_of(request, exchange.head, bytes(body))

    def _open(self, request: Request, patience: Patience, waited_s: float) -> Exchange:
        """Send a request; return once the head of its answer says success. Raises `HeadraceError`."""
        with self._lock:
            if self._connections is None:
                self._connections = new_pool(self._target)
            connections = self._connections
        exchange = Exchange.open(connections, request, patience, waited_s)
        if is_success(exchange.head):
            return exchange
        try:
            body = _error_body(exchange)
        finally:
            exchange.close()
        raise api_error(self._target, request, exchange.head, body)


class Stream:
    """The items of one stream: an iterator of dicts, and a context manager that closes it.

    `request_id`, `status_code` and `headers` are there from the first item on, or from the error that came in its
    place; None and empty before.
    """

    def __init__(self, client: Client, request: Request, patience: Patience) -> None:
        """Made by `Client.stream`."""
        self.request_id: str | None = None
        self.status_code: int | None = None
        self.headers: Mapping[str, str] = {}
        self._client = client
        self._request = request
        self._patience = patience
        self._exchange: Exchange | None = None
        self._items: Items | None = None
        self._ready: Iterator[dict[str, Any]] = iter(())
        self._is_over = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._request}, request {self.request_id}>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        for item in self._ready:
            return item
        try:
            self._ready = iter(self._receive())
        except BaseException:
            self.close()
            raise
        for item in self._ready:
            return item
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the stream: the connection is closed at once, and the iteration ends. Safe from any thread."""
        self._is_over = True
        self._ready = iter(())
        if self._exchange is not None:
            self._exchange.close()

    def _receive(self) -> list[dict[str, Any]]:
        """Wait for items and return those that came; none at the end. Raises `HeadraceError`."""
        began = time.monotonic()
        while not self._is_over:
            exchange, items = self._opened(began)
            if items.failure is not None:
                raise items.failure
            data = exchange.read(self._patience, time.monotonic() - began)
            if not data:
                if not self._is_over:  # or close() was called from elsewhere
                    items.end()
                self._is_over = True
            elif ready := items.feed(data):
                return ready
        return []

    def _opened(self, began: float) -> tuple[Exchange, Items]:
        if self._exchange is None or self._items is None:
            try:
                self._exchange = self._client._open(self._request, self._patience, time.monotonic() - began)  # noqa: SLF001
            except errors.APIError as error:
                self._told(error.status_code, error.response_headers, error.request_id)
                raise
            if self._is_over:  # close() was called from elsewhere meanwhile
                self._exchange.close()
            head = self._exchange.head
            self._told(head.status, head.headers, head.request_id)
            check_stream(self._request, head)
            self._items = Items(self._request, head)
        return self._exchange, self._items

    def _told(self, status: int, headers: Mapping[str, str], request_id: str | None) -> None:
        self.status_code, self.headers, self.request_id = status, headers, request_id


def _error_body(exchange: Exchange) -> bytes:
    """Return the body of an HTTP error, or what came of it in reasonable time: the status alone is enough."""
    until = time.monotonic() + ERROR_BODY_WAIT_S
    body = b""
    with suppress(errors.HeadraceError):
        while len(body) < ERROR_BODY_BYTES_MAX and (left := until - time.monotonic()) > 0:
            piece = exchange.read(Patience(left, left), 0.0)
            if not piece:
                break
            body += piece
    return body
