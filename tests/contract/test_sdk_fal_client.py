"""`headrace.fal_client` beside fal-client 1.0.3 itself: the same signatures, and errors that its users catch."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from typing import Any

import pytest

from headrace import fal_client
from tests.support.scripted import LAST_CHUNK, STREAM_HEAD, answer, event, scripted
from tests.support.shells import no_credentials  # noqa: F401

theirs = pytest.importorskip("fal_client")
WHOLE = [STREAM_HEAD, event(b'{"i": 1}'), LAST_CHUNK]


def parameters(function: Any) -> list[tuple[str, Any]]:
    return [(each.name, each.kind) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", ["run", "run_async", "stream", "stream_async", "SyncClient", "AsyncClient"])
def test_the_parameters_are_fal_clients(name: str) -> None:
    assert parameters(getattr(theirs, name)) == parameters(getattr(fal_client, name))


@pytest.mark.parametrize("name", ["run", "run_async", "stream", "stream_async"])
def test_the_defaults_are_fal_clients(name: str) -> None:
    def defaults(module: Any) -> dict[str, Any]:
        signature = inspect.signature(getattr(module, name))
        return {each.name: each.default for each in signature.parameters.values() if each.name != "headers"}

    assert defaults(theirs) == defaults(fal_client)


def test_each_name_here_is_one_of_fal_clients() -> None:
    ours = set(fal_client.__all__) - {"sync_client", "async_client"}

    assert ours <= set(theirs.__all__)
    assert theirs.__version__ == fal_client.__version__


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as a program finds it that has just started: its clients look at the environment once."""
    monkeypatch.setenv("FAL_KEY", "kid:sec")
    return lambda: importlib.reload(fal_client)


def test_stream_and_run_work_with_fals_environment(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(WHOLE) as server:
        monkeypatch.setenv("HEADRACE_URL", server.url)
        module = fresh()
        items = list(module.stream("me/app", arguments={"prompt": "x"}))
        [request] = server.requests

    assert [{"i": 1}] == items
    assert ("POST /me/app/stream HTTP/1.1", "Key kid:sec") == (request.line, request.headers["authorization"])


def test_stream_async_is_an_async_iterator_not_a_coroutine(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(module: Any) -> list[Any]:
        return [item async for item in module.stream_async("me/app", arguments={})]

    with scripted(WHOLE) as server:
        monkeypatch.setenv("HEADRACE_URL", server.url)

        assert [{"i": 1}] == asyncio.run(main(fresh()))


def test_runs_options_travel_in_fals_headers(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted([answer(200, b"{}")]) as server:
        monkeypatch.setenv("HEADRACE_URL", server.url)
        module = fresh()
        module.run("me/app", {}, start_timeout=30, hint="r1", path="/fast")
        asyncio.run(module.run_async("me/app", {"a": 1}, method="GET"))
        first, second = server.requests

    assert ("POST /me/app/fast HTTP/1.1", "30.0", "r1") == (
        first.line,
        first.headers["x-fal-request-timeout"],
        first.headers["x-fal-runner-hint"],
    )
    assert ("GET /me/app HTTP/1.1", b"") == (second.line, second.body)


def test_a_start_timeout_of_a_second_is_refused(fresh: Any) -> None:
    with pytest.raises(ValueError, match="start_timeout"):
        fresh().run("me/app", {}, start_timeout=1)


@pytest.mark.parametrize("call", ["run", "stream"])
def test_an_http_error_is_fals_http_error(call: str, fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"detail": "full", "error_type": "overloaded"}'
    with scripted([answer(429, body)]) as server:
        monkeypatch.setenv("HEADRACE_URL", server.url)
        module = fresh()
        with pytest.raises(module.FalClientHTTPError) as caught:
            list(getattr(module, call)("me/app", {}))
        assert 1 == len(server.requests)

    error = caught.value
    assert isinstance(error, module.FalClientError)
    assert (429, "full", "overloaded", "req-1") == (
        error.status_code,
        error.message,
        error.error_type,
        error.response_headers["x-fal-request-id"],
    )
