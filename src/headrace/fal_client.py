"""fal-client's names for run and stream, over this SDK: `from headrace import fal_client`.

The signatures are those of fal-client 1.0.3. What differs is what it did wrong or could not say: a failed stream
raises a `FalClientError` and not an error of some HTTP library, an error event is raised and not yielded, plain
http works, a key may be absent, and nothing is sent twice (fal's `run` tries up to ten times).

The server and the key are looked up at the first call, as `headrace.client.credentials` says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from headrace.client._async import AsyncClient as _AsyncClient
from headrace.client._sync import Client as _Client
from headrace.client.errors import APIError, HeadraceError, Timeout

__all__ = [
    "AsyncClient",
    "FalClientError",
    "FalClientHTTPError",
    "FalClientTimeoutError",
    "SyncClient",
    "__version__",
    "async_client",
    "run",
    "run_async",
    "stream",
    "stream_async",
    "sync_client",
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

#: fal-client refuses start timeouts of so many seconds and less.
_START_TIMEOUT_TOO_SHORT_S: Final = 1.0


class SyncClient:
    """fal-client's `SyncClient`; `headrace.Client` can do more.

    `key` and `default_timeout` (seconds) mean what they mean there: the latter limits neither `run` nor `stream`.
    """

    def __init__(self, key: str | None = None, default_timeout: float = 120.0) -> None:
        self.key = key
        self.default_timeout = default_timeout

    @cached_property
    def _client(self) -> _Client:
        return _Client(key=self.key)

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
            headers=_with_options(headers, start_timeout, hint),
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


class AsyncClient:
    """fal-client's `AsyncClient`; `headrace.AsyncClient` can do more. The arguments are `SyncClient`'s."""

    def __init__(self, key: str | None = None, default_timeout: float = 120.0) -> None:
        self.key = key
        self.default_timeout = default_timeout

    @cached_property
    def _client(self) -> _AsyncClient:
        return _AsyncClient(key=self.key)

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
            headers=_with_options(headers, start_timeout, hint),
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


def _with_options(
    headers: Mapping[str, str] | None, start_timeout: float | None, hint: str | None
) -> dict[str, str]:
    """Put fal's options where its protocol has them: in headers."""
    extended = dict(headers or {})
    if hint is not None:
        extended["X-Fal-Runner-Hint"] = hint
    if start_timeout is not None:
        if start_timeout <= _START_TIMEOUT_TOO_SHORT_S:
            raise ValueError(
                f"start_timeout={start_timeout!r} must be over {_START_TIMEOUT_TOO_SHORT_S:g} seconds"
            )
        extended["X-Fal-Request-Timeout"] = str(float(start_timeout))
    return extended


sync_client = SyncClient()
run = sync_client.run
stream = sync_client.stream

async_client = AsyncClient()
run_async = async_client.run
stream_async = async_client.stream
