"""How one request's status is followed: by the server's stream of it while that works, else by asking.

A `Watch` says which of the two comes next, reads what came, and decides what a failure means. It hands over each
change once, whichever way it was learned: a new state, another place in the queue, or new log lines, and those
lines alone. Values in, values out; `_sync_queue` and `_async_queue` act on it.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Any, Final

import orjson

from headrace.client import errors
from headrace.client._answer import EVENT_BYTES_MAX, Head, check_stream, cut
from headrace.client._queue import (
    ASKING,
    FOLLOWING,
    Completed,
    InProgress,
    Queued,
    Retries,
    Status,
    backoff_s,
    status_in,
)
from headrace.client._request import Request
from headrace.core.sse import Decoder

#: Seconds without a byte after which a status stream is taken for dead. A heartbeat comes every 10 to 15.
SILENCE_S: Final = 60.0
#: So many streams in a row that brought no status, and we ask instead.
_FAILURES_MAX: Final = 3


class Watch:
    """One request's status, from now to its end.

    - `is_over`: the last status was `Completed`
    - `is_streamed`: the next step is to open the status stream (`opened`, `fed`, `failed`), else to ask (`asked`)
    - `pause_s`: how long to wait before it
    - `retries`: how patiently to ask

    With `changes` off every answer is handed over as it is, and the stream is left alone: fal-client's way.
    """

    def __init__(self, request_id: str, *, interval: float, changes: bool, is_known: bool) -> None:
        """Begin; `is_known` says that the server has answered for this request before."""
        if not (isfinite(interval) and interval >= 0):
            raise ValueError(f"interval={interval!r} must be a number of seconds, 0 or more")
        self.is_over = False
        self.is_streamed = changes
        self.pause_s = 0.0
        self.retries: Retries = FOLLOWING if is_known else ASKING
        self._request_id = request_id
        self._interval_s = interval
        self._changes = changes
        self._failures = 0
        self._seen: tuple[type[Status], int] | None = None
        self._lines = _Lines()
        self._stream: _StatusStream | None = None

    def asked(self, request: Request, value: Any) -> list[Status]:
        """Take the answer to a question; return what is new in it."""
        self.pause_s = self._interval_s
        return self._told(status_in(request, self._request_id, value), is_whole=True)

    def opened(self, request: Request, head: Head) -> None:
        """Take the head of a status stream. Raises `ProtocolError` if it is something else."""
        check_stream(request, head)
        self._stream = _StatusStream(request, head)

    def fed(self, data: bytes) -> list[Status]:
        """Take a piece of the stream, b"" for its end; return what is new. Raises `HeadraceError`."""
        stream = self._stream
        assert stream is not None, "a stream is opened before it is read"
        new: list[Status] = []
        for value in stream.feed(data):
            status = status_in(stream.request, self._request_id, value)
            self._failures = 0
            # The first lines of a stream are all lines so far, later ones those since.
            new += self._told(status, is_whole=not stream.has_lines)
            stream.has_lines |= isinstance(status, (InProgress, Completed)) and bool(status.logs)
            if self.is_over:
                break
        return new

    def failed(self, error: errors.HeadraceError, chance: float) -> None:
        """Decide what to do about a stream that did not open, or ended too early.

        One that was cut is opened again. A server without one, and whatever will not pass, is asked: that brings
        a status, or the error that the caller is to see.
        """
        self._failures += 1
        passes = isinstance(error, (errors.ConnectionFailed, errors.StreamCut, errors.ReadTimeout)) or (
            isinstance(error, errors.APIError) and error.retryable
        )
        self.is_streamed = passes and self._failures < _FAILURES_MAX
        self.pause_s = backoff_s(self._failures, chance) if passes else 0.0

    def _told(self, status: Status, *, is_whole: bool) -> list[Status]:
        self.is_over = isinstance(status, Completed)
        self.retries = FOLLOWING
        if not self._changes:
            return [status]
        if isinstance(status, (InProgress, Completed)) and status.logs is not None:
            status = replace(status, logs=self._lines.new(status.logs, is_whole=is_whole))
        seen = type(status), status.position if isinstance(status, Queued) else 0
        has_news = seen != self._seen or (isinstance(status, (InProgress, Completed)) and bool(status.logs))
        self._seen = seen
        return [status] if has_news else []


class _StatusStream:
    """One connection's bytes to the JSON of its statuses."""

    def __init__(self, request: Request, head: Head) -> None:
        self.request = request
        self.has_lines = False
        self._head = head
        self._decoder = Decoder()

    def feed(self, data: bytes) -> list[Any]:
        if not data:
            raise cut(self.request, self._head, "the status stream ended before the request did")
        values = []
        for event in self._decoder.feed(data):
            if event.type == "error":
                raise cut(self.request, self._head, f"the server ended it: {event.data[:500]}")
            try:
                values.append(orjson.loads(event.data))
            except orjson.JSONDecodeError as error:
                raise errors.ProtocolError(f"{self.request}: a status is not JSON: {error}") from None
        if self._decoder.unfinished > EVENT_BYTES_MAX:
            raise errors.ProtocolError(f"{self.request}: a status is over {EVENT_BYTES_MAX:,} bytes")
        return values


class _Lines:
    """Which of a request's log lines are new to the caller."""

    def __init__(self) -> None:
        self._count = 0
        self._last: dict[str, Any] | None = None

    def new(self, lines: list[dict[str, Any]], *, is_whole: bool) -> list[dict[str, Any]]:
        """Return the lines not seen before; `is_whole`: these are all lines so far, not the ones since."""
        if not lines:
            return lines
        known = self._known_of(lines) if is_whole else 0
        self._count = len(lines) if is_whole else self._count + len(lines)
        self._last = lines[-1]
        return lines[known:]

    def _known_of(self, lines: list[dict[str, Any]]) -> int:
        """Return how many of all lines were seen. If the server dropped the oldest, the last one seen tells."""
        if self._count == 0 or (self._count <= len(lines) and lines[self._count - 1] == self._last):
            return self._count
        return next((at + 1 for at in reversed(range(len(lines))) if lines[at] == self._last), 0)
