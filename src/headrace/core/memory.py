"""Which requests are ended when all of them together hold too many events in memory.

Each stream is bounded by its window and its log, but a node with thousands of readers that stopped could still
hold more than the machine has. The largest hoards go first: they belong to whoever is furthest behind, and ending
them harms the fewest.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def to_shed(kept_bytes: Sequence[int], bytes_max: int) -> list[int]:
    """Return the positions in `kept_bytes` of the hoards to end, so that what stays is at most `bytes_max`."""
    excess = sum(kept_bytes) - bytes_max
    if excess <= 0:
        return []
    largest = [(-kept, position) for position, kept in enumerate(kept_bytes)]
    heapq.heapify(largest)
    chosen = []
    while excess > 0:
        kept, position = heapq.heappop(largest)
        excess += kept
        chosen.append(position)
    return chosen


class Budget:
    """Bytes that many may take from, and that all together may not exceed."""

    __slots__ = ("bytes_max", "taken")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken = 0

    def take(self, count: int) -> bool:
        """Take `count` bytes if there are that many; return whether there were."""
        if self.taken + count > self.bytes_max:
            return False
        self.taken += count
        return True

    def give_back(self, count: int) -> None:
        """Give back what was taken."""
        self.taken -= count
        assert self.taken >= 0, "more was given back than taken"
