"""The node is killed at random moments; what it accepted comes to one end, with its own result.

A history is kept of what was acknowledged and what was read, and checked afterwards: nothing lost, nothing doubled,
nothing mixed up, nothing stuck.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time

import pytest

from tests.support.server import PATIENCE_S, Server, eventually, running_server

#: Callers that submit at once, and seconds of submitting before a kill.
CALLERS = 8
SUBMITTING_S = (0.2, 1.0)

pytestmark = pytest.mark.timeout(120)


class History:
    """What callers were told: each number is submitted by one caller, and is its request's own answer."""

    def __init__(self) -> None:
        self.acknowledged: dict[int, str] = {}  # number -> request id
        self.attempted = 0
        self._lock = threading.Lock()

    def next_number(self) -> int:
        with self._lock:
            self.attempted += 1
            return self.attempted

    def accepted(self, number: int, id_: str) -> None:
        with self._lock:
            self.acknowledged[number] = id_


def submit_until(stop: threading.Event, server: Server, history: History) -> None:
    while not stop.is_set():
        number = history.next_number()
        with contextlib.suppress(
            OSError, http.client.HTTPException
        ):  # killed before it answered: not acknowledged
            answer = server.post("/queue/zoo/zoo/async", {"n": number % 4, "name": f"number {number}"})
            if answer.status == 200:
                history.accepted(number, answer.json["request_id"])


def result_of(server: Server, id_: str) -> tuple[int, object]:
    answer = server.request("GET", f"/queue/zoo/zoo/requests/{id_}")
    return answer.status, answer.json


@pytest.mark.promise("Q1")
def test_nothing_that_was_acknowledged_is_lost_doubled_mixed_up_or_stuck(count, figures, tmp_path):
    dice = random.Random(5)
    history = History()
    kills = count(smoke=4, full=500)
    for _ in range(kills):
        with running_server(data_dir=tmp_path) as server:
            stop = threading.Event()
            callers = [threading.Thread(target=submit_until, args=(stop, server, history)) for _ in range(CALLERS)]
            for caller in callers:
                caller.start()
            time.sleep(dice.uniform(*SUBMITTING_S))  # the moment of the kill is the point of this test
            server.process.kill()
            server.process.wait(PATIENCE_S)
            stop.set()
            for caller in callers:
                caller.join(PATIENCE_S)

    with running_server(data_dir=tmp_path) as server:
        for number, id_ in history.acknowledged.items():
            eventually(lambda: result_of(server, id_)[0] != 400, f"request {number} ends", seconds=60)
            assert result_of(server, id_) == (200, {"total": number % 4}), number
        replayed = dict(list(history.acknowledged.items())[:: max(1, len(history.acknowledged) // 20)])
        for number, id_ in replayed.items():
            events = server.request("GET", f"/zoo/zoo/requests/{id_}/stream").body.count(b"data: ")
            assert events == number % 4 + 1

    assert len(set(history.acknowledged.values())) == len(history.acknowledged)
    figures("Q1", kills=kills, acknowledged=len(history.acknowledged), lost=0)
