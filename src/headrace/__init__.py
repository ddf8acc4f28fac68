"""Headrace: your model, your machine, every token as it is made.

    authoring   App, endpoint, emit, Request; File, Image; Cancelled, AppException, FieldException
    calling     stream, run, attach; Client and AsyncClient for more than one server
    files       upload, upload_file, upload_image; encode, encode_file, encode_image; StorageSettings
    queueing    submit, subscribe, status, result, cancel; a request's handle, and what its status can be
    errors      HeadraceError and what derives from it; `headrace.client.errors` has the tree
    fal_client  the same calls under fal-client's names: `from headrace import fal_client`

Each call has a twin for asyncio: `stream_async`, `submit_async`, ….

Each name is imported when it is first used: a caller needs no pydantic, a model no HTTP library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace import fal_client
    from headrace.app import (
        App,
        AppException,
        Cancelled,
        FieldException,
        File,
        Image,
        Request,
        emit,
        endpoint,
    )
    from headrace.client import (
        APIError,
        AsyncClient,
        AsyncRequestHandle,
        AuthenticationError,
        BadCredentials,
        Client,
        Completed,
        ConnectionFailed,
        ConnectTimeout,
        DeadlinePassed,
        EventTimeout,
        HeadraceError,
        InProgress,
        InvalidInput,
        NotFound,
        Overloaded,
        PermissionDenied,
        ProtocolError,
        Queued,
        ReadTimeout,
        Status,
        StorageACL,
        StorageACLRule,
        StorageSettings,
        StreamCut,
        StreamError,
        SyncRequestHandle,
        Timeout,
        TLSFailed,
        attach,
        attach_async,
        cancel,
        cancel_async,
        encode,
        encode_file,
        encode_image,
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

    __version__: str

__all__ = [
    "APIError",
    "App",
    "AppException",
    "AsyncClient",
    "AsyncRequestHandle",
    "AuthenticationError",
    "BadCredentials",
    "Cancelled",
    "Client",
    "Completed",
    "ConnectTimeout",
    "ConnectionFailed",
    "DeadlinePassed",
    "EventTimeout",
    "FieldException",
    "File",
    "HeadraceError",
    "Image",
    "InProgress",
    "InvalidInput",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "ProtocolError",
    "Queued",
    "ReadTimeout",
    "Request",
    "Status",
    "StorageACL",
    "StorageACLRule",
    "StorageSettings",
    "StreamCut",
    "StreamError",
    "SyncRequestHandle",
    "TLSFailed",
    "Timeout",
    "__version__",
    "attach",
    "attach_async",
    "cancel",
    "cancel_async",
    "emit",
    "encode",
    "encode_file",
    "encode_image",
    "endpoint",
    "fal_client",
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

_AUTHORING = frozenset(
    {"App", "AppException", "Cancelled", "FieldException", "File", "Image", "Request", "emit", "endpoint"}
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("headrace")
    elif name == "fal_client":
        value = import_module("headrace.fal_client")
    else:
        value = getattr(import_module("headrace.app" if name in _AUTHORING else "headrace.client"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
