"""The four deadlines of a request: its slot, its first event, the gap between two, and the whole of it.

Each is an HTTP status while the headers are held, and an error event afterwards; then the model has been stopped, and its
slot is another's.
"""

import itertools
import json
import re
import time
from dataclasses import dataclass

import pytest

from tests.support.mortal import EVENT_GAP_S, FIRST_EVENT_S, REQUEST_S
from tests.support.server import ROOT, RawStream, data_events, eventually, running_server

MODELS = ROOT / "tests" / "support" / "mortal.py"

#: Seconds a request waits for its slot when its caller does not say.
SLOT_WAIT_S = 0.6

#: For a caller that does say, and has time.
PATIENT = {"X-Fal-Request-Timeout": "30"}

names = (f"deadline {number}" for number in itertools.count())


@dataclass(frozen=True)
class Deadline:
    """One of the three that a model misses: in which app, by doing what, and when it is due."""

    type: str
    app: str
    how: str
    due_s: float
    events: int = 1
    path: str = ""

    def input(self, name: str, *, in_silence: bool = False) -> dict:
        events = 0 if in_silence else self.events
        return {"how": self.how, "events": events, "name": name}


FIRST = Deadline("first_event_timeout", "any", "silent", FIRST_EVENT_S, events=0)
GAP = Deadline("event_gap_timeout", "any", "silent", EVENT_GAP_S)
TOTAL = Deadline("request_timeout", "hurried", "endless", REQUEST_S)
TOTAL_SILENT = Deadline("request_timeout", "hurried", "silent", REQUEST_S, events=0)
TOTAL_SYNC = Deadline("request_timeout", "hurried", "endless", REQUEST_S, path="/sync")
TOTAL_BUSY = Deadline("request_timeout", "hurried", "silent", REQUEST_S, path="/sync")

ALL = [FIRST, GAP, TOTAL, TOTAL_SILENT, TOTAL_SYNC, TOTAL_BUSY]
each = pytest.mark.parametrize(
    "deadline", ALL, ids=["first", "gap", "total", "total, silent", "total, thread", "total, busy"]
)


@pytest.fixture(scope="module")
def quick():
    """A server that holds headers for a moment only, and then says something twice a tenth."""
    limits = {"headers_hold_s": 0.1, "heartbeat_s": 0.05, "slot_wait_s": SLOT_WAIT_S}
    with running_server(MODELS, limits=limits) as quick:
        yield quick


@pytest.fixture(scope="module")
def holding():
    """A server that holds headers for as long as these tests last."""
    with running_server(MODELS, limits={"slot_wait_s": SLOT_WAIT_S}) as holding:
        yield holding


@pytest.fixture
def name():
    return next(names)


def error_of(stream: RawStream) -> dict:
    """The one error event at the end of a cut stream."""
    *_, last, rest = stream.body.split(b"\n\n")
    assert rest == b""
    assert stream.body.count(b"event: error") == 1
    assert not stream.is_whole
    return json.loads(last.replace(b": ping\n", b"").removeprefix(b"event: error\ndata: "))["error"]


# --- first event, gap and total -------------------------------------------------------------------------------


@each
def test_a_deadline_is_an_error_event_once_the_headers_are_out(quick, deadline, name):
    begun_at = time.monotonic()
    with quick.open(f"/mortal/{deadline.app}{deadline.path}/stream", deadline.input(name)) as stream:
        stream.read_to_end()
    took_s = time.monotonic() - begun_at

    error = error_of(stream)
    assert (error["type"], error["status"], error["retryable"]) == (deadline.type, 504, True)
    assert f"{deadline.due_s:g} s" in error["message"]
    assert error["request_id"].encode() in stream.head
    assert data_events(stream.body)[: deadline.events] == [{"i": 0}] * deadline.events
    assert took_s >= deadline.due_s
    eventually(quick.saw(f"finally {name}"), "the model is stopped")


@pytest.mark.parametrize("deadline", [FIRST, TOTAL_SILENT], ids=["first", "total"])
def test_a_deadline_is_a_status_while_the_headers_are_held(holding, deadline, name):
    answer = holding.post(f"/mortal/{deadline.app}/stream", deadline.input(name))

    assert (answer.status, answer.json["error_type"]) == (504, deadline.type)
    assert answer.headers["x-fal-error-type"] == deadline.type
    assert "x-fal-request-timeout-type" not in answer.headers
    assert f"{deadline.due_s:g} s" in answer.json["detail"]
    eventually(holding.saw(f"finally {name}"), "the model is stopped")


@each
def test_a_deadline_is_the_status_of_a_run(holding, deadline, name):
    answer = holding.post(f"/mortal/{deadline.app}{deadline.path}", deadline.input(name))

    assert (answer.status, answer.json["error_type"]) == (504, deadline.type)
    assert answer.json["request_id"] == answer.headers["x-fal-request-id"]
    eventually(holding.saw(f"finally {name}"), "the model is stopped")


@pytest.mark.parametrize("deadline", [FIRST, GAP, TOTAL_SILENT], ids=["first", "gap", "total"])
def test_heartbeats_go_on_until_the_deadline(quick, deadline, name):
    with quick.open(f"/mortal/{deadline.app}/stream", deadline.input(name)) as stream:
        stream.read_to_end()

    before, _, _ = stream.body.partition(b"event: error")
    waiting = before.rpartition(b"\n\n")[2]
    assert re.fullmatch(rb"(: ping\n)+", waiting)
    assert waiting.count(b": ping\n") >= 3
    assert error_of(stream)["type"] == deadline.type


@pytest.mark.parametrize(
    ("input", "type_"),
    [
        ({"how": "silent", "events": 0}, "first_event_timeout"),
        ({"how": "silent", "events": 1}, "event_gap_timeout"),
        ({"how": "endless", "events": 1}, "request_timeout"),
    ],
)
@pytest.mark.parametrize("view", ["", "/stream"])
def test_a_slot_is_free_again_after_a_deadline(quick, input, type_, view, name):
    """The app has one slot, and all three deadlines."""
    failed = quick.post(f"/mortal/clean{view}", {**input, "name": name}, PATIENT)
    then = quick.post("/mortal/clean", {"how": "well", "events": 2}, PATIENT)

    assert type_.encode() in failed.body
    assert (then.status, then.json) == (200, {"i": 1})
    assert f"finally {name}" in quick.notes()


# --- what is no delay of the model ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/mortal/any/def", "/mortal/any"])
def test_the_deadlines_of_events_are_not_for_what_ends_in_time(holding, path):
    pause_s = FIRST_EVENT_S + 2 * EVENT_GAP_S if path.endswith("def") else FIRST_EVENT_S / 2

    answer = holding.post(path, {"how": "well", "pause": pause_s})

    assert answer.status == 200


def test_a_reader_that_holds_its_model_up_is_no_gap(quick, name):
    with quick.open("/mortal/any/flood/stream", {"n": 5_000, "name": name}) as stream:
        stream.read_until(b"data: ")
        time.sleep(4 * EVENT_GAP_S)  # the reader's doing, and the point of this test
        assert f"flooded {name}" not in quick.notes()
        stream.read_until(b"\r\n0\r\n\r\n")

    assert [event["i"] for event in data_events(stream.body)] == list(range(5_000))


def test_the_time_before_its_slot_is_not_the_models(quick, name):
    """Each deadline of the model begins with its slot, however long that took."""
    with quick.open("/mortal/single/stream", {"how": "silent", "name": name}) as holder:
        holder.read_until(b"data: ")
        with quick.open("/mortal/single/stream", {"how": "well", "events": 2}, PATIENT) as waiting:
            time.sleep(1.5 * FIRST_EVENT_S)  # the point of this test
            holder.close()
            waiting.read_until(b"\r\n0\r\n\r\n")

    assert data_events(waiting.body) == [{"i": 0}, {"i": 1}]


# --- a slot in time -------------------------------------------------------------------------------------------


@pytest.fixture
def full(request):
    """One of the servers, while the one slot of an app is taken."""
    server = request.getfixturevalue(request.param)
    name = next(names)
    with server.open("/mortal/single/stream", {"how": "silent", "name": name}, PATIENT) as holder:
        holder.read_until(b"data: ")
        yield server
    eventually(server.saw(f"finally {name}"), "the holder is closed")


@pytest.mark.parametrize("full", ["holding", "quick"], indirect=True)
@pytest.mark.parametrize("header", ["X-Fal-Request-Timeout", "X-Fal-Request-Start-Timeout"])
@pytest.mark.parametrize("view", ["", "/stream"])
def test_the_callers_start_timeout_is_a_status_that_says_whose_it_is(full, header, view, name):
    answer = full.post(f"/mortal/single{view}", {"name": name}, {header: "0.3"})

    assert (answer.status, answer.json["error_type"]) == (504, "startup_timeout")
    assert answer.headers["x-fal-request-timeout-type"] == "user"
    assert "within 0.3 s" in answer.json["detail"]
    assert f"finally {name}" not in full.notes()


@pytest.mark.parametrize("full", ["holding"], indirect=True)
@pytest.mark.parametrize("view", ["", "/stream"])
def test_our_own_start_timeout_is_a_status_while_the_headers_are_held(full, view):
    answer = full.post(f"/mortal/single{view}", {})

    assert (answer.status, answer.json["error_type"]) == (504, "startup_timeout")
    assert "x-fal-request-timeout-type" not in answer.headers
    assert f"within {SLOT_WAIT_S:g} s" in answer.json["detail"]


@pytest.mark.parametrize("full", ["quick"], indirect=True)
def test_our_own_start_timeout_is_an_error_event_afterwards(full, name):
    with full.open("/mortal/single/stream", {"name": name}) as stream:
        stream.read_to_end()

    error = error_of(stream)
    assert (error["type"], error["status"], error["retryable"]) == ("startup_timeout", 504, True)
    assert stream.body.partition(b"event: error")[0].count(b": ping\n") >= 3
    assert f"finally {name}" not in full.notes()


def test_headers_are_held_for_a_start_timeout_only_so_long():
    limits = {"headers_hold_s": 0.1, "headers_hold_start_timeout_s": 0.3, "heartbeat_s": 0.05}
    with running_server(f"{MODELS}:Single", limits=limits) as server:
        with server.open("/mortal/single/stream", {"how": "silent"}) as holder:
            holder.read_until(b"data: ")
            with server.open("/mortal/single/stream", {}, {"X-Fal-Request-Timeout": "1.0"}) as stream:
                stream.read_to_end()

    assert error_of(stream)["type"] == "startup_timeout"
    assert stream.body.count(b": ping\n") >= 3


@pytest.mark.parametrize("full", ["holding"], indirect=True)
def test_a_request_that_had_no_slot_in_time_leaves_no_place_behind(full):
    full.post("/mortal/single", {}, {"X-Fal-Request-Timeout": "0.2"})

    assert full.request("GET", "/ready").json["apps"]["mortal/single"]["waiting"] == 0
