"""What becomes of a request when its last reader leaves, and how one is stopped on purpose."""

import math
import os
import re
import subprocess
import sys
import threading
import time

import pytest

import headrace
from tests.support.leaving import MODELS, is_idle, metric, noted, notes_of, waiting
from tests.support.server import RawStream, data_events, eventually, running_server

HEADER = "X-Headrace-On-Disconnect"
VIEWS = [pytest.param("/stream", id="stream"), pytest.param("", id="run")]


@pytest.fixture(scope="module")
def server():
    # Whose headers are not held for long knows the id of its request while it waits.
    with running_server(MODELS, limits={"headers_hold_s": 0.3}) as server:
        yield server


@pytest.fixture
def name(request) -> str:
    """A name for the one request of a test."""
    return re.sub(r"\W+", "-", request.node.name)


def endings(server, app: str, ending: str) -> float:
    return metric(server, "headrace_requests_total", app=app, ending=ending)


def left(server, path: str, name: str, headers=None, **ask) -> float:
    """Have a reader come, and leave when the model has begun; return when it left."""
    stream = server.open(path, {"name": name, **ask}, headers)
    noted(server, "start", name)
    left_at = time.monotonic()
    stream.close()
    return left_at


def id_of(stream) -> str:
    return re.search(rb"x-fal-request-id: (\S+)", stream.read_until(b"\r\n\r\n"))[1].decode()


def cancel(server, app: str, request_id: str, headers=None):
    return server.request("PUT", f"/{app}/requests/{request_id}/cancel", None, headers)


# --- when the last reader leaves ----------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("app", "headers"),
    [
        pytest.param("test/leaving", {}, id="by default"),
        pytest.param("test/leaving", {HEADER: "cancel"}, id="as asked"),
        pytest.param("test/finish", {HEADER: "cancel"}, id="whatever the app says"),
        pytest.param("test/finish", {HEADER: "grace:0"}, id="without a grace"),
    ],
)
def test_cancel_stops_the_work_at_once(server, name, app, view, headers):
    before = endings(server, app, "client_disconnected")

    left(server, f"/{app}{view}", name, headers, n=2, pause=600)

    noted(server, "finally", name)
    eventually(lambda: endings(server, app, "client_disconnected") == before + 1, "it is counted as cancelled")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("app", "headers", "patience_s"),
    [
        pytest.param("test/finish", {}, math.inf, id="as the app says"),
        pytest.param("test/leaving", {HEADER: "finish"}, math.inf, id="as asked"),
        pytest.param("test/leaving", {HEADER: "grace:600"}, 600.0, id="within its grace"),
        pytest.param("test/grace", {}, 1.0, id="within the app's grace"),
    ],
)
def test_finish_brings_the_work_to_its_end(server, name, app, view, headers, patience_s):
    for turn in range(20):
        completed, cancelled = endings(server, app, "completed"), endings(server, app, "client_disconnected")
        worked_s = metric(server, "headrace_work_after_leave_seconds_total", app=app)

        left_at = left(server, f"/{app}{view}", f"{name}-{turn}", headers, n=4, pause=0.1)
        eventually(lambda: metric(server, "headrace_connections") == 1, "the node knows that the reader left")
        known_at = time.monotonic()

        went_on_s = (
            noted(server, "finally", f"{name}-{turn}") - known_at
        )  # less than nothing if it had ended by then
        eventually(lambda: is_idle(server, app), "its slot is free")  # noqa: B023
        over_at = time.monotonic()
        if over_at - left_at < patience_s:  # else it was held up, and rightly cancelled: again
            break

    eventually(lambda: endings(server, app, "completed") == completed + 1, "it is counted as completed")
    assert endings(server, app, "client_disconnected") == cancelled
    measured_s = metric(server, "headrace_work_after_leave_seconds_total", app=app) - worked_s
    assert went_on_s - 0.01 <= measured_s <= over_at - left_at + 0.01  # its clock ticks in milliseconds


@pytest.mark.parametrize("path", ["/test/finish/stream", "/test/finish/sync/stream", "/test/finish"])
def test_a_model_that_finishes_unread_waits_for_nobody(server, name, path):
    before = endings(server, "test/finish", "completed")

    left(server, path, name, n=300, pad=10_000)  # ten times what may wait for a reader

    noted(server, "finally", name)
    eventually(lambda: endings(server, "test/finish", "completed") == before + 1, "it is brought to its end")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("app", "headers", "grace_s"),
    [
        pytest.param("test/grace", {}, 1.0, id="as the app says"),
        pytest.param("test/grace", {HEADER: "grace:0.3"}, 0.3, id="less than the app says"),
        pytest.param("test/leaving", {HEADER: "grace:0.3"}, 0.3, id="as asked"),
    ],
)
def test_grace_stops_the_work_when_it_is_over(server, name, app, view, headers, grace_s):
    before = endings(server, app, "client_disconnected")

    left_at = left(server, f"/{app}{view}", name, headers, n=2, pause=600)

    assert noted(server, "finally", name) - left_at >= grace_s - 0.01  # its clock ticks in milliseconds
    eventually(lambda: endings(server, app, "client_disconnected") == before + 1, "it is counted as cancelled")


def test_a_reader_that_comes_back_within_the_grace_gets_the_rest(server, name):
    for turn in range(20):
        with server.open("/test/grace/stream", {"n": 25, "pause": 0.1, "name": f"{name}-{turn}"}) as stream:
            request_id = id_of(stream)
            noted(server, "start", f"{name}-{turn}")
            left_at = time.monotonic()
        with RawStream(server.port) as back:
            path = f"/test/grace/requests/{request_id}/stream"
            back.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            back.read_until(b"\r\n\r\n")
            if time.monotonic() - left_at < 1.0:  # else it may have come too late, where this test was held up
                back.read_until(b"\r\n0\r\n\r\n")  # for longer than the grace
                break

    assert data_events(back.body) == [*({"i": i} for i in range(25)), {"total": 25}]


def test_who_waits_for_a_slot_under_finish_is_served_though_nobody_waits_for_it(server, name):
    with server.open("/test/one-slot/stream", {"n": 2, "pause": 600}) as holder:
        holder.read_until(b"data: ")
        waiter = server.open("/test/one-slot", {"name": name}, {HEADER: "finish"})
        eventually(lambda: waiting(server, "test/one-slot") == 1, "it waits")
        waiter.close()
        eventually(lambda: metric(server, "headrace_connections") == 2, "the node knows that it left")
        assert waiting(server, "test/one-slot") == 1

    noted(server, "finally", name)
    eventually(lambda: is_idle(server, "test/one-slot"), "the slot is free")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "policy",
    ["", "stay", "Finish", "grace", "grace:", "grace:-1", "grace:nan", "grace:inf", "grace:86401", "cancel:1"],
)
def test_a_policy_that_cannot_be_read_is_a_400_that_says_what_is_expected(server, name, view, policy):
    answer = server.post(f"/test/finish{view}", {"name": name}, {HEADER: policy})

    assert (answer.status, answer.json["error_type"]) == (400, "bad_request")
    for expected in ("x-headrace-on-disconnect", repr(policy), "'cancel'", "'finish'", "'grace:SECONDS'", "86400"):
        assert expected in answer.json["detail"]
    assert notes_of(server, name) == {}


# --- stopped on purpose -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/test/leaving/stream", "/test/leaving/sync/stream", "/test/finish/stream"])
def test_a_stream_that_is_cancelled_ends_with_that_error_and_a_cut(server, name, path):
    app = "/".join(path.split("/")[1:3])
    with server.open(path, {"n": 100_000, "pause": 0.05, "name": name}) as stream:
        request_id = id_of(stream)
        stream.read_until(b"data: ")

        answer = cancel(server, app, request_id)
        stream.read_to_end()

    error = data_events(stream.body)[-1]["error"]
    assert (answer.status, answer.json) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert (error["type"], error["status"], error["retryable"]) == ("client_cancelled", 499, False)
    assert error["request_id"] == request_id
    assert not stream.is_whole
    noted(server, "finally", name)
    eventually(lambda: is_idle(server, app), "its slot is free")


def test_a_run_that_is_cancelled_answers_with_that_error(server, name):
    answers = []
    caller = threading.Thread(target=lambda: answers.append(server.post("/test/leaving/thinks", {"name": name})))
    caller.start()
    eventually(lambda: "id" in notes_of(server, name), "the model works")
    request_id = notes_of(server, name)["id"]

    assert cancel(server, "test/leaving", request_id).status == 202

    caller.join(30)
    [answer] = answers
    assert (answer.status, answer.json["error_type"]) == (499, "client_cancelled")
    assert answer.headers["x-fal-request-id"] == request_id
    noted(server, "finally", name)


def test_a_request_that_is_cancelled_while_it_waits_never_starts(server, name):
    with server.open("/test/one-slot/stream", {"n": 2, "pause": 600}) as holder:
        holder.read_until(b"data: ")
        with server.open("/test/one-slot/stream", {"name": name}) as waiter:
            assert cancel(server, "test/one-slot", id_of(waiter)).status == 202
            waiter.read_to_end()
        assert waiting(server, "test/one-slot") == 0

    assert data_events(waiter.body)[-1]["error"]["type"] == "client_cancelled"
    assert server.post("/test/one-slot", {"n": 1}).status == 200
    assert notes_of(server, name) == {}


def test_what_goes_on_without_a_reader_can_be_cancelled_too(server, name):
    before = endings(server, "test/finish", "client_cancelled")
    with server.open("/test/finish/stream", {"n": 2, "pause": 600, "name": name}) as stream:
        request_id = id_of(stream)
        noted(server, "start", name)
    eventually(lambda: metric(server, "headrace_connections") == 1, "the node knows that the reader left")

    assert cancel(server, "test/finish", request_id).status == 202

    noted(server, "finally", name)
    eventually(lambda: endings(server, "test/finish", "client_cancelled") == before + 1, "it is counted so")


def test_the_sdk_raises_when_its_stream_is_cancelled(server, name):
    with headrace.Client(server.url, key="id:secret") as client:
        stream = client.stream("test/leaving", {"n": 100_000, "pause": 0.05, "name": name})
        items = [next(stream)]
        assert cancel(server, "test/leaving", stream.request_id).status == 202
        with pytest.raises(headrace.StreamError) as raised:
            items.extend(stream)

    assert items == [{"i": i} for i in range(len(items))]
    assert (raised.value.type, raised.value.status, raised.value.retryable) == ("client_cancelled", 499, False)


def test_a_request_that_is_over_is_said_to_be(server):
    answer = server.post("/test/leaving", {"n": 1})

    told = cancel(server, "test/leaving", answer.headers["x-fal-request-id"])

    assert (told.status, told.json) == (400, {"status": "ALREADY_COMPLETED"})


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_cancel_is_a_put(server, method):
    answer = server.request(method, "/test/leaving/requests/00000000-0000-0000-0000-000000000000/cancel")

    assert (answer.status, answer.headers["allow"]) == (405, "PUT")


@pytest.mark.parametrize(
    ("app", "known"),
    [("test/leaving", False), ("test/finish", True), ("nobody/here", True)],
    ids=["an unknown id", "another app's", "no app's"],
)
def test_a_request_that_the_app_does_not_have_is_a_404_and_nobody_is_stopped(server, name, app, known):
    with server.open("/test/leaving/stream", {"n": 20, "pause": 0.05, "name": name}) as stream:
        request_id = id_of(stream) if known else "00000000-0000-0000-0000-000000000000"

        assert cancel(server, app, request_id).status == 404

        stream.read_until(b"\r\n0\r\n\r\n")
    assert data_events(stream.body)[-1] == {"total": 20}


def test_another_keys_request_is_as_unknown_as_any():
    with running_server(f"{MODELS}:Leaving", args=()) as server:
        key, other = ({"Authorization": f"Key {new_key(server, name)}"} for name in ("one", "other"))
        eventually(lambda: server.request("GET", "/v1/apps", None, other).status == 200, "both keys are known")
        with server.open("/test/leaving/stream", {"n": 2, "pause": 600, "name": "mine"}, key) as stream:
            request_id = id_of(stream)
            stream.read_until(b"data: ")

            answers = [cancel(server, "test/leaving", request_id, headers) for headers in (None, other, key)]
            stream.read_to_end()

    assert [answer.status for answer in answers] == [401, 404, 202]
    assert answers[1].json == {"status": "NOT_FOUND"}
    assert data_events(stream.body)[-1]["error"]["type"] == "client_cancelled"


def new_key(server, name: str) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "headrace", "keys", "create", "--name", name, "--data-dir", str(server.folder / "data")],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "XDG_CONFIG_HOME": str(server.folder / "config")},
    )  # fmt: skip
    return made.stdout.strip().splitlines()[-1]
