"""More than there is room for: events, results, bodies, words on an output, frames on a link. Only its sender suffers."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.core.frames import MORE, VERSION, Kind, encode
from tests.support.bystander import bystander
from tests.support.memory import MIB, metric, settled, watched_memory
from tests.support.server import Answer, RawStream, Server, data_events, eventually, running_server

MODELS = Path(__file__).parent / "models/hoarding.py"
CALM = "/fault/calm/stream"
SAME_RUNNER = "/fault/hoarding/ticks/stream"

EVENT_BYTES = 1024 * 1024
RESULT_BYTES = 32 * MIB
#: What stands around the text: `{"text":"` and `"}`.
AROUND = 11

names = (f"flood {number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server(MODELS) as server:
        yield server


def runner_of(server: Server, app: str) -> int:
    """The runner of an app that became ready last, by the log."""
    return int(re.findall(rf"{app} is ready \(runner (\d+)\)", server.log)[-1])


def error_of(stream: RawStream) -> dict[str, object]:
    """What the error event says with which a stream ended."""
    block = stream.body.split(b"\n\n")[-2]
    assert block.startswith(b"event: error\ndata: "), block[-300:]
    return json.loads(block.partition(b"data: ")[2])["error"]


def filled(unit: str, size: int) -> dict[str, object]:
    """Ask for an event of `size` bytes, made of as many units as there is room for, and letters."""
    cost = len(json.dumps(unit)) - 2
    return {"unit": unit, "units": (size - AROUND) // cost, "pad": (size - AROUND) % cost}


# --- S10: events around the limit -----------------------------------------------------------------------------

UNITS = {"ascii": "x", "accent": "é", "separator": "\u2028", "emoji": "🌅"}
AROUND_THE_LIMIT = [EVENT_BYTES + more for more in (-2, -1, 0, 1, 2)]


@pytest.mark.promise("S10")
@pytest.mark.parametrize("unit", UNITS.values(), ids=list(UNITS))
def test_an_event_up_to_the_limit_passes_and_one_over_it_is_a_typed_error_for_its_stream_alone(
    server, unit, count
):
    assert count(smoke=5, full=5) == len(AROUND_THE_LIMIT)
    runner = runner_of(server, "fault/hoarding")
    with bystander(server, path=SAME_RUNNER):
        for size in AROUND_THE_LIMIT:
            ask = filled(unit, size)
            text = unit * ask["units"] + "x" * ask["pad"]
            whole = json.dumps({"text": text}, separators=(",", ":")).encode()
            assert size == len(whole)
            with server.open("/fault/hoarding/text/stream", ask, {"Connection": "close"}) as first:
                first.read_to_end()
            with server.open("/fault/hoarding/second-text/stream", ask) as second:
                second.read_until(b"\r\n0\r\n\r\n") if size <= EVENT_BYTES else second.read_to_end()

            if size <= EVENT_BYTES:
                assert b"data: " + whole + b"\n\n" == first.body
                assert b'data: {"text":"first"}\n\ndata: ' + whole + b"\n\n" == second.body
                assert first.is_whole and second.is_whole
            else:
                assert first.head.startswith(b"HTTP/1.1 500 ")
                assert b'"event_too_large"' in first.bytes
                assert [{"text": "first"}] == data_events(second.body)[:1]
                assert ("event_too_large", 500, False) == tuple(
                    error_of(second)[key] for key in ("type", "status", "retryable")
                )
                assert len(second.bytes) < 2_000
                assert not second.is_whole

    assert runner == runner_of(server, "fault/hoarding")


@pytest.mark.promise("S10")
@pytest.mark.parametrize(("unit", "mib"), [("x", 2), ("x", 100), ("é", 3), ("🌅", 30)])
def test_an_event_far_over_the_limit_is_no_more_than_that(server, unit, mib):
    with bystander(server, path=SAME_RUNNER):
        answer = server.post(
            "/fault/hoarding/text/stream", {"unit": unit, "units": mib * MIB // len(unit.encode())}
        )

    assert (500, "event_too_large") == (answer.status, answer.json["error_type"])
    assert str(EVENT_BYTES) in answer.json["detail"]


# --- results --------------------------------------------------------------------------------------------------


@pytest.mark.promise("S10")
def test_a_result_up_to_its_limit_arrives_whole_and_one_over_it_is_a_typed_error(server):
    with bystander(server, path=SAME_RUNNER, gap_s=20):
        within = server.post("/fault/hoarding/result", filled("x", RESULT_BYTES))
        escaped = server.post("/fault/hoarding/result", filled("é", RESULT_BYTES))
        over = [server.post("/fault/hoarding/result", filled(unit, RESULT_BYTES + 1)) for unit in ("x", "é")]

    assert [200, 200] == [within.status, escaped.status]
    assert {"text": "x" * (RESULT_BYTES - AROUND)} == within.json
    assert RESULT_BYTES == len(escaped.body)
    assert [(500, "result_too_large")] * 2 == [(answer.status, answer.json["error_type"]) for answer in over]


def asked_for(server: Server, path: str, body: object) -> RawStream:
    """A request whose answer is not read, by a client with a small buffer."""
    client = RawStream.__new__(RawStream)
    client.bytes = b""
    client.socket = socket.socket()
    client.socket.settimeout(60)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.socket.connect(("127.0.0.1", server.port))
    client.post(path, body)
    return client


def held_bodies(server: Server) -> float:
    return metric(server, "headrace_held_bytes", kind="bodies")


@pytest.mark.promise("S6")
def test_large_results_that_slow_clients_fetch_are_counted_and_refused_when_they_are_too_many(recorder, figures):
    clients, size = 8, (32 if recorder.is_full else 4) * MIB
    limits = {"bodies_bytes_max": 6 * size + size // 2, "stall_timeout_s": 600}  # room for six of the eight
    with running_server(MODELS, limits=limits) as server, contextlib.ExitStack() as open_now:
        server.post("/fault/hoarding/result", filled("x", size))
        with watched_memory(server) as growth, bystander(server, path=CALM):
            waiting = [
                open_now.enter_context(asked_for(server, "/fault/hoarding/result", filled("x", size)))
                for _ in range(clients)
            ]
            ended = "headrace_requests_total"
            eventually(
                lambda: metric(server, ended, app="fault/hoarding", ending="completed") == 1 + clients,
                "all are made",
            )
            eventually(lambda: held_bodies(server) == 6 * size, "six results are held")
            for client in waiting:
                client.read_until(b"\r\n\r\n")
            refused = [client for client in waiting if client.bytes.startswith(b"HTTP/1.1 429 ")]
            served = [client for client in waiting if client.bytes.startswith(b"HTTP/1.1 200 ")]
            for client in refused:
                client.read_until(b"overloaded")
            for client in served:
                missing = size - len(client.bytes.partition(b"\r\n\r\n")[2])
                while missing:
                    piece = client.socket.recv(1 << 20)
                    assert piece, "the answer was cut"
                    missing -= len(piece)
                assert piece.endswith(b'x"}')
        eventually(lambda: held_bodies(server) == 0, "nothing is held any more")
        again = server.post("/fault/hoarding/result", filled("x", size))

    assert (2, 6) == (len(refused), len(served))
    assert 200 == again.status
    assert growth.node <= 2 * 6 * size + 64 * MIB
    figures("S6", target="bodies_bytes_max holds", results_mib=6 * size / MIB, node_mib=growth.node_mib,
            per_byte=growth.node / (6 * size))  # fmt: skip


# --- bodies ---------------------------------------------------------------------------------------------------


def test_bodies_beyond_the_budget_are_refused_while_they_come_and_their_bytes_given_back():
    body = json.dumps({"pad": "x" * 1_000_000}).encode()
    with (
        running_server(MODELS, limits={"bodies_bytes_max": 2_500_000, "linger_s": 10}) as server,
        contextlib.ExitStack() as open_now,
    ):
        with bystander(server, path=CALM):
            uploads = [open_now.enter_context(contextlib.closing(upload(server, body))) for _ in range(2)]
            for connection in uploads:
                connection.send(body[:-10])  # all but the end: they stay
            eventually(lambda: held_bodies(server) == 2 * (len(body) - 10), "two bodies are held")

            third = upload(server, body)
            third.send(body)
            refused = third.getresponse()
            told = json.loads(refused.read())
            eventually(lambda: held_bodies(server) == 2 * (len(body) - 10), "what came of the third is given back")
            for connection in uploads:
                connection.send(body[-10:])
            answers = [json.loads(connection.getresponse().read()) for connection in uploads]
            eventually(lambda: held_bodies(server) == 0, "all is given back")
            third.request("POST", "/fault/hoarding/length", body, {"Content-Type": "application/json"})
            after = third.getresponse()

            leaver = upload(server, body)
            leaver.send(body[:-10])
            eventually(lambda: held_bodies(server) == len(body) - 10, "a third body is held")
            leaver.close()
            eventually(lambda: held_bodies(server) == 0, "who leaves gives back, too")

            assert (429, "overloaded") == (refused.status, told["error_type"])
            assert int(refused.headers["retry-after"]) >= 1
            assert [{"length": 1_000_000}] * 2 == answers
            assert (200, {"length": 1_000_000}) == (after.status, json.loads(after.read()))
            third.close()


def upload(server: Server, body: bytes) -> http.client.HTTPConnection:
    """A request whose body is yet to come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/fault/hoarding/length")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    return connection


def test_bodies_that_were_served_are_held_by_nobody(server):
    body = json.dumps({"pad": "x" * 5_000_000}).encode()
    for _ in range(5):
        server.post("/fault/hoarding/length", body)

    with watched_memory(server) as growth, bystander(server, path=CALM, ticks=10):
        for _ in range(30):
            assert {"length": 5_000_000} == server.post("/fault/hoarding/length", body).json

    assert growth.node < 50 * MIB
    assert growth.runner_mib < 50


# --- events of all requests together --------------------------------------------------------------------------


@pytest.mark.promise("S6")
def test_when_all_events_together_are_too_many_the_largest_hoards_are_ended_and_told_and_the_rest_go_on(
    recorder, figures
):
    hoards = 200 if recorder.is_full else 16
    limits = {
        "events_bytes_max": hoards * 96 * 1024, "replays_bytes_max": 64 * 1024, "stall_timeout_s": 600,
        "flush_timeout_s": 20,
    }  # fmt: skip
    with running_server(MODELS, limits=limits) as server, contextlib.ExitStack() as open_now:
        # One stream of the bystander for all of it, on any but the busiest machine: a new one may be refused meanwhile.
        with bystander(server, path=CALM, ticks=250) as other:
            ask = {"events": 1_000_000, "size": 1_000}
            streams = [
                open_now.enter_context(
                    asked_for(server, "/fault/hoarding/flood/stream", {**ask, "name": f"hoard {number}"})
                )
                for number in range(hoards)
            ]
            eventually(lambda: metric(server, "headrace_requests_shed_total") > 0, "some are ended")
            eventually(
                lambda: metric(server, "headrace_held_bytes", kind="events") <= limits["events_bytes_max"],
                "there is room again",
            )
            eventually(
                lambda: server.post("/fault/hoarding/length", {"pad": ""}).status == 200, "requests are taken"
            )
            # Until each has begun, and is over or stands still for a look or two: what grows yet may have others ended.
            made = lambda: server.post("/fault/hoarding/made").json  # noqa: E731
            eventually(lambda: len(made().get("made", ())) == hoards, "each has begun")
            over = set(settled(made, seconds=1.2)["over"])
            ended = [stream for number, stream in enumerate(streams) if f"hoard {number}" in over]
            kept = [stream for stream in streams if stream not in ended]
            shed = metric(server, "headrace_requests_shed_total")
            told = metric(server, "headrace_requests_total", app="fault/hoarding", ending="overloaded")
            for stream in ended:  # it reads again in time: it is told
                stream.read_to_end()
            for stream in kept[:3]:
                stream.read_until(b'{"i":600,')

    assert 0 < len(ended) < hoards
    assert shed >= len(ended)
    assert told >= len(ended)
    assert {("overloaded", True)} == {
        (error_of(stream)["type"], error_of(stream)["retryable"]) for stream in ended
    }
    for stream in [*ended, *kept[:3]]:
        numbers = [int(number) for number in re.findall(rb'data: \{"i":(\d+),', stream.body)]
        assert list(range(len(numbers))) == numbers
    figures("S6", target="events_bytes_max holds", hoards=hoards, ended=len(ended), others_gap_ms=other.gap_ms)


@pytest.mark.promise("S6")
def test_while_events_hold_too_much_new_requests_are_refused_and_later_taken_again():
    limits = {"events_bytes_max": 4 * 1024, "replays_bytes_max": 1024, "stall_timeout_s": 600}
    with running_server(MODELS, limits=limits) as server:
        refusals: list[Answer] = []

        def is_over(name: str) -> bool:
            answer = server.post("/fault/hoarding/made")
            refusals.extend([answer] if answer.status != 200 else [])
            return name in answer.json.get("over", ())

        # It is half a second from one look at the memory to the next: who is held up for that long misses the refusals.
        while not refusals:
            name = next(names)
            ask = {"events": 1_000_000, "size": 1_000, "name": name}
            with asked_for(server, "/fault/hoarding/flood/stream", ask):
                eventually(lambda name=name: is_over(name), "the hoard is ended")
        eventually(lambda: server.post("/fault/hoarding/length", {"pad": ""}).status == 200, "requests are taken")

    assert (429, "overloaded") == (refusals[0].status, refusals[0].json["error_type"])
    assert int(refusals[0].headers["retry-after"]) >= 1


# --- R6: outputs ----------------------------------------------------------------------------------------------

PRINTED = ["lines", "tiny-lines", "empty-lines", "one-line", "garbage", "carriage-returns"]


@pytest.mark.promise("R6")
def test_floods_of_words_are_bounded_in_the_log_and_counted_and_cost_nobody_else(server, recorder, count, figures):
    total = (100 if recorder.is_full else 4) * 1_000_000
    log = server.folder / "server.log"
    for _ in range(count(smoke=1, full=5)):
        before, dropped_before = log.stat().st_size, dropped(server)
        begun = time.monotonic()
        with watched_memory(server) as growth, bystander(server, path=CALM) as other:
            floods = [{"kind": kind, "bytes": total, "to": output} for kind in PRINTED for output in (1, 2)]
            answers = [server.post("/fault/talkative/print", flood) for flood in floods]
            seconds = time.monotonic() - begun + 2
            # What is not in the log, by its size. It is told though the model prints no more.
            fewest = len(floods) * total - seconds * 2 * 256 * 1024
            eventually(lambda: dropped(server) - dropped_before >= fewest, "what is dropped is counted")
        logged = log.stat().st_size - before
        counted = dropped(server) - dropped_before

        assert {200} == {answer.status for answer in answers}
        assert all(answer.json["printed"] >= total for answer in answers)
        # A byte that is no text takes three in the log.
        assert logged <= seconds * 2 * 256 * 1024 * 3.5 + 64 * 1024
        assert counted <= sum(answer.json["printed"] for answer in answers) + 1_000
        eventually(lambda: "[fault/talkative] printed too much: " in server.log, "the log tells of it")
        assert growth.node < 16 * MIB
        figures("R6", mb=len(floods) * total / 1e6, logged_kb=logged / 1e3, took_s=seconds - 2,
                node_mib=growth.node_mib, others_gap_ms=other.gap_ms)  # fmt: skip


@pytest.mark.promise("R6")
def test_after_a_flood_of_words_lines_are_logged_again(server):
    server.post("/fault/talkative/print", {"kind": "tiny-lines", "bytes": 1_000_000})

    def is_heard() -> bool:
        server.post("/fault/talkative/print", {"kind": "lines", "bytes": 0})
        return "[fault/talkative] the last word of lines" in server.log

    eventually(is_heard, "a line is logged")


def dropped(server: Server) -> float:
    return metric(server, "headrace_output_dropped_bytes_total", app="fault/talkative")


# --- R7: a runner that breaks the rules of its link -----------------------------------------------------------

BROKEN = {
    "a length of 2^31": b"\x80\x00\x00\x00\x44\x00\x00\x00\x01",
    "text": b"Traceback (most recent call last):\n",
    "an unknown kind": encode(99, 1),
    "a frame for runners": encode(Kind.START, 1, b"{}"),
    "another version": encode(Kind.HELLO, 0, b'{"version": %d, "pid": 1, "apps": []}' % (VERSION + 1)),
    "garbage in ERROR": encode(Kind.ERROR, 1, b"\xff"),
    "garbage in CHECKED": encode(Kind.CHECKED, 1, b"{"),
    "garbage in FAULT": encode(Kind.FAULT, 0, b"[]"),
    "garbage in HELLO": encode(Kind.HELLO, 0),
    "pieces without an end": encode(Kind.EVENT | MORE, 1, b"x" * 60_000) * 20,
}


def write_on_link(server: Server, data: bytes, times: int = 1) -> Answer:
    """Have the rogue write on its link; return what becomes of the request that did it."""
    return server.post("/fault/rogue/write", {"base64": base64.b64encode(data).decode(), "times": times})


@pytest.mark.promise("R7")
def test_a_runner_that_breaks_the_rules_of_its_link_is_replaced_and_its_requests_are_told(server, count):
    for what, broken in itertools.islice(itertools.cycle(BROKEN.items()), count(smoke=3, full=3 * len(BROKEN))):
        before = runner_of(server, "fault/rogue")
        assert {"length": 0} == server.post("/fault/rogue/length", {}).json
        with bystander(server, path=CALM, ticks=10), server.open("/fault/rogue/hold/stream") as held:
            held.read_until(b'{"i":0}')
            answer = write_on_link(server, broken, times=60 if len(broken) > MIB else 1)
            held.read_to_end()
            eventually(lambda: runner_of(server, "fault/rogue") != before, "another runner is ready")

        assert (503, "runner_disconnected") == (answer.status, answer.json["error_type"]), what
        assert ("runner_disconnected", True) == (error_of(held)["type"], error_of(held)["retryable"])
        assert {"length": 0} == server.post("/fault/rogue/length", {}).json
    assert "Headrace's own" not in server.log


@pytest.mark.promise("R7", "S6")
def test_a_runner_that_ignores_the_window_is_replaced_before_it_fills_the_node(server, figures):
    before = runner_of(server, "fault/rogue")
    server.post("/fault/rogue/length", {})
    event = b'{"pad": "' + b"x" * 60_000 + b'"}'
    events = b"".join(encode(Kind.EVENT, stream, event) for stream in range(1, 41))
    with bystander(server, path=CALM), watched_memory(server) as growth:
        with asked_for(server, "/fault/rogue/hold/stream", {}) as stream:
            stream.read_until(b'{"i":0}')
            answer = write_on_link(server, events, times=1_000)
            eventually(lambda: runner_of(server, "fault/rogue") != before, "another runner is ready")
            stream.read_to_end()

    assert (503, "runner_disconnected") == (answer.status, answer.json["error_type"])
    assert not stream.is_whole
    assert "wait for a reader who has not taken them" in server.log
    assert growth.node < 64 * MIB
    figures("R7", node_mib=growth.node_mib)
