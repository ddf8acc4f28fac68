"""The node is killed at random moments; what it accepted comes to one end, with its own result.

A history is kept of what was acknowledged and what was read, and checked all the while: nothing lost, nothing doubled,
nothing mixed up, nothing stuck.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import random
import threading
import time

import pytest

from tests.support.server import PATIENCE_S, ZOO, Server, eventually, running_server

#: Callers that submit at once, and how many requests are in flight at each kill.
CALLERS = 8
IN_FLIGHT = 200

#: Of the zoo's model.
SLOTS = 8

#: Seconds of submitting, running and ending between that and the kill.
UNTIL_KILL_S = (0.0, 0.5)

#: Seconds between two items of a model. Eight slots end some 50 requests a second: slower than they are submitted.
PAUSE_S = 0.1

#: Seconds after which a full run kills no more: a busy machine shows fewer. Results are kept for an hour.
KILLING_S = 3_000

#: Seconds after the last start in which everything must have ended: the lease and a few.
STUCK_S = 60.0

pytestmark = pytest.mark.timeout(120)


class History:
    """What callers were told: each number is submitted by one caller, and is its request's own answer."""

    def __init__(self) -> None:
        self.acknowledged: dict[int, str] = {}  # number -> request id
        self.ended: set[int] = set()
        self.wrong: list[object] = []
        self.longest_line = 0  # since the last start
        self._numbers = itertools.count(1)

    def submit(self, server: Server) -> None:
        number = next(self._numbers)
        body = {"n": number % 4, "pause": PAUSE_S, "name": f"number {number}"}
        answer = server.post("/queue/zoo/zoo/async", body)
        if answer.status == 200:
            self.acknowledged[number] = answer.json["request_id"]
            self.longest_line = max(self.longest_line, answer.json["queue_position"])

    def look(self, server: Server) -> bool:
        """Read the results of what has ended since the last look, oldest first; whether that is everything."""
        in_progress = 0
        for number, id_ in tuple(self.acknowledged.items()):
            if number not in self.ended:
                if self.has_ended(server, number, id_):
                    self.ended.add(number)
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
    while not stop.wait(0.2 if history.longest_line >= IN_FLIGHT else 0):  # then no more than are ended
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
        eventually(lambda: history.longest_line >= IN_FLIGHT, f"{IN_FLIGHT} requests are in flight", seconds=60)
        time.sleep(moment_s)  # the moment of the kill is the point of this test
        server.process.kill()
        server.process.wait(PATIENCE_S)
    finally:
        stop.set()
        for caller in callers:
            caller.join(PATIENCE_S)


@pytest.mark.promise("Q1")
def test_nothing_that_was_acknowledged_is_lost_doubled_mixed_up_or_stuck(recorder, count, figures, tmp_path):
    dice = random.Random(5)
    history = History()
    kills, over_at = 0, time.monotonic() + KILLING_S
    while kills < (500 if recorder.is_full else 4) and time.monotonic() < over_at:
        with running_server(f"{ZOO}:Zoo", data_dir=tmp_path) as server:
            work_until_killed(server, history, dice.uniform(*UNTIL_KILL_S))
        kills += count(smoke=1, full=1)

    with running_server(f"{ZOO}:Zoo", data_dir=tmp_path) as server:
        eventually(lambda: history.look(server), "every request ends", seconds=STUCK_S)
        read_again = list(history.acknowledged.items())[:: 1 + len(history.acknowledged) // 1_000]
        assert all(history.has_ended(server, number, id_) for number, id_ in read_again)
        for number, id_ in read_again[::50]:
            events = server.request("GET", f"/zoo/zoo/requests/{id_}/stream").body.count(b"data: ")
            assert events == number % 4 + 1

    figures(
        "Q1", kills=kills, in_flight=IN_FLIGHT, acknowledged=len(history.acknowledged), lost=len(history.wrong)
    )
    assert history.wrong == []
    assert len(history.acknowledged) > max(kills, IN_FLIGHT)
    assert len(set(history.acknowledged.values())) == len(history.acknowledged)
