"""The requests of one app: those that wait for a slot, those that have one, and what ends them early.

Which waiting request gets which slot is decided in `core.scheduler`; this file performs it. Where the slots come
from is the fleet's business.
"""

from __future__ import annotations

import asyncio
import functools
import logging

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.scheduler import Room, assign
from headrace.core.spec import AppSpec
from headrace.supervisor.deadlines import Deadlines
from headrace.supervisor.fleet import Fleet, FleetState
from headrace.supervisor.process import RunnerProcess
from headrace.supervisor.runner import Leaving, Runner
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)


class Pool:
    """All requests of one app, and the fleet that serves them."""

    def __init__(self, app: AppSpec, fleet: Fleet, limits: Limits) -> None:
        self.app = app
        self.fleet = fleet
        self.fleet.requests = lambda: len(self._waiting) + self.running
        self.fleet.on_ready = self._on_ready
        self.fleet.on_room = self._assign
        self.fleet.on_failing = self._fail_waiting
        self._limits = limits
        self._waiting: dict[LiveRequest, None] = {}  # an ordered set: first come, first served
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
        waiting, self._waiting = tuple(self._waiting), {}
        self.fleet.wind_down()
        for live in waiting:
            try:
                if successor is None:
                    raise RequestError("not_found", f"The app {self.app.name!r} is not served any more.")
                successor.submit(live, start_timeout_s=None)
            except RequestError as error:
                live.fail(error)

    # --- waiting ----------------------------------------------------------------------------------------

    def submit(self, live: LiveRequest, *, start_timeout_s: float | None) -> None:
        """Start a request, or let it wait for a slot. Raises `RequestError` when it may not even wait."""
        if not self._waiting and (runner := self._room()) is not None:
            self._start(live, runner)  # the common case, without a turn in the waiting room
            return
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
        self._waiting[live] = None
        live.on_cancel = self._withdraw
        self._let_wait(live, start_timeout_s)
        self.fleet.match()

    def _let_wait(self, live: LiveRequest, start_timeout_s: float | None) -> None:
        wait_s = self._limits.slot_wait_s if start_timeout_s is None else start_timeout_s
        timer = asyncio.get_running_loop().call_later(
            wait_s, self._waited_too_long, live, wait_s, start_timeout_s is not None
        )
        live.on_final.append(lambda _: timer.cancel())
        self._check(live)

    def _waited_too_long(self, live: LiveRequest, wait_s: float, is_users: bool) -> None:
        if self._waiting.pop(live, live) is None:
            # The official clients never retry a 504 with this header: it is their own deadline.
            headers = {"X-Fal-Request-Timeout-Type": "user"} if is_users else {}
            message = f"No slot of {self.app.name!r} was free within {wait_s:g} s."
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
            if error.type == "validation_error" and self._waiting.pop(live, live) is None:
                live.fail(error)
        except TimeoutError:
            _log.warning("a runner of %s did not check an input in time", self.app.name)

    # --- slots ------------------------------------------------------------------------------------------

    def _rooms(self) -> list[Room]:
        slots = self.app.max_multiplexing
        return [
            Room(number, slots - runner.link.busy if runner.takes_work else 0)
            for number, runner in enumerate(self.fleet.runners)
        ]

    def _room(self) -> Runner | None:
        chosen = assign(1, self._rooms())
        return self.fleet.runners[chosen[0]] if chosen else None

    def _on_ready(self) -> None:
        self._assign()
        if self.fleet.working == 1:  # until now nobody could check those that go on waiting
            for live in self._waiting:
                self._check(live)

    def _assign(self) -> None:
        """Give free slots to waiting requests."""
        if not self._waiting:
            return
        runners = tuple(self.fleet.runners)
        for number in assign(len(self._waiting), self._rooms()):
            live = next(iter(self._waiting))
            del self._waiting[live]
            self._start(live, runners[number])

    def _start(self, live: LiveRequest, runner: Runner) -> None:
        live.on_cancel = functools.partial(self._cancel, runner)
        Deadlines(live, self.app)
        runner.link.start(live)

    def _cancel(self, runner: Runner, live: LiveRequest, reason: str) -> None:
        runner.link.cancel(live, reason)
        timer = asyncio.get_running_loop().call_later(self._limits.cancel_grace_s, self._is_stuck, runner, live)
        live.on_final.append(lambda _: timer.cancel())

    def _is_stuck(self, runner: Runner, live: LiveRequest) -> None:
        if not live.is_final:
            _log.warning("request %s does not stop; runner %d is retired", live.id, runner.process.pid)
            runner.leave(Leaving.RETIRED)
