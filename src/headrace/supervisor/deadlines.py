"""The deadlines of a request that has its slot: its first event, the gap between two, and the whole of it.

The fourth, for the slot itself, is the pool's (`startup_timeout`). Each ends the request with a type of its own;
the heartbeats of its stream go on meanwhile, and a reader that holds its model up is not the model's delay.
"""

from __future__ import annotations

import asyncio
from typing import Final

from headrace.core.spec import AppSpec
from headrace.supervisor.streams import LiveRequest

#: The gap is watched, not timed: a clock read at every event would cost more than this error is worth. So one is
#: found at most an eighth of it late.
_LOOKS_PER_GAP: Final = 8


class Deadlines:
    """The timers of one running request; they end with it."""

    __slots__ = ("_app", "_gap_looks", "_live", "_loop", "_quiet_s", "_seen", "_timers")

    def __init__(self, live: LiveRequest, app: AppSpec) -> None:
        self._live = live
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._seen = 0  # events, at the last look
        self._quiet_s = 0.0  # since when none was seen
        self._gap_looks: asyncio.TimerHandle | None = None
        self._timers = [self._loop.call_later(app.request_timeout, self._total_is_over)]
        if live.route.endpoint.stream_path is not None:  # a plain function has no events before its end
            if app.first_event_timeout:
                self._timers.append(self._loop.call_later(app.first_event_timeout, self._first_is_due))
            if app.event_gap_timeout:
                self._look_later()
        live.on_attempt_over.append(self._clear)

    def _clear(self, _: LiveRequest) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._gap_looks is not None:
            self._gap_looks.cancel()

    def _total_is_over(self) -> None:
        message = f"The request ran longer than the app's {self._app.request_timeout:g} s."
        self._live.cancel("request_timeout", message)

    def _first_is_due(self) -> None:
        if not self._live.replay.end:
            message = f"No event came within the app's {self._app.first_event_timeout:g} s."
            self._live.cancel("first_event_timeout", message)

    def _look_later(self) -> None:
        self._gap_looks = self._loop.call_later(self._app.event_gap_timeout / _LOOKS_PER_GAP, self._look_for_gap)

    def _look_for_gap(self) -> None:
        gap_s = self._app.event_gap_timeout
        if self._live.replay.end != self._seen or self._live.is_held_by_reader:
            self._seen = self._live.replay.end
            self._quiet_s = 0.0
        elif self._seen:  # before the first event, its own deadline counts
            self._quiet_s += gap_s / _LOOKS_PER_GAP
        if self._quiet_s >= gap_s:
            message = f"No further event came within the app's {gap_s:g} s."
            self._live.cancel("event_gap_timeout", message)
        else:
            self._look_later()
