"""Streams of a real server, down to the bytes: how they begin, go on and end."""

import json
import os
import re
import signal
import threading
import time

import pytest

from tests.support.memory import settled
from tests.support.server import ROOT, ZOO, RawStream, data_events, eventually, processes, running_server

#: Says each word when the test releases it.
PATIENT = f"{ROOT / 'tests' / 'support' / 'patient.py'}:Patient"

PING = b": ping\n"


@pytest.fixture(scope="module")
def server():
    # No runner is to lose its job here, however late it is with the end of a request.
    with running_server(limits={"cancel_grace_s": 60}) as server:
        yield server


@pytest.fixture(scope="module")
def quick():
    """A server whose heartbeats and holds are short."""
    limits = {"heartbeat_s": 0.2, "headers_hold_s": 0.2, "cancel_grace_s": 0.3}
    with running_server(ZOO, PATIENT, limits=limits) as server:
        yield server


def read_pings(stream: RawStream, number: int) -> None:
    """Read until so many heartbeats have come since the last event."""
    while stream.bytes.rpartition(b"data: ")[2].count(PING) < number:
        piece = stream.socket.recv(65_536)
        assert piece, f"the connection ended before {number} heartbeats; it said {stream.bytes[-500:]!r}"
        stream.bytes += piece


def last_error(body: bytes) -> dict:
    block = body.split(b"\n\n")[-2]
    assert block.startswith(b"event: error\ndata: ")
    return json.loads(block.partition(b"data: ")[2])["error"]


@pytest.mark.parametrize(
    "path", ["/zoo/zoo/stream", "/zoo/zoo/async/stream", "/zoo/zoo/steps/stream", "/zoo/zoo/stream/"]
)
def test_every_item_is_one_data_line_and_a_blank_line_and_nothing_else(server, path):
    with server.open(path, {"n": 3}) as stream:
        stream.read_until(b"0\r\n\r\n")

    assert stream.body == b'data: {"i":0}\n\ndata: {"i":1}\n\ndata: {"i":2}\n\ndata: {"total":3}\n\n'
    assert stream.is_whole


def test_the_head_of_a_stream_keeps_proxies_from_spoiling_it(server):
    with server.open(
        "/zoo/zoo/stream", {"n": 1}, {"Accept-Encoding": "gzip, br", "Connection": "close"}
    ) as stream:
        stream.read_to_end()

    head = stream.head.decode().lower()
    assert head.startswith("http/1.1 200 ok")
    for line in (
        "content-type: text/event-stream",
        "x-accel-buffering: no",
        "cache-control: no-cache, no-transform",
        "transfer-encoding: chunked",
        "x-fal-request-id: ",
        "date: ",
    ):
        assert line in head
    assert "content-encoding" not in head
    assert "connection: close" not in head
    assert stream.is_whole


def test_a_connection_serves_another_stream_after_the_first(server):
    with server.open("/zoo/zoo/stream", {"n": 1}) as stream:
        stream.read_until(b"0\r\n\r\n")
        stream.bytes = b""
        stream.post("/zoo/zoo/async/stream", {"n": 2})
        stream.read_until(b"0\r\n\r\n")

    assert data_events(stream.body) == [{"i": 0}, {"i": 1}, {"total": 2}]


def test_http_1_0_gets_the_events_without_chunks(server):
    with RawStream(server.port) as stream:
        stream.socket.sendall(b"POST /zoo/zoo/stream HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        received = stream.read_to_end()

    body = received.partition(b"\r\n\r\n")[2]
    assert b"transfer-encoding" not in received.lower()
    assert data_events(body) == [{"i": 0}, {"i": 1}, {"i": 2}, {"total": 3}]
    assert body.startswith(b"data: ")


def test_text_travels_in_ascii_and_arrives_whole(server):
    with server.open("/zoo/zoo/text/stream") as stream:
        stream.read_until(b"0\r\n\r\n")

    assert stream.body.isascii()
    assert data_events(stream.body) == [{"text": "é 🌅 \u2028 日本"}]


def test_an_event_of_almost_a_megabyte_is_one_event(server):
    n = 1024 * 1024 - 100
    with server.open("/zoo/zoo/big/stream", {"n": n}) as stream:
        stream.read_until(b"0\r\n\r\n")

    assert data_events(stream.body) == [{"text": "x" * n}, {"length": n}]


def test_an_event_over_the_limit_is_a_typed_error_for_its_own_stream(server):
    answer = server.post("/zoo/zoo/big/stream", {"n": 1024 * 1024})

    assert (answer.status, answer.json["error_type"]) == (500, "event_too_large")


def test_a_burst_of_20000_events_arrives_whole_and_in_order(server):
    with server.open("/zoo/zoo/burst/stream", {"n": 20_000}) as stream:
        stream.read_until(b"0\r\n\r\n")

    assert [event["i"] for event in data_events(stream.body)] == list(range(20_000))


# --- endings ------------------------------------------------------------------------------------------------


def test_a_failure_after_the_first_event_is_one_error_event_and_a_cut(server):
    with server.open("/zoo/zoo/raise-later/stream", headers={"Connection": "close"}) as stream:
        stream.read_to_end()

    error = last_error(stream.body)
    request_id = re.search(rb"x-fal-request-id: (\S+)", stream.head)[1].decode()
    assert data_events(stream.body)[:2] == [{"i": 0}, {"i": 1}]
    assert stream.body.count(b"event: error") == 1
    assert (error["type"], error["status"], error["retryable"]) == ("runner_server_error", 500, False)
    assert error["request_id"] == request_id
    assert "secret" not in error["message"]
    assert not stream.is_whole
    assert b"connection: close" not in stream.head.lower()


def test_a_runner_that_dies_ends_its_stream_with_a_typed_error_and_another_takes_over(server):
    with server.open("/zoo/zoo/die/stream", {"n": 2}) as stream:
        stream.read_to_end()

    error = last_error(stream.body)
    assert (error["type"], error["retryable"], stream.is_whole) == ("runner_disconnected", True, False)
    assert server.post("/zoo/zoo/def", {"n": 1}).status == 200
    assert server.notes().count("die") == 1


def test_a_runner_that_dies_before_the_first_event_is_a_503(server):
    answer = server.post("/zoo/zoo/die/stream", {"n": 0})

    assert (answer.status, answer.json["error_type"]) == (503, "runner_disconnected")


def test_no_request_hangs_while_runners_are_killed_under_load(server):
    asked: list[None] = []
    answers: list[tuple[int, str | None]] = []
    is_enough = threading.Event()

    def call() -> None:
        while (
            not is_enough.is_set()
        ):  # there is load until the last runner has been killed, and another one serves
            asked.append(None)
            answer = server.post("/zoo/zoo/async", {"n": 2, "pause": 0.01})
            answers.append((answer.status, answer.json.get("error_type")))

    killed: set[int | None] = {None}

    def another_serves() -> int:
        eventually(lambda: runner_of(server, "zoo/zoo") not in killed, "another runner is ready")
        served = answers.count((200, None))
        eventually(lambda: answers.count((200, None)) > served, "it serves: this is no crash loop")
        return runner_of(server, "zoo/zoo")

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(4):
            runner = another_serves()
            os.kill(runner, signal.SIGKILL)
            killed.add(runner)
        another_serves()
    finally:
        is_enough.set()
        for caller in callers:
            caller.join(60)

    assert len(answers) == len(asked)
    assert set(answers) <= {(200, None), (503, "runner_disconnected")}
    assert (200, None) in answers


def runner_of(server, app: str) -> int | None:
    """The pid of the runner that became ready last, by the log."""
    found = re.findall(rf"{re.escape(app)} is ready \(runner (\d+)\)", server.log)
    return int(found[-1]) if found and server.is_ready() else None


# --- silence ------------------------------------------------------------------------------------------------


def test_a_silent_model_gets_its_headers_and_heartbeats_of_one_newline(quick):
    with quick.open("/test/patient/words/stream", {"name": "silent", "n": 1}) as stream:
        read_pings(stream, 3)
        quick.release("silent.0")
        stream.read_until(b"0\r\n\r\n")

    comments, _, rest = stream.body.partition(b"data: ")
    assert set(comments.splitlines()) == {b": ping"}
    assert comments.count(PING) == len(comments.splitlines()) >= 3
    assert b"\n\n" not in comments
    assert rest == b'{"i":0}\n\n'


def test_heartbeats_go_on_between_events_and_never_split_one(quick):
    with quick.open("/test/patient/words/stream", {"name": "between", "n": 3}) as stream:
        for i in range(3):
            quick.release(f"between.{i}")
            stream.read_until(b'data: {"i":%d}' % i)
            if i < 2:
                read_pings(stream, 1)
        stream.read_until(b"0\r\n\r\n")

    assert stream.body.replace(PING, b"") == b'data: {"i":0}\n\ndata: {"i":1}\n\ndata: {"i":2}\n\n'
    assert stream.body.count(PING) >= 2
    assert re.fullmatch(rb"(data: [^\n]*\n\n(: ping\n)*)*", stream.body)


def test_a_stream_that_waits_for_a_slot_gets_heartbeats_too(quick):
    with quick.open("/test/patient/stream", {"name": "first"}) as first:
        first.read_until(b"data: ")
        quick.release("second")
        with quick.open("/test/patient/stream", {"name": "second"}) as second:
            second.read_until(PING)
            quick.release("first")
            second.read_until(b"0\r\n\r\n")
        first.read_until(b"0\r\n\r\n")

    assert data_events(second.body) == [{"name": "second"}, {"name": "second", "end": True}]


# --- leaving ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [RawStream.close, RawStream.reset], ids=["fin", "rst"])
@pytest.mark.parametrize("path", ["/zoo/zoo/stream", "/zoo/zoo/async/stream"])
def test_finally_runs_when_the_reader_leaves(server, path, leave):
    name = f"left {path} {leave.__name__} {time.monotonic_ns()}"
    stream = server.open(path, {"n": 10_000, "pause": 0.02, "name": name})
    stream.read_until(b"data: ")

    leave(stream)

    eventually(server.saw(f"finally {name}"), "the generator is closed")


def test_clients_that_reset_at_any_moment_harm_neither_the_runner_nor_a_bystander(server):
    server.post("/zoo/zoo/def", {"n": 1})
    runners = set(server.runner_pids())
    with server.open("/zoo/zoo/async/stream", {"n": 150, "pause": 0.02}) as bystander:
        for turn in range(60):
            leavers = [server.open("/zoo/zoo/burst/stream", {"n": 3_000}) for _ in range(5)]
            time.sleep(0.001 * (turn % 12))  # the moment of leaving: before, at and after the first event
            for leaver in leavers:
                leaver.reset()
        bystander.read_until(b"0\r\n\r\n")

    assert [event.get("i") for event in data_events(bystander.body)][:-1] == list(range(150))
    assert set(server.runner_pids()) == runners
    assert "Headrace's own" not in server.log
    assert "Fatal error" not in server.log
    assert server.post("/zoo/zoo/def", {"n": 1}).status == 200


def test_finally_runs_when_the_caller_of_a_run_leaves(server):
    name = f"run left {time.monotonic_ns()}"
    stream = server.open("/zoo/zoo", {"n": 10_000, "pause": 0.02, "name": name})
    eventually(server.saw(f"start {name}"), "the run has started")

    stream.close()

    eventually(server.saw(f"finally {name}"), "the generator is closed")


def test_a_request_whose_caller_left_while_waiting_never_starts(server):
    with server.open("/zoo/single/stream", {"pause": 60, "name": "holder"}) as holder:
        holder.read_until(b"data: ")
        waiting = server.open("/zoo/single/stream", {"name": "gone"})
        eventually(lambda: ready(server)["zoo/single"]["waiting"] == 1, "it waits")
        waiting.close()
        eventually(lambda: ready(server)["zoo/single"]["waiting"] == 0, "its place is free")
    eventually(server.saw("let go holder"), "the holder is closed")
    server.post("/zoo/single", {"name": "next"})

    assert "hold gone" not in server.notes()
    assert "hold next" in server.notes()


def test_a_stuck_request_costs_its_runner_the_job_and_nobody_else_their_stream(quick):
    quick.post("/zoo/zoo/def", {"n": 1})
    before = set(quick.runner_pids())
    bystander = quick.open("/zoo/zoo/async/stream", {"n": 40, "pause": 0.05})
    bystander.read_until(b"data: ")
    stuck = quick.open("/zoo/zoo/stuck/stream", {})
    stuck.read_until(b"data: ")

    stuck.close()

    eventually(lambda: set(quick.runner_pids()) - before, "a replacement is started")
    bystander.read_until(b"0\r\n\r\n")
    assert [event.get("i") for event in data_events(bystander.body)][:-1] == list(range(40))
    bystander.close()
    eventually(lambda: before - set(quick.runner_pids()), "the retired runner is gone")
    assert quick.post("/zoo/zoo/def", {"n": 1}).status == 200


def ready(server) -> dict:
    return server.request("GET", "/ready").json["apps"]


# --- slots and credit ---------------------------------------------------------------------------------------


def test_no_more_requests_run_at_once_than_there_are_slots(server):
    streams = [server.open("/zoo/single/stream", {"pause": 0.1, "name": f"slot{i}"}) for i in range(5)]
    for stream in streams:
        stream.read_until(b"0\r\n\r\n")
        stream.close()

    lives = [note for note in server.notes() if "slot" in note]
    assert len(lives) == 10
    holding = 0
    for life in lives:
        holding += 1 if life.startswith("hold") else -1
        assert holding in (0, 1)


def test_the_room_to_wait_in_is_bounded():
    with running_server(limits={"waiting_max": 2}) as server:
        streams = []
        for waiting in (0, 1, 2):
            streams.append(server.open("/zoo/single/stream", {"pause": 60}))
            eventually(lambda: ready(server)["zoo/single"]["waiting"] == waiting, f"{waiting} wait")
            if waiting == 0:
                streams[0].read_until(b"data: ")
        answer = server.post("/zoo/single/stream", {})
        for stream in streams:
            stream.close()

    assert (answer.status, answer.json["error_type"]) == (429, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_wrong_input_is_told_without_waiting_for_a_slot(server):
    with server.open("/zoo/single/stream", {"pause": 60}) as holder:
        holder.read_until(b"data: ")

        answer = server.post("/zoo/single/stream", {"n": "many"})

        assert answer.status == 422
        assert answer.json["detail"][0]["loc"] == ["body", "n"]


def test_a_start_timeout_is_a_504_that_names_the_caller_as_its_author(server):
    with server.open("/zoo/single/stream", {"pause": 60}) as holder:
        holder.read_until(b"data: ")

        answer = server.post("/zoo/single/stream", {}, {"X-Fal-Request-Timeout": "0.3"})

        assert (answer.status, answer.json["error_type"]) == (504, "startup_timeout")
        assert answer.headers["x-fal-request-timeout-type"] == "user"


def test_a_reader_that_does_not_read_stops_the_model(server):
    with server.open("/zoo/zoo/flood/stream", {"n": 100_000, "name": "unread"}) as stream:
        eventually(lambda: made(server, "unread") > 0, "the model has begun")
        events = settled(lambda: made(server, "unread"))

        # Window 256 KiB, and at most as much again in each of the two sockets and the transport.
        assert events * 1_000 < 4 * 1024 * 1024
        bystander = server.post("/zoo/zoo", {"n": 2})
        assert bystander.json == {"total": 2}
        del stream


def test_a_reader_that_takes_nothing_is_ended_and_its_slot_free():
    with running_server(limits={"stall_timeout_s": 1}) as server:
        with server.open("/zoo/zoo/flood/stream", {"n": 100_000, "name": "stalled"}) as stream:
            eventually(server.saw("finally flood stalled"), "the model is stopped")
            del stream


def test_a_slow_reader_gets_every_event_in_the_end(server):
    with server.open("/zoo/zoo/flood/stream", {"n": 3_000, "name": "slow"}) as stream:
        settled(lambda: made(server, "slow"))
        stream.read_until(b"0\r\n\r\n")

    assert [event["i"] for event in data_events(stream.body)] == list(range(3_000))


def made(server, name: str) -> int:
    return max((int(note.split()[-1]) for note in server.notes() if note.startswith(f"flood {name} ")), default=0)


# --- stopping -----------------------------------------------------------------------------------------------


def test_sigterm_lets_running_streams_finish_and_takes_nothing_new():
    with running_server(limits={"kill_grace_s": 30}) as server:
        runners = server.runner_pids()
        with server.open("/zoo/zoo/async/stream", {"n": 20, "pause": 0.05}) as stream:
            stream.read_until(b"data: ")
            server.process.terminate()
            stream.read_until(b"0\r\n\r\n")
        status = server.process.wait(30)

    assert [event.get("i") for event in data_events(stream.body)][:-1] == list(range(20))
    assert status == 0
    assert not set(runners) & {pid for pid, _, _ in processes()}
    assert server.notes().count("teardown") == 1


def test_a_stream_that_outlasts_the_drain_is_told_so():
    with running_server(limits={"drain_s": 0.3}) as server:
        with server.open("/zoo/zoo/async/stream", {"n": 2_000, "pause": 0.05}) as stream:
            stream.read_until(b"data: ")
            server.process.terminate()
            stream.read_to_end()
        status = server.process.wait(30)

    assert last_error(stream.body)["type"] == "shutting_down"
    assert (status, stream.is_whole) == (0, False)


def test_a_runner_leaves_when_its_server_is_killed():
    with running_server() as server:
        runners = set(server.runner_pids())
        server.process.kill()
        server.process.wait(30)

        eventually(lambda: not runners & {pid for pid, _, _ in processes()}, "the runners are gone")
