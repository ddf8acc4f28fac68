"""`Client`: the SDK for programs without asyncio.

A thin shell. What is sent and what an answer means stands in `_request` and `_answer`, the connection in
`_urllib3`, what it makes of a stream in `_sync_stream`; here is only the order of things. `_async` has the same
shape, and a test compares the two.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Never, Self

import urllib3

from headrace.client import errors
from headrace.client._answer import (
    ERROR_BODY_BYTES_MAX,
    ERROR_BODY_WAIT_S,
    RESULT_BYTES_MAX,
    api_error,
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
    build_own,
    refuse_options,
)
from headrace.client._resume import attached, begun
from headrace.client._sync_files import FileCalls
from headrace.client._sync_queue import QueueCalls
from headrace.client._sync_stream import Stream
from headrace.client._urllib3 import Exchange, new_pool


class Client(QueueCalls, FileCalls):
    """Calls the endpoints of one server. Safe among threads; make one and keep it.

    - `url`: the server's address; by default HEADRACE_URL, FAL_RUN_HOST (https), `http://127.0.0.1:8080`
    - `key`: by default HEADRACE_KEY, FAL_KEY, FAL_KEY_ID with FAL_KEY_SECRET, the credentials file; none is fine
      for a server that wants none
    - `timeout`: seconds without a byte after which a call gives up, where the call names none; None: never
    - `connect_timeout`: seconds to a connection

    Raises `ValueError` for an address, a proxy or a key that cannot be one, `BadCredentials` for a damaged
    credentials file. No run is ever sent twice, nor a stream unless it is to be resumed; no redirect is followed.
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
        resume: bool = False,
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
        - `resume`: whether a lost connection is made again, so that the loop goes on with the next item, none lost
          and none twice. For a Headrace server; the request is started once, and goes on for 30 s without us.
          Leaving on purpose still stops it. Without a `timeout`, 45 s without a byte count as a loss

        Raises `TypeError` or `ValueError` here for what cannot be sent; while iterating, `APIError` before the
        first item, `StreamError` or `StreamCut` after any, and the rest of `headrace.client.errors`.
        """
        refuse_options(refused)
        patience = self._patience(timeout, event_timeout)
        if resume:
            key = str(uuid.uuid4())
            resumption = begun(
                self._target, application, arguments, idempotency_key=key, path=path, headers=headers
            )
            return Stream(self, resumption.request, patience, resumption)
        request = build(self._target, application, arguments, path=path, headers=headers, accept=STREAM_TYPE)
        return Stream(self, request, patience)

    def attach(
        self,
        application: str,
        request_id: str,
        *,
        after: str | None = None,
        resume: bool = True,
        timeout: float | None = None,
        event_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Stream:
        """Return the items of a request that somebody began, this program or another, from the first one on.

        It can be watched while it waits or runs, and for a while after. Leaving the loop does not stop a queued
        request. When a queued one begins again, there is an item `{"type": "rollback", "attempt": n}`: what came
        before it does not count.

        - `application`: "owner/alias"; a path behind it says nothing here
        - `request_id`: from `submit`, or `request_id` of a stream
        - `after`: the id of an event; the items behind it are returned, none if there will be no more
        - `resume`: whether a lost connection is made again, as for `stream`
        - `timeout`, `event_timeout`, `headers`: as for `stream`

        Raises what `stream` raises: `NotFound` for a request that is unknown, or another key's; `APIError` with
        the status 412 where the items behind `after` are not kept any more.
        """
        resumption = attached(self._target, application, request_id, after=after, resumes=resume, headers=headers)
        return Stream(self, resumption.request, self._patience(timeout, event_timeout), resumption)

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

    def _call_json(self, method: str, path: str) -> Any:
        """Return the JSON of one of the server's own pages, such as `/v1/apps`."""
        return self._fetch(build_own(self._target, method, path), self._default)

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
