"""One request, many readers: watched by its id, from the start or behind the last event seen, and after its end."""

import json
import re

import pytest

from headrace.core.sse import Decoder
from tests.support.server import RawStream, eventually, running_server


@pytest.fixture(scope="module")
def server():
    with running_server() as server:
        yield server


def request_id_of(stream: RawStream) -> str:
    found = re.search(rb"x-fal-request-id: (\S+)", stream.head)
    assert found is not None
    return found[1].decode()


def events_of(body: bytes) -> list[tuple[str, dict]]:
    """The id and the value of each event."""
    return [(event.id, json.loads(event.data)) for event in Decoder().feed(body)]


def started(server, **input: object) -> tuple[RawStream, str]:
    """A stream that runs, and its request's id."""
    stream = server.open("/zoo/zoo/async/stream", {"n": 3, "pause": 0.1, **input})
    stream.read_until(b"data: ")
    return stream, request_id_of(stream)


def finished(server, **input: object) -> str:
    """The id of a request that is over."""
    with server.open("/zoo/zoo/async/stream", {"n": 3, **input}) as stream:
        stream.read_until(b'{"total":3}\n\n\r\n0\r\n\r\n')  # with its last event alone it would not be over yet
        return request_id_of(stream)


def test_a_second_reader_sees_all_of_a_running_request_with_ids(server):
    stream, id_ = started(server)
    with stream:
        watched = server.request("GET", f"/zoo/zoo/requests/{id_}/stream")
        stream.read_until(b"\r\n0\r\n\r\n")

    assert watched.status == 200
    assert watched.headers["x-fal-request-id"] == id_
    assert events_of(watched.body) == [
        (f"{id_}.1.0", {"i": 0}),
        (f"{id_}.1.1", {"i": 1}),
        (f"{id_}.1.2", {"i": 2}),
        (f"{id_}.1.3", {"total": 3}),
    ]
    assert b"id: " not in stream.body


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_is_over_can_be_watched_again_with_the_same_ending(server, method):
    id_ = finished(server)

    watched = server.request(method, f"/zoo/zoo/requests/{id_}/stream", {} if method == "POST" else None)

    assert [value for _, value in events_of(watched.body)] == [{"i": 0}, {"i": 1}, {"i": 2}, {"total": 3}]


@pytest.mark.parametrize("way", ["header", "query"])
def test_a_reader_goes_on_behind_the_last_event_it_saw(server, way):
    id_ = finished(server)
    seen = f"{id_}.1.1"

    if way == "header":
        watched = server.request("GET", f"/zoo/zoo/requests/{id_}/stream", None, {"Last-Event-ID": seen})
    else:
        watched = server.request("GET", f"/zoo/zoo/requests/{id_}/stream?after={seen}")

    assert events_of(watched.body) == [(f"{id_}.1.2", {"i": 2}), (f"{id_}.1.3", {"total": 3})]


def test_a_post_to_the_stream_with_an_id_of_ours_attaches_and_starts_nothing(server):
    id_ = finished(server, name="attached")
    starts = server.notes().count("start attached")

    watched = server.post("/zoo/zoo/async/stream", {"name": "attached"}, {"Last-Event-ID": f"{id_}.1.2"})

    assert events_of(watched.body) == [(f"{id_}.1.3", {"total": 3})]
    assert server.notes().count("start attached") == starts == 1


def test_behind_the_last_event_of_a_completed_request_there_is_nothing_and_204_says_so(server):
    id_ = finished(server)

    for seen in (f"{id_}.1.3", f"{id_}.1.4"):
        watched = server.request("GET", f"/zoo/zoo/requests/{id_}/stream", None, {"Last-Event-ID": seen})
        assert (watched.status, watched.body) == (204, b"")


def test_a_failed_request_ends_the_same_way_for_who_watches_it_again(server):
    with server.open("/zoo/zoo/raise-later/stream", {}) as stream:
        stream.read_to_end()
    id_ = request_id_of(stream)
    with RawStream(server.port) as watched:
        watched.post(f"/zoo/zoo/requests/{id_}/stream", {})
        watched.read_to_end()

    (_, first), (_, second), (error_id, error) = events_of(watched.body)
    assert (first, second) == ({"i": 0}, {"i": 1})
    assert error["error"]["type"] == "runner_server_error"
    assert error_id == f"{id_}.1.2"
    assert not watched.is_whole
    again = server.request("GET", f"/zoo/zoo/requests/{id_}/stream", None, {"Last-Event-ID": error_id})
    assert again.status == 204


def test_who_missed_only_the_error_event_still_gets_it_as_an_event(server):
    with server.open("/zoo/zoo/raise-later/stream", {}) as stream:
        stream.read_to_end()
    id_ = request_id_of(stream)
    with RawStream(server.port) as watched:
        watched.post(f"/zoo/zoo/requests/{id_}/stream", {}, {"Last-Event-ID": f"{id_}.1.1"})
        watched.read_to_end()

    assert watched.head.startswith(b"HTTP/1.1 200 ")
    assert [value["error"]["type"] for _, value in events_of(watched.body)] == ["runner_server_error"]


def test_a_request_that_failed_before_its_first_event_is_told_by_its_status_again(server):
    with server.open("/zoo/zoo/raise-first/stream", {}) as stream:
        stream.read_until(b"\r\n\r\n")
    id_ = request_id_of(stream)

    watched = server.request("GET", f"/zoo/zoo/requests/{id_}/stream")

    assert (watched.status, watched.json["error_type"]) == (500, "runner_server_error")
    assert watched.headers["x-fal-request-id"] == id_


def test_a_run_can_be_watched_too(server):
    answer = server.post("/zoo/zoo/async", {"n": 2})

    watched = server.request("GET", f"/zoo/zoo/requests/{answer.headers['x-fal-request-id']}/stream")

    assert [value for _, value in events_of(watched.body)] == [{"i": 0}, {"i": 1}, {"total": 2}]


@pytest.mark.promise("P6")
def test_many_readers_of_one_request_each_get_all_of_it(server):
    stream, id_ = started(server, n=20, pause=0.05)
    readers = [RawStream(server.port) for _ in range(10)]
    for reader in readers:
        reader.post(f"/zoo/zoo/requests/{id_}/stream", {})
    with stream:
        for reader in readers:
            reader.read_until(b"\r\n0\r\n\r\n")

    bodies = {reader.body for reader in readers}
    assert len(bodies) == 1
    assert [value for _, value in events_of(bodies.pop())] == [*({"i": i} for i in range(20)), {"total": 20}]
    for reader in readers:
        reader.close()


def test_the_request_goes_on_while_any_reader_is_there_and_stops_with_the_last(server):
    stream, id_ = started(server, n=1_000, pause=0.02, name="shared")
    second = RawStream(server.port)
    second.post(f"/zoo/zoo/requests/{id_}/stream", {})
    second.read_until(b"data: ")
    stream.close()

    before = second.bytes.count(b"data: ")
    second.read_until(b'{"i":%d}' % (before + 20))
    assert "finally shared" not in server.notes()
    second.close()

    eventually(server.saw("finally shared"), "the generator is closed when the last reader has left")


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    "text",
    [
        "7",
        "x" * 500,
        "../../etc/passwd",
        "-1",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "é",
        "a.b.c",
        "%00",
        "1.1.1",
    ],
)
def test_what_is_no_event_id_is_a_400_before_any_event(server, text):
    id_ = finished(server)

    watched = server.request(
        "GET", f"/zoo/zoo/requests/{id_}/stream", None, {"Last-Event-ID": text.encode("utf-8").decode("latin-1")}
    )

    assert (watched.status, watched.json["error_type"]) == (400, "bad_request")


@pytest.mark.promise("P4")
def test_an_id_of_another_request_attempt_or_place_is_a_412_before_any_event(server):
    id_, other = finished(server), finished(server)

    def status(seen: str) -> tuple[int, str]:
        watched = server.request("GET", f"/zoo/zoo/requests/{id_}/stream", None, {"Last-Event-ID": seen})
        return watched.status, watched.json["error_type"]

    assert status(f"{other}.1.1") == (412, "replay_gone")
    assert status(f"{id_}.2.1") == (412, "replay_gone")
    assert status(f"{id_}.1.99") == (412, "replay_gone")


def test_a_post_with_the_id_of_a_request_that_is_not_here_is_a_412_and_starts_nothing(server):
    seen = "0f8fad5b-d9cb-469f-a165-70867728950e.1.3"

    answer = server.post("/zoo/zoo/async/stream", {"name": "never"}, {"Last-Event-ID": seen})

    assert (answer.status, answer.json["error_type"]) == (412, "replay_gone")
    assert "start never" not in server.notes()


def test_an_unknown_request_and_another_apps_are_404(server):
    id_ = finished(server)

    for path in (f"/zoo/single/requests/{id_}/stream", "/zoo/zoo/requests/nonsense/stream"):
        assert server.request("GET", path).status == 404


def test_a_reader_that_the_log_has_passed_is_told_so(server):
    with running_server(limits={"replay_bytes_max": 20_000, "window_bytes": 10_000}) as small:
        with small.open("/zoo/zoo/burst/stream", {"n": 500}) as stream:
            stream.read_until(b"\r\n0\r\n\r\n")
        id_ = request_id_of(stream)

        watched = small.request("GET", f"/zoo/zoo/requests/{id_}/stream")

        assert (watched.status, watched.json["error_type"]) == (412, "replay_gone")
        late = small.request("GET", f"/zoo/zoo/requests/{id_}/stream?after={id_}.1.497")
        assert [value["i"] for _, value in events_of(late.body)] == [498, 499]


def test_a_request_is_forgotten_after_replay_s():
    with running_server(limits={"replay_s": 0.5}) as server:
        id_ = finished(server)

        eventually(
            lambda: server.request("GET", f"/zoo/zoo/requests/{id_}/stream").status == 404, "it is forgotten"
        )


# --- the caller's own key ---------------------------------------------------------------------------------------


def test_a_call_sent_twice_with_one_key_is_one_request(server):
    headers = {"Idempotency-Key": "twice-1"}

    first = server.post("/zoo/zoo/async", {"n": 2, "name": "once"}, headers)
    second = server.post("/zoo/zoo/async", {"n": 2, "name": "once"}, headers)
    third = server.post("/zoo/zoo/async/stream", {"n": 2, "name": "once"}, headers)

    assert first.json == second.json == {"total": 2}
    assert first.headers["x-fal-request-id"] == second.headers["x-fal-request-id"]
    assert [value for _, value in events_of(third.body)] == [{"i": 0}, {"i": 1}, {"total": 2}]
    assert server.notes().count("start once") == 1


def test_a_key_with_another_body_is_a_conflict_and_with_another_endpoint_another_request(server):
    headers = {"Idempotency-Key": "conflict-1"}
    server.post("/zoo/zoo/async", {"n": 1}, headers)

    other_body = server.post("/zoo/zoo/async", {"n": 2}, headers)
    other_endpoint = server.post("/zoo/zoo/def", {"n": 2}, headers)

    assert (other_body.status, other_body.json["error_type"]) == (422, "idempotency_conflict")
    assert other_endpoint.json == {"total": 2}


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_a_key_that_is_none_is_a_400(server, key):
    answer = server.post("/zoo/zoo/async", {"n": 1}, {"Idempotency-Key": key})

    assert (answer.status, answer.json["error_type"]) == (400, "bad_request")


def test_a_stream_that_was_cut_is_resumed_within_its_grace_with_nothing_lost_and_nothing_repeated(server):
    headers = {"Idempotency-Key": "resume-1", "X-Headrace-On-Disconnect": "grace:20"}
    body = {"n": 30, "pause": 0.02, "name": "resumed"}
    with server.open("/zoo/zoo/async/stream", body, headers) as stream:
        stream.read_until(b'{"i":5}')
        id_ = request_id_of(stream)
        stream.reset()

    resumed = server.post("/zoo/zoo/async/stream", body, {**headers, "Last-Event-ID": f"{id_}.1.5"})

    assert [value for _, value in events_of(resumed.body)] == [*({"i": i} for i in range(6, 30)), {"total": 30}]
    assert server.notes().count("start resumed") == 1


def test_a_model_waits_in_its_grace_for_the_reader_it_lost(server):
    headers = {"Idempotency-Key": "waits-1", "X-Headrace-On-Disconnect": "grace:20"}
    body = {"n": 20_000, "name": "waits"}
    with server.open("/zoo/zoo/burst/stream", body, headers) as stream:
        stream.read_until(b'{"i":5,')
        id_ = request_id_of(stream)
        stream.reset()

    resumed = server.post("/zoo/zoo/burst/stream", body, {**headers, "Last-Event-ID": f"{id_}.1.5"})

    assert [value["i"] for _, value in events_of(resumed.body)] == list(range(6, 20_000))
