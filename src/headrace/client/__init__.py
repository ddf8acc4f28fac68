"""The SDK: calls to a server, as `Client` and `AsyncClient`, and as functions bound to a client of each.

    _functions           the functions of this package: calls of a client that is made on first use
    _sync, _async        the two shells: Client and AsyncClient
    _sync_stream, _async_stream   what they return for a stream: Stream, AsyncStream
    _sync_queue, _async_queue   their queue's side, and SyncRequestHandle, AsyncRequestHandle
    _request, _answer    what they think: sans-IO, shared
    _queue, _watch       what they think of the queue
    _resume              what they think of a stream that survives cuts
    _sync_files, _async_files   their files' side
    _uploads, _storage   what they think of files
    _content             what is uploaded, read as it is sent
    _urllib3, _aiohttp   one HTTP exchange each
    _body, _proxy        the parts of HTTP that those libraries leave to us
    credentials          which server, which key
    errors               the tree of what can go wrong
    conformance          checks of any server that speaks this protocol

Importing this package imports neither HTTP library; the first use of a name that needs one does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.client._functions import (
    attach,
    attach_async,
    cancel,
    cancel_async,
    result,
    result_async,
    run,
    run_async,
    status,
    status_async,
    stream,
    stream_async,
    submit,
    submit_async,
    subscribe,
    subscribe_async,
    upload,
    upload_async,
    upload_file,
    upload_file_async,
    upload_image,
    upload_image_async,
)
from headrace.client.errors import (
    APIError,
    AuthenticationError,
    BadCredentials,
    ConnectionFailed,
    ConnectTimeout,
    DeadlinePassed,
    EventTimeout,
    HeadraceError,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    ReadTimeout,
    StreamCut,
    StreamError,
    Timeout,
    TLSFailed,
)

if TYPE_CHECKING:
    from headrace.client._async import AsyncClient
    from headrace.client._async_queue import AsyncRequestHandle
    from headrace.client._async_stream import AsyncStream
    from headrace.client._content import encode_file, encode_image
    from headrace.client._queue import Completed, InProgress, Queued, Status
    from headrace.client._storage import StorageACL, StorageACLRule, StorageSettings, encode
    from headrace.client._sync import Client
    from headrace.client._sync_queue import SyncRequestHandle
    from headrace.client._sync_stream import Stream

__all__ = [
    "APIError",
    "AsyncClient",
    "AsyncRequestHandle",
    "AsyncStream",
    "AuthenticationError",
    "BadCredentials",
    "Client",
    "Completed",
    "ConnectTimeout",
    "ConnectionFailed",
    "DeadlinePassed",
    "EventTimeout",
    "HeadraceError",
    "InProgress",
    "InvalidInput",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "ProtocolError",
    "Queued",
    "ReadTimeout",
    "Status",
    "StorageACL",
    "StorageACLRule",
    "StorageSettings",
    "Stream",
    "StreamCut",
    "StreamError",
    "SyncRequestHandle",
    "TLSFailed",
    "Timeout",
    "attach",
    "attach_async",
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
    "upload",
    "upload_async",
    "upload_file",
    "upload_file_async",
    "upload_image",
    "upload_image_async",
]

_MODULES = {
    "AsyncClient": "_async",
    "AsyncRequestHandle": "_async_queue",
    "AsyncStream": "_async_stream",
    "Client": "_sync",
    "Completed": "_queue",
    "InProgress": "_queue",
    "Queued": "_queue",
    "Status": "_queue",
    "StorageACL": "_storage",
    "StorageACLRule": "_storage",
    "StorageSettings": "_storage",
    "Stream": "_sync_stream",
    "SyncRequestHandle": "_sync_queue",
    "encode": "_storage",
    "encode_file": "_content",
    "encode_image": "_content",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
