"""Requests that have ended, and can be watched for a while yet: which of them go first, and what their logs keep.

Most of what a busy node knows is past. So nothing here walks through all of it while all is well: not when one
more ends, and not at the look that is taken at the memory twice a second.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from headrace.core.request import RequestId
from headrace.supervisor.streams import LiveRequest


class Past:
    """Ended requests, the oldest first. `forgotten` is told of each that is let go.

    One that is still read is in memory anyway. It counts until its reader is done with it, so that `count_max` may
    be exceeded by the number of the readers.
    """

    def __init__(self, count_max: int, forgotten: Callable[[LiveRequest], None]) -> None:
        self.kept = 0  # bytes of events (by cost) in all their logs
        self._count_max = count_max
        self._forgotten = forgotten
        # Of the kind that is cheap to take from its front: a plain dict is searched through what was taken before.
        self._requests: OrderedDict[RequestId, LiveRequest] = OrderedDict()

    def __iter__(self) -> Iterator[LiveRequest]:
        return iter(tuple(self._requests.values()))

    def get(self, id_: RequestId) -> LiveRequest | None:
        """Return the request of this id, if it is here."""
        return self._requests.get(id_)

    def add(self, live: LiveRequest) -> None:
        """Take a request that has ended just now; the oldest goes, if they are too many."""
        self._requests[live.id] = live
        self.kept += live.replay.kept
        if len(self._requests) > self._count_max:
            unread = next((one for one in self._requests.values() if not one.is_read), None)
            if unread is not None:
                self.forget(unread)

    def forget(self, live: LiveRequest) -> None:
        """Let go of a request."""
        del self._requests[live.id]
        self.kept -= live.replay.kept
        self._forgotten(live)

    def empty_log(self, live: LiveRequest) -> None:
        """Free what the log of one keeps. Whoever still reads it finds a gap."""
        self.kept -= live.replay.kept
        live.replay.forget()

    def forget_old(self, horizon: float) -> None:
        """Let go of those that ended before `horizon` (by time.monotonic), or are too many."""
        excess = len(self._requests) - self._count_max
        old = []
        for live in self._requests.values():
            if excess <= 0 and live.ended_at is not None and live.ended_at > horizon:
                break
            if not live.is_read:
                excess -= 1
                old.append(live)
        for live in old:
            self.forget(live)
