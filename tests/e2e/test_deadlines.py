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

from tests.support.server import PATIENCE_S, ROOT, RawStream, Server, data_events, eventually, running_server

#: Seconds of the deadlines that are missed; and of all the others, which are not, however long a machine is held up.
FIRST_EVENT_S, EVENT_GAP_S, REQUEST_S, FAR_S = 0.5, 0.4, 0.8, 120

#: An app for each deadline, with many slots and with one, and one for which all three are far.
MODELS = f"""
from tests.support.mortal import Mortal

FAR = dict.fromkeys(["first_event_timeout", "event_gap_timeout", "request_timeout"], {FAR_S})
FIRST = {{**FAR, "first_event_timeout": {FIRST_EVENT_S}}}
GAP = {{**FAR, "event_gap_timeout": {EVENT_GAP_S}}}
TOTAL = {{**FAR, "request_timeout": {REQUEST_S}}}
ONE_SLOT = {{"max_multiplexing": 1, "stream_error_end": "clean"}}


class First(Mortal, name="mortal/first", **FIRST): ...


class Gap(Mortal, name="mortal/gap", **GAP): ...


class Hurried(Mortal, name="mortal/hurried", **TOTAL): ...


class Single(Mortal, name="mortal/single", max_multiplexing=1, **FAR): ...


class SingleFirst(Mortal, name="mortal/single-first", **FIRST, **ONE_SLOT): ...


class SingleGap(Mortal, name="mortal/single-gap", **GAP, **ONE_SLOT): ...


class SingleHurried(Mortal, name="mortal/single-hurried", **TOTAL, **ONE_SLOT): ...
"""

#: Where the models find what they are made of.
ENV = {"PYTHONPATH": str(ROOT)}

#: Seconds a request waits for its slot when its caller does not say.
SLOT_WAIT_S = 0.6

#: A model that is held up when it is stopped does not cost its app the runner.
LIMITS = {"slot_wait_s": SLOT_WAIT_S, "cancel_grace_s": 60}

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


FIRST = Deadline("first_event_timeout", "first", "silent", FIRST_EVENT_S, events=0)
GAP = Deadline("event_gap_timeout", "gap", "silent", EVENT_GAP_S)
TOTAL = Deadline("request_timeout", "hurried", "endless", REQUEST_S)
TOTAL_SILENT = Deadline("request_timeout", "hurried", "silent", REQUEST_S, events=0)
TOTAL_SYNC = Deadline("request_timeout", "hurried", "endless", REQUEST_S, path="/sync")
TOTAL_BUSY = Deadline("request_timeout", "hurried", "silent", REQUEST_S, path="/sync")

ALL = [FIRST, GAP, TOTAL, TOTAL_SILENT, TOTAL_SYNC, TOTAL_BUSY]
each = pytest.mark.parametrize(
    "deadline", ALL, ids=["first", "gap", "total", "total, silent", "total, thread", "total, busy"]
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "missing.py"
    path.write_text(MODELS)
    return path


@pytest.fixture(scope="module")
def quick(models):
    """A server that holds headers for a moment only, and then says something twice a tenth."""
    limits = {**LIMITS, "headers_hold_s": 0.1, "heartbeat_s": 0.05}
    with running_server(models, limits=limits, env=ENV) as quick:
        yield quick


@pytest.fixture(scope="module")
def holding(models):
    """A server that holds headers for as long as these tests last."""
    targets = [f"{models}:{cls}" for cls in ("First", "Gap", "Hurried", "Single")]
    with running_server(*targets, limits=LIMITS, env=ENV) as holding:
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


def missed(server: Server, deadline: Deadline) -> tuple[RawStream, str, float]:
    """A stream that missed its deadline, its name, and the seconds that it took.

    Where the machine was held up for so long that the model did not even come to its events, there is another one.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        name, begun_at = next(names), time.monotonic()
        with server.open(f"/mortal/{deadline.app}{deadline.path}/stream", deadline.input(name)) as stream:
            stream.read_to_end()
        took_s = time.monotonic() - begun_at
        if stream.body.count(b'data: {"i":') >= deadline.events or time.monotonic() > until:
            return stream, name, took_s


# --- first event, gap and total -------------------------------------------------------------------------------


@each
def test_a_deadline_is_an_error_event_once_the_headers_are_out(quick, deadline):
    stream, name, took_s = missed(quick, deadline)

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
def test_heartbeats_go_on_until_the_deadline(quick, deadline):
    def have_gone_on() -> bool:
        stream, _, _ = missed(quick, deadline)
        assert error_of(stream)["type"] == deadline.type
        waiting = stream.body.partition(b"event: error")[0].rpartition(b"\n\n")[2]
        assert re.fullmatch(rb"(: ping\n)*", waiting)
        return waiting.count(b": ping\n") >= 3

    eventually(have_gone_on, "heartbeats, of which a server that is held up leaves some out")


@pytest.mark.parametrize("deadline", [FIRST, GAP, TOTAL], ids=["first", "gap", "total"])
@pytest.mark.parametrize("view", ["", "/stream"])
def test_a_slot_is_free_again_after_a_deadline(quick, deadline, view, name):
    """The app has one slot, and all three deadlines, two of them far."""
    app = f"/mortal/single-{deadline.app}"
    failed = quick.post(f"{app}{view}", deadline.input(name), PATIENT)

    def is_served() -> bool:
        then = quick.post(app, {"how": "well", "events": 2}, PATIENT)
        return (then.status, then.json) == (200, {"i": 1})

    assert deadline.type.encode() in failed.body
    eventually(is_served, "the slot is another's, who may miss the deadline, too, where the machine is held up")
    assert f"finally {name}" in quick.notes()


# --- what is no delay of the model ----------------------------------------------------------------------------


# These end well unless the machine is held up for as long as the deadline: then there is another round.


@pytest.mark.parametrize(
    ("path", "pause_s"),
    [
        ("first/def", FIRST_EVENT_S + 2 * EVENT_GAP_S),
        ("gap/def", FIRST_EVENT_S + 2 * EVENT_GAP_S),
        ("first", FIRST_EVENT_S / 2),
        ("gap", 2 * EVENT_GAP_S),  # before the first event there is no gap
    ],
)
def test_the_deadlines_of_events_are_not_for_what_ends_in_time(holding, path, pause_s):
    order = {"how": "well", "pause": pause_s}

    eventually(lambda: holding.post(f"/mortal/{path}", order).status == 200, "it ends well")


def test_a_reader_that_holds_its_model_up_is_no_gap(quick):
    def is_whole() -> bool:
        order = {"n": 5_000, "name": next(names)}
        with quick.open("/mortal/gap/flood/stream", order, {"Connection": "close"}) as stream:
            stream.read_until(b"data: ")
            time.sleep(4 * EVENT_GAP_S)  # the reader's doing, and the point of this test
            assert f"flooded {order['name']}" not in quick.notes()
            stream.read_to_end()
        return [event.get("i") for event in data_events(stream.body)] == list(range(5_000))

    eventually(is_whole, "all events come")


def test_the_time_before_its_slot_is_not_the_models(quick):
    """Each deadline of the model begins with its slot, however long that took."""
    path, order = "/mortal/single-first/stream", {"how": "well", "events": 2}

    def has_its_events() -> bool:
        with quick.open(path, {"how": "silent"}, PATIENT) as holder:
            if not holder.read_until(b"}\n\n").endswith(b'data: {"i":0}\n\n\r\n'):
                return False
            with quick.open(path, order, {**PATIENT, "Connection": "close"}) as waiting:
                time.sleep(1.5 * FIRST_EVENT_S)  # the point of this test
                holder.close()
                waiting.read_to_end()
        return data_events(waiting.body) == [{"i": 0}, {"i": 1}]

    eventually(has_its_events, "the one that waited has its events")


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
    def has_heartbeats() -> bool:
        with full.open("/mortal/single/stream", {"name": name}) as stream:
            stream.read_to_end()
        error = error_of(stream)
        assert (error["type"], error["status"], error["retryable"]) == ("startup_timeout", 504, True)
        return stream.body.partition(b"event: error")[0].count(b": ping\n") >= 3

    eventually(has_heartbeats, "heartbeats before it, of which a server that is held up leaves some out")
    assert f"finally {name}" not in full.notes()


def test_headers_are_held_for_a_start_timeout_only_so_long(models):
    limits = {"headers_hold_s": 0.1, "headers_hold_start_timeout_s": 0.3, "heartbeat_s": 0.05}
    with running_server(f"{models}:Single", limits=limits, env=ENV) as server:

        def has_heartbeats() -> bool:
            with server.open("/mortal/single/stream", {}, {"X-Fal-Request-Timeout": "1.0"}) as stream:
                stream.read_to_end()
            assert error_of(stream)["type"] == "startup_timeout"
            return stream.body.count(b": ping\n") >= 3

        with server.open("/mortal/single/stream", {"how": "silent"}) as holder:
            holder.read_until(b"data: ")
            eventually(has_heartbeats, "headers, and heartbeats of which a server that is held up leaves some out")


@pytest.mark.parametrize("full", ["holding"], indirect=True)
def test_a_request_that_had_no_slot_in_time_leaves_no_place_behind(full):
    full.post("/mortal/single", {}, {"X-Fal-Request-Timeout": "0.2"})

    assert full.request("GET", "/ready").json["apps"]["mortal/single"]["waiting"] == 0
