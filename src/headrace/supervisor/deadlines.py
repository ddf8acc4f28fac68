"""The deadlines of requests that have their slots: the first event, the gap between two, and the whole of it.

The fourth, for the slot itself, is the pool's (`startup_timeout`). Each ends the request with a type of its own;
the heartbeats of its stream go on meanwhile, and a reader that holds its model up is not the model's delay.
"""

from __future__ import annotations

from typing import Final

from headrace.core.spec import AppSpec
from headrace.supervisor.shared_timer import SharedTimer
from headrace.supervisor.streams import LiveRequest

#: The gap is watched, not timed: a clock read at every event would cost more than this error is worth. So one is
#: found at most an eighth of it late.
_LOOKS_PER_GAP: Final = 8


class Deadlines:
    """The deadlines of one app's requests, the same for each; they end with it."""

    def __init__(self, app: AppSpec) -> None:
        self._app = app
        self._totals = SharedTimer(app.request_timeout, self._total_is_over)
        self._firsts = SharedTimer(app.first_event_timeout, self._first_is_due)
        self._gaps = SharedTimer(app.event_gap_timeout / _LOOKS_PER_GAP, self._look_for_gap)
        #: Of those whose gaps are watched: how many events there were at the last look, and for how many looks.
        self._quiet: dict[LiveRequest, tuple[int, int]] = {}

    def watch(self, live: LiveRequest) -> None:
        """See to a request that has its slot."""
        self._totals.add(live)
        if live.route.endpoint.stream_path is not None:  # a plain function has no events before its end
            if self._app.first_event_timeout:
                self._firsts.add(live)
            if self._app.event_gap_timeout:
                self._quiet[live] = 0, 0
                self._gaps.add(live)
        live.on_attempt_over.append(self._forget)

    def _forget(self, live: LiveRequest) -> None:
        self._totals.discard(live)
        self._firsts.discard(live)
        self._gaps.discard(live)
        self._quiet.pop(live, None)

    def _total_is_over(self, live: LiveRequest) -> None:
        message = f"The request ran longer than the app's {self._app.request_timeout:g} s."
        live.cancel("request_timeout", message)

    def _first_is_due(self, live: LiveRequest) -> None:
        if not live.replay.end:
            message = f"No event came within the app's {self._app.first_event_timeout:g} s."
            live.cancel("first_event_timeout", message)

    def _look_for_gap(self, live: LiveRequest) -> None:
        events, looks = self._quiet[live]
        if live.replay.end != events or live.is_held_by_reader:
            events, looks = live.replay.end, 0
        elif events:  # before the first event, its own deadline counts
            looks += 1
        if looks < _LOOKS_PER_GAP:
            self._quiet[live] = events, looks
            self._gaps.add(live)
        else:
            message = f"No further event came within the app's {self._app.event_gap_timeout:g} s."
            live.cancel("event_gap_timeout", message)
