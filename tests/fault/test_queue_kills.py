"""The node is killed at random moments; what it accepted comes to one end, with its own result.

A history is kept of what was acknowledged and what was read, and checked all the while: nothing lost, nothing doubled,
nothing mixed up, nothing stuck. A full run takes most of an hour on a quiet machine. One that is ended before goes on where
it was: its store and its history lie in pytest's cache.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.support.server import PATIENCE_S, ZOO, Server, eventually, running_server

#: Callers that submit at once, and how many requests are in flight at each kill.
CALLERS = 8
IN_FLIGHT = 200

#: Of the zoo's model.
SLOTS = 8

#: Seconds of submitting, running and ending between that and the kill.
UNTIL_KILL_S = (0.0, 0.5)

#: Seconds between two items of a model. Eight slots end some 10 requests a second: slower than they are submitted.
PAUSE_S = 0.5

#: Seconds after which a full run kills no more: a busy machine shows fewer.
KILLING_S = 3_000

#: Seconds in which so many are in flight, and in which everything has ended after the last start: the lease, and as much
#: again as a busy machine may need.
PATIENT_S = 180.0

#: Results are looked at until the end of the last sitting.
LIMITS = {"result_age_s": 7 * 86_400}

pytestmark = pytest.mark.timeout(600)


class History:
    """What callers were told: each number is submitted by one caller, and is its request's own answer."""

    def __init__(self, path: Path) -> None:
        self.acknowledged: dict[int, str] = {}  # number -> request id
        self.ended: set[int] = set()
        self.kills = 0
        self.wrong: list[object] = []
        self.longest_line = 0  # since the last start
        for line in path.read_text().splitlines() if path.exists() else ():
            number, what = json.loads(line)
            if what == "kill":
                self.kills = number
            elif what == "ended":
                self.ended.add(number)
            else:
                self.acknowledged[number] = what
        self._path = path
        self._numbers = itertools.count(1 + max(self.acknowledged, default=0))

    def note(self, number: int, what: str) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([number, what]) + "\n")

    def killed(self) -> None:
        self.kills += 1
        self.note(self.kills, "kill")

    def submit(self, server: Server) -> None:
        number = next(self._numbers)
        body = {"n": number % 4, "pause": PAUSE_S, "name": f"number {number}"}
        answer = server.post("/queue/zoo/zoo/async", body)
        if answer.status == 200:
            self.acknowledged[number] = answer.json["request_id"]
            self.note(number, answer.json["request_id"])
            self.longest_line = max(self.longest_line, answer.json["queue_position"])

    def look(self, server: Server) -> bool:
        """Read the results of what has ended since the last look, oldest first; whether that is everything."""
        in_progress = 0
        for number, id_ in tuple(self.acknowledged.items()):
            if number not in self.ended:
                if self.has_ended(server, number, id_):
                    self.ended.add(number)
                    self.note(number, "ended")
                else:
                    in_progress += 1
            if in_progress > SLOTS:
                break  # they run in the order they came in
        return in_progress == 0

    def has_ended(self, server: Server, number: int, id_: str) -> bool:
        answer = server.request("GET", f"/queue/zoo/zoo/requests/{id_}")
        if answer.status == 400 and number not in self.ended:
            return False  # it is in progress
        if (answer.status, answer.json) != (200, {"total": number % 4}):
            self.wrong.append((number, id_, answer))
        return True


def submit_until(stop: threading.Event, server: Server, history: History) -> None:
    while not stop.wait(0.5 if history.longest_line >= IN_FLIGHT else 0):  # then no more than are ended
        # Killed before it answered: not acknowledged.
        with contextlib.suppress(OSError, http.client.HTTPException):
            history.submit(server)


def work_until_killed(server: Server, history: History, moment_s: float) -> None:
    """Submit until as many are in flight as should be, go on for a while, and kill the node in mid-work."""
    history.longest_line = 0
    stop = threading.Event()
    callers = [threading.Thread(target=submit_until, args=(stop, server, history)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        history.look(server)
        is_full = f"{IN_FLIGHT} requests are in flight"
        eventually(lambda: history.longest_line >= IN_FLIGHT, is_full, seconds=PATIENT_S)
        time.sleep(moment_s)  # the moment of the kill is the point of this test
        server.process.kill()
        server.process.wait(PATIENCE_S)
        history.killed()
    finally:
        stop.set()
        for caller in callers:
            caller.join(PATIENCE_S)


@pytest.fixture
def folder(recorder, request, tmp_path):
    """Where the store and the history lie: between the sittings of a full run, in pytest's cache."""
    if not recorder.is_full:
        yield tmp_path
        return
    kept = Path(request.config.cache.mkdir("queue_kills"))
    yield kept
    if request.node.stash.get(IS_DONE, False):
        shutil.rmtree(kept)


IS_DONE = pytest.StashKey[bool]()


@pytest.mark.promise("Q1")
def test_nothing_that_was_acknowledged_is_lost_doubled_mixed_up_or_stuck(
    request, recorder, count, figures, folder
):
    history = History(folder / "history")
    dice = random.Random(history.kills)
    wanted, over_at = (500 if recorder.is_full else 2), time.monotonic() + KILLING_S
    while history.kills < wanted and time.monotonic() < over_at:
        with running_server(f"{ZOO}:Zoo", limits=LIMITS, data_dir=folder / "data") as server:
            work_until_killed(server, history, dice.uniform(*UNTIL_KILL_S))
    count(smoke=history.kills, full=history.kills)

    with running_server(f"{ZOO}:Zoo", limits=LIMITS, data_dir=folder / "data") as server:
        # A node that lives for half a second ends little, so thousands may be left: five times what eight slots need.
        left = len(history.acknowledged) - len(history.ended)
        eventually(lambda: history.look(server), "every request ends", seconds=PATIENT_S + left * PAUSE_S)
        read_again = list(history.acknowledged.items())[:: 1 + len(history.acknowledged) // 1_000]
        assert all(history.has_ended(server, number, id_) for number, id_ in read_again)
        for number, id_ in read_again[::50]:
            events = server.request("GET", f"/zoo/zoo/requests/{id_}/stream").body.count(b"data: ")
            assert events == number % 4 + 1

    acknowledged = len(history.acknowledged)
    figures("Q1", kills=history.kills, in_flight=IN_FLIGHT, acknowledged=acknowledged, lost=len(history.wrong))
    assert history.wrong == []
    assert acknowledged > max(history.kills, IN_FLIGHT)
    assert len(set(history.acknowledged.values())) == acknowledged
    request.node.stash[IS_DONE] = history.kills >= wanted
