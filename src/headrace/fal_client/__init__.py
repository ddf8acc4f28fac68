"""fal-client's names for run, stream, the queue and files, over this SDK: `from headrace import fal_client`.

The signatures are those of fal-client 1.0.3. What differs is what it did wrong or could not say: a failed stream
raises a `FalClientError` and not an error of some HTTP library, an error event is raised and not yielded, plain
http works, a key may be absent, no run is sent twice (fal's tries up to ten times), and a submit that is sent
again carries an `Idempotency-Key`. A queued request is followed as there: the status is asked for at each
interval, and has all log lines so far. Files go to the same server, whatever repository is named.

The server and the key are looked up at the first call, as `headrace.client.credentials` says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

from headrace.client._async import AsyncClient as _AsyncClient
from headrace.client._async_queue import AsyncRequestHandle as _AsyncRequestHandle
from headrace.client._content import encode_file, encode_image
from headrace.client._queue import INTERVAL_S as _INTERVAL_S
from headrace.client._queue import Completed, InProgress, Queued, Status
from headrace.client._queue import Priority as _Priority
from headrace.client._queue import with_options as _with_options
from headrace.client._storage import (
    ObjectExpiration,
    StorageACL,
    StorageACLDecision,
    StorageACLRule,
    StorageSettings,
    encode,
)
from headrace.client._sync import Client as _Client
from headrace.client._sync_queue import SyncRequestHandle as _SyncRequestHandle
from headrace.client.errors import APIError, HeadraceError, Timeout
from headrace.fal_client._files import AsyncFileCalls as _AsyncFileCalls
from headrace.fal_client._files import FileCalls as _FileCalls

__all__ = [
    "AsyncClient",
    "AsyncRequestHandle",
    "Completed",
    "FalClientError",
    "FalClientHTTPError",
    "FalClientTimeoutError",
    "InProgress",
    "ObjectExpiration",
    "Queued",
    "Status",
    "StorageACL",
    "StorageACLDecision",
    "StorageACLRule",
    "StorageSettings",
    "SyncClient",
    "SyncRequestHandle",
    "__version__",
    "async_client",
    "cancel",
    "cancel_async",
    "encode",
    "encode_file",
    "encode_image",
    "result",
    "result_async",
    "run",
    "run_async",
    "status",
    "status_async",
    "stream",
    "stream_async",
    "submit",
    "submit_async",
    "subscribe",
    "subscribe_async",
    "sync_client",
    "upload",
    "upload_async",
    "upload_file",
    "upload_file_async",
    "upload_image",
    "upload_image_async",
    "version_tuple",
]

#: The version of fal-client whose surface this is.
__version__ = "1.0.3"
version_tuple = (1, 0, 3)

FalClientError = HeadraceError
#: Has `status_code`, `message`, `error_type` and `response_headers`, as in fal-client.
FalClientHTTPError = APIError
#: A builtin `TimeoutError` with `timeout` and `request_id`, as in fal-client.
FalClientTimeoutError = Timeout


class SyncRequestHandle(_SyncRequestHandle):
    """fal-client's handle: `iter_events` yields the status at each interval, with all log lines so far.

    The rest is as in `headrace.SyncRequestHandle`. `client` is the `headrace.Client` below a `SyncClient`.
    """

    __slots__ = ()
    _tells_changes: ClassVar[bool] = False


class AsyncRequestHandle(_AsyncRequestHandle):
    """fal-client's handle for asyncio; see `SyncRequestHandle`."""

    __slots__ = ()
    _tells_changes: ClassVar[bool] = False


class _Polling(_Client):
    _handle_class: ClassVar[type[_SyncRequestHandle]] = SyncRequestHandle


class _AsyncPolling(_AsyncClient):
    _handle_class: ClassVar[type[_AsyncRequestHandle]] = AsyncRequestHandle


class SyncClient(_FileCalls):
    """fal-client's `SyncClient`; `headrace.Client` can do more.

    `key` and `default_timeout` mean what they mean there: the latter, in seconds without a byte, is for the calls
    to the queue, and limits neither `run` nor `stream`.
    """

    def __init__(self, key: str | None = None, default_timeout: float = 120.0) -> None:
        self.key = key
        self.default_timeout = default_timeout

    @cached_property
    def _client(self) -> _Client:
        client = _Polling(key=self.key)
        client._queue_timeout_s = self.default_timeout  # noqa: SLF001
        return client

    def run(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        method: str = "POST",
        path: str = "",
        timeout: float | None = None,
        start_timeout: float | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call an endpoint and return its result; see `headrace.Client.run`.

        `start_timeout` (seconds, over 1) is the server's limit, `hint` the runner's that is preferred. With GET
        the arguments are left out. Raises `FalClientHTTPError` for an HTTP error, another `FalClientError` for
        any other failure.
        """
        return self._client._call(  # noqa: SLF001
            method.upper(),
            application,
            arguments,
            path=path,
            timeout=timeout,
            headers=_with_options(headers, hint=hint, start_timeout=start_timeout),
        )

    def stream(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        path: str = "/stream",
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Return the items that an endpoint yields; see `headrace.Client.stream`."""
        return self._client.stream(application, arguments, path=path, timeout=timeout, headers=headers)

    def submit(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        path: str = "",
        hint: str | None = None,
        webhook_url: str | None = None,
        priority: _Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
    ) -> SyncRequestHandle:
        """Put a call into the queue and return its handle; see `headrace.Client.submit`."""
        handle = self._client.submit(
            application,
            arguments,
            path=path,
            hint=hint,
            webhook_url=webhook_url,
            priority=priority,
            headers=headers,
            start_timeout=start_timeout,
        )
        return cast("SyncRequestHandle", handle)

    def subscribe(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        path: str = "",
        hint: str | None = None,
        with_logs: bool = False,
        interval: float = _INTERVAL_S,
        on_enqueue: Callable[[str], object] | None = None,
        on_queue_update: Callable[[Status], object] | None = None,
        priority: _Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
    ) -> Any:
        """Put a call into the queue and wait for its result; see `headrace.Client.subscribe`."""
        return self._client.subscribe(
            application,
            arguments,
            path=path,
            hint=hint,
            with_logs=with_logs,
            interval=interval,
            on_enqueue=on_enqueue,
            on_queue_update=on_queue_update,
            priority=priority,
            headers=headers,
            start_timeout=start_timeout,
            client_timeout=client_timeout,
        )

    def get_handle(self, application: str, request_id: str) -> SyncRequestHandle:
        """Return the handle of a request whose id is known."""
        return cast("SyncRequestHandle", self._client.get_handle(application, request_id))

    def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Return what a request is doing."""
        return self._client.status(application, request_id, with_logs=with_logs)

    def result(self, application: str, request_id: str) -> Any:
        """Wait for a request's end and return its result. Raises `FalClientHTTPError` if it failed."""
        return self._client.result(application, request_id)

    def cancel(self, application: str, request_id: str) -> None:
        """Ask the server to stop a request."""
        self._client.cancel(application, request_id)


class AsyncClient(_AsyncFileCalls):
    """fal-client's `AsyncClient`; `headrace.AsyncClient` can do more. The arguments are `SyncClient`'s."""

    def __init__(self, key: str | None = None, default_timeout: float = 120.0) -> None:
        self.key = key
        self.default_timeout = default_timeout

    @cached_property
    def _client(self) -> _AsyncClient:
        client = _AsyncPolling(key=self.key)
        client._queue_timeout_s = self.default_timeout  # noqa: SLF001
        return client

    async def run(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        method: str = "POST",
        path: str = "",
        timeout: float | None = None,  # noqa: ASYNC109, fal's name
        start_timeout: float | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call an endpoint and return its result; see `SyncClient.run`."""
        return await self._client._call(  # noqa: SLF001
            method.upper(),
            application,
            arguments,
            path=path,
            timeout=timeout,
            headers=_with_options(headers, hint=hint, start_timeout=start_timeout),
        )

    def stream(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        path: str = "/stream",
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Return the items that an endpoint yields; see `headrace.AsyncClient.stream`."""
        return self._client.stream(application, arguments, path=path, timeout=timeout, headers=headers)

    async def submit(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        path: str = "",
        hint: str | None = None,
        webhook_url: str | None = None,
        priority: _Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
    ) -> AsyncRequestHandle:
        """Put a call into the queue and return its handle; see `headrace.AsyncClient.submit`."""
        handle = await self._client.submit(
            application,
            arguments,
            path=path,
            hint=hint,
            webhook_url=webhook_url,
            priority=priority,
            headers=headers,
            start_timeout=start_timeout,
        )
        return cast("AsyncRequestHandle", handle)

    async def subscribe(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        path: str = "",
        hint: str | None = None,
        with_logs: bool = False,
        interval: float = _INTERVAL_S,
        on_enqueue: Callable[[str], object] | None = None,
        on_queue_update: Callable[[Status], object] | None = None,
        priority: _Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
    ) -> Any:
        """Put a call into the queue and wait for its result; see `headrace.AsyncClient.subscribe`."""
        return await self._client.subscribe(
            application,
            arguments,
            path=path,
            hint=hint,
            with_logs=with_logs,
            interval=interval,
            on_enqueue=on_enqueue,
            on_queue_update=on_queue_update,
            priority=priority,
            headers=headers,
            start_timeout=start_timeout,
            client_timeout=client_timeout,
        )

    async def get_handle(self, application: str, request_id: str) -> AsyncRequestHandle:
        """Return the handle of a request whose id is known."""
        return cast("AsyncRequestHandle", self._client.get_handle(application, request_id))

    async def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Return what a request is doing."""
        return await self._client.status(application, request_id, with_logs=with_logs)

    async def result(self, application: str, request_id: str) -> Any:
        """Wait for a request's end and return its result. Raises `FalClientHTTPError` if it failed."""
        return await self._client.result(application, request_id)

    async def cancel(self, application: str, request_id: str) -> None:
        """Ask the server to stop a request."""
        await self._client.cancel(application, request_id)


sync_client = SyncClient()
run = sync_client.run
stream = sync_client.stream
submit = sync_client.submit
subscribe = sync_client.subscribe
status = sync_client.status
result = sync_client.result
cancel = sync_client.cancel
upload = sync_client.upload
upload_file = sync_client.upload_file
upload_image = sync_client.upload_image

async_client = AsyncClient()
run_async = async_client.run
stream_async = async_client.stream
submit_async = async_client.submit
subscribe_async = async_client.subscribe
status_async = async_client.status
result_async = async_client.result
cancel_async = async_client.cancel
upload_async = async_client.upload
upload_file_async = async_client.upload_file
upload_image_async = async_client.upload_image
