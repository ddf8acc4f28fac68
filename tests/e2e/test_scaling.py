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


def is_held(input):
    "Whether the test has not made the file yet for which this request waits, if it does."
    return "until" in input and not os.path.exists(f"{os.environ['ZOO_NOTES']}.{input['until']}")


class Wide(headrace.App, name="me/wide", max_concurrency=3, keep_alive=KEEP_ALIVE_S):
    def setup(self):
        note(f"{type(self).__name__} {os.getpid()}")

    @headrace.endpoint("/")
    async def hold(self, input: dict) -> dict:
        while is_held(input):
            await asyncio.sleep(0.01)
        await asyncio.sleep(input.get("pause", 0))
        return {"pid": os.getpid()}

    @headrace.endpoint("/words")
    async def words(self, input: dict):
        i = 0
        while i < input.get("n", 0) or is_held(input):
            yield {"i": i, "pid": os.getpid()}
            await asyncio.sleep(0.05)
            i += 1


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


def running(server: Server, app: str) -> float:
    return metric(server, f'headrace_requests{{app="{app}",state="running"}}')


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

    with Crowd(server, "/me/wide", 10, {"until": "crowd"}) as crowd:
        full = {"state": "ready", "runners": 3, "waiting": 7}
        eventually(lambda: condition(server, "me/wide") == full, "each runner has one, the others wait")
        for look in range(40):
            most.append(runners(server, "me/wide"))
            most.append(metric(server, 'headrace_runners{app="me/wide",state="working"}'))
            if look == 20:
                server.release("crowd")

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
        with Crowd(server, "/me/pairs", number, {"until": f"pairs {number}"}) as crowd:
            eventually(lambda: running(server, "me/pairs") == number, "each has a slot")  # noqa: B023
            server.release(f"pairs {number}")

        assert (len(crowd.pids), starts(server, "me/pairs") - before) == (expected, expected)


def test_an_app_that_keeps_none_is_started_by_a_request_and_stopped_when_nobody_asks(server):
    settle(server, "me/lazy", 0)
    ready = server.request("GET", "/ready")
    with server.open("/me/lazy/words/stream", {"until": "looked at"}) as stream:
        first = first_pid(stream)
        up = condition(server, "me/lazy")
        server.release("looked at")
        stream.read_until(FINAL_CHUNK)
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
        server.open("/me/wide/words/stream", {"until": "it has left"}) as one,
        server.open("/me/wide/words/stream", {"until": "it has left"}) as two,
        server.open("/me/wide/words/stream", {"n": 3}) as short,
    ):
        pids = {first_pid(stream) for stream in (one, two, short)}
        short.read_until(FINAL_CHUNK)
        eventually(lambda: runners(server, "me/wide") == 2, "the one that is idle has left")
        server.release("it has left")
        for stream in (one, two):
            stream.read_until(FINAL_CHUNK)

    for stream in (one, two):
        events = data_events(stream.body)
        assert [event["i"] for event in events] == list(range(len(events)))
        assert {event["pid"] for event in events} < pids
    assert len(pids) == 3


def test_a_runner_that_short_requests_keep_coming_to_is_not_idle(server):
    settle(server, "me/lazy", 0)
    begun = asked_at = time.monotonic()
    pid = server.post("/me/lazy").json["pid"]
    while time.monotonic() < begun + 4.5:  # several times keep_alive
        time.sleep(0.05)  # between two looks there is nearly always a moment without a request
        asked_before, asked_at = asked_at, time.monotonic()
        before, pid = pid, server.post("/me/lazy").json["pid"]

        # It may leave where so much time has passed since it was asked before: this test itself was held up, or it.
        assert pid == before or time.monotonic() - asked_before >= KEEP_ALIVE_S - 0.01


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
