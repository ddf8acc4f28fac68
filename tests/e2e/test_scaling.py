"""How many runners an app has: more as requests wait, fewer when nobody asks, none where none is kept."""

import time

import pytest

from tests.support.deaths import Crowd, condition, first_pid, metric
from tests.support.server import Server, data_events, eventually, running_server

FINAL_CHUNK = b"\r\n0\r\n\r\n"

KEEP_ALIVE_S = 1.0

APPS = (
    f"KEEP_ALIVE_S = {KEEP_ALIVE_S}\n"
    + """
import asyncio, os
import headrace


def note(text):
    with open(os.environ["ZOO_NOTES"], "a") as file:
        file.write(f"{text}\\n")


class Wide(headrace.App, name="me/wide", max_concurrency=3, keep_alive=KEEP_ALIVE_S):
    def setup(self):
        note(f"{type(self).__name__} {os.getpid()}")

    @headrace.endpoint("/")
    async def hold(self, input: dict) -> dict:
        await asyncio.sleep(input.get("pause", 0))
        return {"pid": os.getpid()}

    @headrace.endpoint("/words")
    async def words(self, input: dict):
        for i in range(input["n"]):
            yield {"i": i, "pid": os.getpid()}
            await asyncio.sleep(input["pause"])


class Lazy(Wide, name="me/lazy", min_concurrency=0, max_concurrency=1):
    pass


class Pairs(Wide, name="me/pairs", min_concurrency=0, max_concurrency=2, max_multiplexing=2):
    pass
"""
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("apps") / "apps.py"
    path.write_text(APPS)
    with running_server(path) as server:
        yield server


def runners(server: Server, app: str) -> int:
    return condition(server, app)["runners"]


def starts(server: Server, app: str) -> float:
    return metric(server, f'headrace_runner_starts_total{{app="{app}"}}')


def idle_ends(server: Server, app: str) -> float:
    return metric(server, f'headrace_runner_ends_total{{app="{app}",reason="idle"}}')


def settle(server: Server, app: str, number: int) -> None:
    eventually(lambda: runners(server, app) == number, f"{app} is down to {number}")


def test_runners_are_added_for_whoever_waits_never_more_than_the_most_and_leave_again(server):
    settle(server, "me/wide", 1)
    before, ended = starts(server, "me/wide"), idle_ends(server, "me/wide")
    most = []

    with Crowd(server, "/me/wide", 10, {"pause": 0.5}) as crowd:
        eventually(lambda: condition(server, "me/wide")["waiting"] > 0, "some wait")
        while len(crowd.answers) < 10:
            most.append(runners(server, "me/wide"))
            most.append(metric(server, 'headrace_runners{app="me/wide",state="working"}'))

    assert (max(most), len(crowd.pids), starts(server, "me/wide") - before) == (3, 3, 2)

    settle(server, "me/wide", 1)
    eventually(lambda: idle_ends(server, "me/wide") - ended == 2, "two have left")
    assert metric(server, 'headrace_runners{app="me/wide",state="working"}') == 1
    assert (server.request("GET", "/ready").status, server.post("/me/wide").status) == (200, 200)
    assert len(crowd.pids & set(server.runner_pids())) == 1


def test_as_many_runners_are_started_as_the_requests_have_need_of_slots(server):
    for number, expected in [(2, 1), (3, 2)]:
        settle(server, "me/pairs", 0)
        before = starts(server, "me/pairs")
        with Crowd(server, "/me/pairs", number, {"pause": 3.0}) as crowd:  # longer than the second start lags
            pass

        assert (len(crowd.pids), starts(server, "me/pairs") - before) == (expected, expected)


def test_an_app_that_keeps_none_is_started_by_a_request_and_stopped_when_nobody_asks(server):
    settle(server, "me/lazy", 0)
    ready = server.request("GET", "/ready")
    first = server.post("/me/lazy").json["pid"]
    up = condition(server, "me/lazy")
    settle(server, "me/lazy", 0)
    eventually(lambda: first not in server.runner_pids(), "its process is gone")
    second = server.post("/me/lazy").json["pid"]

    assert (ready.status, ready.json["apps"]["me/lazy"]) == (200, {"state": "ready", "runners": 0, "waiting": 0})
    assert (up["state"], up["runners"]) == ("ready", 1)
    assert second != first


def test_an_app_that_keeps_none_has_no_runner_before_its_first_request(tmp_path):
    (tmp_path / "apps.py").write_text(APPS)
    with running_server(f"{tmp_path / 'apps.py'}:Lazy") as server:
        before = server.notes()
        server.post("/me/lazy")

        assert (before, len(server.notes())) == ([], 1)


def test_a_runner_with_a_request_is_never_stopped_as_one_too_many(server):
    settle(server, "me/wide", 1)
    with (
        server.open("/me/wide/words/stream", {"n": 50, "pause": 0.08}) as one,
        server.open("/me/wide/words/stream", {"n": 50, "pause": 0.08}) as two,
        server.open("/me/wide/words/stream", {"n": 3, "pause": 0.08}) as short,
    ):
        pids = {first_pid(stream) for stream in (one, two, short)}
        short.read_until(FINAL_CHUNK)
        eventually(lambda: runners(server, "me/wide") == 2, "the one that is idle has left")
        for stream in (one, two):
            stream.read_until(FINAL_CHUNK)

    for stream in (one, two):
        events = data_events(stream.body)
        assert [event["i"] for event in events] == list(range(50))
        assert {event["pid"] for event in events} < pids
    assert len(pids) == 3


def test_a_runner_that_short_requests_keep_coming_to_is_not_idle(server):
    settle(server, "me/lazy", 0)
    pid, was_served = server.post("/me/lazy").json["pid"], time.monotonic()
    until = was_served + 4.5  # several times keep_alive
    while time.monotonic() < until:
        time.sleep(0.05)  # between two looks there is nearly always a moment without a request
        before, pid = pid, server.post("/me/lazy").json["pid"]
        idle_s, was_served = time.monotonic() - was_served, time.monotonic()

        assert pid == before or idle_s >= KEEP_ALIVE_S  # it may leave where this test itself was held up so long


def test_no_request_is_lost_while_runners_come_and_go(server):
    settle(server, "me/wide", 1)
    before = starts(server, "me/wide")
    for turn in range(6):
        with Crowd(server, "/me/wide", 4, {"pause": 0.05}) as crowd:
            pass
        assert crowd.pids
        time.sleep(0.8 + turn * 0.1)  # around keep_alive, when some are about to leave

    assert starts(server, "me/wide") > before
    assert "is lost" not in server.log
