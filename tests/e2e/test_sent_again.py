"""Direct calls that nobody answered, sent again without a key: the first one again where that goes on, else another."""

import re

import pytest

from tests.support.leaving import MODELS, WAYS, noted
from tests.support.server import data_events, running_server

HEADER = "X-Headrace-On-Disconnect"
VIEWS = [pytest.param("/stream", id="stream"), pytest.param("", id="run")]
GOES_ON = [
    pytest.param("test/finish", {}, id="finish"),
    pytest.param("test/leaving", {HEADER: "grace:60"}, id="grace"),
]


@pytest.fixture(scope="module")
def server():
    with running_server(MODELS) as server:
        yield server


@pytest.fixture
def name(request) -> str:
    """A name for the one call of a test."""
    return re.sub(r"\W+", "-", request.node.name)


def starts(server, name: str) -> int:
    return sum(note.startswith(f"start {name} ") for note in server.notes())


def sent_and_lost(server, path: str, name: str, headers=None, *, way: str = "fin", **ask) -> None:
    """Call a model that has not said a word when the caller's connection dies."""
    first = server.open(path, {"name": name, **ask}, headers)
    noted(server, "start", name)
    WAYS[way](first)
    server.request("GET", "/health")  # answered by a loop that has heard of it


def result_of(answer) -> object:
    assert answer.status == 200, answer.body
    return data_events(answer.body)[-1] if b"data: " in answer.body else answer.json


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("app", "headers"), GOES_ON)
def test_a_call_that_died_unanswered_is_the_same_request_when_it_is_sent_again(
    server, name, app, headers, view, way
):
    path = f"/{app}/ponders{view}"
    for _ in range(3):  # as the JavaScript client does, whose fourth try is its last
        sent_and_lost(server, path, name, headers, way=way, n=2)
    server.release(name)

    last = server.post(path, {"name": name, "n": 2}, headers)

    assert result_of(last) == {"total": 2}
    assert starts(server, name) == 1
    assert b"id: " not in last.body  # nobody asked for them
    assert last.body.count(b"data: ") == (3 if view else 0)


@pytest.mark.parametrize("view", VIEWS)
def test_one_that_ended_meanwhile_is_told_whole(server, name, view):
    path = f"/test/finish/ponders{view}"
    sent_and_lost(server, path, name)
    server.release(name)
    noted(server, "finally", name)

    assert result_of(server.post(path, {"name": name})) == {"total": 3}
    assert starts(server, name) == 1


@pytest.mark.parametrize("view", VIEWS)
def test_with_cancel_leaving_stops_the_first_one_and_the_next_is_another(server, name, view):
    path = f"/test/leaving/ponders{view}"
    sent_and_lost(server, path, name)
    noted(server, "finally", name)
    server.release(name)

    assert result_of(server.post(path, {"name": name})) == {"total": 3}
    assert starts(server, name) == 2


def test_another_body_is_another_call(server, name):
    sent_and_lost(server, "/test/finish/ponders", name)
    server.release(name)

    assert result_of(server.post("/test/finish/ponders", {"name": name, "n": 1})) == {"total": 1}
    assert starts(server, name) == 2


def test_equal_calls_that_were_answered_are_two_requests(server, name):
    server.release(name)

    first, second = (server.post("/test/finish/ponders/stream", {"name": name}) for _ in range(2))

    assert first.headers["x-fal-request-id"] != second.headers["x-fal-request-id"]
    assert starts(server, name) == 2


def test_one_whose_answer_had_begun_is_not_sent_again(server, name):
    body = {"name": name, "n": 2, "pause": 0.5}
    with server.open("/test/finish/stream", body) as first:
        first.read_until(b"data: ")

    server.post("/test/finish/stream", body)

    assert starts(server, name) == 2


def test_one_whose_beginning_is_not_kept_any_more_is_another():
    with running_server(f"{MODELS}:Finish", limits={"replay_bytes_max": 20_000, "window_bytes": 10_000}) as server:
        sent_and_lost(server, "/test/finish/ponders/stream", "long", n=100, pad=1_000)
        server.release("long")
        noted(server, "finally", "long")

        again = server.post("/test/finish/ponders/stream", {"name": "long", "n": 100, "pad": 1_000})

        assert again.body.count(b"data: ") == 101
        assert starts(server, "long") == 2
