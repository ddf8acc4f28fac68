"""One timer for many deadlines of the same length."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from headrace.supervisor.shared_timer import SharedTimer


class PretendLoop:
    """A loop's clock and timers, moved on by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, act: Callable[..., Any], *args: Any) -> None:
        self.timers.append((at, next(self._numbers), act, args))

    def go_to(self, now: float) -> None:
        """Ring all timers until `now`, each at its time."""
        while self.timers and min(self.timers)[0] <= now:
            timer = min(self.timers)
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[2](*timer[3])
        self.now = now


def shared(monkeypatch, told: Callable[[str], object], after_s: float = 10.0) -> tuple[PretendLoop, SharedTimer]:
    loop = PretendLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop, SharedTimer(after_s, told)


def test_each_is_told_at_its_own_time_by_one_timer(monkeypatch):
    told = []
    loop, timer = shared(monkeypatch, lambda one: told.append((one, loop.now)))

    timer.add("first")
    loop.go_to(103)
    timer.add("second")
    timers = len(loop.timers)
    loop.go_to(200)

    assert timers == 1
    assert told == [("first", 110), ("second", 113)]


def test_one_that_was_taken_out_is_not_told_and_those_behind_it_are_in_time(monkeypatch):
    told = []
    loop, timer = shared(monkeypatch, lambda one: told.append((one, loop.now)))

    timer.add("first")
    loop.go_to(103)
    timer.add("second")
    timer.discard("first")
    timer.discard("nobody")
    loop.go_to(200)

    assert told == [("second", 113)]


def test_an_empty_one_rings_no_more_and_can_be_used_again(monkeypatch):
    told = []
    loop, timer = shared(monkeypatch, lambda one: told.append((one, loop.now)))

    timer.add("first")
    timer.discard("first")
    loop.go_to(150)
    is_at_rest = not loop.timers
    timer.add("again")
    loop.go_to(200)

    assert is_at_rest
    assert told == [("again", 160)]


def test_who_is_told_may_add_itself_again_and_take_others_out(monkeypatch):
    told = []

    def tell(one: str) -> None:
        told.append((one, loop.now))
        timer.discard("third")
        if len(told) < 3:
            timer.add(one)

    loop, timer = shared(monkeypatch, tell)
    for one in ("first", "second", "third"):
        timer.add(one)
    loop.go_to(200)

    assert told == [("first", 110), ("second", 110), ("first", 120), ("second", 120)]


def test_a_fault_of_one_costs_the_others_nothing(monkeypatch):
    told = []

    def tell(one: str) -> None:
        if one == "faulty":
            raise ZeroDivisionError
        told.append(one)

    loop, timer = shared(monkeypatch, tell)
    for one in ("faulty", "second"):
        timer.add(one)
    try:
        loop.go_to(110)
    except ZeroDivisionError:
        loop.go_to(111)

    assert told == ["second"]
