"""Which runner gets the next request, how many runners an app wants, and when a dead one is replaced.

Decisions over plain values, made again at every change: the supervisor asks after each arrival, ending, READY and
death, and performs what is answered. Among runners with room it is the one with the most free slots, so that load
spreads; retired ones get nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


def emptiest(free: Sequence[int]) -> int | None:
    """Return the number of the runner with the most free slots, None if there is none.

    `free` has the free slots of each, 0 unless it is ready and not retired. Ties go to the lower number, so that
    the same situation is always decided alike.
    """
    most = max(free, default=0)
    return free.index(most) if most > 0 else None


def runners_wanted(requests: int, *, slots: int, least: int, most: int) -> int:
    """Return how many runners should be up for `requests` that wait or run, with `slots` in each."""
    return max(least, min(most, -(-requests // slots)))


def backoff_s(failures: int, first_s: float, max_s: float) -> float:
    """Return the seconds to wait after the n-th failed start in a row: `first_s`, doubling, at most `max_s`."""
    return min(max_s, first_s * 2.0 ** max(0, failures - 1))


@dataclass(slots=True)
class Restarts:
    """When the next runner may be started, after one failed to start or died.

    A death after READY is replaced at once: the requests of an app should not wait for one that was unlucky. But
    `crashes_max` deaths within `window_s`, and no request served meanwhile, are a crash loop; from then on each
    death waits like a failed start, until a request is served.
    """

    first_s: float
    max_s: float
    crashes_max: int
    window_s: float
    failures: int = 0  # in a row
    is_crash_loop: bool = False
    _deaths: deque[float] = field(default_factory=deque)

    def failed(self) -> float:
        """A runner failed to start. Return the seconds to wait before the next try."""
        self.failures += 1
        return backoff_s(self.failures, self.first_s, self.max_s)

    def died(self, now: float) -> float:
        """A runner that was ready died, at `now` seconds of any clock. Return the seconds to wait."""
        self._deaths.append(now)
        while self._deaths[0] <= now - self.window_s:
            self._deaths.popleft()
        self.is_crash_loop |= len(self._deaths) >= self.crashes_max
        return self.failed() if self.is_crash_loop else 0.0

    def started(self) -> None:
        """A runner became ready. In a crash loop that proves nothing yet."""
        if not self.is_crash_loop:
            self.failures = 0

    def served(self) -> None:
        """A request came to an end that its runner told: the app works."""
        if self._deaths:
            self._deaths.clear()
        self.failures = 0
        self.is_crash_loop = False
