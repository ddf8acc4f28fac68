"""Who is next: the queued requests of one app, by priority and then by age, and how many stand before each.

Plain values; what stands here is also in the store. A request that comes back for another attempt takes its old
place, since its number says how old it is.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Priority(enum.IntEnum):
    """fal's two priorities (`X-Fal-Queue-Priority`): everything normal goes before anything low."""

    NORMAL = 0
    LOW = 1


class Line(Generic[Entry]):
    """The queued requests of one app. Numbers are unique and rise with age: the smaller, the older."""

    def __init__(self) -> None:
        self._numbers: dict[Priority, list[int]] = {priority: [] for priority in Priority}  # each ascending
        self._entries: dict[int, tuple[Priority, Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def add(self, number: int, priority: Priority, entry: Entry) -> None:
        """Let a request wait, at the place that its priority and number give it."""
        assert number not in self._entries, f"number {number} waits already"
        self._entries[number] = priority, entry
        insort(self._numbers[priority], number)

    def take(self) -> tuple[int, Entry] | None:
        """Take out who is next."""
        for numbers in self._numbers.values():
            if numbers:
                number = numbers.pop(0)
                return number, self._entries.pop(number)[1]
        return None

    def remove(self, number: int) -> Entry | None:
        """Take out one that does not want to wait any longer; None if it does not wait."""
        if number not in self._entries:
            return None
        priority, entry = self._entries.pop(number)
        numbers = self._numbers[priority]
        del numbers[bisect_left(numbers, number)]
        return entry

    def position(self, number: int) -> int:
        """Return how many stand before one that waits; 0 is next. Raises `KeyError` for one that does not."""
        priority, _ = self._entries[number]
        before = 0
        for other, numbers in self._numbers.items():
            if other is priority:
                return before + bisect_left(numbers, number)
            before += len(numbers)
        raise AssertionError(priority)
