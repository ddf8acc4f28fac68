"""Runners die, are stopped or fall silent. Their requests are told so, another takes over, and nobody else notices."""

import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.bystander import bystander
from tests.support.deaths import condition, error_of, first_pid, group_of, metric, noted, started_at
from tests.support.recorder import spread_ms
from tests.support.server import ZOO, RawStream, Server, data_events, eventually, running_server

MODELS = Path(__file__).parent / "models" / "dying.py"

LOST = ("runner_disconnected", 503, True)


@pytest.fixture(scope="module")
def server():
    with running_server(f"{ZOO}:Zoo", f"{MODELS}:Dying", f"{MODELS}:Narrow", f"{MODELS}:Heavy") as server:
        yield server


def told(stream: RawStream) -> tuple[object, ...]:
    error = error_of(stream)
    return error["type"], error["status"], error["retryable"]


def time_of_error(stream: RawStream) -> float:
    stream.read_until(b"event: error")
    arrived = time.monotonic()
    stream.read_to_end()
    return arrived


def serve_one(server: Server, app: str = "test/dying") -> int:
    """Have a request served, which ends any suspicion of a crash loop; return its runner."""
    answer = server.post(f"/{app}/pid")
    assert answer.status == 200, answer.body
    return answer.json["pid"]


# --- killed -------------------------------------------------------------------------------------------------


@pytest.mark.promise("R1")
def test_a_killed_runner_ends_its_streams_with_a_typed_error_and_nobody_else_notices(server, count, figures):
    chance = random.Random(1)
    times_s, victims = [], []

    with bystander(server) as other:
        for _ in range(count(smoke=8, full=200)):
            with (
                server.open("/test/dying/stream", {"n": 10_000, "pause": 0.003}) as one,
                server.open("/test/dying/stream", {"n": 10_000, "pause": 0.05}) as two,
            ):
                pid = first_pid(one)
                assert first_pid(two) == pid
                time.sleep(chance.uniform(0, 0.1))  # the moment of the fault
                killed_at = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                for stream in (one, two):
                    stream.read_until(b"event: error")
                    times_s.append(time.monotonic() - killed_at)

                for stream in (one, two):
                    stream.read_to_end()
                    seen = [event["i"] for event in data_events(stream.body)[:-1]]
                    assert (told(stream), seen) == (LOST, list(range(len(seen))))
            victims.append(pid)
            victims.append(serve_one(server))

    assert len(set(victims)) == len(victims) // 2 + 1
    figures("R1", **spread_ms(times_s), others_gap_ms=other.gap_ms, others_p99_ms=p99(other.gaps_ms))


def p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


@pytest.mark.promise("R2")
@pytest.mark.parametrize("how", ["segv", "abort", "exit", "kill"])
def test_whatever_a_runner_dies_of_its_stream_is_told(server, how, count, figures):
    times_s = []

    with bystander(server) as other:
        for turn in range(count(smoke=2, full=20)):
            name = f"{how}-{turn}"
            with server.open("/test/dying/end/stream", {"how": how, "name": name}) as stream:
                first_pid(stream)
                server.release(name)
                arrived = time_of_error(stream)
            times_s.append(arrived - noted(server, f"dies {name}")[0])

            assert (told(stream), data_events(stream.body)[0]["i"]) == (LOST, 0)
            serve_one(server)

    figures("R2", **spread_ms(times_s), others_gap_ms=other.gap_ms)


@pytest.mark.promise("R2")
def test_the_log_tells_what_a_runner_died_of(server):
    for how, words in [("segv", "SIGSEGV"), ("abort", "SIGABRT"), ("exit", "it left with status 3")]:
        with server.open("/test/dying/end/stream", {"how": how, "name": f"told {how}"}) as stream:
            pid = first_pid(stream)
            server.release(f"told {how}")
            stream.read_to_end()
        serve_one(server)

        story = rf"runner {pid} of test/dying is lost: .*{words}"
        eventually(lambda story=story: re.search(story, server.log), f"the log tells of {words}")


@pytest.mark.promise("R3")
def test_after_a_death_another_runner_is_started_at_once_and_serves_whoever_waits(server, count, figures):
    spawned_s, served_s = [], []

    with bystander(server) as other:
        for _ in range(count(smoke=3, full=50)):
            answers: list[object] = []

            def wait_for_a_slot(answers: list[object] = answers) -> None:
                answers.append(server.post("/test/narrow/pid"))

            waiting = [threading.Thread(target=wait_for_a_slot) for _ in range(3)]
            with server.open("/test/narrow/stream", {"n": 10_000, "pause": 0.01}) as stream:
                pid = first_pid(stream)
                for thread in waiting:
                    thread.start()
                eventually(lambda: condition(server, "test/narrow")["waiting"] == 3, "three wait")
                killed_at = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                for thread in waiting:
                    thread.join()
                served_s.append(time.monotonic() - killed_at)
                stream.read_to_end()

            assert [answer.status for answer in answers] == [200] * 3
            (successor,) = {answer.json["pid"] for answer in answers}
            spawned_s.append(started_at(successor) - killed_at)

    figures("R3", **spread_ms(spawned_s), served_worst_ms=max(served_s) * 1000, others_gap_ms=other.gap_ms)


# --- stopped and silent -------------------------------------------------------------------------------------

#: Seconds of silence that a smoke run waits for. No less: on a busy machine a healthy runner is silent for some, too.
SILENCE_S = 5.0


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server that soon loses patience, with an app whose setup() holds the interpreter for longer."""
    moods = tmp_path_factory.mktemp("moods")
    (moods / "Moody").write_text("hold the lock")
    apps = [f"{ZOO}:Zoo", *(f"{MODELS}:{name}" for name in ("Dying", "Narrow", "Moody"))]
    limits = {"runner_stopped_s": 1.0, "runner_silence_s": SILENCE_S}
    with running_server(*apps, limits=limits, env={"MOODS": str(moods)}) as server:
        yield server


@pytest.fixture
def patient(request, recorder):
    """In a full run a server with the default limits, else a hasty one; and its two limits."""
    if recorder.is_full:
        return request.getfixturevalue("server"), 5.0, 60.0
    return request.getfixturevalue("hasty"), 1.0, SILENCE_S


@pytest.mark.promise("R2")
def test_a_stopped_runner_is_found_and_replaced(patient, count, figures):
    server, stopped_s, _ = patient
    times_s = []

    with bystander(server) as other:
        for _ in range(count(smoke=1, full=20)):
            with server.open("/test/dying/stream", {"n": 10_000, "pause": 0.01}) as stream:
                pid = first_pid(stream)
                stopped_at = time.monotonic()
                os.kill(pid, signal.SIGSTOP)
                times_s.append(time_of_error(stream) - stopped_at)

            assert (told(stream), serve_one(server) == pid) == (LOST, False)
            assert "stopped by a signal" in error_of(stream)["message"]
            assert times_s[-1] >= stopped_s
            eventually(lambda pid=pid: not group_of(pid), "it is gone")
        series = 'headrace_runner_ends_total{app="test/dying",reason="stopped"}'
        eventually(lambda: metric(server, series) == len(times_s), "each is counted")

    figures("R2", **spread_ms(times_s), others_gap_ms=other.gap_ms, target="<= 10 s")


@pytest.mark.promise("R2")
def test_a_runner_that_is_stopped_for_less_than_the_limit_goes_on_unharmed(hasty, count):
    stops = count(smoke=2, full=20)
    with bystander(hasty):
        while True:
            stopped_s = []
            with hasty.open("/test/dying/stream", {"n": 30 * stops, "pause": 0.05}) as stream:
                pid = first_pid(stream)
                for _ in range(stops):
                    stopped_at = time.monotonic()
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(0.5)  # one of the looks, a second apart, may see it; never two in a row
                    os.kill(pid, signal.SIGCONT)
                    stopped_s.append(time.monotonic() - stopped_at)
                    if stopped_s[-1] >= 1.0:
                        break
                    time.sleep(1.0)
                else:
                    stream.read_until(b"\r\n0\r\n\r\n")
                    break
            serve_one(hasty)  # this test was held up itself, and the runner may be lost, rightly: once more

    assert [event["i"] for event in data_events(stream.body)] == list(range(30 * stops))
    assert serve_one(hasty) == pid


@pytest.mark.promise("R2")
def test_a_busy_runner_is_left_alone_for_runner_silence_s_and_then_replaced(patient, count, figures):
    server, _, silence_s = patient
    times_s = []

    with bystander(server) as other:
        pid = serve_one(server)
        short = server.post("/test/dying/busy/stream", {"pause": silence_s * 0.4})
        for turn in range(count(smoke=1, full=2)):
            asked_at = time.monotonic()
            with server.open("/test/dying/busy/stream", {"pause": silence_s * 10, "name": f"{turn}"}) as stream:
                first_pid(stream)
                server.release(f"{turn}")
                told_at = time_of_error(stream)
            times_s.append(told_at - noted(server, f"busy {turn}")[0])

            assert told(stream) == LOST
            assert f"no sign of life for {silence_s:g} s" in error_of(stream)["message"]
            assert told_at - asked_at >= silence_s
            assert serve_one(server) != pid
        series = 'headrace_runner_ends_total{app="test/dying",reason="silent"}'
        eventually(lambda: metric(server, series) == len(times_s), "each is counted")

    assert [event["i"] for event in data_events(short.body)] == [0, 1]
    figures("R2", **spread_ms(times_s), others_gap_ms=other.gap_ms, target="runner_silence_s and a second or two")


@pytest.mark.promise("R2")
def test_a_setup_that_holds_the_interpreter_is_not_silence(hasty):
    assert (hasty.post("/test/moody").status, len(noted(hasty, "try Moody"))) == (200, 1)


@pytest.mark.promise("R2")
def test_a_runner_that_nobody_asks_for_anything_is_not_silent(hasty):
    pid = serve_one(hasty, "test/narrow")
    past_s = 2 * SILENCE_S + 1
    eventually(lambda: time.monotonic() - started_at(pid) > past_s, "two silences and a look have passed")

    assert serve_one(hasty, "test/narrow") == pid
    assert "test/narrow is lost" not in hasty.log


# --- too large ----------------------------------------------------------------------------------------------


@pytest.mark.promise("R2")
def test_a_runner_over_its_memory_limit_is_replaced_and_its_request_told_the_numbers(server, count, figures):
    limit = 160 * 2**20
    before = metric(server, 'headrace_runner_ends_total{app="test/heavy",reason="memory"}')
    times_s, pids = [], set()

    with bystander(server) as other:
        turns = count(smoke=1, full=10)
        for turn in range(turns):
            ask = {"n": 200_000_000, "pause": 60, "name": f"heavy {turn}"}
            with server.open("/test/heavy/stream", ask) as stream:
                pids.add(first_pid(stream))
                server.release(ask["name"])
                taken_at = time.monotonic()
                times_s.append(time_of_error(stream) - taken_at)
            message = error_of(stream)["message"]
            held, allowed = map(int, re.findall(r"\d+", message))

            assert told(stream) == LOST
            assert (held > 200_000_000, allowed) == (True, limit)
            eventually(lambda message=message: message in server.log, "the log says it too")
            assert data_events(server.post("/test/heavy/stream", {"n": 1_000}).body)[-1] == {"taken": 1_000}
        series = 'headrace_runner_ends_total{app="test/heavy",reason="memory"}'
        eventually(lambda: metric(server, series) - before == turns, "each is counted")

    assert len(pids) == turns
    figures("R2", **spread_ms(times_s), others_gap_ms=other.gap_ms, target="some seconds")
