"""A model raises, or yields, whatever Python has. Its caller is told once, by type; nobody else notices.

One runner with two slots serves the one who makes trouble and a bystander: a slot that is not given back, or a runner
that is lost, is noticed by whoever comes next.
"""

import json
import re
import time

import pytest

from tests.fault.models.raising import BAD, EVENTS, GOOD, RAISES, SECRET
from tests.support.bystander import bystander
from tests.support.recorder import spread_ms
from tests.support.server import ROOT, RawStream, eventually, running_server

MODELS = ROOT / "tests" / "fault" / "models" / "raising.py"

RAISING = ["generator", "async-generator", "def", "async-def", "emit-thread", "task"]
MANY = ["generator", "async-generator", "emit", "emit-async"]
ONE = ["last-of-generator", "def", "async-def"]

BEFORE, BETWEEN, AFTER = 0, 1, EVENTS


@pytest.fixture(scope="module")
def server():
    """It logs all that is raised here in a second, and soon says so when a slot is missing."""
    with running_server(
        MODELS, limits={"slot_wait_s": 5, "output_bytes_per_s_max": 64 * 1024 * 1024, "events_bytes_max": 1024**3}
    ) as server:
        yield server
        assert len(re.findall(r"is ready \(runner", server.log)) == 2, "a runner was lost"
        assert "Headrace's own" not in server.log


def strictly(text: bytes) -> object:
    """JSON as its standard has it: Python's own reader takes NaN."""

    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is no JSON: {text!r}")

    return json.loads(text.decode("ascii"), parse_constant=refuse)


def read(server, path: str, body: object) -> tuple[RawStream, float]:
    """A stream read to its end, and when its last event came."""
    with server.open(path, body) as stream:
        head = stream.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")[0]
        if b"text/event-stream" not in head:
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            while len(stream.bytes) < len(head) + 4 + length:
                stream.bytes += stream.socket.recv(65_536)
            return stream, time.monotonic()
        last = 0.0
        while piece := stream.socket.recv(65_536):
            stream.bytes += piece
            if b"event: error" in piece:
                last = time.monotonic()
            if stream.is_whole:
                break
        return stream, last


def blocks(stream: RawStream) -> list[tuple[bytes, object]]:
    """The kind and the JSON of every event; anything else on the wire fails."""
    assert stream.body.endswith(b"\n\n")
    found = []
    for block in stream.body[:-2].split(b"\n\n"):
        match = re.fullmatch(rb"(?:event: (error)\n)?data: ([^\r\n]+)", block)
        assert match, block
        found.append((match[1] or b"", strictly(match[2])))
    return found


def id_of(stream: RawStream) -> str:
    return re.search(rb"x-fal-request-id: (\S+)", stream.bytes)[1].decode()


def one_error(server, stream: RawStream, items: list, type_: str) -> dict:
    """The one error that a stream has behind its items, as an event or a status. The rest of the wire must be fit for it."""
    if not items:
        head, _, body = stream.bytes.partition(b"\r\n\r\n")
        error = strictly(body)
        assert head.startswith(b"HTTP/1.1 500 ")
        assert (error["error_type"], error["request_id"]) == (type_, id_of(stream))
        return {"message": error["detail"]}
    *before, (kind, last) = blocks(stream)
    assert [item for _, item in before] == items
    assert {kind for kind, _ in before} == {b""}
    assert (kind, list(last)) == (b"error", ["error"])
    assert not stream.is_whole
    error = last["error"]
    assert error == {
        "type": type_,
        "message": error["message"],
        "request_id": id_of(stream),
        "retryable": False,
        "status": 500,
    }
    return error


# --- raised ---------------------------------------------------------------------------------------------------


def forget_times(stream: RawStream) -> float:
    """Take the times out of a stream's events; return the last of them."""
    times = re.findall(rb',"at":([0-9.e+]+)', stream.bytes)
    lines = re.split(rb"(\r\n)", stream.bytes)
    assert lines
    return float(times[-1]) if times else 0.0


@pytest.mark.promise("S11")
@pytest.mark.parametrize("kind", RAISING)
@pytest.mark.parametrize("what", RAISES)
def test_whatever_a_model_raises_is_one_error_that_says_nothing_of_it(server, what, kind, count, figures):
    times_s = []

    with bystander(server, path="/test/raising/ticks/stream", ticks=10, pause_s=0.01) as other:
        for _ in range(count(smoke=1, full=3)):
            for at in (BEFORE, BETWEEN, AFTER):
                stream, told_at = read(server, f"/test/raising/{kind}/stream", {"what": what, "at": at})

                if at == BEFORE:
                    error = one_error(server, stream, [], "runner_server_error")
                else:
                    made = [item for _, item in blocks(stream)[:-1]]
                    assert [item["i"] for item in made] == list(range(at))
                    error = one_error(server, stream, made, "runner_server_error")
                    times_s.append(told_at - made[-1]["at"])
                assert error["message"] == "Internal Server Error"
                assert SECRET.encode() not in stream.bytes
                is_logged(server, id_of(stream))

            answer = server.post(f"/test/raising/{kind}", {"what": what, "at": AFTER})
            assert (answer.status, answer.json["error_type"]) == (500, "runner_server_error")
            assert SECRET.encode() not in answer.body

    figures("S11", **spread_ms(times_s), others_gap_ms=other.gap_ms)


def is_logged(server, request_id: str) -> None:
    """The log has a traceback under the request's id, that leads into the model's file."""

    def found():
        _, said, story = server.log.partition(f"request {request_id} failed in the app's code")
        return said and "models/raising.py" in story

    eventually(found, "the traceback is in the log")
