"""The requests of one app: those that wait for a slot, those that have one, and what ends them early.

Which waiting request gets which slot is decided in `core.scheduler`; this file performs it. Where the slots come
from is the fleet's business.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.scheduler import emptiest
from headrace.core.spec import AppSpec
from headrace.supervisor.deadlines import Deadlines
from headrace.supervisor.fleet import Fleet, FleetState
from headrace.supervisor.process import RunnerProcess
from headrace.supervisor.runner import Leaving, Runner
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)

#: The header that names what a runner may have at hand: requests with one hint go to the same if they can.
HINT: Final = "x-fal-runner-hint"

#: Hints remembered for one app.
HINTS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long a request may wait for its slot."""

    seconds: float  # in all, wherever it waits
    until: float  # by the loop's clock
    is_users: bool  # whether its caller said so


class Pool:
    """All requests of one app, and the fleet that serves them."""

    def __init__(self, app: AppSpec, fleet: Fleet, limits: Limits) -> None:
        self.app = app
        self.fleet = fleet
        self.queued: Callable[[], int] = lambda: 0  # how many of the durable queue wait for this app
        self.on_spare_room: Callable[[], None] = lambda: None  # a slot is free, and no direct request wants it
        self.fleet.requests = lambda: len(self._waiting) + self._reserved + self.running + self.queued()
        self.fleet.on_ready = self._on_ready
        self.fleet.on_room = self._assign
        self.fleet.on_failing = self._fail_waiting
        self._limits = limits
        self._deadlines = Deadlines(app)
        self._waiting: dict[LiveRequest, _Patience] = {}  # first come, first served
        self._hints: dict[str, Runner] = {}  # who served a hint last; the oldest first
        self._reserved = 0  # slots that are kept for queued requests about to start
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many slots are in use, of the runners that take work."""
        return sum(runner.link.busy for runner in self.fleet.runners if runner.takes_work)

    async def run(self, first: RunnerProcess | None) -> None:
        """Serve until cancelled or handed over; `first`, if given, has imported the target already."""
        try:
            await self.fleet.run(first)
        finally:
            for task in self._tasks:
                task.cancel()

    def hand_over(self, successor: Pool | None) -> None:
        """Take nothing new: waiting requests go to `successor`, running ones finish here, then `run` returns."""
        waiting, self._waiting = self._waiting, {}
        self.fleet.wind_down()
        for live, patience in waiting.items():
            try:
                if successor is None:
                    raise RequestError("not_found", f"The app {self.app.name!r} is not served any more.")
                successor._admit(live, patience)  # noqa: SLF001 - one of our own kind
            except RequestError as error:
                live.fail(error)

    # --- waiting ----------------------------------------------------------------------------------------

    def submit(self, live: LiveRequest, *, start_timeout_s: float | None) -> None:
        """Start a request, or let it wait for a slot. Raises `RequestError` when it may not even wait."""
        if self._starts_at_once(live):  # the common case, without a turn in the waiting room
            return
        wait_s = self._limits.slot_wait_s if start_timeout_s is None else start_timeout_s
        until = asyncio.get_running_loop().time() + wait_s
        self._let_wait(live, _Patience(wait_s, until, is_users=start_timeout_s is not None))

    def _admit(self, live: LiveRequest, patience: _Patience) -> None:
        """Start a request or let it wait, and go on from where its patience is by now."""
        if not self._starts_at_once(live):
            self._let_wait(live, patience)

    def _starts_at_once(self, live: LiveRequest) -> bool:
        """Start a request if a slot is free that nobody was there for before."""
        if self._waiting or (self._reserved and self._free <= self._reserved):
            return False
        if (runner := self._room(live)) is None:
            return False
        self._start(live, runner)
        return True

    def _let_wait(self, live: LiveRequest, patience: _Patience) -> None:
        if self.fleet.state is FleetState.FAILING:
            raise RequestError(
                "runner_scheduling_failure",
                f"The app {self.app.name!r} cannot start at present; the server's log and /ready say why.",
                headers={"Retry-After": str(self.fleet.retry_after_s)},
            )
        if len(self._waiting) >= self._limits.waiting_max:
            raise RequestError(
                "overloaded",
                f"{len(self._waiting)} requests wait for {self.app.name!r} already; try again later.",
                headers={"Retry-After": "1"},
            )
        self._waiting[live] = patience
        live.on_cancel = self._withdraw
        timer = asyncio.get_running_loop().call_at(patience.until, self._waited_too_long, live)
        live.on_attempt_over.append(lambda _: timer.cancel())
        self._check(live)
        self.fleet.match()

    def _waited_too_long(self, live: LiveRequest) -> None:
        patience = self._waiting.pop(live, None)
        if patience is None:
            return  # it has its slot, or waits in a successor
        # The official clients never retry a 504 with this header: it is their own deadline.
        headers = {"X-Fal-Request-Timeout-Type": "user"} if patience.is_users else {}
        message = f"No slot of {self.app.name!r} was free within {patience.seconds:g} s."
        live.fail(RequestError("startup_timeout", message, headers=headers))

    def _withdraw(self, live: LiveRequest, reason: str) -> None:  # noqa: ARG002 - any reason ends the waiting
        self._waiting.pop(live, None)

    def _fail_waiting(self) -> None:
        waiting, self._waiting = tuple(self._waiting), {}
        for live in waiting:
            live.fail(
                RequestError(
                    "runner_scheduling_failure",
                    f"The app {self.app.name!r} failed to start.",
                    headers={"Retry-After": str(self.fleet.retry_after_s)},
                )
            )

    def _check(self, live: LiveRequest) -> None:
        """Have any ready runner validate a waiting request's input, so that a 422 never waits for a slot."""
        runner = next((runner for runner in self.fleet.runners if runner.takes_work), None)
        if runner is not None:
            task = asyncio.create_task(self._check_on(runner, live), name=f"check of {live.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _check_on(self, runner: Runner, live: LiveRequest) -> None:
        try:
            await runner.link.check(live)
        except RequestError as error:
            # Any other failure of the check is not the request's: it is validated again when it starts.
            if error.type == "validation_error" and self._waiting.pop(live, None) is not None:
                live.fail(error)
        except TimeoutError:
            _log.warning("a runner of %s did not check an input in time", self.app.name)

    # --- slots ------------------------------------------------------------------------------------------

    def _rooms(self) -> list[int]:
        """Return the free slots of each runner."""
        slots = self.app.max_multiplexing
        return [slots - runner.link.busy if runner.takes_work else 0 for runner in self.fleet.runners]

    @property
    def _free(self) -> int:
        return sum(self._rooms())

    def _room(self, live: LiveRequest) -> Runner | None:
        """Return the runner for a request: the one its hint means, if that has a free slot, else the emptiest."""
        runners, rooms = self.fleet.runners, self._rooms()
        number = emptiest(rooms)
        hint = live.headers.get(HINT)
        if number is None or hint is None:
            return None if number is None else runners[number]
        runner, hinted = runners[number], self._hints.pop(hint, None)
        if hinted is not None and hinted in runners and rooms[runners.index(hinted)] > 0:
            runner = hinted
        self._hints[hint] = runner
        if len(self._hints) > HINTS_MAX:
            del self._hints[next(iter(self._hints))]
        return runner

    def _on_ready(self) -> None:
        self._assign()
        if self.fleet.working == 1:  # until now nobody could check those that go on waiting
            for live in self._waiting:
                self._check(live)

    def _assign(self) -> None:
        """Give free slots to waiting requests; what is left over is the queue's."""
        while self._waiting and self._free > self._reserved:
            live = next(iter(self._waiting))
            runner = self._room(live)
            assert runner is not None  # there is a free slot
            del self._waiting[live]
            self._start(live, runner)
        if not self._waiting:
            self.on_spare_room()

    # --- the queue's slots ------------------------------------------------------------------------------

    def reserve(self) -> bool:
        """Keep a slot for a queued request that is about to start; False if there is none to spare."""
        if self._waiting or self._free <= self._reserved:
            return False
        self._reserved += 1
        return True

    def unreserve(self) -> None:
        """Give back a slot that was kept: the request does not start after all."""
        self._reserved -= 1
        self._assign()

    def start_reserved(self, live: LiveRequest) -> bool:
        """Start a request in the slot that was kept for it; False if its runner has gone meanwhile."""
        self._reserved -= 1
        if (runner := self._room(live)) is None:
            return False
        self._start(live, runner)
        return True

    def _start(self, live: LiveRequest, runner: Runner) -> None:
        live.on_cancel = functools.partial(self._cancel, runner)
        self._deadlines.watch(live)
        runner.link.start(live)

    def _cancel(self, runner: Runner, live: LiveRequest, reason: str) -> None:
        runner.link.cancel(live, reason)
        timer = asyncio.get_running_loop().call_later(self._limits.cancel_grace_s, self._is_stuck, runner, live)
        live.on_attempt_over.append(lambda _: timer.cancel())

    def _is_stuck(self, runner: Runner, live: LiveRequest) -> None:
        if not live.is_final:
            _log.warning("request %s does not stop; runner %d is retired", live.id, runner.process.pid)
            runner.leave(Leaving.RETIRED)
