"""Models that fail to load, or die as soon as they have: tried ever more rarely, told on /ready, and well again by themselves."""

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.bystander import bystander
from tests.support.deaths import condition, cpu_s, metric, noted
from tests.support.server import PATIENCE_S, STARTING_S, ZOO, Answer, Server, eventually, running_server

MODELS = Path(__file__).parent / "models" / "dying.py"

#: Each class, the mood in which it fails, and what is said of it.
FAILING = {
    "Moody": ("raise", "RuntimeError: no model today"),
    "Leaves": ("leave", "no model at all"),
    "Crashes": ("segv", "the runner of Crashes died while it was starting"),
}


@pytest.fixture
def moods(tmp_path):
    """Sets the mood of a class, from its next start or request on."""

    def be(cls: str, mood: str) -> None:
        (tmp_path / "new").write_text(mood)
        (tmp_path / "new").rename(tmp_path / cls)

    be.env = {"MOODS": str(tmp_path)}
    return be


def is_failing(server: Server, app: str) -> bool:
    return condition(server, app)["state"] == "failing"


@pytest.mark.promise("R4")
def test_a_model_that_fails_to_load_is_tried_ever_more_rarely_until_it_works(moods, recorder, count, figures):
    first_s, most_s = (1.0, 60.0) if recorder.is_full else (0.5, 1.0)
    tries = count(smoke=3, full=10)
    for cls, (mood, _) in FAILING.items():
        moods(cls, mood)
    targets = [f"{ZOO}:Zoo", *(f"{MODELS}:{cls}" for cls in FAILING)]
    limits = {"restart_backoff_s": first_s, "restart_backoff_max_s": most_s}

    with running_server(*targets, limits=limits, env=moods.env, until_ready=False) as server:
        zoo_is_ready = lambda: condition(server, "zoo/zoo")["state"] == "ready"  # noqa: E731
        eventually(zoo_is_ready, "the bystander's app is ready", seconds=STARTING_S)
        with bystander(server) as other:
            for cls, (_, fault) in FAILING.items():
                app = f"test/{cls.lower()}"
                eventually(lambda app=app: is_failing(server, app), "it is told", seconds=STARTING_S)
                told = condition(server, app)
                refused = [server.post(path) for path in (f"/{app}", f"/{app}/stream")]

                assert (told["runners"], re.match(r".*dying\.py:\d+: ", told["fault"]) is not None) == (0, True)
                assert fault in told["fault"]
                assert refused[1].status == 404  # a plain function has no stream
                assert (refused[0].status, refused[0].json["error_type"]) == (503, "runner_scheduling_failure")
                assert int(refused[0].headers["retry-after"]) >= 1
        assert "RuntimeError: no model today" in server.log
        assert 'raise RuntimeError("no model today")' in server.log  # its traceback
        crash = r"it was ended by SIGSEGV\n(.*\n)*.*Segmentation fault"
        eventually(lambda: re.search(crash, server.log), "the log tells of the crash")
        assert server.request("GET", "/ready").status == 503

        used = busy = 0.0
        for number in range(2, tries + 1):
            began, cpu = time.monotonic(), cpu_s(server.process.pid)
            eventually(
                lambda number=number: all(len(noted(server, f"try {cls}")) >= number for cls in FAILING),
                f"try {number} of each",
                seconds=300,
            )
            used, busy = used + time.monotonic() - began, busy + cpu_s(server.process.pid) - cpu
        for cls in FAILING:
            moods(cls, "work")
        eventually(server.is_ready, "all of them work in the end", seconds=most_s + STARTING_S)
        answers = [server.post(f"/test/{cls.lower()}").status for cls in FAILING]
        ends = [
            metric(server, f'headrace_runner_ends_total{{app="test/{cls.lower()}",reason="load_failed"}}')
            for cls in FAILING
        ]
        gaps = {cls: gaps_of(noted(server, f"try {cls}")) for cls in FAILING}

    assert answers == [200] * len(FAILING)
    assert min(ends) >= tries
    least = [min(most_s, first_s * 2**number) for number in range(tries - 1)]
    for found in gaps.values():
        assert [gap >= pause for gap, pause in zip(found, least, strict=False)] == [True] * len(least)
    late_s = max(gap - pause for found in gaps.values() for gap, pause in zip(found, least, strict=False))
    figures("R4", tries=tries, node_cpu_percent=100 * busy / used, late_s=late_s, others_gap_ms=other.gap_ms)


def gaps_of(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


def refused_while_failing(server: Server, answers: list[Answer]) -> tuple[dict[str, object], Answer]:
    """Ask until a crash loop is told; return what was told, and what a call was answered. The others go to `answers`.

    On a busy machine it may be tried again between the one and the other, and die again: then once more.
    """
    while True:
        answers.append(server.post("/test/moody"))
        told = condition(server, "test/moody")
        if told["state"] == "failing":
            refused = server.post("/test/moody")
            if refused.json["error_type"] == "runner_scheduling_failure":
                return told, refused
            answers.append(refused)


@pytest.mark.promise("R4")
def test_a_model_that_dies_of_every_request_is_a_crash_loop_until_one_is_served(moods, count, figures):
    limits = {"restart_backoff_s": 0.5, "restart_backoff_max_s": 1.0}
    recovered_s = []
    with (
        running_server(f"{ZOO}:Zoo", f"{MODELS}:Moody", limits=limits, env=moods.env) as server,
        bystander(server) as other,
    ):
        for _ in range(count(smoke=1, full=5)):
            moods("Moody", "die of a request")
            ends: list[Answer] = []
            told, refused = refused_while_failing(server, ends)
            moods("Moody", "work")
            failing_at = time.monotonic()
            eventually(lambda: condition(server, "test/moody")["state"] == "ready", "it is tried again")
            recovered_s.append(time.monotonic() - failing_at)
            served = server.post("/test/moody")
            loops = server.log.count("runners of Moody die again and again")

            assert [end.json["error_type"] for end in ends[:5]] == ["runner_disconnected"] * 5
            assert (refused.status, refused.json["error_type"]) == (503, "runner_scheduling_failure")
            assert int(refused.headers["retry-after"]) >= 1
            assert re.search(r"dying\.py:\d+: runners of Moody die again and again", told["fault"])
            assert "5 in 60 s, nothing served" in told["fault"]
            assert "it left with status 3" in told["fault"]
            assert re.search(r"next try in [\d.]+ s:\nthe last words of a runner", server.log)
            assert "fault" not in condition(server, "test/moody")
            os.kill(served.json["pid"], signal.SIGKILL)  # forgiven again: its successor is started at once
            eventually(lambda: server.post("/test/moody").status == 200, "its successor serves")
            assert server.log.count("runners of Moody die again and again") == loops

    figures("R4", n=len(recovered_s), recovered_worst_ms=max(recovered_s) * 1000, others_gap_ms=other.gap_ms)


@pytest.mark.promise("R4")
def test_a_model_that_dies_soon_after_each_start_is_a_crash_loop(moods):
    moods("Moody", "die soon")
    limits = {"restart_backoff_s": 0.5, "restart_backoff_max_s": 0.5, "crashes_max": 3}
    with (
        running_server(f"{ZOO}:Zoo", f"{MODELS}:Moody", limits=limits, env=moods.env, until_ready=False) as server,
        bystander(server),
    ):
        eventually(lambda: is_failing(server, "test/moody"), "it is told", seconds=STARTING_S)
        eventually(lambda: len(noted(server, "try Moody")) >= 5, "it is tried again and again", seconds=60)
        before_it_is_told, is_told, _ = server.log.partition("runners of Moody die again and again")
        moods("Moody", "work")
        eventually(lambda: server.post("/test/moody").status == 200, "it works in the end")
        gaps = gaps_of(noted(server, "try Moody"))

    assert is_told
    assert before_it_is_told.count("of test/moody is lost") == 3
    assert min(gaps[2:4]) >= 0.5


@pytest.mark.promise("R4")
def test_a_crash_loop_is_not_hurried_by_those_who_ask_while_a_runner_is_seen_off(moods):
    moods("Moody", "die of a request")
    limits = {"restart_backoff_s": 0.5, "restart_backoff_max_s": 0.5, "crashes_max": 3}
    with (
        running_server(f"{ZOO}:Zoo", f"{MODELS}:Moody", limits=limits, env=moods.env) as server,
        bystander(server),
        ThreadPoolExecutor(4) as callers,
    ):
        is_enough = threading.Event()

        def ask() -> None:
            while not is_enough.is_set():
                server.post("/test/moody")

        try:
            asking = [callers.submit(ask) for _ in range(4)]
            eventually(lambda: len(noted(server, "try Moody")) >= 8, "it is tried again and again", seconds=60)
        finally:
            is_enough.set()
        for each in asking:
            each.result(PATIENCE_S)
        gaps = gaps_of(noted(server, "try Moody"))

    assert min(gaps[2:7]) >= 0.5


@pytest.mark.promise("R4")
def test_an_app_without_a_kept_runner_is_tried_on_demand(moods):
    moods("Lazy", "raise")
    with (
        running_server(f"{ZOO}:Zoo", f"{MODELS}:Lazy", limits={"restart_backoff_s": 0.5}, env=moods.env) as server,
        bystander(server),
    ):
        first, told = [], {}
        while (
            told.get("state") != "failing"
        ):  # for half a second: who comes later finds one that may be tried again
            first.append(server.post("/test/lazy"))
            told = condition(server, "test/lazy")
        eventually(server.is_ready, "it waits for a request to be tried again")
        after = noted(server, "try Lazy")
        second = server.post("/test/lazy")
        moods("Lazy", "work")
        eventually(lambda: server.post("/test/lazy").status == 200, "it works in the end")
        condition_after = condition(server, "test/lazy")

    assert {answer.status for answer in (*first, second)} == {503}
    assert {answer.json["error_type"] for answer in (*first, second)} == {"runner_scheduling_failure"}
    assert (told["state"], "no model today" in told["fault"]) == ("failing", True)
    assert len(after) == len(first)  # nobody asked meanwhile, so nobody tried
    assert ("fault" in condition_after, condition_after["runners"]) == (False, 1)
