"""The package's functions: calls of a `Client`, or an `AsyncClient`, that is made when it is first needed.

Importing this module imports no HTTP library; the first call does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Never

if TYPE_CHECKING:
    from headrace.client._async import AsyncClient
    from headrace.client._async_queue import AsyncRequestHandle
    from headrace.client._async_stream import AsyncStream
    from headrace.client._content import OnProgress, Picture
    from headrace.client._queue import Priority, Status
    from headrace.client._storage import StorageSettings
    from headrace.client._sync import Client
    from headrace.client._sync_queue import SyncRequestHandle
    from headrace.client._sync_stream import Stream


@cache
def _default_client() -> Client:
    from headrace.client._sync import Client

    return Client()


@cache
def _default_async_client() -> AsyncClient:
    from headrace.client._async import AsyncClient

    return AsyncClient()


def stream(
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
    """Return the items that an endpoint yields: `Client.stream` of a client made on first use."""
    return _default_client().stream(
        application,
        arguments,
        path=path,
        timeout=timeout,
        event_timeout=event_timeout,
        headers=headers,
        resume=resume,
        **refused,
    )


def run(
    application: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    path: str = "",
    timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Call an endpoint and return its result: `Client.run` of a client made on first use."""
    return _default_client().run(application, arguments, path=path, timeout=timeout, headers=headers)


def attach(
    application: str,
    request_id: str,
    *,
    after: str | None = None,
    resume: bool = True,
    timeout: float | None = None,
    event_timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Stream:
    """Return the items of a request by its id: `Client.attach` of a client made on first use."""
    return _default_client().attach(
        application,
        request_id,
        after=after,
        resume=resume,
        timeout=timeout,
        event_timeout=event_timeout,
        headers=headers,
    )


def stream_async(
    application: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    path: str = "/stream",
    timeout: float | None = None,
    event_timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
    resume: bool = False,
    **refused: Never,
) -> AsyncStream:
    """Return the items that an endpoint yields: `AsyncClient.stream` of a client made on first use."""
    return _default_async_client().stream(
        application,
        arguments,
        path=path,
        timeout=timeout,
        event_timeout=event_timeout,
        headers=headers,
        resume=resume,
        **refused,
    )


def attach_async(
    application: str,
    request_id: str,
    *,
    after: str | None = None,
    resume: bool = True,
    timeout: float | None = None,
    event_timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncStream:
    """Return the items of a request by its id: `AsyncClient.attach` of a client made on first use."""
    return _default_async_client().attach(
        application,
        request_id,
        after=after,
        resume=resume,
        timeout=timeout,
        event_timeout=event_timeout,
        headers=headers,
    )


async def run_async(
    application: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    path: str = "",
    timeout: float | None = None,  # noqa: ASYNC109, for parity with `run`
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Call an endpoint and return its result: `AsyncClient.run` of a client made on first use."""
    return await _default_async_client().run(application, arguments, path=path, timeout=timeout, headers=headers)


def submit(
    application: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    path: str = "",
    hint: str | None = None,
    webhook_url: str | None = None,
    priority: Priority | None = None,
    headers: Mapping[str, str] | None = None,
    start_timeout: float | None = None,
) -> SyncRequestHandle:
    """Queue a call and return its handle: `Client.submit` of a client made on first use."""
    return _default_client().submit(
        application,
        arguments,
        path=path,
        hint=hint,
        webhook_url=webhook_url,
        priority=priority,
        headers=headers,
        start_timeout=start_timeout,
    )


def subscribe(
    application: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    path: str = "",
    hint: str | None = None,
    with_logs: bool = False,
    interval: float = 0.1,
    on_enqueue: Callable[[str], object] | None = None,
    on_queue_update: Callable[[Status], object] | None = None,
    priority: Priority | None = None,
    headers: Mapping[str, str] | None = None,
    start_timeout: float | None = None,
    client_timeout: float | None = None,
) -> Any:
    """Queue a call and wait for its result: `Client.subscribe` of a client made on first use."""
    return _default_client().subscribe(
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


def status(application: str, request_id: str, *, with_logs: bool = False) -> Status:
    """Return what a queued request is doing: `Client.status` of a client made on first use."""
    return _default_client().status(application, request_id, with_logs=with_logs)


def result(application: str, request_id: str) -> Any:
    """Wait for a queued request and return its result: `Client.result` of a client made on first use."""
    return _default_client().result(application, request_id)


def cancel(application: str, request_id: str) -> None:
    """Ask the server to stop a queued request: `Client.cancel` of a client made on first use."""
    _default_client().cancel(application, request_id)


async def submit_async(
    application: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    path: str = "",
    hint: str | None = None,
    webhook_url: str | None = None,
    priority: Priority | None = None,
    headers: Mapping[str, str] | None = None,
    start_timeout: float | None = None,
) -> AsyncRequestHandle:
    """Queue a call and return its handle: `AsyncClient.submit` of a client made on first use."""
    return await _default_async_client().submit(
        application,
        arguments,
        path=path,
        hint=hint,
        webhook_url=webhook_url,
        priority=priority,
        headers=headers,
        start_timeout=start_timeout,
    )


async def subscribe_async(
    application: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    path: str = "",
    hint: str | None = None,
    with_logs: bool = False,
    interval: float = 0.1,
    on_enqueue: Callable[[str], object] | None = None,
    on_queue_update: Callable[[Status], object] | None = None,
    priority: Priority | None = None,
    headers: Mapping[str, str] | None = None,
    start_timeout: float | None = None,
    client_timeout: float | None = None,
) -> Any:
    """Queue a call and wait for its result: `AsyncClient.subscribe` of a client made on first use."""
    return await _default_async_client().subscribe(
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


async def status_async(application: str, request_id: str, *, with_logs: bool = False) -> Status:
    """Return what a queued request is doing: `AsyncClient.status` of a client made on first use."""
    return await _default_async_client().status(application, request_id, with_logs=with_logs)


async def result_async(application: str, request_id: str) -> Any:
    """Wait for a queued request and return its result: `AsyncClient.result` of a client made on first use."""
    return await _default_async_client().result(application, request_id)


async def cancel_async(application: str, request_id: str) -> None:
    """Ask the server to stop a queued request: `AsyncClient.cancel` of a client made on first use."""
    await _default_async_client().cancel(application, request_id)


def upload(
    data: str | bytes,
    content_type: str,
    file_name: str | None = None,
    *,
    lifecycle: StorageSettings | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Upload bytes and return the file's URL: `Client.upload` of a client made on first use."""
    return _default_client().upload(data, content_type, file_name, lifecycle=lifecycle, on_progress=on_progress)


def upload_file(
    path: str | os.PathLike[str],
    *,
    lifecycle: StorageSettings | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Upload a file and return its URL: `Client.upload_file` of a client made on first use."""
    return _default_client().upload_file(path, lifecycle=lifecycle, on_progress=on_progress)


def upload_image(image: Picture, format: str = "jpeg", *, lifecycle: StorageSettings | None = None) -> str:
    """Upload an image and return its URL: `Client.upload_image` of a client made on first use."""
    return _default_client().upload_image(image, format, lifecycle=lifecycle)


async def upload_async(
    data: str | bytes,
    content_type: str,
    file_name: str | None = None,
    *,
    lifecycle: StorageSettings | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Upload bytes and return the file's URL: `AsyncClient.upload` of a client made on first use."""
    return await _default_async_client().upload(
        data, content_type, file_name, lifecycle=lifecycle, on_progress=on_progress
    )


async def upload_file_async(
    path: str | os.PathLike[str],
    *,
    lifecycle: StorageSettings | None = None,
    on_progress: OnProgress | None = None,
) -> str:
    """Upload a file and return its URL: `AsyncClient.upload_file` of a client made on first use."""
    return await _default_async_client().upload_file(path, lifecycle=lifecycle, on_progress=on_progress)


async def upload_image_async(
    image: Picture, format: str = "jpeg", *, lifecycle: StorageSettings | None = None
) -> str:
    """Upload an image and return its URL: `AsyncClient.upload_image` of a client made on first use."""
    return await _default_async_client().upload_image(image, format, lifecycle=lifecycle)
