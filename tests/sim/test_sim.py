"""The real node keeps its promises through 300 simulated storms; and faults planted in it would be found.

Half of the storms are of direct requests alone (the even seeds), half have a queue.
"""

import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sim.seeds import broken, story_of
from tests.sim.faults import FAULTS, planted
from tests.sim.queue_faults import QUEUE_FAULTS
from tests.sim.world import World

SEEDS, BATCH = 300, 10


@dataclass(frozen=True)
class Life:
    """What became of one world."""

    wrong: str | None
    met: frozenset[str | int]  # how requests ended, why runners did, and what clients were answered


@functools.cache
def life_of(seed: int) -> Life:
    """Live through a seed; it is always the same, so once is enough."""
    world = World(seed)
    wrong = broken(world)
    statuses = {client.status for client in world.clients}
    return Life(wrong, frozenset({*world.checks.outcomes, *world.runner_ends(), *statuses, *world.met()}))


@pytest.mark.promise("G6", "Q2", "Q6", "Q7", "Q8", "P5")
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_every_promise_holds_through_a_storm(first):
    for seed in range(first, first + BATCH):
        wrong = life_of(seed).wrong

        assert wrong is None, f"seed {seed}: {wrong}\n{story_of(seed, 40)}\nThe whole story: make sim SEED={seed}"


def found_in(seeds, fault):
    """What the first storm that a planted fault breaks says of it."""
    with planted(fault):
        return next((wrong for seed in seeds if (wrong := broken(World(seed))) is not None), "nothing")


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    fault, promise = FAULTS[name]
    found = found_in(range(0, SEEDS, 2), fault)

    assert re.search(promise, found), found


@pytest.mark.parametrize("name", QUEUE_FAULTS)
def test_a_fault_planted_in_the_queue_is_found(name):
    fault, promise = QUEUE_FAULTS[name]
    found = found_in(range(1, SEEDS, 2), fault)

    assert re.search(promise, found), found


@pytest.mark.parametrize("seed", [4, 3, 41])
def test_a_seed_tells_the_same_story_each_time(seed):
    assert story_of(seed, 1 << 20) == story_of(seed, 1 << 20)


def test_a_seed_tells_the_same_story_in_another_process():
    program = "from tests.sim.seeds import story_of; print(story_of(3, 1 << 20))"
    environ = {**os.environ, "PYTHONHASHSEED": "99", "PYTHONPATH": "."}
    told = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=environ,
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )

    assert story_of(3, 1 << 20) == told.stdout.rstrip("\n")


EVERY_WAY = {
    # how a request can end
    "completed", "client_disconnected", "client_cancelled", "validation_error", "no_result", "app_error",
    "startup_timeout", "first_event_timeout", "event_gap_timeout", "request_timeout", "runner_disconnected",
    "runner_scheduling_failure", "shutting_down", "reader_stalled", "overloaded",
    # why a runner can end
    "died", "load_failed", "retired", "idle", "replaced", "stopped", "silent", "memory", "node",
    # what a client can be answered
    200, 202, 204, 400, 404, 412, 422, 429, 499, 500, 503, 504,
    # what can happen to a queued one
    "stored completed", "stored client_cancelled", "stored startup_timeout", "stored app_error",
    "stored validation_error", "stored request_timeout", "stored runner_disconnected",
    "retried", "released", "forgotten", "rolled back", "came late",
    # and to its node
    "killed", "stopped meanwhile", "did not start",
}  # fmt: skip


@pytest.mark.timeout(600)  # where it is run alone, it lives through all of them
def test_the_storms_together_meet_every_way_to_end():
    """What no seed ever reaches is not checked by any."""
    left = set(EVERY_WAY)
    for seed in range(SEEDS):
        left -= life_of(seed).met
        if not left:
            break

    assert set() == left
