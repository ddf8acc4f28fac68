"""What users import, and what importing it costs. A name added or lost here is a promise made or broken."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import headrace
import headrace.client
from headrace import fal_client

NAMES = [
    "APIError", "App", "AppException", "AsyncClient", "AsyncRequestHandle", "AuthenticationError", "BadCredentials",
    "Cancelled", "Client", "Completed", "ConnectTimeout", "ConnectionFailed", "DeadlinePassed", "EventTimeout",
    "FieldException", "File", "HeadraceError", "Image", "InProgress", "InvalidInput", "NotFound", "Overloaded",
    "PermissionDenied",
    "ProtocolError", "Queued", "ReadTimeout", "Request", "Status", "StorageACL", "StorageACLRule", "StorageSettings",
    "StreamCut", "StreamError", "SyncRequestHandle",
    "TLSFailed", "Timeout", "__version__", "attach", "attach_async", "cancel", "cancel_async", "emit",
    "encode", "encode_file", "encode_image", "endpoint",
    "fal_client", "result",
    "result_async", "run", "run_async", "status", "status_async", "stream", "stream_async", "submit", "submit_async",
    "subscribe", "subscribe_async", "upload", "upload_async", "upload_file", "upload_file_async", "upload_image",
    "upload_image_async",
]  # fmt: skip

FAL_NAMES = [
    "AsyncClient", "AsyncRequestHandle", "Completed", "FalClientError", "FalClientHTTPError", "FalClientTimeoutError",
    "InProgress", "ObjectExpiration", "Queued", "Status", "StorageACL", "StorageACLDecision", "StorageACLRule",
    "StorageSettings", "SyncClient", "SyncRequestHandle", "__version__", "async_client", "cancel",
    "cancel_async", "encode", "encode_file", "encode_image", "result", "result_async", "run", "run_async", "status",
    "status_async", "stream", "stream_async", "submit", "submit_async", "subscribe", "subscribe_async", "sync_client",
    "upload", "upload_async", "upload_file", "upload_file_async", "upload_image", "upload_image_async",
    "version_tuple",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert NAMES == headrace.__all__
    assert sorted(NAMES) == NAMES


def test_fal_clients_names_are_these() -> None:
    assert FAL_NAMES == fal_client.__all__


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(headrace, name) is not None
    assert name in dir(headrace)


def test_every_error_of_the_sdk_is_public() -> None:
    ours = {
        name
        for name, value in vars(headrace.client.errors).items()
        if isinstance(value, type) and issubclass(value, headrace.HeadraceError)
    }

    assert ours <= set(headrace.__all__)
    assert ours <= set(headrace.client.__all__)
    for name in ours:
        assert re.search(rf"^\W+{name}\b", headrace.client.errors.__doc__, re.MULTILINE), name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    for module in (headrace, headrace.client):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing


def loaded_after(code: str) -> set[str]:
    report = "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


HEAVY = {"pydantic", "aiohttp", "urllib3", "orjson", "asyncio", "starlette", "uvicorn", "typer"}


def test_importing_headrace_imports_nothing_heavy() -> None:
    assert set() == loaded_after("import headrace") & HEAVY


def test_a_sync_caller_needs_no_asyncio_and_no_server() -> None:
    assert {"orjson", "urllib3"} == loaded_after("from headrace import Client") & HEAVY


def test_an_async_caller_needs_no_urllib3_and_no_server() -> None:
    assert {"orjson", "aiohttp", "asyncio"} == loaded_after("from headrace import AsyncClient") & HEAVY


def test_a_model_needs_no_http_library() -> None:
    assert set() == loaded_after("from headrace import App") & {"aiohttp", "urllib3", "starlette", "uvicorn"}


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("headrace") == headrace.__version__
