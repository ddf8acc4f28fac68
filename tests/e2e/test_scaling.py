"""How many runners an app has: more as requests wait, fewer when nobody asks, none where none is kept."""

import os
import threading
import time

import pytest

from tests.support.deaths import condition, first_pid, metric
from tests.support.server import Answer, Server, data_events, eventually, running_server

APPS = """
import asyncio, os
import headrace


def note(text):
    with open(os.environ["ZOO_NOTES"], "a") as file:
        file.write(f"{text}\\n")


class Wide(headrace.App, name="me/wide", max_concurrency=3, keep_alive=1.0):
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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("apps") / "apps.py"
    path.write_text(APPS)
    with running_server(path) as server:
        yield server


class Crowd:
    """Callers that ask all at once: `with Crowd(server, path, number, body) as crowd:` waits for their answers at its end."""

    def __init__(self, server: Server, path: str, number: int, body: object) -> None:
        self.answers: list[Answer] = []

        def ask() -> None:
            self.answers.append(server.post(path, body))

        self._threads = [threading.Thread(target=ask) for _ in range(number)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    @property
    def pids(self) -> set[int]:
        """The runners that answered; fails unless every call was."""
        assert [answer.status for answer in self.answers] == [200] * len(self._threads)
        return {answer.json["pid"] for answer in self.answers}


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
    (kept,) = Crowded(server, "me/wide", 1)
    most = 0

    with Crowd(server, "/me/wide", 10, {"pause": 0.5}) as crowd:
        eventually(lambda: condition(server, "me/wide")["waiting"] > 0, "some wait")
        while len(crowd.answers) < 10:
            most = max(most, runners(server, "me/wide"))
            assert metric(server, 'headrace_runners{app="me/wide",state="working"}') <= 3
    assert (most, len(crowd.pids), starts(server, "me/wide") - before) == (3, 3, 2)

    settle(server, "me/wide", 1)
    eventually(lambda: idle_ends(server, "me/wide") - ended == 2, "two have left")
    assert kept in crowd.pids
    assert server.request("GET", "/ready").status == 200
    assert metric(server, 'headrace_runners{app="me/wide",state="working"}') == 1
    assert server.post("/me/wide").status == 200


def Crowded(server: Server, app: str, number: int) -> set[int]:
    with Crowd(server, f"/{app}", number, {}) as crowd:
        pass
    return crowd.pids
