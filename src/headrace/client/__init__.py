"""The SDK: calls to a server, as `Client` and `AsyncClient`, and as functions bound to a client of each.

    _sync, _async        the two shells: Client, Stream and AsyncClient, AsyncStream
    _request, _answer    what they think: sans-IO, shared
    _urllib3, _aiohttp   one HTTP exchange each
    _body, _proxy        the parts of HTTP that those libraries leave to us
    credentials          which server, which key
    errors               the tree of what can go wrong
    conformance          checks of any server that speaks this protocol

Importing this package imports neither HTTP library; the first use of a name that needs one does.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Never

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
    from collections.abc import Mapping

    from headrace.client._async import AsyncClient, AsyncStream
    from headrace.client._sync import Client, Stream

__all__ = [
    "APIError",
    "AsyncClient",
    "AsyncStream",
    "AuthenticationError",
    "BadCredentials",
    "Client",
    "ConnectTimeout",
    "ConnectionFailed",
    "DeadlinePassed",
    "EventTimeout",
    "HeadraceError",
    "InvalidInput",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "ProtocolError",
    "ReadTimeout",
    "Stream",
    "StreamCut",
    "StreamError",
    "TLSFailed",
    "Timeout",
    "run",
    "run_async",
    "stream",
    "stream_async",
]

_SHELLS = {
    "AsyncClient": "headrace.client._async",
    "AsyncStream": "headrace.client._async",
    "Client": "headrace.client._sync",
    "Stream": "headrace.client._sync",
}


def __getattr__(name: str) -> Any:
    if name not in _SHELLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_SHELLS[name]), name)


def __dir__() -> list[str]:
    return __all__


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


def stream_async(
    application: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    path: str = "/stream",
    timeout: float | None = None,
    event_timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
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
        **refused,
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
