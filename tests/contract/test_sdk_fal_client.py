"""`headrace.fal_client` beside fal-client 1.0.3 itself: the same signatures, and errors that its users catch."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from typing import Any

import pytest

from headrace import fal_client
from tests.support.fake_queue import SILENCE, STEPS, WAITING, fake_queue, line_of
from tests.support.scripted import LAST_CHUNK, STREAM_HEAD, answer, event, scripted
from tests.support.server import eventually
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

    assert ours <= set(vars(theirs))  # its `__all__` leaves out names that it documents
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


# --- the queue ----------------------------------------------------------------------------------------------


def whole_logs(module: Any) -> list[Any]:
    """The statuses of a request that goes through `STEPS`, as fal-client polls them: all lines so far each time."""
    lines = [line_of(text) for step in STEPS for text in step.logs]
    return [
        module.Queued(position=1),
        module.InProgress(logs=lines[:1]),
        module.InProgress(logs=lines[:3]),
        module.Completed(logs=lines, metrics={"inference_time": 0.5}),
    ]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_subscribe_polls_as_fals_does(is_async: bool, fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    options = {"with_logs": True, "interval": 0.01, "on_enqueue": told.append, "on_queue_update": told.append}
    with fake_queue() as queue:
        monkeypatch.setenv("HEADRACE_URL", queue.url)
        module = fresh()
        if is_async:
            result = asyncio.run(module.subscribe_async("me/app", {"a": 1}, **options))
        else:
            result = module.subscribe("me/app", {"a": 1}, **options)

    assert {"sum": 3} == result
    assert ["r1", *whole_logs(module)] == told
    assert ["submit", *["status"] * 4, "result"] == queue.operations()


def test_a_handle_of_a_request_id_is_fals_too(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_queue() as queue:
        monkeypatch.setenv("HEADRACE_URL", queue.url)
        module = fresh()
        module.submit("me/app", {})
        handle = module.sync_client.get_handle("me/app", "r1")
        made = module.SyncRequestHandle.from_request_id(handle.client, "me/app", "r1")
        statuses = list(handle.iter_events(with_logs=True, interval=0.01))

    assert made == handle
    assert type(handle) is type(made) is module.SyncRequestHandle
    assert whole_logs(module) == statuses


def test_async_handles_are_awaited_as_fals_are(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(module: Any) -> list[Any]:
        await module.submit_async("me/app", {})
        handle = await module.async_client.get_handle("me/app", "r1")
        assert type(handle) is module.AsyncRequestHandle
        return [status async for status in handle.iter_events(with_logs=True, interval=0.01)]

    with fake_queue() as queue:
        monkeypatch.setenv("HEADRACE_URL", queue.url)
        module = fresh()

        assert whole_logs(module) == asyncio.run(main(module))


def test_the_calls_by_id_are_fals(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_queue(steps=WAITING, result=(499, {"detail": "stopped", "error_type": "client_cancelled"})) as queue:
        monkeypatch.setenv("HEADRACE_URL", queue.url)
        module = fresh()
        module.submit("me/app", {})
        assert module.Queued(position=3) == module.status("me/app", "r1", with_logs=True)
        assert module.cancel("me/app", "r1") is None
        with pytest.raises(module.FalClientHTTPError) as caught:
            module.result("me/app", "r1")

    assert (499, "stopped", "client_cancelled") == (
        caught.value.status_code, caught.value.message, caught.value.error_type,
    )  # fmt: skip


def test_the_default_timeout_is_the_submits(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_queue(failures={"submit": [SILENCE] * 3}) as queue:
        monkeypatch.setenv("HEADRACE_URL", queue.url)
        client = fresh().SyncClient(default_timeout=0.2)
        with pytest.raises(TimeoutError):
            client.submit("me/app", {})
        eventually(lambda: len(queue.calls) >= 3, "three calls")  # the client has not waited for that

    assert 3 == len(queue.calls)


def test_a_client_timeout_is_fals_timeout_error(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit_s in (1.2, 12.0):
        with fake_queue(steps=WAITING) as queue:
            monkeypatch.setenv("HEADRACE_URL", queue.url)
            module = fresh()
            with pytest.raises(module.FalClientTimeoutError) as caught:
                module.subscribe("me/app", {}, client_timeout=limit_s)
            if caught.value.request_id is not None:  # else not even the submit was answered in that time
                eventually(lambda: "cancel" in queue.operations(), "the cancel")  # noqa: B023 - called here
                break

    assert (limit_s, "r1") == (caught.value.timeout, caught.value.request_id)
    assert 1 == queue.operations().count("cancel")
