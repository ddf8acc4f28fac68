"""The runners of one app: their slots, the requests that wait for one, and their restarts.

A keeper task per wanted runner holds one process after another: it starts one, has it set up, and waits for its
death or its retirement. A death after READY is replaced at once; failures to start wait longer each time. Which
waiting request gets which slot is decided in `core.scheduler`; this file performs it.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging

from headrace.core.errors import FileFault, RequestError
from headrace.core.limits import Limits
from headrace.core.request import FINAL
from headrace.core.scheduler import Room, assign, backoff_s
from headrace.core.spec import AppSpec
from headrace.supervisor.process import Launcher, RunnerProcess
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)


class PoolState(enum.Enum):
    """How an app is, as `/ready` and `headrace apps` tell it."""

    STARTING = "starting"  # no runner was ready yet
    READY = "ready"  # a runner takes work
    RESTARTING = "restarting"  # there was one; its replacement is on its way
    FAILING = "failing"  # the last start failed; the next try waits for its turn


class Runner:
    """One member of the pool: a process whose app is set up, and what the pool knows of it."""

    def __init__(self, number: int, process: RunnerProcess) -> None:
        self.number = number
        self.process = process
        self.link = process.link
        self.is_retired = False
        self.retired: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def takes_work(self) -> bool:
        """Whether it may be given a request: a dead one would never answer, a retired one should not."""
        return not self.is_retired and not self.link.closed.done()

    def retire(self) -> None:
        """No new work from now on; the keeper starts a replacement."""
        self.is_retired = True
        if not self.retired.done():
            self.retired.set_result(None)


class Pool:
    """All runners of one app."""

    def __init__(self, app: AppSpec, target: str, launcher: Launcher, limits: Limits) -> None:
        self.app = app
        self._launcher = launcher
        self.state = PoolState.STARTING
        self.fault: str | None = None  # why the last start failed, as FILE:LINE: message
        self._target = target
        self._limits = limits
        self._runners: dict[int, Runner] = {}  # those that are ready, by number
        self._waiting: dict[LiveRequest, None] = {}  # an ordered set: first come, first served
        self._numbers = 0
        self._is_winding_down = False
        self._has_outcome = asyncio.Event()  # the first runner is ready, or failed to be
        # Set while a runner is wanted: always, but for min_concurrency=0, where the first request asks for it.
        self._demand = asyncio.Event()
        if app.min_concurrency > 0:
            self._demand.set()
        else:
            self.state = PoolState.READY  # it is imported; that is all this app keeps up
            self._has_outcome.set()
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def runners(self) -> int:
        """How many runners take work."""
        return sum(runner.takes_work for runner in self._runners.values())

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    async def run(self, first: RunnerProcess | None) -> None:
        """Keep the app's runners up until cancelled; `first`, if given, has loaded the file already."""
        async with asyncio.TaskGroup() as self._tasks:
            for number in range(max(1, self.app.min_concurrency)):
                self._tasks.create_task(
                    self._keep(first if number == 0 else None), name=f"keeper of {self.app.name}"
                )

    async def first_outcome(self) -> str | None:
        """Wait until the app is ready or has failed to be; return the fault, if any."""
        await self._has_outcome.wait()
        return None if self.state is PoolState.READY else self.fault

    def hand_over(self, successor: Pool | None) -> None:
        """Take nothing new: waiting requests go to `successor`, running ones finish here, then `run` returns."""
        self._is_winding_down = True
        self._demand.set()
        for runner in self._runners.values():
            runner.retire()
        waiting, self._waiting = tuple(self._waiting), {}
        for live in waiting:
            try:
                if successor is None:
                    raise RequestError("not_found", f"The app {self.app.name!r} is not served any more.")
                successor.submit(live, start_timeout_s=None)
            except RequestError as error:
                live.fail(error)

    # --- requests ---------------------------------------------------------------------------------------

    def submit(self, live: LiveRequest, *, start_timeout_s: float | None) -> None:
        """Start a request, or let it wait for a slot. Raises `RequestError` when it may not even wait."""
        if self.state is PoolState.FAILING:
            raise RequestError(
                "runner_scheduling_failure",
                f"The app {self.app.name!r} cannot start at present; the server's log and /ready say why.",
                headers={"Retry-After": "5"},
            )
        if len(self._waiting) >= self._limits.waiting_max:
            raise RequestError(
                "overloaded",
                f"{len(self._waiting)} requests wait for {self.app.name!r} already; try again later.",
                headers={"Retry-After": "1"},
            )
        self._waiting[live] = None
        live.on_cancel = self._withdraw
        self._demand.set()
        self._assign()
        if live in self._waiting:
            self._let_wait(live, start_timeout_s)

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
            live.fail(RequestError("request_timeout", message, headers=headers))

    def _withdraw(self, live: LiveRequest, reason: str) -> None:  # noqa: ARG002 - any reason ends the waiting
        self._waiting.pop(live, None)

    def _check(self, live: LiveRequest) -> None:
        """Have any ready runner validate a waiting request's input, so that a 422 never waits for a slot."""
        runner = next((runner for runner in self._runners.values() if runner.takes_work), None)
        if runner is not None and self._tasks is not None:
            self._tasks.create_task(self._check_on(runner, live), name=f"check of {live.id}")

    async def _check_on(self, runner: Runner, live: LiveRequest) -> None:
        try:
            await runner.link.check(live)
        except RequestError as error:
            # Any other failure of the check is not the request's: it is validated again when it starts.
            if error.type == "validation_error" and self._waiting.pop(live, live) is None:
                live.fail(error)
        except TimeoutError:
            _log.warning("a runner of %s did not check an input in time", self.app.name)

    def _assign(self) -> None:
        """Give free slots to waiting requests."""
        if not self._waiting:
            return
        rooms = [
            Room(runner.number, self.app.max_multiplexing - runner.link.busy)
            for runner in self._runners.values()
            if runner.takes_work
        ]
        for number in assign(len(self._waiting), rooms):
            live = next(iter(self._waiting))
            del self._waiting[live]
            self._start(live, self._runners[number])

    def _start(self, live: LiveRequest, runner: Runner) -> None:
        live.on_cancel = functools.partial(self._cancel, runner)
        timer = asyncio.get_running_loop().call_later(
            self.app.request_timeout,
            live.cancel,
            "request_timeout",
            f"The request ran longer than the app's {self.app.request_timeout:g} s.",
        )
        live.on_final.append(lambda _: timer.cancel())
        runner.link.start(live)

    def _cancel(self, runner: Runner, live: LiveRequest, reason: str) -> None:
        runner.link.cancel(live, reason)
        timer = asyncio.get_running_loop().call_later(self._limits.cancel_grace_s, self._is_stuck, runner, live)
        live.on_final.append(lambda _: timer.cancel())

    def _is_stuck(self, runner: Runner, live: LiveRequest) -> None:
        if live.state not in FINAL:
            _log.warning("request %s does not stop; runner %d is retired", live.id, runner.process.pid)
            runner.retire()

    # --- runners ----------------------------------------------------------------------------------------

    async def _keep(self, process: RunnerProcess | None) -> None:
        failures = 0
        while True:
            await self._demand.wait()
            if self._is_winding_down:
                if process is not None:
                    await process.kill()
                return
            try:
                runner = await self._bring_up(process)
            except (FileFault, RequestError, TimeoutError, OSError) as error:
                failures += 1
                pause_s = backoff_s(failures, self._limits.restart_backoff_s, self._limits.restart_backoff_max_s)
                self._failed(error, pause_s)
                await asyncio.sleep(pause_s)
            else:
                failures = 0
                await self._watch(runner)
            process = None

    async def _bring_up(self, process: RunnerProcess | None) -> Runner:
        """Return a runner that is ready for work. Whatever goes wrong, no process is left behind."""
        process = process or await self._launcher.start(self._target)
        process.label = self.app.name
        try:
            async with asyncio.timeout(self.app.startup_timeout):
                apps = await process.link.hello
                if all(app.name != self.app.name for app in apps):
                    raise FileFault(
                        self.app.file, self.app.line, f"the app {self.app.name!r} is not here any more"
                    )
                process.link.setup(self.app.name)
                await process.link.ready
        except BaseException:
            await process.kill()
            raise
        self._numbers += 1
        runner = Runner(self._numbers, process)
        process.link.on_released = self._assign
        self._runners[runner.number] = runner
        self.state, self.fault = PoolState.READY, None
        self._has_outcome.set()
        if self._is_winding_down:
            runner.retire()
        _log.info("%s is ready (runner %d)", self.app.name, process.pid)
        self._assign()
        for live in self._waiting:
            self._check(live)
        return runner

    async def _watch(self, runner: Runner) -> None:
        """Wait until a runner has died or is retired. A retired one is seen off by a task of its own."""
        try:
            await asyncio.wait({runner.link.closed, runner.retired}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await runner.process.stop()
            raise
        if runner.link.closed.done():
            _log.error("runner %d of %s died", runner.process.pid, self.app.name)
            await self._see_off(runner)
        elif self._tasks is not None:
            self._tasks.create_task(self._see_off(runner), name=f"end of runner {runner.process.pid}")
        if self.app.min_concurrency == 0 and not self._waiting:
            self._demand.clear()
        elif not self.runners:
            self.state = PoolState.RESTARTING

    async def _see_off(self, runner: Runner) -> None:
        """End a runner once nobody wants anything of it any more; what is stuck in it is killed."""
        runner.is_retired = True
        try:
            async with asyncio.timeout(self.app.request_timeout):
                while runner.link.holds_wanted and not runner.link.closed.done():
                    await asyncio.wait({runner.link.closed}, timeout=0.1)
        except TimeoutError:
            pass
        finally:
            await (runner.process.kill() if runner.link.busy else runner.process.stop())
            self._runners.pop(runner.number, None)

    def _failed(self, error: Exception, pause_s: float) -> None:
        self.fault = _told(error, self.app)
        self._has_outcome.set()
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        _log.error("%s did not start; next try in %g s: %s%s", self.app.name, pause_s, self.fault, notes)
        if self.runners:
            return  # others still serve
        self.state = PoolState.FAILING
        waiting, self._waiting = tuple(self._waiting), {}
        for live in waiting:
            live.fail(RequestError("runner_scheduling_failure", f"The app {self.app.name!r} failed to start."))


def _told(error: Exception, app: AppSpec) -> str:
    match error:
        case TimeoutError():
            return f"{app.file}:{app.line}: setup() of {app.cls} took longer than {app.startup_timeout:g} s"
        case RequestError():
            return f"{app.file}:{app.line}: the runner of {app.cls} died while it was starting"
        case _:
            return str(error)
