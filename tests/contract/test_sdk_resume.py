"""A stream that is to be resumed survives every cut, and is stopped by whoever leaves it on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace import AsyncClient, Client
from headrace.client import errors
from tests.support.resuming import HEAD, ITEMS, REQUEST_ID, SHELLS, cut_wire, recorded, recorded_server
from tests.support.scripted import (
    CLOSE,
    HOLD,
    LAST_CHUNK,
    STREAM_HEAD,
    STRETCHES,
    Wait,
    answer,
    chunk,
    event,
    scripted,
)
from tests.support.server import eventually
from tests.support.shells import no_credentials  # noqa: F401

WHOLE = recorded()
#: Streams read at once: each waits a tenth of a second before it goes on.
AT_ONCE = 24

both = pytest.mark.parametrize("shell", SHELLS)


# --- cuts -----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("P1")
@pytest.mark.timeout(300)  # hundreds of streams, each with a client of its own
@both
def test_a_recorded_stream_cut_behind_any_byte_is_handed_over_once_and_whole(shell: str) -> None:
    def read(offset: int) -> tuple[int, Any, int]:
        with cut_wire(server.port, [offset], resets=offset % 2 == 1) as wire:
            return offset, SHELLS[shell](wire.url), wire.connections

    with recorded_server() as server, ThreadPoolExecutor(AT_ONCE) as readers:
        offsets = range(len(WHOLE))
        seen = list(readers.map(read, offsets))

    assert [] == [(at, it) for at, it, _ in seen if (it.items, it.error) != (ITEMS, None)]
    assert {2} == {connections for _, _, connections in seen}
    assert len(WHOLE) == len(server.starts)
    assert {1} == set(server.starts.values())


@both
def test_a_stream_without_a_cut_is_one_connection(shell: str) -> None:
    with recorded_server() as server, cut_wire(server.port, []) as wire:
        outcome = SHELLS[shell](wire.url)

    assert (ITEMS, None) == (outcome.items, outcome.error)
    assert 1 == wire.connections
    assert ["POST"] == [request.line.split()[0] for request in server.requests]


@both
def test_a_stream_cut_at_every_connection_gets_on_as_long_as_each_brings_an_event(shell: str) -> None:
    cuts = [len(HEAD) + 100] * 40  # an event or two

    with recorded_server() as server, cut_wire(server.port, cuts) as wire:
        outcome = SHELLS[shell](wire.url)

    assert (ITEMS, None) == (outcome.items, outcome.error)
    assert wire.connections > 6
    assert [1] == list(server.starts.values())


@both
def test_silence_is_a_cut_too(shell: str) -> None:
    first = STREAM_HEAD + chunk(b'id: r.1.0\ndata: {"i": 0}\n\n')
    second = STREAM_HEAD + chunk(b'id: r.1.1\ndata: {"i": 1}\n\n') + LAST_CHUNK
    for stretch in STRETCHES:
        with scripted([first, HOLD]) as silent, scripted([second]) as server:
            with cut_wire([silent.port, server.port], []) as wire:
                outcome = SHELLS[shell](wire.url, timeout=0.3 * stretch)
        if {"i": 0} in outcome.items:
            break  # else the first event itself did not come in that time

    assert ([{"i": 0}, {"i": 1}], None) == (outcome.items, outcome.error)
    assert "r.1.0" == server.requests[0].headers["last-event-id"]


# --- ends -----------------------------------------------------------------------------------------------------------


@both
def test_a_stream_whose_events_have_no_id_is_not_resumed(shell: str) -> None:
    with scripted([STREAM_HEAD, event(b'{"i": 0}'), CLOSE]) as server:
        outcome = SHELLS[shell](server.url)

    assert [{"i": 0}] == outcome.items
    assert errors.StreamCut is type(outcome.error)
    assert 1 == len(server.requests)


@both
def test_an_error_event_is_the_end_even_if_it_says_retryable(shell: str) -> None:
    failure = b'{"error": {"type": "runner_lost", "message": "gone", "retryable": true}}'
    body = chunk(b"id: r.1.0\ndata: {}\n\n") + chunk(b"event: error\nid: r.1.1\ndata: " + failure + b"\n\n")
    with scripted([STREAM_HEAD + body, CLOSE]) as server:
        outcome = SHELLS[shell](server.url)

    assert [{}] == outcome.items
    assert errors.StreamError is type(outcome.error)
    assert 1 == len(server.requests)


@both
@pytest.mark.parametrize("status", [401, 404, 412, 422, 500, 503])
def test_a_refusal_of_the_servers_is_raised_at_once(shell: str, status: int) -> None:
    with scripted([answer(status, b'{"detail": "no"}')]) as server:
        outcome = SHELLS[shell](server.url)

    assert [] == outcome.items
    assert status == outcome.error.status_code
    assert 1 == len(server.requests)


@both
def test_a_gateway_on_the_way_that_lost_the_server_is_asked_again(shell: str) -> None:
    bad = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    with scripted([bad]) as server:
        outcome = SHELLS[shell](server.url)

    assert 502 == outcome.error.status_code
    assert 6 == len(server.requests)
    assert 1 == len({request.headers["idempotency-key"] for request in server.requests})


@both
def test_an_address_where_nobody_is_is_told_within_seconds(shell: str) -> None:
    began = time.monotonic()

    outcome = SHELLS[shell]("http://127.0.0.1:1")

    assert errors.ConnectionFailed is type(outcome.error)
    assert time.monotonic() - began < 15


@both
def test_an_event_timeout_goes_on_through_cuts(shell: str) -> None:
    for stretch in STRETCHES:
        with scripted([STREAM_HEAD, Wait(0.1), CLOSE]) as server:
            outcome = SHELLS[shell](server.url, event_timeout=0.8 * stretch)
        if len(server.requests) > 2:
            break  # else it came to no more in that time

    assert errors.EventTimeout is type(outcome.error)
    assert len(server.requests) > 2


@both
def test_204_is_the_end_only_for_who_has_seen_an_event(shell: str) -> None:
    with scripted([b"HTTP/1.1 204 No Content\r\n\r\n"]) as server:
        outcome = SHELLS[shell](server.url)

    assert errors.ProtocolError is type(outcome.error)
    assert 1 == len([request for request in server.requests if request.line.startswith("POST")])


# --- leaving --------------------------------------------------------------------------------------------------------


def leave_by_break(url: str) -> None:
    with Client(url, "id:secret") as client:
        for _ in client.stream("me/app", resume=True):
            break


def leave_by_close(url: str) -> None:
    with Client(url, "id:secret") as client:
        stream = client.stream("me/app", resume=True)
        next(stream)
        stream.close()


def leave_by_exception(url: str) -> None:
    with Client(url, "id:secret") as client, pytest.raises(KeyError):
        with client.stream("me/app", resume=True) as stream:
            next(stream)
            raise KeyError


def leave_by_async_break(url: str) -> None:
    async def main() -> None:
        async for _ in AsyncClient(url, "id:secret").stream("me/app", resume=True):
            break

    asyncio.run(main())


def leave_by_aclose(url: str) -> None:
    async def main() -> None:
        stream = AsyncClient(url, "id:secret").stream("me/app", resume=True)
        await anext(stream)
        await stream.aclose()

    asyncio.run(main())


def leave_by_cancel(url: str) -> None:
    async def main() -> None:
        async def read() -> None:
            async with AsyncClient(url, "id:secret").stream("me/app", resume=True) as stream:
                async for _ in stream:
                    has_begun.set()

        has_begun = asyncio.Event()
        reader = asyncio.create_task(read())
        await has_begun.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    asyncio.run(main())


LEAVING = [
    leave_by_break, leave_by_close, leave_by_exception, leave_by_async_break, leave_by_aclose, leave_by_cancel,
]  # fmt: skip


def cancels(server: Any) -> list[str]:
    return [request.line for request in server.requests if request.line.startswith("PUT")]


def wait_for_cancels(server: Any, count: int = 1) -> list[str]:
    deadline = time.monotonic() + 20
    while len(cancels(server)) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return cancels(server)


@pytest.mark.parametrize("leave", LEAVING, ids=lambda leave: leave.__name__)
def test_leaving_on_purpose_stops_the_request(leave: Callable[[str], None]) -> None:
    with scripted([STREAM_HEAD, chunk(b"id: r.1.0\ndata: {}\n\n"), HOLD]) as server:
        leave(server.url)

        assert ["PUT /me/app/requests/req-1/cancel HTTP/1.1"] == wait_for_cancels(server)
        assert "Key id:secret" == server.requests[-1].headers["authorization"]


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_aclose], ids=lambda leave: leave.__name__)
def test_a_server_that_does_not_answer_holds_nobody_up_who_leaves(leave: Callable[[str], None]) -> None:
    with scripted([STREAM_HEAD, chunk(b"id: r.1.0\ndata: {}\n\n"), HOLD]) as server:
        began = time.monotonic()
        leave(server.url)

    assert time.monotonic() - began < 15  # of what it waits for otherwise, 30 and 45


def test_who_leaves_before_any_answer_takes_the_grace_back_under_the_same_key() -> None:
    with scripted([HOLD]) as server:
        with Client(server.url, "id:secret") as client:
            with pytest.raises(errors.EventTimeout):
                next(client.stream("me/app", {"a": 1}, resume=True, event_timeout=0.2))
        eventually(lambda: len(server.requests) >= 2, "both requests")  # the client has not waited for that
        first, second = sorted(server.requests, key=lambda request: request.connection)

    assert "grace:30" == first.headers["x-headrace-on-disconnect"]
    assert "cancel" == second.headers["x-headrace-on-disconnect"]
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body


@pytest.mark.parametrize("body", [
    pytest.param(chunk(b"id: r.1.0\ndata: {}\n\n") + LAST_CHUNK, id="its end"),
    pytest.param(event(b'{"error": {"type": "x", "message": "y"}}'), id="an error event"),
])  # fmt: skip
@both
def test_nothing_is_stopped_that_has_ended(shell: str, body: bytes) -> None:
    with scripted([STREAM_HEAD + body]) as server:
        SHELLS[shell](server.url)

    assert [] == cancels(server)


def test_a_stream_that_was_never_begun_stops_nothing() -> None:
    with scripted([]) as server, Client(server.url, "id:secret") as client:
        client.stream("me/app", resume=True).close()

    assert [] == server.requests


# --- attaching ------------------------------------------------------------------------------------------------------


def attach_sync(url: str, *args: Any, **options: Any) -> list[Any]:
    with Client(url, "id:secret") as client:
        return list(client.attach(*args, **options))


def attach_async(url: str, *args: Any, **options: Any) -> list[Any]:
    async def main() -> list[Any]:
        return [item async for item in AsyncClient(url, "id:secret").attach(*args, **options)]

    return asyncio.run(main())


ATTACH = {"sync": attach_sync, "async": attach_async}


@both
@pytest.mark.parametrize("offset", [0, 17, len(HEAD), len(HEAD) + 700, len(WHOLE) - 1])
def test_an_attached_stream_survives_cuts(shell: str, offset: int) -> None:
    with recorded_server() as server, cut_wire(server.port, [offset]) as wire:
        items = ATTACH[shell](wire.url, "me/app/fast", REQUEST_ID)

    assert ITEMS == items
    assert not server.starts


@both
def test_attaching_behind_an_event_gives_what_follows_and_behind_the_last_nothing(shell: str) -> None:
    with recorded_server() as server:
        rest = ATTACH[shell](server.url, "me/app", REQUEST_ID, after=f"{REQUEST_ID}.1.10")
        nothing = ATTACH[shell](server.url, "me/app", REQUEST_ID, after=f"{REQUEST_ID}.1.12")

    assert (ITEMS[11:], []) == (rest, nothing)


@both
def test_leaving_somebody_elses_request_does_not_stop_it(shell: str) -> None:
    with scripted([STREAM_HEAD, chunk(b"id: r.1.0\ndata: {}\n\n"), HOLD]) as server:
        if shell == "sync":
            with Client(server.url, "id:secret") as client, client.attach("me/app", "req-1") as stream:
                next(stream)
        else:

            async def main() -> None:
                async with AsyncClient(server.url, "id:secret").attach("me/app", "req-1") as stream:
                    await anext(stream)

            asyncio.run(main())
        server.wait_for_leavers()

    assert [] == cancels(server)


@both
def test_attaching_without_resuming_tells_of_the_cut(shell: str) -> None:
    with recorded_server() as server, cut_wire(server.port, [len(HEAD) + 100]) as wire:
        with pytest.raises(errors.StreamCut):
            ATTACH[shell](wire.url, "me/app", REQUEST_ID, resume=False)

    assert 1 == wire.connections


@both
def test_the_mark_of_a_new_attempt_is_an_item_and_comes_once(shell: str) -> None:
    mark = chunk(b'id: r.1.0\ndata: {"type":"rollback","attempt":2}\n\n')
    answers = [
        STREAM_HEAD + chunk(b'id: r.1.0\ndata: {"i":0}\n\n') + mark,  # and a cut
        STREAM_HEAD + mark + chunk(b'id: r.2.0\ndata: {"i":0}\n\n') + LAST_CHUNK,
    ]
    with scripted([answers[0], CLOSE]) as before, scripted([answers[1]]) as after:
        with cut_wire([before.port, after.port], []) as wire:
            items = ATTACH[shell](wire.url, "me/app", "req-1")

    assert [{"i": 0}, {"type": "rollback", "attempt": 2}, {"i": 0}] == items
    assert "r.1.0" == after.requests[0].headers["last-event-id"]
