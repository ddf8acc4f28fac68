"""A live request: its state, the log of its events, and the readers that are positions in that log.

One thread, one loop: nothing here awaits. The link appends events, readers are woken once per batch of frames,
and the end is told once. It does not know what a reader does with events, nor how a runner is told to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.replay import Replay
from headrace.core.request import FINAL, Move, RequestId, State, after
from headrace.core.routes import Route


class Reader(Protocol):
    """What a live request knows of its readers."""

    def wake(self) -> None:
        """There are new events, or the request has ended, or it got its slot. Must not raise, must not wait."""


class LiveRequest:
    """One call, with one id and one lifetime, whatever view it came in by.

    The first reader attached with `paces=True` sets the pace: the runner may be at most a window of credit
    ahead of what that reader has taken (`took`). Without a pacing reader, credit is given back as events come.
    """

    __slots__ = (
        "_credited",
        "_pacer",
        "_readers",
        "body",
        "error",
        "headers",
        "id",
        "limits",
        "on_cancel",
        "on_credit",
        "on_final",
        "replay",
        "route",
        "state",
    )

    def __init__(
        self, id_: RequestId, route: Route, body: bytes, *, headers: Mapping[str, str], limits: Limits
    ) -> None:
        self.id = id_
        self.route = route
        self.body = body
        self.headers = headers
        self.limits = limits
        self.state = State.QUEUED
        self.error: RequestError | None = None
        self.replay = Replay(bytes_max=limits.replay_bytes_max, events_max=limits.replay_events_max)
        self._readers: list[Reader] = []
        self._pacer: Reader | None = None
        self._credited = 0  # of replay.cost: what the runner has been given back
        # Set by whoever holds the request now (the waiting room, then a link).
        self.on_cancel: Callable[[LiveRequest, str], None] | None = None
        self.on_credit: Callable[[int], None] | None = None
        self.on_final: list[Callable[[LiveRequest], None]] = []

    @property
    def is_over(self) -> bool:
        """No more events will come for readers: it ended, or it is being cancelled."""
        return self.state in FINAL or self.state is State.CANCELLING

    # --- readers ----------------------------------------------------------------------------------------

    def attach(self, reader: Reader, *, paces: bool = False) -> None:
        """Add a reader; it starts wherever in the log it likes."""
        self._readers.append(reader)
        if paces and self._pacer is None:
            self._pacer = reader
            self.replay.pace = 0

    def detach(self, reader: Reader) -> None:
        """Remove a reader. When the last one leaves an unfinished request, it is cancelled."""
        if reader not in self._readers:
            return
        self._readers.remove(reader)
        if reader is self._pacer:
            self._pacer = None
            self.replay.pace = None
        if not self._readers:
            self.cancel("client_disconnected")

    def took(self, position: int, cost: int) -> None:
        """Tell how far the pacing reader is: everything before `position`, `cost` of it gone to the client."""
        self.replay.pace = position
        self._give_credit(cost)

    def wake_readers(self) -> None:
        """Let every reader look at the log."""
        if self._pacer is None:
            self._give_credit(self.replay.cost)
        for reader in tuple(self._readers):
            reader.wake()

    def _give_credit(self, cost: int) -> None:
        # A quarter of the window at a time: one WINDOW frame for some 400 token events, and a producer that
        # is never closer than three quarters to standing still.
        due = cost - self._credited
        if due >= self.limits.window_bytes // 4 and self.on_credit is not None:
            self._credited = cost
            self.on_credit(due)

    # --- the course of it -------------------------------------------------------------------------------

    def start(self) -> None:
        """A slot was found."""
        self.state = after(self.state, Move.START)
        self.wake_readers()

    def finish(self) -> None:
        """The runner said that it is done."""
        if self.state is State.RUNNING and self.replay.last is None:
            self.fail(RequestError("no_result", "The app ended without producing an item."))
            return
        self._end(Move.FINISH, None)

    def fail(self, error: RequestError) -> None:
        """It ended with an error."""
        self._end(Move.FAIL, error)

    def cancel(self, reason: str, message: str = "The request was cancelled.") -> None:
        """Nobody wants the rest; `reason` is an error type. A running one keeps its slot until it has stopped."""
        if self.is_over:
            return
        self.error = RequestError(reason, message)
        self.state = after(self.state, Move.CANCEL)
        if self.on_cancel is not None:
            self.on_cancel(self, reason)
        self.wake_readers()
        if self.state in FINAL:
            self._tell_final()

    def _end(self, move: Move, error: RequestError | None) -> None:
        if self.state in FINAL:
            return
        was_over = self.is_over
        self.state = after(self.state, move)
        if not was_over:
            self.error = error
            self.wake_readers()
        self._tell_final()

    def _tell_final(self) -> None:
        callbacks, self.on_final = self.on_final, []
        for callback in callbacks:
            callback(self)


class EndWaiter:
    """A reader that wants the end alone: the run view."""

    def __init__(self, live: LiveRequest) -> None:
        self._live = live
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Look whether it is over."""
        if self._live.is_over and not self._over.done():
            self._over.set_result(None)

    async def wait(self) -> bytes:
        """Return the result's JSON text, or raise the `RequestError` that ended the request."""
        self.wake()
        await self._over
        if self._live.error is not None:
            raise self._live.error
        last = self._live.replay.last
        assert last is not None  # finish() makes an empty success a failure
        return last
