"""The runners of one app: as many as are wanted, each from its start to its end.

A task per runner brings it up, waits until it dies or is to leave, and sees it off. `match` compares what there is
with what is wanted, after every change; how many that is, and how long a failing start waits, is decided in
`core.scheduler`. The requests themselves are the pool's.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from typing import Final

from headrace.core.errors import FileFault, RequestError
from headrace.core.limits import Limits
from headrace.core.scheduler import Restarts, runners_wanted
from headrace.core.spec import AppSpec
from headrace.supervisor import group
from headrace.supervisor.devices import Lease, environment_for
from headrace.supervisor.meters import AppMeters
from headrace.supervisor.process import Launcher, RunnerProcess
from headrace.supervisor.runner import Leaving, Runner

_log = logging.getLogger(__name__)

#: Seconds between two looks at the health of all runners: a file of /proc for each.
LOOK_EVERY_S: Final = 1.0


class FleetState(enum.Enum):
    """How an app is, as `/ready` and `headrace apps` tell it."""

    STARTING = "starting"  # no runner was ready yet
    READY = "ready"  # a runner takes work, or the first request will start one
    RESTARTING = "restarting"  # there was one; its replacement is on its way
    FAILING = "failing"  # the last start failed, or its runners die again and again; the next try waits


class Fleet:
    """All runners of one app.

    `requests` tells how many wait or run. `on_ready` is called when a runner has become ready, `on_room` when one
    has a free slot, `on_failing` when there is no hope of one for the time being. `sees_devices` is false where
    other apps lease devices, which an app that leases none then does not see.
    """

    def __init__(
        self,
        app: AppSpec,
        target: str,
        launcher: Launcher,
        limits: Limits,
        meters: AppMeters,
        *,
        sees_devices: bool = True,
    ) -> None:
        self.app = app
        self.runners: list[Runner] = []  # those that are ready
        self.fault: str | None = None  # why the last start failed, as FILE:LINE: message
        self.requests: Callable[[], int] = lambda: 0
        self.on_ready: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None
        self.on_failing: Callable[[], None] = lambda: None
        self._target = target
        self._launcher = launcher
        self._limits = limits
        self._meters = meters
        self._sees_devices = sees_devices and not app.num_gpus
        self._restarts = Restarts(
            limits.restart_backoff_s, limits.restart_backoff_max_s, limits.crashes_max, limits.crash_window_s
        )
        self._spare: RunnerProcess | None = None  # has imported the target, and waits to be wanted
        self._starting = 0
        self._want_devices: list[asyncio.Task[None]] = []  # those of the starting ones that wait for devices
        self._has_been_ready = app.min_concurrency == 0  # it is imported; that is all this app keeps up
        self._not_before = 0.0  # by the loop's clock: when the next runner may be started
        self._retry: asyncio.TimerHandle | None = None
        self._is_winding_down = False
        self._over = asyncio.Event()  # winding down, and nobody is left
        self._has_outcome = asyncio.Event()  # the first runner is ready, or failed to be
        if self._has_been_ready:
            self._has_outcome.set()
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def state(self) -> FleetState:
        """How the app is."""
        if any(runner.takes_work for runner in self.runners):
            return FleetState.READY
        if self.fault is not None and (self._wanted or self._now() < self._not_before):
            return FleetState.FAILING
        if not self._has_been_ready:
            return FleetState.STARTING
        return FleetState.RESTARTING if self._wanted else FleetState.READY

    @property
    def working(self) -> int:
        """How many runners take work."""
        return sum(runner.takes_work for runner in self.runners)

    @property
    def _wanted(self) -> int:
        if self._is_winding_down:
            return 0
        app = self.app
        return runners_wanted(
            self.requests(), slots=app.max_multiplexing, least=app.min_concurrency, most=app.runners_max
        )

    async def run(self, first: RunnerProcess | None) -> None:
        """Keep the app's runners up until cancelled or wound down; `first`, if given, has imported the target."""
        if first is not None and not self._sees_devices:
            await first.kill()  # it saw every device, and what it imported may have made a note of them
            first = None
        self._spare = first
        try:
            async with asyncio.TaskGroup() as self._tasks:
                watch = self._tasks.create_task(self._watch_health(), name=f"health of {self.app.name}")
                self.match()
                try:
                    await self._over.wait()
                finally:
                    self._is_winding_down = True
                    watch.cancel()
        finally:
            if self._retry is not None:
                self._retry.cancel()
            if self._spare is not None:
                await self._spare.kill()

    async def first_outcome(self) -> str | None:
        """Wait until the app is ready or has failed to be; return the fault, if any."""
        await self._has_outcome.wait()
        return None if self.state is FleetState.READY else self.fault

    def wind_down(self) -> None:
        """Start nothing more; what runs may finish, then `run` returns."""
        self._is_winding_down = True
        for runner in self.runners:
            runner.leave(Leaving.REPLACED)
        self._withdraw()
        self.match()

    # --- how many ---------------------------------------------------------------------------------------

    def match(self) -> None:
        """Start the runners that are wanted and not there, as soon as that may be tried."""
        if self._tasks is None:
            return
        if self._is_winding_down and not self.runners and not self._starting:
            self._over.set()
        missing = self._wanted - self.working - self._starting
        if missing <= 0:
            return
        pause_s = self._not_before - self._now()
        if pause_s > 0:
            if self._retry is None:
                self._retry = asyncio.get_running_loop().call_later(pause_s, self._try_again)
            return
        for _ in range(missing):
            self._starting += 1
            self._tasks.create_task(self._tend(), name=f"a runner of {self.app.name}")

    def _try_again(self) -> None:
        self._retry = None
        self.match()

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for runner in tuple(self.runners):
                if (wrong := await runner.look(LOOK_EVERY_S)) is not None:
                    why, runner.link.last_words = wrong
                    runner.leave(why)
            self._let_idle_go()
            self._withdraw()

    def _let_idle_go(self) -> None:
        spare = self.working - self._wanted
        for runner in [one for one in self.runners if one.takes_work and one.idle_s >= self.app.keep_alive]:
            if spare > 0:
                spare -= 1
                runner.leave(Leaving.IDLE)

    def _withdraw(self) -> None:
        """Stop waiting for the devices of runners that nobody wants any more."""
        spare = self.working + self._starting - self._wanted
        for task in self._want_devices[-spare:] if spare > 0 else ():
            task.cancel()

    # --- one runner -------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        """Have one runner from its start to its end."""
        process, self._spare = self._spare, None
        lease: Lease | None = None
        try:
            try:
                if self.app.num_gpus:
                    lease = await self._lease()
                if process is None:
                    process = await self._launcher.start(self._target, self._devices_of(lease))
                runner = await self._bring_up(process)
            except (FileFault, RequestError, TimeoutError, OSError) as error:
                self._failed_to_start(error)
                return
            finally:
                self._starting -= 1
            await self._serve(runner)
        finally:
            if lease is not None:
                while process is not None and not group.is_gone(process.pid):
                    await asyncio.sleep(LOOK_EVERY_S)  # what cannot be killed yet holds its devices still
                lease.give_back()
            self.match()

    async def _lease(self) -> Lease:
        task = asyncio.current_task()
        assert task is not None
        self._want_devices.append(task)
        try:
            return await self._launcher.devices.lease(self.app.num_gpus, self.app.name)
        finally:
            self._want_devices.remove(task)

    def _devices_of(self, lease: Lease | None) -> dict[str, str]:
        if lease is not None:
            return lease.environment()
        return {} if self._sees_devices else environment_for(())

    async def _bring_up(self, process: RunnerProcess) -> Runner:
        """Return a runner that is ready for work. Whatever goes wrong, no process is left behind."""
        process.output.label = self.app.name
        process.output.on_dropped = self._meters.output_dropped
        self._meters.runner_started()
        try:
            async with asyncio.timeout(self.app.startup_timeout):
                apps = await process.link.hello
                if all(app.name != self.app.name for app in apps):
                    raise FileFault(
                        self.app.file, self.app.line, f"the app {self.app.name!r} is not here any more"
                    )
                process.link.setup(self.app.name)
                await process.link.ready
        except BaseException as error:
            try:
                await process.kill()
            finally:
                self._meters.runner_ended("load_failed")
            if isinstance(error, RequestError):  # its link broke: it died, and may have said of what
                error.add_note("\n".join([process.ending, *process.output.last_lines]))
            raise
        return Runner(process, self.app, self._limits)

    async def _serve(self, runner: Runner) -> None:
        """Let a runner work until it dies or is to leave, and see it off."""
        self.runners.append(runner)
        self._has_been_ready, self.fault = True, None
        self._has_outcome.set()
        self._restarts.started()
        runner.link.on_released = self._released
        if self._is_winding_down:
            runner.leave(Leaving.REPLACED)
        _log.info("%s is ready (runner %d)", self.app.name, runner.process.pid)
        self.on_ready()
        try:
            await asyncio.wait({runner.link.closed, runner.is_leaving}, return_when=asyncio.FIRST_COMPLETED)
            await self._see_off(runner)
        except asyncio.CancelledError:
            runner.leave(Leaving.NODE)
            await runner.process.stop()
            raise
        finally:
            self.runners.remove(runner)
            self._meters.runner_ended((runner.leaving or Leaving.DIED).value)

    async def _see_off(self, runner: Runner) -> None:
        """End a runner once nobody wants anything of it any more; what is stuck in it is ended with it."""
        name, pid = self.app.name, runner.process.pid
        if runner.leaving is None:
            runner.leave(Leaving.DIED)
        elif not runner.is_lost:
            _log.info("runner %d of %s leaves: %s", pid, name, runner.leaving.value)
            self.match()  # its successor need not wait for its end
            deadline = self._now() + self.app.request_timeout
            while runner.link.holds_wanted and not runner.is_lost and self._now() < deadline:
                await asyncio.wait({runner.link.closed}, timeout=0.1)
        if not runner.is_lost:
            await runner.process.stop()
            return
        if pause_s := self._restarts.died(self._now()):
            self._not_before = self._now() + pause_s  # at once: who comes while it is ended asks for another
        await runner.process.kill()
        story = runner.process.ending if runner.leaving is Leaving.DIED else runner.link.last_words
        _log.error("runner %d of %s is lost: %s", pid, name, story)
        if pause_s:
            self._fail_in_a_crash_loop(runner, pause_s)

    def _released(self) -> None:
        self._restarts.served()
        self.on_room()

    # --- what goes wrong --------------------------------------------------------------------------------

    def _fail_in_a_crash_loop(self, runner: Runner, pause_s: float) -> None:
        limits = self._limits
        self._fail(
            f"{self.app.file}:{self.app.line}: runners of {self.app.cls} die again and again "
            f"({limits.crashes_max} in {limits.crash_window_s:g} s, nothing served); {runner.process.ending}",
            "\n".join(runner.process.output.last_lines),
            pause_s,
        )

    def _failed_to_start(self, error: Exception) -> None:
        notes = "\n".join(getattr(error, "__notes__", ()))
        self._fail(_told(error, self.app), notes, self._restarts.failed())

    def _fail(self, fault: str, story: str, pause_s: float) -> None:
        self._not_before = self._now() + pause_s
        _log.error("%s; next try in %g s%s", fault, pause_s, f":\n{story}" if story else "")
        if not self.working:  # else others still serve
            self.fault = fault
            self.on_failing()
        self._has_outcome.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def retry_after_s(self) -> int:
        """Seconds until the next try to start a runner, at least 1: what `Retry-After` says."""
        return max(1, round(self._not_before - self._now()))


def _told(error: Exception, app: AppSpec) -> str:
    match error:
        case TimeoutError():
            return f"{app.file}:{app.line}: setup() of {app.cls} took longer than {app.startup_timeout:g} s"
        case RequestError():
            return f"{app.file}:{app.line}: the runner of {app.cls} died while it was starting"
        case _:
            return str(error)
