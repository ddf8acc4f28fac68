"""Attempts that were given up, and go on all the same: what they say is not heard, and a result is all of one attempt."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from headrace.core.request import RequestId
from headrace.store.sqlite import SqliteStore
from tests.support.server import PATIENCE_S, ROOT, Server, data_events, eventually, running_server
from tests.support.stores import a_request, an_outcome
from tests.support.zombie import EVENTS

MODELS = ROOT / "tests" / "fault" / "models" / "zombies.py"
APP = "test/zombies"

#: Items of an attempt, and seconds between two.
N, PAUSE_S = 20, 0.05

#: Short, so that a pause of a second or two is past them. The node looks after its runners once a second. (Not so their
#: silence: a busy machine holds one up for that long, and an attempt more is spent.)
LIMITS = {"lease_s": 0.5, "runner_stopped_s": 0.5}

names = (f"zombie-{number}" for number in itertools.count())

pytestmark = pytest.mark.timeout(300)


def submitted(server: Server, name: str) -> str:
    """Submit a request and wait until its first attempt has begun; return its id."""
    answer = server.post(f"/queue/{APP}", {"n": N, "pause": PAUSE_S, "name": name})
    assert answer.status == 200, answer.body
    eventually(lambda: starts(server, name), "its first attempt begins")
    return answer.json["request_id"]


def starts(server: Server, name: str) -> list[tuple[int, int]]:
    """The attempts that have begun, each with its process."""
    found = re.findall(rf"^start {name} (\d+) (\d+)$", "\n".join(server.notes()), re.MULTILINE)
    return [(int(attempt), int(pid)) for attempt, pid in found]


def told(server: Server, id_: str) -> tuple[int, int]:
    """Wait for the end, and return which attempt, of which process, all of what callers are shown is by."""
    path = f"/queue/{APP}/requests/{id_}"
    eventually(lambda: server.request("GET", path).status != 400, "it ends")
    result = server.request("GET", path)
    body = server.request("GET", f"/{APP}/requests/{id_}/stream").body
    items = data_events(body)
    by = (result.json["attempt"], result.json["pid"])

    assert result.status == 200
    assert items == [
        *({"i": i, "attempt": by[0], "pid": by[1]} for i in range(N)),
        {"total": N, "attempt": by[0], "pid": by[1]},
    ]
    assert items[-1] == result.json
    assert set(re.findall(rb"^id: \S+\.(\d+)\.\d+$", body, re.MULTILINE)) == {b"%d" % by[0]}
    return by


# --- a runner -----------------------------------------------------------------------------------------------------


@pytest.mark.promise("Q2")
def test_a_runner_that_is_stopped_and_goes_on_mixes_nothing_into_the_attempt_that_follows(count, figures):
    dice = random.Random(2)
    attempts: Counter[int] = Counter()
    with running_server(MODELS, limits=LIMITS) as server:
        for turn in range(count(smoke=3, full=50)):
            name = next(names)
            id_ = submitted(server, name)
            ((_, pid),) = starts(server, name)
            time.sleep(dice.uniform(0.0, N * PAUSE_S))  # somewhere in its work, or just behind it
            os.kill(pid, signal.SIGSTOP)
            if turn % 3 == 0:
                eventually(lambda: is_over(server, name, id_), "it is given up, or had ended")  # noqa: B023
            else:
                time.sleep(dice.uniform(0.0, 2.5))  # around the moment at which it is given up
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            by = told(server, id_)

            assert by in starts(server, name)
            assert by == starts(server, name)[-1]  # nobody else's attempt came after it
            attempts[by[0]] += 1

    figures(
        "Q2", stopped="runner", **{f"by_attempt_{number}": times for number, times in attempts.items()}, mixed=0
    )


def is_over(server: Server, name: str, id_: str) -> bool:
    has_ended = server.request("GET", f"/queue/{APP}/requests/{id_}").status != 400
    return has_ended or len(starts(server, name)) > 1


# --- a node -------------------------------------------------------------------------------------------------------


@pytest.mark.promise("Q2")
def test_a_node_that_is_stopped_past_its_leases_goes_on_and_nobody_takes_its_place(count, figures, tmp_path):
    dice = random.Random(3)
    attempts: Counter[int] = Counter()
    with running_server(MODELS, limits=LIMITS, data_dir=tmp_path) as server:
        for turn in range(count(smoke=2, full=50)):
            name = next(names)
            id_ = submitted(server, name)
            server.process.send_signal(signal.SIGSTOP)
            try:
                if turn == 0:
                    assert second_node(tmp_path).startswith(
                        f"headrace: {tmp_path}: process {server.process.pid} serves"
                    )
                time.sleep(dice.uniform(LIMITS["lease_s"], 3.0))  # past the lease; its runner works on, and waits
            finally:
                server.process.send_signal(signal.SIGCONT)
            by = told(server, id_)

            assert by == starts(server, name)[-1]
            attempts[by[0]] += 1

    figures("Q2", stopped="node", **{f"by_attempt_{number}": times for number, times in attempts.items()}, mixed=0)


def second_node(folder) -> str:
    """What a node says that should serve from the same folder."""
    command = [sys.executable, "-m", "headrace", "serve", MODELS, "--port", "0", "--no-auth", "--data-dir", folder]
    started = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert started.returncode == 2
    return started.stderr.splitlines()[-1]


# --- a node whose place was taken, as where files have no locks -----------------------------------------------------


@pytest.mark.promise("Q2")
def test_a_node_whose_lease_has_ended_is_refused_by_the_number_of_its_attempt(tmp_path, count, figures):
    """Two processes and one store. The one is stopped; the other takes over, and is at any point when that one goes on."""
    turns = count(smoke=8, full=100)
    with Zombie(tmp_path) as zombie:
        refused = asyncio.run(taken_over(tmp_path, zombie, turns))

    assert refused == turns
    figures("Q2", stopped="another node", refused=refused, mixed=0)


class Zombie:
    """The process that is stopped, and goes on."""

    def __init__(self, folder) -> None:
        command = [sys.executable, "-m", "tests.support.zombie", folder]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Zombie:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=PATIENCE_S)  # the end of its input is its end

    def start(self, id_: str) -> list:
        """Have it begin an attempt, and stop it; return the attempt's number, and until when it is its own."""
        self._say(id_)
        begun = json.loads(self._process.stdout.readline())
        self._process.send_signal(signal.SIGSTOP)
        return begun

    def go_on(self) -> list:
        """Let it come to its end; return what its events, its log lines and its finish met."""
        self._say("go on")
        self._process.send_signal(signal.SIGCONT)
        return json.loads(self._process.stdout.readline())

    def _say(self, line: str) -> None:
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


async def taken_over(folder, zombie: Zombie, turns: int) -> int:
    """Return how often the zombie was refused all it wanted."""
    refused = 0
    async with SqliteStore(folder) as store:
        for turn in range(turns):
            new = a_request(f"taken-over-{turn}")
            await store.submit(new)
            attempt, lease_until = await asyncio.to_thread(zombie.start, new.id)
            while time.time() <= lease_until:
                await asyncio.sleep(0.01)
            refused += [False, False, None] == await life_of(store, new.id, zombie, at=turn % 4)

            page = await store.events(new.id, 0, limit=99)
            assert (await store.result(new.id)).body == b'{"by": "us"}'
            assert [text for _, text in page.events] == OURS
            assert (page.attempt, (await store.get(new.id)).attempt) == (attempt + 1, 2)
            assert (await store.logs(new.id, 0, limit=99)).end == 0
    return refused


OURS = [b'{"by": "us"}'] * (len(EVENTS) + 1)


async def life_of(store: SqliteStore, id_: RequestId, zombie: Zombie, *, at: int) -> list:
    """Take a request over and bring it to its end; the zombie goes on at one of four points. Return what it met."""

    async def reaches(point: int) -> None:
        if point == at:
            met.extend(await asyncio.to_thread(zombie.go_on))

    met: list = []
    now = time.time()
    assert await store.release("us", at=now) == 1
    await reaches(0)
    assert await store.start(id_, node="us", lease_until=now + 60, at=now) == 2
    await reaches(1)
    assert await store.append(id_, 2, 0, OURS)
    await reaches(2)
    assert await store.finish(id_, 2, an_outcome(body=b'{"by": "us"}')) is not None
    await reaches(3)
    return met
