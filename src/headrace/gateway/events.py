"""The one writer of server-sent events: from a position in a request's log to the bytes on a socket.

It keeps to a subset of the format that every known client reads alike (design section 4): LF alone, ASCII, one
`data:` line an event, never a part of an event in a write, heartbeats that end in one newline, no field that
fal's clients stumble over. It never parses an event. It does not know what a stream's ending means for HTTP
before the first byte: that is `gateway.stream`'s.
"""

from __future__ import annotations

import asyncio
import json
import logging
from time import monotonic
from typing import Final

from headrace.core.errors import RequestError
from headrace.core.event_ids import Labels
from headrace.core.limits import Limits, cost_of
from headrace.core.request import State
from headrace.gateway.answers import Headers, request_id_header
from headrace.gateway.outlet import Outlet
from headrace.supervisor.meters import AppMeters
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)

#: A comment, to keep proxies and clients from giving up on a silent model. It ends in ONE newline: a blank
#: line here makes httpx-sse (and so fal_client) dispatch an empty event once any id has been seen.
HEARTBEAT = b": ping\n"

#: Hoisted: reading a member of an enum costs as much as writing its event.
_COMPLETED: Final = State.COMPLETED

#: Bytes of events (by cost) joined into one write before we look again whether the reader keeps up.
_WRITE_BYTES = 64 * 1024


def stream_headers(request_id: str) -> Headers:
    """Return the head of every stream. Never compressed; proxies are told not to buffer (nginx: X-Accel-…)."""
    return [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        request_id_header(request_id),
    ]


def error_event(error: RequestError, request_id: str) -> bytes:
    """Return the one event that tells a failure after the first byte (design rule 6)."""
    told = {
        "type": error.type,
        "message": error.message,
        "request_id": request_id,
        "retryable": error.retryable,
        "status": error.status,
    }
    # The standard library's encoder escapes whatever is not ASCII; this path is not hot.
    return b"event: error\ndata: %b\n\n" % json.dumps({"error": told}, separators=(",", ":")).encode("ascii")


def rollback_event(attempt: int) -> bytes:
    """Return what tells a reader with ids that a request begins again: what came before does not count."""
    return b'data: {"type":"rollback","attempt":%d}\n\n' % attempt


class EventWriter:
    """One reader of a request, writing what it reads to one client, at that client's pace.

    `ended` resolves when the last byte is written or the client left. Until `begin` was called (by the first
    event, or from outside) nothing is on the wire and `ended` may hold the error to answer with instead.
    """

    __slots__ = (
        "_extra",
        "_fault",
        "_hold_s",
        "_is_first",
        "_labels",
        "_limits",
        "_live",
        "_loop",
        "_meters",
        "_outlet",
        "_position",
        "_replay",
        "_silence",
        "_stall",
        "_taken",
        "_written_at",
        "ended",
        "has_begun",
    )

    def __init__(
        self,
        live: LiveRequest,
        outlet: Outlet,
        limits: Limits,
        meters: AppMeters,
        *,
        extra: Headers,
        labels: Labels | None = None,
        position: int = 0,
        is_first: bool = False,
    ) -> None:
        """Read from `position` on, which must still be in the log; with `labels` each event gets its id.

        `is_first` says that this is the reader that opened the request: how long it waits is measured.
        """
        self._live = live
        self._labels = labels
        self._meters = meters
        self._extra = extra
        self._outlet = outlet
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._replay = live.replay  # of the attempt that it reads
        self._position = position
        self._is_first = is_first
        self._taken = live.replay.cost - cost_of(live.replay.since(position))  # by cost, of what lies before
        self._fault: RequestError | None = None  # this reader's own, not the request's
        self._written_at = self._loop.time()  # or since when there is nothing to write
        self._hold_s = 0.0
        self._silence: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self.has_begun = False
        self.ended: asyncio.Future[None] = self._loop.create_future()
        outlet.on_ready = self._caught_up
        outlet.on_lost = self._resolve

    def begin(self) -> None:
        """Send the headers."""
        if self.has_begun or self.ended.done():
            return
        self.has_begun = True
        self._outlet.start(200, [*stream_headers(self._live.id), *self._extra])
        self._written_at = self._loop.time()

    def wake(self) -> None:
        """Write what is new, unless the client is behind; then end, if the request is over."""
        if self.ended.done():
            return
        try:
            if self._live.replay is not self._replay:
                self._on_new_attempt()
            elif self._replay.end > self._position:
                self._write_events()
        except Exception:  # whoever wakes readers has others to wake; a fault in this one is its own
            _log.exception("request %s: a fault of Headrace's own while writing", self._live.id)
            self._outlet.abort()
            self._resolve()
            return
        if self._live.is_over and self._replay.end == self._position:
            self._resolve()

    def _write_events(self) -> None:
        """Write what is new: the hot path, which most often finds one event and a reader that keeps up."""
        outlet, replay, position = self._outlet, self._replay, self._position
        if position < replay.first:
            self._was_passed()
            return
        if not self.has_begun:
            self.begin()
        if not position and self._is_first:
            self._meters.first_event(monotonic() - self._live.opened_at)
        while position < replay.end and not outlet.is_paused:
            texts = replay.since(position)
            cost = replay.cost - self._taken
            if cost > _WRITE_BYTES:
                count = len(texts) * _WRITE_BYTES // cost  # by the average: a bound, not a promise
                texts = texts[: max(1, count)]
                cost = cost_of(texts)
            if self._labels is None:
                body = b"data: %b\n\n" % b"\n\ndata: ".join(texts)
            else:
                body = self._labels.framed(position, texts)
            position += len(texts)
            self._taken += cost
            outlet.write(body, position == replay.end and self._live.state is _COMPLETED)
        self._position = position
        self._written_at = self._loop.time()
        self._give_credit()
        if outlet.is_paused and self._stall is None:
            self._watch_stall(outlet.taken_bytes, self._loop.time())

    def _on_new_attempt(self) -> None:
        """Begin again with the request's next attempt: what this reader had of the last one does not count.

        A reader with ids is told so by a marker; to one without, nothing but the end of its stream could tell.
        """
        had, labels = self._position, self._labels
        self._replay, self._position, self._taken = self._live.replay, 0, 0
        if labels is not None:
            self._labels = Labels(self._live.id, self._live.attempt)
        if not had:
            return
        if labels is None:
            message = "The request is tried again from its start; ask for its result, or watch it anew."
            self._fault = RequestError("attempt_restarted", message)
            self._resolve()
            return
        # The marker has the last id of the old attempt: whoever comes back with that is told the same again.
        self._outlet.write(labels.line(had - 1) + rollback_event(self._live.attempt))

    def _was_passed(self) -> None:
        """Stop at a gap: the log has given up events that this reader has not had."""
        self.begin()
        message = "The events after those you have are not kept any more: you were too far behind."
        self._fault = self._live.error or RequestError("replay_gone", message)
        self._resolve()

    def _watch_stall(self, taken: int, since: float) -> None:
        """End a reader that takes no byte at all for `stall_timeout_s`: it holds a slot and a model's work.

        One that was behind once is watched to the end: the kernel does not (see `GuardedProtocol.pause_writing`).
        """
        outlet, now, limit_s = self._outlet, self._loop.time(), self._limits.stall_timeout_s
        if outlet.taken_bytes != taken or not outlet.untaken_bytes:
            taken, since = outlet.taken_bytes, now
        elif now - since >= limit_s:
            self._meters.reader_stalled()
            self._live.detach(self, "reader_stalled", f"The reader took no byte for {limit_s:g} s.")
            outlet.abort()
            return
        next_look_s = min(1.0, limit_s / 4, since + limit_s - now)
        self._stall = self._loop.call_later(next_look_s, self._watch_stall, taken, since)

    def _caught_up(self) -> None:
        self._give_credit()
        self.wake()

    def _give_credit(self) -> None:
        # What waits in the transport is still ours: credit is for what the kernel has taken.
        self._live.took(self, self._position, self._taken - self._outlet.buffered_bytes)

    def break_silence(self, hold_s: float) -> None:
        """From now on break silence: by the headers, held for `headers_hold_s`, and then by heartbeats.

        While the request waits for its slot they are held for `hold_s`, since a caller who gets none is told by
        status.
        """
        self._hold_s = hold_s
        self._look_in(min(self._limits.headers_hold_s, self._limits.heartbeat_s))

    def _look_in(self, seconds: float) -> None:
        # One timer for all the time of a reader: what was written meanwhile moves `_written_at`, not the timer.
        self._silence = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        if self.ended.done():
            return
        limits, silent_s = self._limits, self._loop.time() - self._written_at
        due_in_s = (limits.heartbeat_s if self.has_begun else limits.headers_hold_s) - silent_s
        if due_in_s > 0:
            self._look_in(min(due_in_s, limits.heartbeat_s))
        elif not self.has_begun and self._live.state is State.QUEUED and silent_s < self._hold_s:
            self._look_in(0.1)
        else:
            self.begin()
            if not self._outlet.is_paused:
                self._outlet.write(HEARTBEAT)
            self._written_at = self._loop.time()
            self._look_in(limits.heartbeat_s)

    def stop(self) -> None:
        """Do nothing more of its own accord."""
        for timer in (self._silence, self._stall):
            if timer is not None:
                timer.cancel()

    def _resolve(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    async def close(self) -> None:
        """Put the right end to what has begun: a clean one for success, an error event and a cut for all else.

        An app may have chosen to end the body cleanly behind its error event (`stream_error_end`).
        """
        self.stop()
        self._outlet.on_ready = self._outlet.on_lost = None
        if not self.has_begun or self._outlet.is_lost:
            return
        if self._fault is None and self._live.state is State.COMPLETED:
            self._outlet.end()
            return
        error = self._fault or self._live.error
        error = error or RequestError("internal_error", "The stream was left without an ending.")
        label = self._labels.line(self._replay.end) if self._labels is not None else b""
        self._outlet.write(label + error_event(error, self._live.id))
        if self._live.route.app.stream_error_end == "clean":
            self._outlet.end()
        else:
            await self._outlet.cut(self._limits)
