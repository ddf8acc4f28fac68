"""Streams that have ended are kept for late readers: within a bound each and a bound for all; the oldest go first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.memory import MIB, metric
from tests.support.server import RawStream, Server, data_events, eventually, running_server

MODELS = Path(__file__).parent / "models/hoarding.py"
FLOOD = "/fault/hoarding/flood"
EVENTS = 300  # of a stream
EVENT_BYTES = 1_000


def finished_stream(server: Server, events: int = EVENTS) -> str:
    """Read a stream to its end; return its request's id."""
    with server.open(f"{FLOOD}/stream", {"events": events, "size": EVENT_BYTES}) as stream:
        stream.read_until(b"\r\n0\r\n\r\n")
        return request_id(stream)


def request_id(stream: RawStream) -> str:
    head = stream.head.decode().lower()
    return head.partition("x-fal-request-id: ")[2].partition("\r\n")[0]


def watched(server: Server, id_: str, after: int | None = None) -> tuple[int, list[int]]:
    """Watch a request, behind an event if one is named; return the status and the numbers of its events."""
    query = "" if after is None else f"?after={id_}.1.{after}"
    answer = server.request("GET", f"/fault/hoarding/requests/{id_}/stream{query}")
    events = data_events(answer.body) if answer.status == 200 else []
    return answer.status, [int(event["i"]) for event in events if "i" in event]


@pytest.mark.promise("P7")
def test_the_logs_of_ended_streams_stay_within_the_bound_for_all_and_the_oldest_go_first(recorder, count, figures):
    streams = count(smoke=24, full=5_000)
    bound = 256 * MIB if recorder.is_full else 2 * MIB
    limits = {"replays_bytes_max": bound, "replays_max": 2 * streams, "replay_s": 3_600}
    with running_server(MODELS, limits=limits) as server:
        ids = [finished_stream(server) for _ in range(streams)]
        eventually(lambda: held(server) <= bound, "the oldest are forgotten")
        kept = held(server)
        oldest, newest = watched(server, ids[0]), watched(server, ids[-1])
        has_all = [watched(server, id_)[0] == 200 for id_ in (ids if streams < 100 else ids[:: streams // 50])]

    assert streams * EVENTS * EVENT_BYTES > 2 * bound, "without a bound there would be more than twice as much"
    assert 0.5 * bound < kept <= bound
    assert (404, []) == oldest
    assert (200, list(range(EVENTS))) == newest
    # Where the line falls depends on when the node looked; that the old are on one side of it does not.
    assert sorted(has_all) == has_all
    figures("P7", n=streams, kept_mib=kept / MIB, bound_mib=bound / MIB)


@pytest.mark.promise("P7")
def test_the_log_of_one_stream_keeps_its_newest_events_within_its_bound(server):
    events = 3_000  # some three times what a log holds
    id_ = finished_stream(server, events)

    status, numbers = watched(server, id_, after=events - 201)
    beginning = watched(server, id_)

    assert (200, list(range(events - 200, events))) == (status, numbers)
    assert (412, []) == beginning
    assert held(server) <= MIB


@pytest.fixture(scope="module")
def server():
    with running_server(MODELS) as server:
        yield server


def held(server: Server) -> float:
    return metric(server, "headrace_held_bytes", kind="events")
