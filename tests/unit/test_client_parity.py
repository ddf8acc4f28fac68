"""The two shells have the same names and the same signatures; each exception has its reason here."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import headrace.client
from headrace import AsyncClient, Client
from headrace.client import AsyncRequestHandle, AsyncStream, Stream, SyncRequestHandle
from headrace.client._async_files import AsyncFileCalls
from headrace.client._async_queue import AsyncQueueCalls
from headrace.client._sync_files import FileCalls
from headrace.client._sync_queue import QueueCalls

#: Names that one shell has alone, and why.
ALONE = {
    "aclose": "generators have it: fal's stream_async was one, and contextlib.aclosing calls it",
}
#: The same thing, where the language has another name for it.
TWINS = {
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
#: What awaits in the one shell is a coroutine function; the rest is not, and why.
COROUTINES = {
    **dict.fromkeys(("run", "submit", "status", "cancel"), "it waits for the answer"),
    **dict.fromkeys(("subscribe", "result", "get"), "it waits for the result"),
    **dict.fromkeys(("upload", "upload_file", "upload_image"), "it waits until the server has the file"),
    "close": "of the client: aiohttp closes its session in a coroutine",
    "__next__": "it waits for an item",
    "__enter__": "the language asks for one",
    "__exit__": "the language asks for one",
}
PAIRS = [
    (Client, AsyncClient),
    (Stream, AsyncStream),
    (QueueCalls, AsyncQueueCalls),
    (FileCalls, AsyncFileCalls),
    (SyncRequestHandle, AsyncRequestHandle),
]


def public(cls: type) -> dict[str, Any]:
    ours = {name: value for name, value in vars(cls).items() if not name.startswith("_") or name.startswith("__")}
    bookkeeping = {"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__"}
    return {TWINS.get(name, name): value for name, value in ours.items() if name not in bookkeeping}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(function)
    return [(each.name, each.kind, each.default) for each in signature.parameters.values()]


@pytest.mark.parametrize(("sync", "async_"), PAIRS)
def test_both_shells_have_the_same_public_names(sync: type, async_: type) -> None:
    assert set(public(sync)) == set(public(async_)) - set(ALONE)


@pytest.mark.parametrize(("sync", "async_"), PAIRS)
def test_both_shells_have_the_same_signatures(sync: type, async_: type) -> None:
    for name, value in public(sync).items():
        if inspect.isfunction(value):
            assert parameters(value) == parameters(public(async_)[name]), name


@pytest.mark.parametrize(("sync", "async_"), PAIRS)
def test_what_is_a_coroutine_in_one_shell_has_its_reason(sync: type, async_: type) -> None:
    for name, value in public(async_).items():
        if inspect.iscoroutinefunction(value) and name not in ALONE:
            assert name in COROUTINES
            assert not inspect.iscoroutinefunction(public(sync)[name])


def test_a_stream_closes_without_await_in_both_shells() -> None:
    assert not inspect.iscoroutinefunction(Stream.close)
    assert not inspect.iscoroutinefunction(AsyncStream.close)


@pytest.mark.parametrize(("name", "cls"), [
    (f"{name}{suffix}", cls)
    for name in (
        "stream", "attach", "run", "submit", "subscribe", "status", "result", "cancel",
        "upload", "upload_file", "upload_image",
    )
    for suffix, cls in (("", Client), ("_async", AsyncClient))
])  # fmt: skip
def test_the_module_functions_are_the_methods_of_a_default_client(name: str, cls: type) -> None:
    function = getattr(headrace.client, name)
    method = getattr(cls, name.removesuffix("_async"))

    assert parameters(method)[1:] == parameters(function)
    assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(function)


@pytest.mark.parametrize(
    "module",
    [f"{colour}{part}" for colour in ("_sync", "_async") for part in ("", "_queue", "_stream", "_files")],
)
def test_the_shells_are_thin(module: str) -> None:
    source = Path(headrace.client.__file__).with_name(f"{module}.py").read_text()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
        )
    }

    assert len(source.splitlines()) < 300
    assert {"orjson", "json", "socket"}.isdisjoint(imported)
