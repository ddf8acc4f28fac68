"""What is served now: the apps, their paths and their pools. It changes as a whole, when a file is reloaded.

A target (`FILE`, `FILE:Class`, `module:Class`) is imported by a runner, which says what is in it; so a fault in
a file is known before anything listens, and a faulty edit never replaces what works.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from headrace.core.errors import FileFault, RequestError
from headrace.core.limits import Limits
from headrace.core.routes import RouteTable
from headrace.core.spec import AppSpec
from headrace.supervisor.fleet import Fleet
from headrace.supervisor.meters import Meters
from headrace.supervisor.pool import Pool
from headrace.supervisor.process import Launcher, RunnerProcess

_log = logging.getLogger(__name__)

#: Seconds between two looks at the files, with --reload.
WATCH_EVERY_S: Final = 0.5


class LoadFault(Exception):
    """Why a target cannot be served, in one line, where no file and line can be named."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A target that a runner has imported, and that runner."""

    target: str
    process: RunnerProcess
    apps: tuple[AppSpec, ...]
    began_at: float  # by the wall clock: when the import began


async def load(target: str, launcher: Launcher, limits: Limits) -> Loaded:
    """Have a runner import a target. Raises `FileFault` or `LoadFault`, and leaves no process behind then."""
    began_at = time.time()
    process = await launcher.start(target)
    try:
        # Not wait_for: until Python 3.12 that loses a cancellation which comes with the answer.
        async with asyncio.timeout(limits.load_timeout_s):
            return Loaded(target, process, await process.link.hello, began_at)
    except BaseException as error:
        await process.kill()
        if isinstance(error, RequestError):
            raise LoadFault(f"{target}: the process that imports it died; its output stands above") from None
        if isinstance(error, TimeoutError):
            raise LoadFault(f"{target}: importing it took longer than {limits.load_timeout_s:g} s") from None
        raise


async def load_all(targets: Sequence[str], launcher: Launcher, limits: Limits) -> list[Loaded]:
    """Load several targets at once; a fault in one ends them all, and is raised."""
    loading = [asyncio.create_task(load(target, launcher, limits)) for target in targets]
    try:
        return list(await asyncio.gather(*loading))
    except BaseException:
        for task in loading:
            task.cancel()
        outcomes = await asyncio.gather(*loading, return_exceptions=True)
        await unload(one for one in outcomes if isinstance(one, Loaded))
        raise


async def unload(loaded: Iterable[Loaded]) -> None:
    """End the runners of targets that will not be served after all."""
    await asyncio.gather(*(one.process.kill() for one in loaded))


class Feeder(Protocol):
    """The durable queue, as the pools know it."""

    def queued(self, app: str) -> int:
        """How many requests of an app are queued."""

    def feed(self, app: str) -> None:
        """Start queued requests of an app while its pool has slots to spare."""


class Catalog:
    """The apps of a node. Whoever needs `routes` or `pools` looks them up anew for each request."""

    def __init__(
        self,
        loaded: Sequence[Loaded],
        aliases: Mapping[str, str],
        launcher: Launcher,
        limits: Limits,
        meters: Meters,
    ) -> None:
        """Raise `FileFault` for names or paths that are claimed twice, or devices that are not there.

        Raise `ValueError` for a bad alias.
        """
        self._aliases = aliases
        self._launcher = launcher
        self._limits = limits
        self._meters = meters
        self.feeder: Feeder | None = None  # the durable queue, once there is one
        self._loaded = {one.target: one for one in loaded}
        self._untaken: list[Loaded] = []  # whose runner is given to a pool that has not begun yet
        self.routes = self._routes(self._loaded)
        self.pools: dict[str, Pool] = {}
        for one in loaded:
            self.pools |= self._new_pools(one, self._loaded)
        self._keep_devices()

    async def run(self, *, reload: bool) -> None:
        """Keep every app's runners up until cancelled; with `reload`, follow the files as they change."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for one in self._loaded.values():
                    self._start(one, self.pools, tasks)
                if reload:
                    for target in self._loaded:
                        tasks.create_task(self._follow(target, tasks), name=f"watch of {target}")
        finally:
            await unload(self._untaken)  # a task that is cancelled before its first step never takes it

    def pool_of(self, app: str) -> Pool:
        """Return where an app's requests go. Raises `RequestError` (404) for one that a reload has taken away."""
        if (pool := self.pools.get(app)) is None:
            raise RequestError("not_found", f"The app {app!r} is not served any more.")
        return pool

    async def unload(self) -> None:
        """End the runners of a catalog that is not run."""
        await unload(self._loaded.values())

    def _routes(self, loaded: Mapping[str, Loaded]) -> RouteTable:
        apps = [app for one in loaded.values() for app in one.apps]
        self._check_devices(apps)
        return RouteTable(apps, self._aliases)

    def _check_devices(self, apps: Sequence[AppSpec]) -> None:
        """Refuse what could never be up at once. Raises `FileFault`."""
        devices, kept_up = self._launcher.devices, 0
        for app in apps:
            if not app.num_gpus:
                continue
            kept_up += app.num_gpus * app.min_concurrency
            try:
                devices.check(max(app.num_gpus, kept_up))
            except ValueError as error:
                so_far = f"num_gpus={app.num_gpus}, with the runners kept up so far"
                raise FileFault(app.file, app.line, f"{so_far}: {error}") from None

    def _keep_devices(self) -> None:
        """See to it that no app's growth takes what another needs for the runners that it keeps up."""
        apps = [app for one in self._loaded.values() for app in one.apps]
        self._launcher.devices.keep({app.name: app.num_gpus * app.min_concurrency for app in apps if app.num_gpus})

    def _new_pools(self, one: Loaded, loaded: Mapping[str, Loaded]) -> dict[str, Pool]:
        # Where some apps have devices to themselves, the others see none.
        nobody_leases = not any(app.num_gpus for other in loaded.values() for app in other.apps)
        pools = {}
        for app in one.apps:
            meters = self._meters.app(app.name)
            fleet = Fleet(app, one.target, self._launcher, self._limits, meters, sees_devices=nobody_leases)
            pool = pools[app.name] = Pool(app, fleet, self._limits)
            pool.queued = partial(self._queued, app.name)
            pool.on_spare_room = partial(self._feed, app.name)
        return pools

    def _queued(self, app: str) -> int:
        return self.feeder.queued(app) if self.feeder is not None else 0

    def _feed(self, app: str) -> None:
        if self.feeder is not None:
            self.feeder.feed(app)

    def _start(self, one: Loaded, pools: Mapping[str, Pool], tasks: asyncio.TaskGroup) -> None:
        # The runner that imported the target goes on as its first app's; the others start their own.
        self._untaken.append(one)
        for number, app in enumerate(one.apps):
            run = self._run_first(pools[app.name], one) if number == 0 else pools[app.name].run(None)
            tasks.create_task(run, name=f"pool of {app.name}")

    async def _run_first(self, pool: Pool, one: Loaded) -> None:
        self._untaken.remove(one)
        await pool.run(one.process)

    # --- reloading --------------------------------------------------------------------------------------

    async def _follow(self, target: str, tasks: asyncio.TaskGroup) -> None:
        """Reload a target each time its files have changed, and have then been left alone for a moment."""
        one = self._loaded[target]
        seen = _stamps(one)
        # Of a file that was changed since the import began nobody knows which version was read.
        served = {file: changed_ns for file, changed_ns in seen.items() if changed_ns < one.began_at * 1e9}
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            before, seen = seen, _stamps(self._loaded[target])
            if seen != before or seen == served:
                continue
            served = seen
            try:
                await self._reload(target, tasks)
            except (FileFault, LoadFault, ValueError, OSError) as fault:
                _log.error("not reloaded, the old one goes on: %s", fault)

    async def _reload(self, target: str, tasks: asyncio.TaskGroup) -> None:
        """Put what is in a target now in the place of what was: new calls go there, running ones finish."""
        one = await load(target, self._launcher, self._limits)
        try:
            loaded = {**self._loaded, target: one}
            routes = self._routes(loaded)
        except BaseException:
            await one.process.kill()
            raise
        successors = self._new_pools(one, loaded)
        self._start(one, successors, tasks)
        faults = []
        if self._fits_beside(one):  # else the old ones must give up their devices first
            faults = [fault for pool in successors.values() if (fault := await pool.fleet.first_outcome())]
        if faults:
            for pool in successors.values():
                pool.hand_over(None)
            raise LoadFault("; ".join(faults))
        predecessors = {app.name: self.pools.pop(app.name) for app in self._loaded[target].apps}
        self._loaded, self.routes = loaded, routes
        self._keep_devices()
        self.pools |= successors
        for name, pool in predecessors.items():
            pool.hand_over(successors.get(name))
        for name in successors:
            self._feed(name)  # they were ready before they could be found
        _log.info("reloaded %s", target)

    def _fits_beside(self, one: Loaded) -> bool:
        """Whether there are devices for the runners of a target while those of its last version still run."""
        needed = sum(app.num_gpus * app.min_concurrency for app in one.apps)
        return needed <= self._launcher.devices.free_for([app.name for app in one.apps])


def _stamps(one: Loaded) -> dict[Path, int]:
    """Return when each Python file beside the target's own was changed: what it imports is often there."""
    folders = {Path(app.file).parent for app in one.apps}
    stamps = {}
    for path in (path for folder in folders for path in folder.glob("*.py")):
        with suppress(OSError):  # gone between the listing and the look
            stamps[path] = path.stat().st_mtime_ns
    return stamps
