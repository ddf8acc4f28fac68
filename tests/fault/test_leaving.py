"""Readers who leave. Their model is told and stops, their slot is free, and nobody else notices."""

import itertools
import time

import pytest

from tests.support.bystander import bystander
from tests.support.leaving import MODELS, WAYS, is_idle, metric, noted, notes_of, waiting
from tests.support.recorder import spread_ms
from tests.support.server import RawStream, eventually, running_server

APP, SLOTS = "test/leaving", 16

names = (f"leaver-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server(recorder):
    # Nothing here is to be given up, and a busy machine may hold a runner up for seconds.
    limits = None if recorder.is_full else {"cancel_grace_s": 30}
    with running_server(f"{MODELS}:Leaving", f"{MODELS}:OneSlot", limits=limits) as server:
        yield server


def takes_as_many_as_before(server) -> bool:
    """Whether every slot takes a request, all at once."""
    eventually(lambda: is_idle(server, APP), "no slot is held")
    streams = [server.open("/test/leaving/thinks/stream", {"name": f"slot-{next(names)}"}) for _ in range(SLOTS)]
    eventually(
        lambda: metric(server, "headrace_requests", app=APP, state="running") == SLOTS, "all slots are taken"
    )
    for stream in streams:
        stream.close()
    eventually(lambda: is_idle(server, APP), "they are free again")
    return True


def ended(server) -> float:
    """How many streams have ended because their readers left."""
    labels = {"app": APP, "view": "stream", "ending": "client_disconnected"}
    return metric(server, "headrace_requests_total", **labels)


# --- in mid-stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "full"),
    [
        pytest.param("fin", 200, marks=pytest.mark.promise("S1")),
        pytest.param("rst", 100, marks=pytest.mark.promise("S3")),
    ],
)
def test_a_reader_that_leaves_an_async_generator_closes_it_and_frees_its_slot(server, way, full, count, figures):
    turns = count(smoke=10, full=full)

    ended_before = ended(server)
    worked_before_s = metric(server, "headrace_work_after_leave_seconds_total", app=APP)
    times_s, free_s = [], []

    with bystander(server, path="/test/leaving/stream", ticks=20) as other:
        for turn in range(1, turns + 1):
            name = next(names)
            stream = server.open("/test/leaving/stream", {"n": 10_000, "pause": 0.02, "name": name})
            stream.read_until(b'{"i":%d}' % (turn % 4))
            left_at = time.monotonic()
            WAYS[way](stream)
            times_s.append(noted(server, "finally", name) - left_at)
            eventually(lambda turn=turn: ended(server) - ended_before == turn, "it is counted")
            free_s.append(time.monotonic() - left_at)

    eventually(lambda: is_idle(server, APP), "no slot is held")
    worked_s = metric(server, "headrace_work_after_leave_seconds_total", app=APP) - worked_before_s
    assert ended(server) - ended_before == turns
    assert worked_s < sum(free_s)
    assert takes_as_many_as_before(server)
    figures(
        "S1" if way == "fin" else "S3", **spread_ms(times_s),
        mean_work_after_leave_ms=worked_s / turns * 1000, others_gap_ms=other.gap_ms,
    )  # fmt: skip


@pytest.mark.promise("S2")
@pytest.mark.parametrize(("path", "full"), [("sync", 100), ("emits", 20)])
def test_a_reader_that_leaves_a_sync_function_ends_it_at_its_next_event(server, path, full, count, figures):
    times_s = []

    with bystander(server, path="/test/leaving/stream", ticks=20) as other:
        for turn in range(count(smoke=10, full=full)):
            name = next(names)
            stream = server.open(f"/test/leaving/{path}/stream", {"n": 10_000, "pause": 0.02, "name": name})
            stream.read_until(b'{"i":%d}' % (turn % 4))
            left_at = time.monotonic()
            WAYS["fin" if turn % 2 else "rst"](stream)
            closed_at = noted(server, "finally", name)
            times_s.append(closed_at - max(left_at, noted(server, "yielded", name)))

    assert takes_as_many_as_before(server)
    figures("S2", target="<= 100 ms after the yield", **spread_ms(times_s), others_gap_ms=other.gap_ms)


@pytest.mark.promise("S1", "S2")
@pytest.mark.parametrize("path", ["/test/leaving/stream", "/test/leaving/sync/stream"])
def test_a_reader_that_leaves_without_having_read_closes_a_generator_that_waits_for_it(server, path, count):
    with bystander(server, path="/test/leaving/stream", ticks=20):
        for _ in range(count(smoke=1, full=10)):
            name = next(names)
            stream = server.open(path, {"n": 1_000_000, "pad": 10_000, "name": name})
            start = noted(server, "start", name)
            eventually(lambda: held_bytes(server) > 200_000, "the window is used up")
            stream.close()

            assert noted(server, "finally", name) > start

    assert takes_as_many_as_before(server)


def held_bytes(server) -> float:
    return metric(server, "headrace_held_bytes", kind="events")


# --- before anything came -----------------------------------------------------------------------------------------


@pytest.mark.promise("S5")
@pytest.mark.parametrize("path", ["/thinks/stream", "/thinks", "/thinks-in-steps/stream"])
def test_a_reader_that_leaves_before_the_first_event_stops_the_thinking(server, path, count, figures):
    times_s = []
    is_slow = "steps" in path  # it never looks up, so it is interrupted after a second

    with bystander(server, path="/test/leaving/stream", ticks=20) as other:
        for turn in range(count(smoke=1, full=5) if is_slow else count(smoke=10, full=100)):
            name = next(names)
            stream = server.open(f"/test/leaving{path}", {"name": name})
            noted(server, "start", name)
            left_at = time.monotonic()
            WAYS["fin" if turn % 2 else "rst"](stream)
            times_s.append(noted(server, "finally", name) - left_at)

    assert takes_as_many_as_before(server)
    figures("S5", target="the thinking stops", **spread_ms(times_s), others_gap_ms=other.gap_ms)


@pytest.mark.promise("S5")
@pytest.mark.parametrize("view", ["/stream", ""], ids=["stream", "run"])
def test_a_reader_that_leaves_while_it_waits_for_a_slot_is_never_served(server, view, count, figures):
    left = []
    ahead = count(smoke=5, full=20)

    with bystander(server, path="/test/leaving/stream", ticks=20):
        for turn in range(count(smoke=2, full=5)):
            holder = held_slot(server)
            waiters = [(name, server.open(f"/test/one-slot{view}", {"name": name})) for name in take(ahead)]
            eventually(lambda: waiting(server, "test/one-slot") == ahead, "they wait")
            for name, stream in waiters:
                WAYS["fin" if turn % 2 else "rst"](stream)
                left.append(name)
            eventually(lambda: waiting(server, "test/one-slot") == 0, "their places are free")
            holder.close()
            assert server.post("/test/one-slot", {"n": 1, "name": next(names)}).status == 200

    begun = [name for name in left if "start" in notes_of(server, name)]
    figures("S5", left=len(left), begun=len(begun))
    assert begun == []


@pytest.mark.promise("S5")
def test_a_reader_that_leaves_as_its_slot_becomes_free_is_not_served_either(server, count, figures):
    left = []

    with bystander(server, path="/test/leaving/stream", ticks=20):
        for turn in range(count(smoke=10, full=100)):
            holder, name = held_slot(server), next(names)
            waiter = server.open("/test/one-slot/stream", {"name": name})
            eventually(lambda: waiting(server, "test/one-slot") == 1, "it waits")
            WAYS["fin" if turn % 2 else "rst"](waiter)
            holder.close()
            left.append(name)
            assert server.post("/test/one-slot", {"n": 1, "name": next(names)}).status == 200

    begun = [name for name in left if "start" in notes_of(server, name)]
    figures("S5", left=len(left), begun=len(begun))
    assert begun == []


@pytest.mark.promise("S5")
@pytest.mark.parametrize("path", ["/test/leaving/stream", "/test/leaving"], ids=["stream", "run"])
@pytest.mark.parametrize("way", WAYS)
def test_a_reader_that_leaves_in_the_midst_of_its_body_begins_nothing(server, path, way, count):
    left = []

    with bystander(server, path="/test/leaving/stream", ticks=20):
        for turn in range(count(smoke=10, full=100)):
            name = next(names)
            body = b'{"name": "%s", "n": 1}' % name.encode()
            stream = RawStream(server.port)
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            stream.socket.sendall(f"{head}Content-Length: {len(body) + 1}\r\n\r\n".encode())
            stream.socket.sendall(body[: len(body) * turn // 9])  # from nothing to all but one byte
            WAYS[way](stream)
            left.append(name)

    assert takes_as_many_as_before(server)
    assert [name for name in left if "start" in notes_of(server, name)] == []
    assert "Headrace's own" not in server.log


def held_slot(server) -> RawStream:
    """A stream that holds the one slot."""
    holder = server.open("/test/one-slot/stream", {"n": 2, "pause": 600, "name": next(names)})
    holder.read_until(b"data: ")
    return holder


def take(number: int) -> list[str]:
    return list(itertools.islice(names, number))
