"""Which waiting request gets which runner's slot: decisions over plain values, made again at every change.

The pool asks after each arrival, ending, READY and death, and performs what is answered. First come, first
served; among runners with room the one with the most free slots, so that load spreads; retired ones get nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """A runner as the scheduler sees it."""

    runner: int  # its number in the pool
    free: int  # free slots; 0 unless it is ready and not retired


def assign(waiting: int, rooms: Sequence[Room]) -> list[int]:
    """Return the runners for the first of `waiting` requests, in their order; shorter when slots run out.

    Ties go to the lower number, so that the same situation is always decided alike.
    """
    free = {room.runner: room.free for room in rooms if room.free > 0}
    chosen: list[int] = []
    while free and len(chosen) < waiting:
        runner = max(free, key=lambda number: (free[number], -number))
        chosen.append(runner)
        free[runner] -= 1
        if not free[runner]:
            del free[runner]
    return chosen


def backoff_s(failures: int, first_s: float, max_s: float) -> float:
    """Return the seconds to wait after the n-th failed start in a row: `first_s`, doubling, at most `max_s`."""
    return min(max_s, first_s * 2.0 ** max(0, failures - 1))
