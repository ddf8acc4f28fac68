"""Which requests are ended when all of them together hold too many events in memory.

Each stream is bounded by its window and its log, but a node with thousands of readers that stopped could still
hold more than the machine has. The largest hoards go first: they belong to whoever is furthest behind, and ending
them harms the fewest.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

from headrace.core.keys import KeyId


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
    """Bytes that many may take from: all together no more than `bytes_max`, and one key half of that.

    So no key can keep the others out. Those without one (authentication is off, then) cannot be told apart, and
    have all.
    """

    __slots__ = ("_by_owner", "bytes_max", "taken")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken = 0
        self._by_owner: Counter[KeyId] = Counter()

    def take(self, owner: KeyId | None, count: int) -> bool:
        """Take `count` bytes if `owner` may have that many; return whether it may."""
        if self.taken + count > self.bytes_max:
            return False
        if owner is not None:
            if self._by_owner[owner] + count > self.bytes_max // 2:
                return False
            self._by_owner[owner] += count
        self.taken += count
        return True

    def give_back(self, owner: KeyId | None, count: int) -> None:
        """Give back what `owner` took."""
        self.taken -= count
        assert self.taken >= 0, "more was given back than taken"
        if owner is not None:
            self._by_owner[owner] -= count
            assert self._by_owner[owner] >= 0, "more was given back than taken"
            if not self._by_owner[owner]:
                del self._by_owner[owner]
