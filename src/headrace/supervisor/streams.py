"""A live request: its state, the log of its events, and the readers that are positions in that log.

One thread, one loop: nothing here awaits. The link appends events, readers are woken once per batch of frames,
and the end is told once. It does not know what a reader does with events, nor how a runner is told to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Final, Protocol

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.replay import Replay
from headrace.core.request import FINAL, Move, RequestId, State, after
from headrace.core.routes import Route
from headrace.supervisor.request_log import RequestLog


class Reader(Protocol):
    """What a live request knows of its readers."""

    def wake(self) -> None:
        """There are new events, or the request has ended, or it got its slot. Must not raise, must not wait."""


#: Why a queued request is cancelled, where that is decided: it was kept in the store, or is nobody's choice.
_DECIDED: Final = frozenset({"client_cancelled", "shutting_down"})


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why an attempt is being stopped, and whether there will be another."""

    error: RequestError
    is_retried: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """How the last attempt at a request came to its end."""

    error: RequestError | None
    result: bytes | None  # its last event


class Retries(Protocol):
    """Who decides whether a request gets another attempt, and keeps its ending: the queue.

    A direct request has none.
    """

    def wants(self, live: LiveRequest, error: RequestError) -> bool:
        """Whether there will be another attempt after this one failed with `error`."""

    def over(self, live: LiveRequest) -> None:
        """The attempt is over, its slot free. `live.ending` waits to be kept and told, if there is no other."""


class LiveRequest:
    """One call, with one id and one lifetime, whatever view it came in by.

    The first reader attached with `paces=True` sets the pace: the runner may be at most a window of credit
    ahead of what that reader has taken (`took`). Without a pacing reader, credit is given back as events come.

    `grace_s` is how long it goes on once its last reader has left (`core.disconnect`).
    """

    __slots__ = (
        "_credited",
        "_grace",
        "_pacer",
        "_readers",
        "_stop",
        "attempt",
        "base_url",
        "body",
        "ended_at",
        "ending",
        "error",
        "grace_s",
        "headers",
        "id",
        "key",
        "left_at",
        "limits",
        "log",
        "on_attempt_over",
        "on_cancel",
        "on_credit",
        "on_final",
        "opened_at",
        "owner",
        "replay",
        "retries",
        "route",
        "started_at",
        "state",
    )

    def __init__(
        self,
        id_: RequestId,
        route: Route,
        body: bytes,
        *,
        headers: Mapping[str, str],
        limits: Limits,
        grace_s: float = 0.0,
        owner: KeyId | None = None,
        base_url: str = "",
    ) -> None:
        self.id = id_
        self.attempt = 1
        self.key: object = None  # under which the dispatcher knows it, beside its id
        self.route = route
        self.body = body
        self.headers = headers
        self.limits = limits
        self.grace_s = grace_s
        self.owner = owner
        self.base_url = base_url  # the server as the caller knows it: for the URLs in what the request makes
        # By time.monotonic(): when it came, when it got its slot, when its last reader left, when it ended.
        self.opened_at = monotonic()
        self.started_at: float | None = None
        self.left_at: float | None = None
        self.ended_at: float | None = None
        self._grace: asyncio.TimerHandle | None = None
        self.state = State.QUEUED
        self.error: RequestError | None = None
        self.retries: Retries | None = None
        self.ending: Ending | None = None  # of one with retries, until `settle` tells it
        self._stop: _Stop | None = None  # of its attempt, by its own deadline: what follows is not told yet
        self.log: RequestLog | None = None  # of a queued one's current attempt
        self.replay = self._new_log()
        self._readers: tuple[Reader, ...] = ()
        self._pacer: Reader | None = None
        self._credited = 0  # of replay.cost: what the runner has been given back
        # Set by whoever holds the request now (the waiting room, then a link).
        self.on_cancel: Callable[[LiveRequest, str], None] | None = None
        self.on_credit: Callable[[int], None] | None = None
        self.on_attempt_over: list[Callable[[LiveRequest], None]] = []  # its slot or its place is free
        self.on_final: list[Callable[[LiveRequest], None]] = []

    def _new_log(self) -> Replay:
        limits = self.limits
        return Replay(
            bytes_max=limits.replay_bytes_max,
            events_max=limits.replay_events_max,
            ahead_max=limits.ahead_bytes_max,
        )

    @property
    def is_over(self) -> bool:
        """No more events will come for readers: it ended, or it is being cancelled."""
        return self.state in FINAL or (self.state is State.CANCELLING and self.error is not None)

    @property
    def is_final(self) -> bool:
        """Whether its runner is done with it, too, and the ending of a queued one is kept."""
        return self.state in FINAL

    @property
    def is_read(self) -> bool:
        """Whether anybody reads it."""
        return bool(self._readers)

    @property
    def waits_for_reader(self) -> bool:
        """Whether the reader that set its pace has left, and may come back to set it again."""
        return self._pacer is None and self.replay.pace is not None

    @property
    def is_held_by_reader(self) -> bool:
        """Whether the runner has used up its window, and waits for the pacing reader."""
        return self.replay.cost - self._credited >= self.limits.window_bytes

    # --- readers ----------------------------------------------------------------------------------------

    def attach(self, reader: Reader, *, paces: bool = False) -> None:
        """Add a reader; it starts wherever in the log it likes."""
        self._readers += (reader,)
        self.left_at = None
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if paces and self._pacer is None:
            self._pacer = reader
            self.replay.pace = self.replay.first

    def detach(
        self, reader: Reader, reason: str = "client_disconnected", message: str = "Every reader left."
    ) -> None:
        """Remove a reader. When the last one leaves an unfinished request, its policy says what follows.

        `reason` is the error type that it then ends with, if it is cancelled.
        """
        others = tuple(other for other in self._readers if other is not reader)
        if len(others) == len(self._readers):
            return
        self._readers = others
        was_pacer = reader is self._pacer
        if was_pacer:
            self._pacer = None
        if not self._readers and not self.is_over:
            self._go_on_unread(reason, message)
        elif was_pacer:
            self._go_on_unpaced()

    def _go_on_unread(self, reason: str, message: str) -> None:
        self.left_at = monotonic() if self.retries is None else None  # a queued one works for its record
        if self.grace_s <= 0:
            self.cancel(reason, message)
            return
        if self.grace_s == inf:
            self._go_on_unpaced()
        else:
            # Its pace stays where the reader was: the log keeps what that one has not had, and a model that is a
            # window ahead waits, so that a reader who comes back in time finds everything.
            self._grace = asyncio.get_running_loop().call_later(self.grace_s, self.cancel, reason, message)

    def _go_on_unpaced(self) -> None:
        self.replay.pace = None
        self._give_credit(self.replay.cost)

    def took(self, reader: Reader, position: int, cost: int) -> None:
        """Tell how far a reader is: everything before `position`, `cost` of it gone to the client.

        Only the pacing reader's progress means anything: the others read at their own speed.
        """
        if reader is not self._pacer:
            return
        self.replay.pace = position
        self._give_credit(cost)

    def wake_readers(self) -> None:
        """Let every reader look at the log."""
        if self.replay.pace is None:
            self._give_credit(self.replay.cost)
        for reader in self._readers:  # a tuple: one that comes or goes meanwhile leaves these as they are
            reader.wake()

    def _give_credit(self, cost: int) -> None:
        # A quarter of the window at a time: one WINDOW frame for some 400 token events, and a producer that
        # is never closer than three quarters to standing still.
        due = cost - self._credited
        if due >= self.limits.window_bytes // 4 and self.on_credit is not None:
            self._credited = cost
            self.on_credit(due)

    # --- the course of it -------------------------------------------------------------------------------

    def begin_again(self, attempt: int) -> None:
        """Begin another attempt with an empty log; readers of the last one find its number changed."""
        assert self.state is State.QUEUED, self.state
        self.attempt = attempt
        self.ending = None
        paces = self.replay.pace is not None
        self.replay = self._new_log()
        self.replay.pace = 0 if paces else None
        self._credited = 0
        self.wake_readers()

    def start(self) -> None:
        """A slot was found."""
        self.started_at = monotonic()
        self.state = after(self.state, Move.START)
        self.wake_readers()

    def finish(self) -> None:
        """The runner said that it is done."""
        if self._stop is not None:  # it was being stopped, and came to its end all the same
            self._has_stopped(self._stop)
            return
        if self.state is State.RUNNING and self.replay.last is None:
            self.fail(RequestError("no_result", "The app ended without producing an item."))
            return
        self._end(Move.FINISH, None)

    def fail(self, error: RequestError) -> None:
        """Its attempt ended with an error: so does the request, unless there will be another."""
        if self._stop is not None:
            self._has_stopped(self._stop)
        elif not self.is_over and self.retries is not None and self.retries.wants(self, error):
            self._give_up_attempt(self.retries)
        else:
            self._end(Move.FAIL, error)

    def cancel(self, reason: str, message: str = "The request was cancelled.") -> None:
        """Nobody wants the rest; `reason` is an error type. A running one keeps its slot until it has stopped."""
        if self.is_over:
            return
        error = RequestError(reason, message)
        if self.retries is not None and reason not in _DECIDED:
            self._stop_quietly(error, self.retries)
            return
        was_stopped, self._stop = self._stop is not None, None
        self.error = error
        self.state = after(self.state, Move.CANCEL)
        if self.on_cancel is not None and not was_stopped:
            self.on_cancel(self, reason)
        self.wake_readers()
        if self.state in FINAL:
            self._tell_final()

    def _stop_quietly(self, error: RequestError, retries: Retries) -> None:
        """Stop the attempt of a queued request. What that means for it is told when it is kept, or never."""
        if self.state is not State.RUNNING or self.ending is not None:
            return  # there is no attempt, or it is at its end already
        self._stop = _Stop(error, is_retried=retries.wants(self, error))
        self.state = after(self.state, Move.CANCEL)
        if self.on_cancel is not None:
            self.on_cancel(self, error.type)

    def _has_stopped(self, stop: _Stop) -> None:
        self._stop = None
        if stop.is_retried and self.retries is not None:
            self._give_up_attempt(self.retries)
        else:
            self._end(Move.FAIL, stop.error)

    def _give_up_attempt(self, retries: Retries) -> None:
        self.state = after(self.state, Move.RETRY)
        self._tell_attempt_over()
        retries.over(self)

    def _tell_attempt_over(self) -> None:
        callbacks, self.on_attempt_over = self.on_attempt_over, []
        for callback in callbacks:
            callback(self)

    def _end(self, move: Move, error: RequestError | None) -> None:
        if self.state in FINAL:
            return
        if self.retries is None:
            self._be_final(move, error)
            return
        self.ending = Ending(error, self.replay.last)
        self._tell_attempt_over()
        self.retries.over(self)

    def settle(self, error: RequestError | None) -> None:
        """How it ended is kept for good, and so it can be told: with `error`, or completed for None.

        Readers who were told already that it was cancelled are not told again.
        """
        if self.state not in FINAL:
            self._be_final(Move.FINISH if error is None else Move.FAIL, error)

    def _be_final(self, move: Move, error: RequestError | None) -> None:
        was_over = self.is_over
        self.state = after(self.state, move)
        if not was_over:
            self.error = error
            self.wake_readers()
        self._tell_final()

    def _tell_final(self) -> None:
        self.ended_at = monotonic()
        self.body = b""  # nobody needs it any more, and it may be large
        if self._grace is not None:
            self._grace.cancel()
        self._tell_attempt_over()
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

    def give_up(self, error: Exception) -> None:
        """Wait no more, since nobody would read the answer: `wait` raises `error`, unless it is over already."""
        if not self._over.done():
            self._over.set_exception(error)

    async def wait(self) -> bytes:
        """Return the result's JSON text, or raise the `RequestError` that ended the request."""
        self.wake()
        await self._over
        if self._live.error is not None:
            raise self._live.error
        last = self._live.replay.last
        assert last is not None  # finish() makes an empty success a failure
        return last
