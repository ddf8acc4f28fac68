"""The log of a request's events: bounded, and the only place they are kept. A reader is a position in it.

The runner's events are appended as they arrive; readers take what lies behind their position. One reader may
set the pace: what it has not taken is never dropped, and the window of credit keeps that small. Other readers
never hold anything up; one that the log has passed finds a gap (`first` is beyond its position).
"""

from __future__ import annotations

from headrace.core.limits import EVENT_OVERHEAD_BYTES, cost_of


class Overrun(Exception):
    """More events came than any window of credit allows: whoever makes them does not keep to it."""


class Replay:
    """Events of one attempt, numbered from 0. Texts are opaque bytes.

    Bounds: at most `bytes_max` (by `limits.cost_of`) and `events_max`, but never less than the last event,
    nor less than what lies at or behind `pace`. Of that there can be at most `ahead_max` more, since credit
    bounds it; beyond, `extend` raises `Overrun`.
    """

    __slots__ = ("_ahead_max", "_bytes_max", "_events_max", "_texts", "cost", "end", "first", "kept", "pace")

    def __init__(self, *, bytes_max: int, events_max: int, ahead_max: int, first: int = 0) -> None:
        self._bytes_max = bytes_max
        self._ahead_max = ahead_max
        self._events_max = events_max
        self._texts: list[bytes] = []
        self.first = first  # the number of the oldest event still here
        self.end = first  # the number that the next event will get: a position behind everything
        self.cost = 0  # of all events ever appended: what credit is counted against
        self.kept = 0  # of the events still here
        self.pace: int | None = None  # the pacing reader's position; None when nobody sets the pace

    @property
    def last(self) -> bytes | None:
        """The last event: the result, once the request has completed."""
        return self._texts[-1] if self._texts else None

    def extend(self, texts: list[bytes]) -> None:
        """Add the events of one batch of frames. The hot path: one sum for all of them. Raises `Overrun`."""
        cost = cost_of(texts)
        self._texts += texts
        self.end += len(texts)
        self.cost += cost
        self.kept += cost
        if self.kept > self._bytes_max or len(self._texts) > self._events_max:
            self._trim()

    def since(self, position: int) -> list[bytes]:
        """Return the events at and behind `position`, which must not lie before `first`."""
        if position < self.first:
            raise LookupError(f"events before {self.first} are no longer here; {position} was asked for")
        return self._texts[position - self.first :]

    def drop_taken(self) -> int:
        """Drop what the pacing reader has taken, or with none, all but the last; return the bytes that frees."""
        end = self.end - 1 if self.pace is None else min(self.pace, self.end - 1)
        dropped = max(0, end - self.first)
        freed = cost_of(self._texts[:dropped])
        del self._texts[:dropped]
        self.first += dropped
        self.kept -= freed
        return freed

    def forget(self) -> None:
        """Drop everything, to free memory. Whoever still reads finds a gap, of which the ending must tell."""
        self.first = self.end
        self._texts.clear()
        self.kept = 0

    def _trim(self) -> None:
        """Drop the oldest down to seven eighths of the bounds, so that a full log does not trim at every event."""
        bytes_goal, events_goal = self._bytes_max * 7 // 8, self._events_max * 7 // 8
        droppable = len(self._texts) - 1
        if self.pace is not None:
            droppable = min(droppable, self.pace - self.first)
        dropped = 0
        while dropped < droppable and (self.kept > bytes_goal or len(self._texts) - dropped > events_goal):
            self.kept -= len(self._texts[dropped]) + EVENT_OVERHEAD_BYTES
            dropped += 1
        del self._texts[:dropped]
        self.first += dropped
        if self.pace is not None and self.kept > self._bytes_max + self._ahead_max:
            raise Overrun(f"{self.kept} bytes of events wait for a reader who has not taken them")
