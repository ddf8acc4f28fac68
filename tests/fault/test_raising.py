"""A model raises, or yields, whatever Python has. Its caller is told once, by type; nobody else notices.

One runner with two slots serves the one who makes trouble and a bystander: a slot that is not given back, or a runner
that is lost, is noticed by whoever comes next.
"""

import dataclasses
import json
import re
import time
from dataclasses import dataclass

import pytest

from tests.fault.models.raising import BAD, EVENTS, GOOD, RAISES, SECRET
from tests.support.bystander import bystander
from tests.support.endings import ENDINGS, LIMITS, Ending, told
from tests.support.endings import MODELS as MORTAL
from tests.support.official import official_server
from tests.support.recorder import spread_ms
from tests.support.server import ROOT, RawStream, eventually, running_server

MODELS = ROOT / "tests" / "fault" / "models" / "raising.py"

RAISING = ["generator", "async-generator", "def", "async-def", "emit-thread", "task"]
YIELDING = ["generator", "async-generator", "emit", "emit-async"]
RETURNING = ["last-of-generator", "def", "async-def"]

BEFORE, BETWEEN, AFTER = 0, 1, EVENTS


@pytest.fixture(scope="module")
def server():
    """It has room in its log for all that is raised here, soon says so when a slot is missing, and is quick to cut."""
    limits = {"output_bytes_per_s_max": 64 * 1024 * 1024, "slot_wait_s": 20, "cut_delay_s": 0.005}
    with running_server(MODELS, limits=limits) as server:
        yield server
        assert len(re.findall(r"is ready \(runner", server.log)) == 2, "a runner was lost"
        assert "Headrace's own" not in server.log


@pytest.fixture
def raising(server):
    """An app, in whose one runner somebody else reads a stream."""
    with bystander(server, path="/test/raising/ticks/stream", ticks=4, pause_s=0.005):
        yield "/test/raising"


@pytest.fixture
def spoilt(server):
    """Another, in the same way."""
    with bystander(server, path="/test/spoilt/ticks/stream", ticks=4, pause_s=0.005):
        yield "/test/spoilt"


@dataclass
class Told:
    """What a caller of the stream view was told, once it had all of it."""

    items: list
    error: dict | None  # in the words of an error event, whichever way it came
    error_at: float
    bytes: bytes


def strictly(text: bytes):
    """JSON as its standard has it: Python's own reader takes NaN."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON: {text!r}")

    return json.loads(text.decode("ascii"), parse_constant=refuse)


def read(server, path: str, body: object) -> Told:
    """Read a stream, or the answer in its place, to its end. What is neither one form nor the other fails."""
    with server.open(path, body) as stream:
        stream.read_until(b"\r\n\r\n")
        id_ = re.search(rb"x-fal-request-id: (\S+)", stream.head)[1].decode()
        if b"content-type: text/event-stream" in stream.head:
            return events_of(stream, id_)
        size = len(stream.head) + 4 + int(re.search(rb"content-length: (\d+)", stream.head)[1])
        while len(stream.bytes) < size:
            stream.bytes += stream.socket.recv(65_536)
        return answer_of(stream, id_)


def answer_of(stream: RawStream, id_: str) -> Told:
    answer = strictly(stream.bytes[len(stream.head) + 4 :])
    status = int(stream.head.split()[1])
    assert set(answer) == {"detail", "error_type", "request_id"}
    assert f"x-fal-error-type: {answer['error_type']}".encode() in stream.head
    error = {"type": answer["error_type"], "message": answer["detail"], "request_id": answer["request_id"]}
    assert error["request_id"] == id_
    return Told([], error | {"retryable": False, "status": status}, time.monotonic(), stream.bytes)


def events_of(stream: RawStream, id_: str) -> Told:
    items, error, error_at = [], None, 0.0
    piece = stream.bytes
    while not stream.is_whole and piece:
        if not error_at and b"event: error" in stream.bytes:
            error_at = time.monotonic()
        piece = stream.socket.recv(65_536)
        stream.bytes += piece
    assert stream.body.endswith(b"\n\n")
    for block in stream.body[:-2].split(b"\n\n"):
        match = re.fullmatch(rb"(event: error\n)?data: ([^\r\n]+)", block)
        assert match, block
        assert error is None, "nothing comes behind an error event"
        value = strictly(match[2])
        if match[1]:
            assert list(value) == ["error"]
            error = value["error"]
            assert error["request_id"] == id_
        else:
            items.append(value)
    assert stream.is_whole == (error is None)
    return Told(items, error, error_at, stream.bytes)


# --- what is raised -------------------------------------------------------------------------------------------


@pytest.mark.promise("S11")
@pytest.mark.parametrize("kind", RAISING)
@pytest.mark.parametrize("what", RAISES)
def test_whatever_a_model_raises_is_one_error_that_says_nothing_of_it(server, raising, what, kind):
    logged = len(server.log)

    told = {
        at: read(server, f"{raising}/{kind}/stream", {"what": what, "at": at}) for at in (BEFORE, BETWEEN, AFTER)
    }
    answer = server.post(f"{raising}/{kind}", {"what": what, "at": AFTER})

    for at, one in told.items():
        assert [item["i"] for item in one.items] == list(range(at))
        assert one.error == {
            "type": "runner_server_error",
            "message": "Internal Server Error",
            "request_id": one.error["request_id"],
            "retryable": False,
            "status": 500,
        }
        assert SECRET.encode() not in one.bytes
    assert (answer.status, answer.json["error_type"]) == (500, "runner_server_error")
    assert (answer.json["detail"], SECRET.encode() in answer.body) == ("Internal Server Error", False)
    for id_ in [*(one.error["request_id"] for one in told.values()), answer.json["request_id"]]:
        eventually(lambda: traceback_of(server, id_, logged), f"the traceback of request {id_} is in the log")


def traceback_of(server, request_id: str, since: int) -> bool:
    """Whether the log has one under the request's id, that leads into the model's file."""
    story = server.log[since:].partition(f"request {request_id} failed in the app's code")[2]
    return "models/raising.py" in story


@pytest.mark.promise("S11")
@pytest.mark.parametrize("kind", RAISING)
def test_an_error_is_told_at_once(server, raising, kind, count, figures):
    times_s = []

    for _ in range(count(smoke=5, full=40)):
        told = read(server, f"{raising}/{kind}/stream", {"what": "Exception", "at": AFTER})
        times_s.append(told.error_at - told.items[-1]["at"])

    figures("S11", **spread_ms(times_s))


# --- what is yielded ------------------------------------------------------------------------------------------

#: How the message names the value that JSON cannot hold: by its type, or by what is the matter with that.
NAMED = {
    "bytes": "type bytes",
    "bytes inside": "type bytes",
    "bytearray": "type bytearray",
    "memoryview": "type memoryview",
    "set": "type set",
    "frozenset": "type frozenset",
    "half a surrogate pair": "a str with half of a surrogate pair",
    "half a surrogate pair in a key": "a str with half of a surrogate pair",
    "cycle": "a value inside itself",
    "too deep": "nested too deeply",
    "object": "type object",
    "huge int": "an int beyond 64 bits",
    "complex": "type complex",
    "decimal": "type decimal.Decimal",
    "path": "type PurePosixPath",
    "int key": "a dict key that is not a str",
    "tuple key": "a dict key that is not a str",
    "generator": "type generator",
    "lock": "Lock",
    "exception": "type ValueError",
    "class": "ModelMetaclass",
    "module": "type module",
    "model holding bytes": "bytes that are not UTF-8",
    "model holding an object": "Lock",
    "model inside, holding bytes": "bytes that are not UTF-8",
    "array of objects": "type object",
    "array of complex": "type complex",
}


@pytest.mark.promise("S12")
@pytest.mark.parametrize("what", BAD)
def test_what_json_cannot_hold_is_an_error_that_names_its_type(server, spoilt, what):
    told = []
    for at in (0, 1):
        for kind in YIELDING:
            told.append((at, read(server, f"{spoilt}/{kind}/stream", {"what": what, "at": at})))
        told.append((at, read(server, f"{spoilt}/last-of-generator/stream", {"what": what, "at": at})))
    answers = [server.post(f"{spoilt}/{kind}", {"what": what}) for kind in (*YIELDING, *RETURNING)]

    for at, one in told:
        assert one.items == [{"i": 0}] * at
        assert (one.error["type"], one.error["status"], one.error["retryable"]) == (
            "unserializable_item",
            500,
            False,
        )
        assert NAMED[what] in one.error["message"]
        assert SECRET.encode() not in one.bytes
    for answer in answers:
        assert (answer.status, strictly(answer.body)["error_type"]) == (500, "unserializable_item")
        assert NAMED[what] in answer.json["detail"]
        assert SECRET.encode() not in answer.body


@pytest.mark.promise("S12")
@pytest.mark.parametrize("what", GOOD)
def test_what_json_can_hold_after_all_arrives(server, spoilt, what):
    arrives = GOOD[what][1]

    for kind in YIELDING:
        told = read(server, f"{spoilt}/{kind}/stream", {"what": what, "at": 1})
        assert (told.items, told.error) == ([{"i": 0}, arrives, {"i": 2}], None)
    for kind in RETURNING:
        if what == "None":  # a function that returns None has returned nothing
            continue
        answer = server.post(f"{spoilt}/{kind}", {"what": what})
        assert (answer.status, strictly(answer.body)) == (200, arrives)


# --- fal's JavaScript client ----------------------------------------------------------------------------------


#: The apps of those whose deadline is to pass. All others end in one that has none, however busy the machine is.
DEADLINES = {"no first event": "mortal/any", "a gap": "mortal/gap", "too long": "mortal/total"}


def in_its_app(name: str, ending: Ending) -> Ending:
    app = "mortal/calm" if ending.endpoint == "mortal/any" else ending.endpoint
    return dataclasses.replace(ending, endpoint=DEADLINES.get(name, app))


@pytest.mark.promise("S11")
def test_fals_javascript_client_never_misses_the_error_item(recorder, count):
    """Its loop cannot throw: the item, and `done()` that rejects, are all there is to tell a failure from success.

    The streams run all at once, beside each other's deaths, and each is told its own ending.
    """
    endings = {name: in_its_app(name, ending) for name, ending in ENDINGS.items() if name != "cancelled"}
    # The headers go out at once, so that no failure is quicker. And Node may be held up itself, past the cut.
    limits = LIMITS | {"headers_hold_s": 0.0} | ({} if recorder.is_full else {"cut_delay_s": 5.0})

    with official_server(MORTAL, limits=limits) as served:
        for _ in range(count(smoke=1, full=20)):
            outcomes = told(served, "endings.mjs", ["loop"], endings)

            for (name, _), outcome in outcomes.items():
                assert outcome.items[:-1] == endings[name].items
                assert outcome.items[-1]["error"]["type"] == endings[name].type
                assert (outcome.error["message"], outcome.error["threw"]) == ("terminated", False)
