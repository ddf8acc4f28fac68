"""Readers who leave a model that does not look up: it is interrupted where it stands, or its runner is replaced."""

import itertools
import re
import time

import pytest

from tests.support.bystander import bystander
from tests.support.leaving import MODELS, is_idle, noted, notes_of
from tests.support.recorder import spread_ms
from tests.support.server import data_events, eventually, processes, running_server

#: Seconds that a request may go on once it was told to stop: in a full run, as promised.
GRACE_S, SMOKE_GRACE_S = 5.0, 2.0

names = (f"stuck-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def grace_s(recorder) -> float:
    return GRACE_S if recorder.is_full else SMOKE_GRACE_S


@pytest.fixture(scope="module")
def server(recorder):
    limits = None if recorder.is_full else {"cancel_grace_s": SMOKE_GRACE_S, "kill_grace_s": 0.5}
    with running_server(f"{MODELS}:Leaving", limits=limits) as server:
        yield server


@pytest.fixture(scope="module")
def patient(recorder):
    """A server that gives nobody up who is interrupted, though a busy machine holds the runner up for seconds."""
    limits = None if recorder.is_full else {"cancel_grace_s": 30}
    with running_server(f"{MODELS}:Leaving", limits=limits) as server:
        yield server


def ready_runners(server) -> list[int]:
    """Every runner that ever was ready, in order."""
    return [int(pid) for pid in re.findall(r"is ready \(runner (\d+)\)", server.log)]


def is_gone(runner: int) -> bool:
    """Whether nothing of a runner's process group is left."""
    return runner not in {group for _, _, group in processes()}


@pytest.mark.promise("S2")
@pytest.mark.parametrize("path", ["busy/stream", "busy-function"])
def test_a_busy_loop_is_interrupted_in_its_own_thread_alone(patient, path, count, figures):
    server = patient
    runners = ready_runners(server)
    times_s = []

    with bystander(server, path="/test/leaving/sync/stream", ticks=20) as other:
        for _ in range(count(smoke=1, full=10)):
            name = next(names)
            stream = server.open(f"/test/leaving/{path}", {"name": name})
            noted(server, "start", name)
            left_at = time.monotonic()
            stream.close()
            times_s.append(noted(server, "finally", name) - left_at)

    assert ready_runners(server) == runners
    target = "interrupted after 1 s, long before its runner is given up"
    figures("S2", target=target, **spread_ms(times_s), others_gap_ms=other.gap_ms)


@pytest.mark.promise("S2")
@pytest.mark.parametrize("path", ["asleep", "in-c"])
def test_a_call_that_never_returns_costs_its_runner_the_job_and_nobody_their_stream(
    server, path, grace_s, count, figures
):
    times_s = []

    with bystander(server, path="/test/leaving/stream", ticks=20) as other:
        for _ in range(count(smoke=1, full=5)):
            name, runners = next(names), ready_runners(server)
            stuck = server.open(f"/test/leaving/{path}/stream", {"name": name})
            stuck.read_until(b'"pid"')
            ticks = int((grace_s + 1) / 0.1)
            companion = server.open("/test/leaving/sync/stream", {"n": ticks, "pause": 0.1, "name": next(names)})
            companion.read_until(b"data: ")
            left_at = time.monotonic()
            stuck.close()

            eventually(lambda: ready_runners(server) != runners, "a replacement is ready")
            times_s.append(time.monotonic() - left_at)
            assert times_s[-1] >= grace_s
            companion.read_until(b"\r\n0\r\n\r\n")  # by the runner that leaves
            assert data_events(companion.body) == [*({"i": i} for i in range(ticks)), {"total": ticks}]
            companion.close()
            eventually(lambda: is_gone(runners[-1]), "the retired runner is gone, and its group")
            assert "finally" not in notes_of(server, name)

    eventually(lambda: is_idle(server, "test/leaving"), "no slot is held")
    figures("S2", target="a new runner within 6 s", **spread_ms(times_s), others_gap_ms=other.gap_ms)


@pytest.mark.promise("S2")
def test_a_call_that_holds_the_interpreter_is_given_up_and_the_others_go_on_when_it_returns(
    server, grace_s, count, figures
):
    times_s = []

    for _ in range(count(smoke=1, full=5)):
        runners = ready_runners(server)
        companion = server.open("/test/leaving/stream", {"n": 30, "pause": 0.02, "name": next(names)})
        companion.read_until(b"data: ")
        name = next(names)
        stuck = server.open("/test/leaving/in-c-with-the-lock/stream", {"pause": grace_s + 1, "name": name})
        stuck.read_until(b'"pid"')
        (server.folder / f"notes.{name}").touch()
        noted(server, "holds", name)
        left_at = time.monotonic()
        stuck.close()

        eventually(lambda: ready_runners(server) != runners, "a replacement is ready")
        times_s.append(time.monotonic() - left_at)
        with bystander(server, path="/test/leaving/stream", ticks=5):
            pass  # the new one serves, though the old one is held up still
        companion.read_until(b"\r\n0\r\n\r\n")
        assert data_events(companion.body) == [*({"i": i} for i in range(30)), {"total": 30}]
        companion.close()
        eventually(lambda: is_gone(runners[-1]), "the retired runner is gone, and its group")

    figures("S2", target="a new runner within 6 s", **spread_ms(times_s))
