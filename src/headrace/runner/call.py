"""One attempt at a request while it runs: its credit, its items, its one ending.

Two sides meet here. The loop grants credit and cancels; the author's code, on the loop or in threads, makes
items and waits for credit. This file knows nothing of how that code is run (see `invoke`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from headrace.app.context import RUNNING, Cancelled, Request
from headrace.core.errors import RequestError
from headrace.core.frames import BadFrame, Kind
from headrace.core.limits import EVENT_OVERHEAD_BYTES, Limits
from headrace.runner.blame import ending_of, error_payload
from headrace.runner.encode import encode_item, result_too_large
from headrace.runner.interrupt import INTERRUPT_AFTER_S, interrupt
from headrace.runner.link import Link
from headrace.runner.output import CallOutput, begin

#: Hoisted: reading a member of an enum costs as much as making a frame.
_EVENT: Final = int(Kind.EVENT)


@dataclass(frozen=True, slots=True)
class Start:
    """What START and CHECK say."""

    request_id: str
    path: str
    headers: Mapping[str, str]
    attempt: int
    window: int
    body: bytes
    is_queued: bool = False  # its words are kept by the node's store
    has_item_lines: bool = False  # its items with `progress` or `message` are lines of its log
    base_url: str = ""  # the server as the caller knows it

    @classmethod
    def from_payload(cls, payload: bytes) -> Start:
        """Read a payload: a JSON head, a newline, the raw body. Raises `BadFrame`."""
        head, _, body = payload.partition(b"\n")
        try:
            fields: dict[str, Any] = orjson.loads(head)
            return cls(
                request_id=str(fields["request_id"]),
                path=str(fields["path"]),
                headers={name.lower(): str(value) for name, value in fields.get("headers", {}).items()},
                attempt=int(fields.get("attempt", 1)),
                window=int(fields.get("window", 0)),
                body=body,
                is_queued=bool(fields.get("is_queued")),
                has_item_lines=bool(fields.get("log_items")),
                base_url=str(fields.get("base_url", "")),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadFrame(f"a START or CHECK that cannot be read: {error!r}") from None


class RunningCall:
    """The call that `START` began on one stream; it ends with exactly one DONE or ERROR.

    Credit is what was granted less what was spent, in bytes of `core.limits.cost_of`. A producer waits
    *before* it makes an item while none is left; one item may overdraw it.
    """

    __slots__ = (
        "_changed",
        "_credit_waiter",
        "_forget",
        "_granted",
        "_has_begun",
        "_is_over",
        "_limits",
        "_link",
        "_made",
        "_reason",
        "_spent",
        "_stream",
        "author_thread",
        "lock",
        "output",
        "start",
        "task",
    )  # fmt: skip

    def __init__(
        self, link: Link, stream: int, start: Start, limits: Limits, forget: Callable[[int], object]
    ) -> None:
        self.start: Final = start
        self._link: Final = link
        self._stream: Final = stream
        self._limits: Final = limits
        self._forget = forget
        self.lock: Final = threading.Lock()
        self._changed: Final = threading.Condition(self.lock)
        # Two counters rather than one balance: only the loop raises the first, only lock holders the second.
        self._granted = start.window
        self._spent = 0
        self._made = 0
        self._reason: str | None = None
        self._is_over = False
        self._credit_waiter: asyncio.Future[None] | None = None
        self._has_begun = False
        #: The task that runs the author's code; None when a thread does.
        self.task: asyncio.Task[None] | None = None
        self.author_thread: int | None = None
        self.output: Final = CallOutput(stream, start.request_id, is_kept=start.is_queued)
        RUNNING.add(self)
        begin(self.output)

    @property
    def request(self) -> Request:
        """What the author may know of the request."""
        start = self.start
        return Request(start.request_id, start.path, start.attempt, start.headers, self.emit)

    @property
    def base_url(self) -> str:
        """The server as the request's caller knows it."""
        return self.start.base_url

    # --- the author's side ----------------------------------------------------------------------------------

    def enter(self) -> None:
        """Say that the code which will end this call has begun. Raises `Cancelled` if nobody wants it any more.

        A task cancelled before its first step never takes one, and so could not end the call: until here,
        `cancel` leaves the task alone.
        """
        self._has_begun = True
        if self._reason is not None:
            raise Cancelled

    def wait_for_credit(self) -> None:
        """Wait, in a thread, until an item may be made. Raises `Cancelled`."""
        if self._spent < self._granted and self._reason is None:
            return
        with self.lock:
            self._wait_for_credit()
            self._refuse_when_unwanted()

    def _wait_for_credit(self) -> None:
        # No deadline of its own: the node watches the readers and cancels a stalled request, and a node that is
        # gone is an EOF, which cancels every call.
        while self._spent >= self._granted and self._reason is None and not self._is_over:
            self._changed.wait()

    @property
    def needs_credit(self) -> bool:
        """Whether an item may not be made yet."""
        return self._spent >= self._granted

    async def credit(self) -> None:
        """Wait, on the loop, until an item may be made; cancelled with its task."""
        while self.needs_credit:
            self._credit_waiter = asyncio.get_running_loop().create_future()
            await self._credit_waiter

    def put(self, item: object) -> None:
        """Send an item for which there was credit. Raises `Cancelled`, or `RequestError` for a bad item."""
        text = encode_item(item, self._limits.event_bytes_max)
        with self.lock:
            if self._reason is not None or self._is_over:
                self._refuse_when_unwanted()
            self._send(text)

    def put_result(self, item: object) -> None:
        """Send the result of a function that has no stream, as `put`, within `result_bytes_max`."""
        text = encode_item(item, self._limits.result_bytes_max, result_too_large)
        with self.lock:
            self._refuse_when_unwanted()
            self._send(text)

    def emit(self, item: object) -> None:
        """Send an item from anywhere; see `headrace.emit`."""
        text = encode_item(item, self._limits.event_bytes_max)
        with self.lock:
            if threading.get_ident() != self._link.loop_thread:
                self._wait_for_credit()
            elif self._spent - self._granted >= self._limits.emit_ahead_bytes_max:
                raise RuntimeError(
                    f"emit() on the event loop is {self._spent - self._granted} bytes ahead of the readers, "
                    "and cannot wait there; yield the items, or emit from a thread (asyncio.to_thread)"
                )
            self._refuse_when_unwanted()
            self._send(text)

    def _send(self, text: bytes) -> None:
        self._spent += len(text) + EVENT_OVERHEAD_BYTES
        self._made += 1
        self._link.post(_EVENT, self._stream, text)

    def _refuse_when_unwanted(self) -> None:
        if self._reason is not None:
            self.author_thread = None  # it knows now: no interrupt may hit its `finally`
            raise Cancelled
        if self._is_over:
            raise RuntimeError(f"request {self.start.request_id} is over; nothing more can be emitted for it")

    # --- the loop's side ------------------------------------------------------------------------------------

    def grant(self, window_bytes: int) -> None:
        """Add credit and wake whoever waits for it."""
        with self.lock:
            self._granted += window_bytes
            self._changed.notify_all()
        waiter, self._credit_waiter = self._credit_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def cancel(self, reason: str) -> None:
        """Ask the author's code to end. The call is over once it has; its error is then of type `reason`."""
        with self.lock:
            if self._reason is not None or self._is_over:
                return
            self._reason = reason
            self._changed.notify_all()
        if self.task is None:
            asyncio.get_running_loop().call_later(INTERRUPT_AFTER_S, interrupt, self)
        elif self._has_begun:
            self.task.cancel()

    def end(self, error: RequestError | None) -> None:
        """End the call, from any thread, after its author's code has ended. The first ending counts."""
        with self.lock:
            if self._is_over:
                return
            self._is_over = True
            self._changed.notify_all()
        # Forgotten first: once the node has read the ending, the stream's number is its own again.
        RUNNING.discard(self)
        self._forget(self._stream)
        self.output.end()
        # The task's context holds this call, and so its body: a circle, for a rare round of garbage collection.
        self.task = None
        if self._reason is not None:
            error = ending_of(self._reason)
        elif error is None and not self._made:
            error = RequestError("no_result", "The app ended without producing one item.")
        if error is None:
            self._link.post(Kind.DONE, self._stream)
        else:
            self._link.post(Kind.ERROR, self._stream, error_payload(error))

    @property
    def is_cancelled(self) -> bool:
        """Whether the call was asked to end."""
        return self._reason is not None


class ToldCall(RunningCall):
    """A call whose items are lines of its log, too. A class of its own: streams of others must not pay for it."""

    __slots__ = ()

    def _send(self, text: bytes) -> None:
        super()._send(text)
        self.output.take_item(text)
