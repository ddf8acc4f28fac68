"""What the SDK does when all goes well, and how it leaves: on both shells, against a scripted server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace import AsyncClient, Client
from headrace.client import errors
from tests.support.scripted import (
    HOLD,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    STRETCHES,
    Beat,
    Wait,
    answer,
    chunk,
    event,
    scripted,
)
from tests.support.shells import SHELLS, no_credentials  # noqa: F401

ONE = event(b'{"i": 1}')
TWO = event(b'{"i": 2}')
WHOLE = [STREAM_HEAD, ONE, TWO, LAST_CHUNK]
#: Seconds within which a server must see that its client has left, most times: a machine that is held up delays some.
#: Generous: the promise is 50 ms.
LEFT_WITHIN_S = 2.0

both_shells = pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)


# --- what is sent ----------------------------------------------------------------------------------------


@both_shells
def test_a_stream_sends_one_plain_post(shell: Any) -> None:
    with scripted(WHOLE) as server:
        shell.stream(server.url, {"prompt": "x"}, client={"key": "kid:sec"})
        [request] = server.requests

    assert "POST /me/app/stream HTTP/1.1" == request.line
    assert b'{"prompt":"x"}' == request.body
    headers = request.headers
    del headers["host"], headers["user-agent"]
    headers.pop("connection", None)
    assert {
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "authorization": "Key kid:sec",
        "content-length": "14",
        "content-type": "application/json",
    } == headers
    assert request.headers["user-agent"].startswith("headrace/")


@both_shells
def test_a_run_asks_for_json_and_returns_it(shell: Any) -> None:
    with scripted([answer(200, b'{"images": []}')]) as server:
        outcome = shell.run(server.url)
        [request] = server.requests

    assert {"images": []} == outcome.result
    assert ("POST /me/app HTTP/1.1", b"{}", "application/json") == (
        request.line,
        request.body,
        request.headers["accept"],
    )


@both_shells
def test_without_a_key_no_authorization_is_sent(shell: Any, no_credentials: None) -> None:
    with scripted(WHOLE) as server:
        shell.stream(server.url, client={"key": None})

        assert "authorization" not in server.requests[0].headers


@both_shells
def test_headers_of_the_caller_are_sent_over_ours(shell: Any) -> None:
    with scripted(WHOLE) as server:
        shell.stream(server.url, headers={"X-Fal-Runner-Hint": "r1", "ACCEPT": "*/*"})
        headers = server.requests[0].headers

    assert ("r1", "*/*") == (headers["x-fal-runner-hint"], headers["accept"])
    assert 1 == server.requests[0].head.lower().count("\r\naccept:")


@both_shells
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/me/app"),
        ("/", "/me/app"),
        ("stream", "/me/app/stream"),
        ("///deep/stream", "/me/app/deep/stream"),
        ("/a b?c#d%41", "/me/app/a%20b%3Fc%23d%2541"),
    ],
)
def test_the_path_is_joined_with_one_slash(shell: Any, path: str, target: str) -> None:
    with scripted(WHOLE) as server:
        shell.stream(server.url + "/prefix/", path=path)

        assert f"POST /prefix{target} HTTP/1.1" == server.requests[0].line


def test_nothing_is_sent_before_the_first_iteration() -> None:
    with scripted(WHOLE) as server:
        stream = Client(server.url, "k:s").stream("me/app")
        async_stream = AsyncClient(server.url, "k:s").stream("me/app")
        stream.close()
        async_stream.close()

        assert 0 == server.connections
        assert [] == list(stream)


@both_shells
@pytest.mark.parametrize(
    "arguments", [[], "text", 7, {"a": object}, {"a": b""}, {1: 2}, {"a": "\ud800"}], ids=repr
)
def test_arguments_that_are_no_json_object_raise_type_error_before_anything_is_sent(
    shell: Any, arguments: Any
) -> None:
    with scripted(WHOLE) as server:
        outcome = shell.stream(server.url, arguments)

        assert (TypeError, 0) == (type(outcome.error), server.connections)


@both_shells
@pytest.mark.parametrize("option", ["hint", "priority", "start_timeout", "client_timeout"])
def test_queue_options_on_a_stream_name_the_queue_calls(shell: Any, option: str) -> None:
    outcome = shell.stream("http://127.0.0.1:9", **{option: 5})

    assert TypeError is type(outcome.error)
    for word in (option, "submit()", "subscribe()"):
        assert word in str(outcome.error)


@both_shells
def test_an_unknown_option_is_an_ordinary_type_error(shell: Any) -> None:
    outcome = shell.stream("http://127.0.0.1:9", wrong=5)

    assert "TypeError(\"stream() got an unexpected keyword argument 'wrong'\")" == repr(outcome.error)


@both_shells
@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Content-Length": "3"}},
        {"headers": {"Host": "elsewhere"}},
        {"headers": {"X-A": "a\r\nX-B: b"}},
        {"headers": {"X A": "a"}},
        {"headers": {"X-A": "é"}},
        {"path": "/../admin"},
        {"timeout": 0},
        {"timeout": -1},
        {"event_timeout": float("nan")},
        {"timeout": float("inf")},
    ],
    ids=str,
)
def test_what_cannot_be_sent_raises_value_error(shell: Any, options: dict[str, Any]) -> None:
    with scripted(WHOLE) as server:
        outcome = shell.stream(server.url, **options)

        assert (ValueError, 0) == (type(outcome.error), server.connections)


# --- what comes back -------------------------------------------------------------------------------------


@both_shells
def test_items_come_in_order_and_heartbeats_do_not_show(shell: Any) -> None:
    ping = chunk(b": ping\n")
    with scripted([STREAM_HEAD, ping, ONE, ping, ping, TWO, ping, LAST_CHUNK]) as server:
        outcome = shell.stream(server.url)

    assert ([{"i": 1}, {"i": 2}], None) == (outcome.items, outcome.error)


@both_shells
def test_a_field_named_error_does_not_make_an_item_an_error(shell: Any) -> None:
    items = [{"output": "a", "error": None}, {"error": None}, {"error": "text"}, {"error": {"code": 1}}]
    events = [event(json.dumps(item).encode()) for item in items]
    with scripted([STREAM_HEAD, *events, LAST_CHUNK]) as server:
        outcome = shell.stream(server.url)

    assert (items, None) == (outcome.items, outcome.error)


@both_shells
def test_events_of_other_types_are_items(shell: Any) -> None:
    with scripted([STREAM_HEAD, chunk(b'event: event\ndata: {"output": "a"}\n\n'), LAST_CHUNK]) as server:
        outcome = shell.stream(server.url)

    assert [{"output": "a"}] == outcome.items


@both_shells
def test_an_error_event_carries_all_that_the_server_said(shell: Any) -> None:
    failed = (
        b'event: error\ndata: {"error": {"type": "runner_disconnected", "message": "it died", '
        b'"request_id": "req-9", "retryable": true, "status": 503}}\n\n'
    )
    with scripted([STREAM_HEAD, chunk(failed), HOLD]) as server:
        error = shell.stream(server.url).error

    assert ("runner_disconnected", "it died", "req-9", True, 503) == (
        error.type,
        error.message,
        error.request_id,
        error.retryable,
        error.status,
    )
    assert "it died" in str(error)
    assert "req-9" in str(error)


@both_shells
def test_an_api_error_carries_all_that_the_server_said(shell: Any) -> None:
    body = {"detail": [{"loc": ["body", "seed"], "msg": "must be a number", "type": "int_parsing"}]}
    with scripted([answer(422, json.dumps(body).encode(), "X-Fal-Error-Type: validation_error")]) as server:
        error = shell.stream(server.url).error

    assert isinstance(error, errors.InvalidInput)
    assert (
        422,
        body["detail"],
        body["detail"],
        "seed: must be a number",
        "validation_error",
        "req-1",
        False,
        body,
    ) == (
        error.status_code,
        error.detail,
        error.errors,
        error.message,
        error.error_type,
        error.request_id,
        error.retryable,
        error.body,
    )
    assert "application/json" == error.response_headers["content-type"]


@both_shells
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Retry-After: 3", 3.0),
        ("Retry-After: Sun, 22 Nov 2026 10:00:09 GMT\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT", 9.0),
        ("Retry-After: Sun, 22 Nov 2026 10:00:00 GMT\r\nDate: Sun, 22 Nov 2026 10:00:09 GMT", 0.0),
        ("Retry-After: Sun, 22 Nov 2026 10:00:00 GMT", None),
        ("Retry-After: soon", None),
        ("X-Other: 3", None),
    ],
)
def test_overloaded_says_when_to_try_again(shell: Any, header: str, seconds: float | None) -> None:
    with scripted([answer(429, b'{"detail": "full"}', header)]) as server:
        error = shell.stream(server.url).error

    assert seconds == error.retry_after_s
    assert error.retryable


@both_shells
def test_a_401_without_a_key_says_where_one_was_looked_for(shell: Any, no_credentials: None) -> None:
    with scripted([answer(401, b'{"detail": "a key is needed"}')]) as server:
        error = shell.stream(server.url, client={"key": None}).error

    for word in ("a key is needed", "HEADRACE_KEY", "FAL_KEY", "FAL_KEY_ID", "credentials"):
        assert word in str(error)


def test_the_stream_shows_its_answer_from_the_first_item_on() -> None:
    with scripted([STREAM_HEAD, ONE, TWO, LAST_CHUNK]) as server, Client(server.url, "k:s") as client:
        stream = client.stream("me/app")
        before = (stream.request_id, stream.status_code, dict(stream.headers))
        next(stream)
        after = (stream.request_id, stream.status_code, stream.headers["content-type"])
        stream.close()

    assert (None, None, {}) == before
    assert ("req-1", 200, "text/event-stream") == after


def test_a_refused_stream_shows_its_answer_too() -> None:
    with scripted([answer(503, b"{}")]) as server, Client(server.url, "k:s") as client:
        stream = client.stream("me/app")
        with pytest.raises(errors.Overloaded):
            next(stream)

    assert ("req-1", 503) == (stream.request_id, stream.status_code)
    assert [] == list(stream)


@both_shells
def test_the_key_is_in_no_text(shell: Any) -> None:
    with scripted([answer(401, b'{"detail": "no"}')]) as server:
        error = shell.stream(server.url, client={"key": "kid:topsecret"}).error
        client = shell.client_class(server.url, "kid:topsecret")

    assert "topsecret" not in f"{error!r} {error} {client!r} {client._target!r} {client.stream('me/app')!r}"


# --- time ------------------------------------------------------------------------------------------------


@both_shells
def test_heartbeats_hold_off_the_timeout(shell: Any) -> None:
    for stretch in STRETCHES:
        pings: list[Any] = [chunk(b": ping\n"), Wait(0.2 * stretch)] * 6
        with scripted([STREAM_HEAD, *pings, ONE, LAST_CHUNK]) as server:
            outcome = shell.stream(server.url, timeout=0.8 * stretch)
        if not isinstance(outcome.error, errors.Timeout):
            break  # else a heartbeat may have been held up for longer than that

    assert ([{"i": 1}], None) == (outcome.items, outcome.error)


def test_the_time_a_reader_takes_for_itself_is_no_timeout() -> None:
    def read(url: str, limit_s: float) -> list[Any]:
        items = []
        with Client(url, "k:s") as client:
            for item in client.stream("me/app", timeout=limit_s, event_timeout=limit_s):
                items.append(item)
                time.sleep(2 * limit_s)
                assert sent.wait(20)
        return items

    sent = threading.Event()
    assert [{"i": 1}, {"i": 2}] == in_time_for_the_first_item(read, sent)


def test_the_time_an_async_reader_takes_for_itself_is_no_timeout() -> None:
    async def main(url: str, limit_s: float) -> list[Any]:
        items = []
        async for item in AsyncClient(url, "k:s").stream("me/app", timeout=limit_s, event_timeout=limit_s):
            items.append(item)
            await asyncio.sleep(2 * limit_s)
            assert await asyncio.to_thread(sent.wait, 20)
        return items

    def read(url: str, limit_s: float) -> list[Any]:
        return asyncio.run(main(url, limit_s))

    sent = threading.Event()
    assert [{"i": 1}, {"i": 2}] == in_time_for_the_first_item(read, sent)


def in_time_for_the_first_item(read: Callable[[str, float], list[Any]], sent: threading.Event) -> list[Any]:
    """Read a stream whose second item, and end, come while the reader takes longer than its limit for the first.

    `sent` is set when they are there: only then may the reader go on, however late they are.
    """
    for stretch in STRETCHES:
        limit_s = 0.5 * stretch
        sent.clear()
        script = [STREAM_HEAD + ONE, Wait(1.6 * limit_s), TWO + LAST_CHUNK, lambda _: sent.set() or b""]
        with scripted(script) as server, contextlib.suppress(errors.Timeout):
            if items := read(server.url, limit_s):
                return items
        # The first item itself took longer than the limit, or the limit was taken from the reader's own time.
    return []


@both_shells
def test_the_clients_timeout_holds_where_a_call_names_none(shell: Any) -> None:
    with scripted([HOLD]) as server:
        outcome = shell.stream(server.url, client={"timeout": 0.3})

    assert (errors.ReadTimeout, 0.3) == (type(outcome.error), outcome.error.timeout)


# --- connections -----------------------------------------------------------------------------------------


def test_finished_calls_share_one_connection() -> None:
    with scripted(WHOLE) as server, Client(server.url, "k:s") as client:
        for _ in range(3):
            list(client.stream("me/app"))

        assert (3, 1) == (len(server.requests), server.connections)


def test_finished_async_calls_share_one_connection() -> None:
    async def main(url: str) -> None:
        async with AsyncClient(url, "k:s") as client:
            for _ in range(3):
                assert 2 == len([item async for item in client.stream("me/app")])

    with scripted(WHOLE) as server:
        asyncio.run(main(server.url))

        assert (3, 1) == (len(server.requests), server.connections)


@both_shells
def test_a_reset_of_a_kept_connection_sends_nothing_again(shell: Any) -> None:
    """The trap of pools: the first answer was good, so a library may think that the second only lost its connection."""
    calls = iter([[answer(200, b"{}")], [RESET]])
    first, second = next(calls), next(calls)

    class Turns(list):
        turn = 0

        def __iter__(self) -> Any:
            Turns.turn += 1
            return iter(first if Turns.turn == 1 else second)

    def twice_sync(url: str) -> BaseException | None:
        with Client(url, "k:s") as client:
            client.run("me/app")
            with pytest.raises(errors.ConnectionFailed) as caught:
                client.run("me/app")
        return caught.value

    async def twice_async(url: str) -> BaseException | None:
        client = AsyncClient(url, "k:s")
        await client.run("me/app")
        with pytest.raises(errors.ConnectionFailed) as caught:
            await client.run("me/app")
        return caught.value

    with scripted(Turns()) as server:
        twice_sync(server.url) if shell.name == "sync" else asyncio.run(twice_async(server.url))

        assert (2, 1) == (len(server.requests), server.connections)


def test_more_streams_than_any_pool_are_open_at_once() -> None:
    async def main(url: str) -> int:
        client = AsyncClient(url, "k:s")
        streams = [client.stream("me/app") for _ in range(150)]
        await asyncio.gather(*(anext(stream) for stream in streams))
        return len(streams)

    with scripted([STREAM_HEAD, ONE, HOLD]) as server:
        assert 150 == asyncio.run(main(server.url))
        assert 150 == server.connections


def test_threads_share_a_client() -> None:
    with scripted(WHOLE) as server, Client(server.url, "k:s") as client:
        counts: list[int] = []
        threads = [
            threading.Thread(target=lambda: counts.append(len(list(client.stream("me/app"))))) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    assert [2] * 20 == counts


def test_an_async_client_works_in_one_loop_after_another() -> None:
    with scripted(WHOLE) as server:
        client = AsyncClient(server.url, "k:s")

        async def main() -> list[Any]:
            return [item async for item in client.stream("me/app")]

        for _ in range(3):
            assert [{"i": 1}, {"i": 2}] == asyncio.run(main())
        gc.collect()

        assert 1 >= len(client._sessions._by_loop)


# --- leaving ---------------------------------------------------------------------------------------------


def leave_by_break(client: Client) -> None:
    for _ in client.stream("me/app"):
        break


def leave_by_exception(client: Client) -> None:
    def read() -> None:
        for _ in client.stream("me/app"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()


def leave_by_del(client: Client) -> None:
    stream = client.stream("me/app")
    next(stream)
    del stream


def leave_by_close(client: Client) -> None:
    stream = client.stream("me/app")
    next(stream)
    stream.close()
    assert [] == list(stream)


def leave_by_block(client: Client) -> None:
    with client.stream("me/app") as stream:
        next(stream)


LEAVERS = [leave_by_break, leave_by_exception, leave_by_del, leave_by_close, leave_by_block]


@pytest.mark.parametrize("leave", LEAVERS, ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("rest", [[HOLD], [Beat(ONE)]], ids=["silent", "busy"])
def test_leaving_a_stream_closes_the_connection_at_once(leave: Any, rest: list[Any]) -> None:
    with scripted([STREAM_HEAD, ONE, *rest]) as server, Client(server.url, "k:s") as client:
        took_s = []
        for turn in range(1, 11):
            leave(client)
            now = time.monotonic()
            took_s.append(server.wait_for_leavers(turn)[-1] - now)

    assert LEFT_WITHIN_S > statistics.median(took_s)


async def aleave_by_break(client: AsyncClient) -> None:
    async for _ in client.stream("me/app"):
        break


async def aleave_by_exception(client: AsyncClient) -> None:
    async def read() -> None:
        async for _ in client.stream("me/app"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()


async def aleave_by_del(client: AsyncClient) -> None:
    stream = client.stream("me/app")
    await anext(stream)
    del stream


async def aleave_by_close(client: AsyncClient) -> None:
    stream = client.stream("me/app")
    await anext(stream)
    stream.close()
    assert [] == [item async for item in stream]


async def aleave_by_aclose(client: AsyncClient) -> None:
    stream = client.stream("me/app")
    await anext(stream)
    await stream.aclose()


async def aleave_by_block(client: AsyncClient) -> None:
    async with client.stream("me/app") as stream:
        await anext(stream)


async def aleave_by_cancel(client: AsyncClient) -> None:
    came = asyncio.Event()

    async def read() -> None:
        async for _ in client.stream("me/app"):
            came.set()

    task = asyncio.create_task(read())
    await came.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def aleave_by_thread(client: AsyncClient) -> None:
    """The last reference goes in another thread, as a garbage collection there would do it."""
    held = [client.stream("me/app")]
    await anext(held[0])
    await asyncio.to_thread(held.clear)


ALEAVERS = [
    aleave_by_break,
    aleave_by_exception,
    aleave_by_del,
    aleave_by_close,
    aleave_by_aclose,
    aleave_by_block,
    aleave_by_cancel,
    aleave_by_thread,
]


@pytest.mark.parametrize("leave", ALEAVERS, ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("rest", [[HOLD], [Beat(ONE)]], ids=["silent", "busy"])
def test_leaving_an_async_stream_closes_the_connection_at_once(leave: Any, rest: list[Any]) -> None:
    async def main(server: Any) -> None:
        client = AsyncClient(server.url, "k:s")
        took_s = []
        for turn in range(1, 11):
            await leave(client)
            now = time.monotonic()
            left_at = await asyncio.to_thread(server.wait_for_leavers, turn)
            took_s.append(left_at[-1] - now)

        assert LEFT_WITHIN_S > statistics.median(took_s)

    with scripted([STREAM_HEAD, ONE, *rest]) as server:
        asyncio.run(main(server), debug=True)
        gc.collect()  # a warning of something left open would fail this test


def test_cancelling_a_stream_that_waits_for_its_head_closes_the_connection() -> None:
    async def main(server: Any) -> None:
        task = asyncio.create_task(anext(AsyncClient(server.url, "k:s").stream("me/app")))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.wait_for_leavers)

    with scripted([HOLD]) as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("ending", ["leaves it open", "drops the client", "holds the stream"])
def test_a_loop_that_ends_leaves_nothing_open_and_nothing_to_warn_of(ending: str) -> None:
    kept: list[Any] = []

    async def main(url: str) -> None:
        client = AsyncClient(url, "k:s")
        stream = client.stream("me/app")
        await anext(stream)
        if ending == "drops the client":
            stream.close()
            del client
            gc.collect()
            await asyncio.sleep(0)
        if ending == "holds the stream":
            kept.append(stream)

    with scripted([STREAM_HEAD, ONE, HOLD]) as server:
        asyncio.run(main(server.url), debug=True)
        server.wait_for_leavers()
        kept.clear()
        gc.collect()


def test_close_from_another_thread_wakes_a_reader() -> None:
    with scripted([STREAM_HEAD, ONE, HOLD]) as server, Client(server.url, "k:s") as client:
        stream = client.stream("me/app")
        items: list[Any] = []
        came = threading.Event()

        def read() -> None:
            for item in stream:
                items.append(item)
                came.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert came.wait(20)
        time.sleep(0.3)  # until it waits in recv again, where nothing shows that it does
        stream.close()
        reader.join(20)

        assert not reader.is_alive()
        assert [{"i": 1}] == items
        server.wait_for_leavers()


def test_close_from_another_task_ends_a_reader() -> None:
    async def main(url: str) -> list[Any]:
        stream = AsyncClient(url, "k:s").stream("me/app")
        items: list[Any] = []
        came = asyncio.Event()

        async def read() -> None:
            async for item in stream:
                items.append(item)
                came.set()

        task = asyncio.create_task(read())
        await came.wait()
        stream.close()
        await asyncio.wait_for(task, 20)
        return items

    with scripted([STREAM_HEAD, ONE, HOLD]) as server:
        assert [{"i": 1}] == asyncio.run(main(server.url))
