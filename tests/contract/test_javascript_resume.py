"""The SDK for JavaScript, in Node: a stream survives every cut, and is stopped by whoever leaves it on purpose."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.javascript import running_node
from tests.support.resuming import HEAD, ITEMS, REQUEST_ID, cut_wire, recorded, recorded_server
from tests.support.scripted import CLOSE, HOLD, LAST_CHUNK, STREAM_HEAD, STRETCHES, answer, chunk, event, scripted
from tests.support.server import eventually

WHOLE = recorded()
#: Streams read at once: each waits a tenth of a second before it goes on.
AT_ONCE = 24
RESUMING = {"resume": True}


@pytest.fixture(scope="module")
def node():
    with running_node() as node:
        yield node


# --- cuts -----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("P1")
@pytest.mark.timeout(300)  # hundreds of streams
def test_a_recorded_stream_cut_behind_any_byte_is_handed_over_once_and_whole(node) -> None:
    def read(offset: int) -> tuple[int, Any, int]:
        with cut_wire(server.port, [offset], resets=offset % 2 == 1) as wire:
            return offset, node.read(wire.url, options=RESUMING), wire.connections

    with recorded_server() as server, ThreadPoolExecutor(AT_ONCE) as readers:
        seen = list(readers.map(read, range(len(WHOLE))))

    assert [] == [(at, it) for at, it, _ in seen if (it["items"], it["error"]) != (ITEMS, None)]
    assert {2} == {connections for _, _, connections in seen}
    assert len(WHOLE) == len(server.starts)
    assert {1} == set(server.starts.values())


def test_a_stream_without_a_cut_is_one_connection(node) -> None:
    with recorded_server() as server, cut_wire(server.port, []) as wire:
        outcome = node.read(wire.url, options=RESUMING)

    assert (ITEMS, None, REQUEST_ID) == (outcome["items"], outcome["error"], outcome["requestId"])
    assert 1 == wire.connections
    assert ["POST"] == [request.line.split()[0] for request in server.requests]


def test_a_stream_cut_at_every_connection_gets_on_as_long_as_each_brings_an_event(node) -> None:
    with recorded_server() as server, cut_wire(server.port, [len(HEAD) + 100] * 40) as wire:
        outcome = node.read(wire.url, options=RESUMING)

    assert (ITEMS, None) == (outcome["items"], outcome["error"])
    assert wire.connections > 6
    assert [1] == list(server.starts.values())


def test_silence_is_a_cut_too(node) -> None:
    first = STREAM_HEAD + chunk(b'id: r.1.0\ndata: {"i": 0}\n\n')
    second = STREAM_HEAD + chunk(b'id: r.1.1\ndata: {"i": 1}\n\n') + LAST_CHUNK
    for stretch in STRETCHES:
        with scripted([first, HOLD]) as silent, scripted([second]) as server:
            with cut_wire([silent.port, server.port], []) as wire:
                outcome = node.read(wire.url, options={**RESUMING, "timeout": 300 * stretch})
        if {"i": 0} in outcome["items"]:
            break  # else the first event itself did not come in that time

    assert ([{"i": 0}, {"i": 1}], None) == (outcome["items"], outcome["error"])
    assert "r.1.0" == server.requests[0].headers["last-event-id"]


def test_an_end_that_node_cannot_tell_from_a_cut_is_asked_about(node) -> None:
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    gone = b"HTTP/1.1 204 No Content\r\nx-fal-request-id: req-1\r\n\r\n"
    with scripted([head, chunk(b"id: r.1.0\ndata: {}\n\n"), CLOSE]) as before, scripted([gone]) as after:
        with cut_wire([before.port, after.port], []) as wire:
            resumed = node.read(wire.url, options=RESUMING)
        plain = node.read(before.url)

    assert ([{}], None) == (resumed["items"], resumed["error"])
    assert ([{}], "ConnectionLost") == (plain["items"], plain["error"]["name"])


# --- ends -----------------------------------------------------------------------------------------------------------


def test_a_stream_whose_events_have_no_id_is_not_resumed(node) -> None:
    with scripted([STREAM_HEAD, event(b'{"i": 0}'), CLOSE]) as server:
        outcome = node.read(server.url, options=RESUMING)

    assert ([{"i": 0}], "ConnectionLost") == (outcome["items"], outcome["error"]["name"])
    assert 1 == len(server.requests)


def test_an_error_event_is_the_end_even_if_it_says_retryable(node) -> None:
    failure = b'{"error": {"type": "runner_lost", "message": "gone", "retryable": true}}'
    body = chunk(b"id: r.1.0\ndata: {}\n\n") + chunk(b"event: error\nid: r.1.1\ndata: " + failure + b"\n\n")
    with scripted([STREAM_HEAD + body, CLOSE]) as server:
        outcome = node.read(server.url, options=RESUMING)

    assert ([{}], "ApiError", True) == (outcome["items"], outcome["error"]["name"], outcome["error"]["retryable"])
    assert 1 == len(server.requests)


@pytest.mark.parametrize("status", [401, 404, 412, 422, 500, 503])
def test_a_refusal_of_the_servers_is_thrown_at_once(node, status: int) -> None:
    with scripted([answer(status, b'{"detail": "no"}')]) as server:
        outcome = node.read(server.url, options=RESUMING)

    assert ([], status, "no") == (outcome["items"], outcome["error"]["status"], outcome["error"]["message"])
    assert 1 == len(server.requests)


def test_a_gateway_on_the_way_that_lost_the_server_is_asked_again(node) -> None:
    bad = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    with scripted([bad]) as server:
        outcome = node.read(server.url, options=RESUMING)

    assert 502 == outcome["error"]["status"]
    assert 6 == len(server.requests)
    assert 1 == len({request.headers["idempotency-key"] for request in server.requests})


def test_an_address_where_nobody_is_is_given_up(node) -> None:
    outcome = node.read("http://127.0.0.1:1", options=RESUMING)

    assert "ConnectionLost" == outcome["error"]["name"]


def test_204_is_the_end_only_for_who_has_seen_an_event(node) -> None:
    with scripted([b"HTTP/1.1 204 No Content\r\n\r\n"]) as server:
        outcome = node.read(server.url, options=RESUMING)

    assert "ProtocolError" == outcome["error"]["name"]
    assert 1 == len([request for request in server.requests if request.line.startswith("POST")])


# --- leaving --------------------------------------------------------------------------------------------------------

BY_BREAK = "for await (const _ of stream) break;"
BY_ABORT = "for await (const _ of stream) { stream.abort(); return 'aborted'; }"
BY_SIGNAL = """
    try { for await (const _ of stream) controller.abort(new Error("enough")); } catch (error) { return error.message; }
"""
BY_LISTENER = """
    stream.on("data", () => stream.abort());
    await stream.done().catch(() => {});
"""
BY_THROW = (
    """try { for await (const _ of stream) throw new Error("mine"); } catch (error) { return error.message; }"""
)
LEAVING = {"break": BY_BREAK, "abort": BY_ABORT, "signal": BY_SIGNAL, "listener": BY_LISTENER, "throw": BY_THROW}

STREAM = """
    const fal = sdk.createFalClient({ baseUrl: given.url, credentials: "id:secret" });
    const controller = new AbortController();
    const stream = await fal.stream("me/app", { input: { a: 1 }, signal: controller.signal, ...given.options });
"""


def cancels(server: Any) -> list[str]:
    return [request.line for request in list(server.requests) if request.line.startswith("PUT")]


@pytest.mark.parametrize("way", LEAVING)
def test_leaving_on_purpose_stops_the_request(node, way: str) -> None:
    with scripted([STREAM_HEAD, chunk(b"id: r.1.0\ndata: {}\n\n"), HOLD]) as server:
        node.run(STREAM + LEAVING[way], url=server.url, options=RESUMING)

        eventually(lambda: cancels(server), "the cancel")
        server.wait_for_leavers()
    assert ["PUT /me/app/requests/req-1/cancel HTTP/1.1"] == cancels(server)
    assert "Key id:secret" == server.requests[-1].headers["authorization"]


@pytest.mark.parametrize("way", LEAVING)
def test_without_resuming_the_connection_is_closed_and_that_is_all(node, way: str) -> None:
    with scripted([STREAM_HEAD, chunk(b"id: r.1.0\ndata: {}\n\n"), HOLD]) as server:
        node.run(STREAM + LEAVING[way], url=server.url, options={})
        server.wait_for_leavers()

    assert [] == cancels(server)


def test_who_leaves_before_any_answer_takes_the_grace_back_under_the_same_key(node) -> None:
    with scripted([HOLD]) as server:
        begun = node.begin(
            STREAM + "globalThis.leave = () => controller.abort();"
            "try { await stream.done(); } catch (error) { return error.name; }",
            url=server.url,
            options=RESUMING,
        )
        eventually(lambda: server.requests, "the request")
        node.run("globalThis.leave();")
        eventually(lambda: len(server.requests) == 2, "the second word")
        first, second = server.requests

        assert "AbortError" == begun.result(20)
    assert "grace:30" == first.headers["x-headrace-on-disconnect"]
    assert "cancel" == second.headers["x-headrace-on-disconnect"]
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert b'{"a":1}' == first.body == second.body


@pytest.mark.parametrize("body", [
    pytest.param(chunk(b"id: r.1.0\ndata: {}\n\n") + LAST_CHUNK, id="its end"),
    pytest.param(event(b'{"error": {"type": "x", "message": "y"}}'), id="an error event"),
])  # fmt: skip
def test_nothing_is_stopped_that_has_ended(node, body: bytes) -> None:
    with scripted([STREAM_HEAD + body]) as server:
        node.read(server.url, options=RESUMING)
        node.read(server.url, options=RESUMING)

    assert [] == cancels(server)


def test_a_stream_that_was_given_up_before_it_began_sends_nothing(node) -> None:
    script = """
        const fal = sdk.createFalClient({ baseUrl: given.url });
        const signal = AbortSignal.abort(new Error("no more"));
        return await fal.stream("me/app", { signal, resume: true }).catch((error) => error.message);
    """
    with scripted([]) as server:
        assert "no more" == node.run(script, url=server.url)

    assert [] == server.requests


# --- attaching ------------------------------------------------------------------------------------------------------


def attached(node, url: str, **options: Any) -> dict[str, Any]:
    return node.read(url, call="attach", options={"requestId": REQUEST_ID, **options})


@pytest.mark.parametrize("offset", [0, 17, len(HEAD), len(HEAD) + 700, len(WHOLE) - 1])
def test_an_attached_stream_survives_cuts(node, offset: int) -> None:
    with recorded_server() as server, cut_wire(server.port, [offset]) as wire:
        outcome = attached(node, wire.url)

    assert (ITEMS, None) == (outcome["items"], outcome["error"])
    assert Counter() == server.starts


def test_attaching_behind_an_event_gives_what_follows_and_behind_the_last_nothing(node) -> None:
    with recorded_server() as server:
        rest = attached(node, server.url, lastEventId=f"{REQUEST_ID}.1.10")
        nothing = attached(node, server.url, lastEventId=f"{REQUEST_ID}.1.12")

    assert (ITEMS[11:], None) == (rest["items"], rest["error"])
    assert ([], None) == (nothing["items"], nothing["error"])


def test_leaving_somebody_elses_request_does_not_stop_it(node) -> None:
    with scripted([STREAM_HEAD, chunk(b"id: r.1.0\ndata: {}\n\n"), HOLD]) as server:
        node.read(server.url, call="attach", options={"requestId": "req-1"}, leaveAfter=1)
        server.wait_for_leavers()

    assert [] == cancels(server)


def test_attaching_without_resuming_tells_of_the_cut(node) -> None:
    with recorded_server() as server, cut_wire(server.port, [len(HEAD) + 100]) as wire:
        outcome = attached(node, wire.url, resume=False)

    assert "ConnectionLost" == outcome["error"]["name"]
    assert 1 == wire.connections


def test_the_mark_of_a_new_attempt_is_an_item_and_comes_once(node) -> None:
    mark = chunk(b'id: r.1.0\ndata: {"type":"rollback","attempt":2}\n\n')
    answers = [
        STREAM_HEAD + chunk(b'id: r.1.0\ndata: {"i":0}\n\n') + mark,  # and a cut
        STREAM_HEAD + mark + chunk(b'id: r.2.0\ndata: {"i":0}\n\n') + LAST_CHUNK,
    ]
    with scripted([answers[0], CLOSE]) as before, scripted([answers[1]]) as after:
        with cut_wire([before.port, after.port], []) as wire:
            outcome = node.read(wire.url, call="attach", options={"requestId": "req-1"})

    assert [{"i": 0}, {"type": "rollback", "attempt": 2}, {"i": 0}] == outcome["items"]
    assert "r.1.0" == after.requests[0].headers["last-event-id"]


def test_a_token_goes_in_the_address_and_no_key_with_it(node) -> None:
    with scripted([STREAM_HEAD + event(b"{}") + LAST_CHUNK]) as server:
        node.read(server.url, call="attach", options={"requestId": "req-1", "token": "t.1"})

    assert "GET /me/app/requests/req-1/stream?fal_jwt_token=t.1 HTTP/1.1" == server.requests[0].line
    assert "authorization" not in server.requests[0].headers
