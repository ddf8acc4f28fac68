"""One storm, from its seed: the real node on a virtual clock, among simulated runners and clients.

Real are the gateway's views, the whole supervisor and the core; simulated are the clock, the sockets, the
processes, what runs in them, and the people. What must hold is in `checks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from headrace.core.errors import FileFault, RequestError
from headrace.core.limits import Limits
from headrace.core.request import RequestId, new_request_id
from headrace.core.spec import AppSpec
from headrace.supervisor import catalog, dispatch, group, process
from headrace.supervisor.catalog import Catalog, Loaded, LoadFault, load_all
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.meters import Meters
from headrace.supervisor.pool import Pool
from headrace.supervisor.streams import LiveRequest
from tests.sim.checks import Checks, Violation
from tests.sim.clients import Client, Habit
from tests.sim.clock import VirtualLoop
from tests.sim.looks import Looks
from tests.sim.natures import Course, Nature
from tests.sim.plan import Plan, changed
from tests.sim.processes import Kernel, SimLauncher
from tests.sim.views import Views

_TARGET = "model.py"
_log = logging.getLogger("headrace")

Tell = Callable[[str], None]


class World:
    """Everything of one seed. `tell`, if given, gets the story line by line."""

    def __init__(self, seed: int, tell: Tell | None = None, plan: Plan | None = None) -> None:
        self.dice = Random(seed)
        self.plan = plan or Plan.draw(self.dice)
        self.loop = VirtualLoop()
        self.kernel = Kernel()
        self.checks = Checks(self)
        self.looks = Looks(self)
        self.meters = Meters()
        self.pools: dict[Pool, None] = {}  # every one that was ever looked up
        self.clients: list[Client] = []
        self.active_clients: dict[Client, None] = {}
        self.start_timeouts: dict[str, float] = {}  # of clients, by their agent
        self.is_storm = self.plan.loads_rough
        self.is_stopping = False
        self.has_failed = False  # some runner did not come up, or died
        self.versions = 1  # of the target's file
        self.launcher: SimLauncher
        self.catalog: Catalog
        self.dispatcher: Dispatcher
        self.gateway: Views
        self._apps = self.plan.apps
        self._tell = tell
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def limits(self) -> Limits:
        """The node's bounds."""
        return self.plan.limits

    def specs(self) -> tuple[AppSpec, ...]:
        """What is in the target's file now."""
        return self._apps

    def nature(self) -> Nature:
        """Draw what the next process will be like."""
        return Nature.draw(self.dice, self.plan.rough_births if self.is_storm else 0.0)

    def course(self) -> Course:
        """Draw what the next call will do."""
        return Course.draw(self.dice, self.plan.rough_calls if self.is_storm else 0.0, self.limits)

    def note(self, what: str) -> None:
        """Tell what happens."""
        if self._tell is not None:
            self._tell(f"{self.loop.time():12.6f}  {what}")

    def later(self, after_s: float, act: Callable[[], None]) -> None:
        """Have something happen, unless the world ends before."""
        if after_s < math.inf:
            self._timers.append(self.loop.call_later(after_s, act))

    def look_for_pools(self) -> None:
        """Remember the pools of today."""
        for pool in self.catalog.pools.values():
            self.pools[pool] = None

    def runner_ends(self) -> set[str]:
        """Return why runners ended, so far."""
        counters = [app.numbers.counters["headrace_runner_ends_total"] for app in self.meters._apps.values()]
        return {reason for counter in counters for (_, reason), count in counter.items() if count.value}

    # --- the whole of it --------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through it. Raises `Violation` for a broken promise, and whatever else goes wrong."""
        self.note(str(self.plan))
        with _instead_of_the_machine(self):
            self.loop.run(self._main())
            self.looks.nothing_is_left()
            if self.checks.violation is not None:
                raise self.checks.violation

    async def _main(self) -> None:
        self.launcher = SimLauncher(self)
        try:
            loaded = await load_all([_TARGET], self.launcher, self.limits)
        except (FileFault, LoadFault, OSError) as fault:
            self.note(f"it could not be loaded: {fault}")
            assert self.plan.loads_rough
            return
        self.is_storm = True
        self.catalog = Catalog(loaded, {}, self.launcher, self.limits, self.meters)
        self.dispatcher = _CountingDispatcher(self)
        self.gateway = Views(self)
        self.loop.after_turn, self.loop.at_rest = self.looks.after_turn, self.looks.at_rest
        async with asyncio.TaskGroup() as tasks:
            node = [
                tasks.create_task(self.catalog.run(reload=bool(self.plan.reloads)), name="catalog"),
                tasks.create_task(self.dispatcher.hold_within_bounds(), name="memory"),
            ]
            await self.storm()
            if not self.plan.stops_in_storm:
                await self._calm()
            await self.drain()
            for task in node:
                task.cancel()
        for timer in self._timers:
            timer.cancel()
        self.kernel.bury_orphans()

    async def storm(self) -> None:
        """Have clients come, and the file edited, at random."""
        plan, dice = self.plan, self.dice
        for _ in range(plan.reloads):
            self.later(dice.random() * (plan.arrive_within_s + 5), self.edit)
        arrivals = sorted(dice.random() * plan.arrive_within_s for _ in range(plan.clients))
        for at, behind in zip(arrivals, [0.0, *arrivals], strict=False):
            if at > behind:
                await asyncio.sleep(at - behind)
            app = dice.choice(plan.apps)
            self.add_client(Habit.draw(dice, app.name, plan.rough_clients))
        await asyncio.sleep(dice.choice((0.0, 5.0, 40.0)))

    async def _calm(self) -> None:
        """The storm is over: from now on whoever starts is of good nature, and all there is comes to its end."""
        self.note("the storm is over")
        self.is_storm = False
        self.versions += 1  # what could not be loaded in the storm can be now
        deadline = self.loop.time() + self.plan.ends_within_s
        while not (all(task.done() for task in self._tasks) and not self.dispatcher.live and self._is_settled()):
            if self.loop.time() > deadline:
                self.looks.after_the_storm()  # it knows what is wrong
                self.checks.fail(f"clients wait for ever: {[task for task in self._tasks if not task.done()]}")
            await asyncio.sleep(1.0)
        self.looks.after_the_storm()

    def _is_settled(self) -> bool:
        return all(
            pool.fleet.working == len(pool.fleet.runners) == pool.app.min_concurrency and not pool.fleet._starting
            for pool in self.catalog.pools.values()
        )

    async def drain(self) -> None:
        """As `headrace.node` does it."""
        self.note("the node is to stop")
        self.is_stopping = self.dispatcher.is_draining = True
        await self.dispatcher.finished(self.limits.drain_s, asyncio.Event())
        self.dispatcher.end_all()
        await asyncio.sleep(1.0)
        for client in self.clients:
            client.hang_up()
        await asyncio.gather(*self._tasks)

    def edit(self) -> None:
        """Somebody edits the file, if the storm is not over."""
        if not self.is_storm:
            return
        self.versions += 1
        self._apps = changed(self._apps, self.dice)
        self.note(f"the file is changed: {self._apps}")

    def add_client(self, habit: Habit, agent: str | None = None) -> None:
        """Have one more client come."""
        client = Client(self, len(self.clients) + 1, habit, agent)
        if wait_s := habit.headers.get("x-fal-request-start-timeout"):
            self.start_timeouts[client.agent] = float(wait_s)
        self.clients.append(client)
        self.active_clients[client] = None
        self.note(f"client {client.number}: {habit}")
        self.spawn(client.run())

    def spawn(self, act: Coroutine[Any, Any, None]) -> None:
        """Do something in a task of its own. Nothing may be raised there."""
        task = self.loop.create_task(act)
        task.add_done_callback(self._must_be_well)
        self._tasks.append(task)

    def _must_be_well(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.checks.fail(f"a call to the gateway raised {error!r}")

    def stamps(self, one: Loaded) -> dict[Path, int]:
        """Return when the files of a target were changed."""
        return {Path(one.target): self.versions}


class _CountingDispatcher(Dispatcher):
    """The real dispatcher, with ids from the seed, whose refusals are counted."""

    def __init__(self, world: World) -> None:
        super().__init__(world.catalog, world.meters, node=7, limits=world.limits)
        self._world = world

    def new_id(self) -> RequestId:
        return new_request_id(self._world.dice.randbytes(16), 7)

    def open(self, *args: Any, **kwargs: Any) -> LiveRequest:
        try:
            return super().open(*args, **kwargs)
        except RequestError:
            self._world.checks.refused += 1
            raise


class _Log(logging.Handler):
    """What the node logs is part of the story; a traceback in it is a fault of ours."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        world = self._world
        world.has_failed |= record.levelno >= logging.ERROR
        if world._tell is not None:
            world.note(f"log: {record.getMessage()}")
        if record.exc_info:
            world.checks.violation = world.checks.violation or _told(record)


def _told(record: logging.LogRecord) -> Any:
    violation = Violation(f"a fault was logged: {record.getMessage()}")
    violation.__cause__ = record.exc_info[1] if record.exc_info else None
    return violation


def _with_a_clock() -> list[ModuleType]:
    """Return the modules of the node that read the clock by themselves, not by their loop."""
    ours = [module for name, module in sys.modules.items() if name.startswith("headrace.")]
    return [module for module in ours if vars(module).get("monotonic") is time.monotonic]


@contextlib.contextmanager
def _instead_of_the_machine(world: World) -> Iterator[None]:
    """Put the clock, the processes and the kernel of `world` where the node looks for the machine's."""
    kernel = world.kernel
    places = [
        *((module, "monotonic", world.loop.time) for module in _with_a_clock()),
        *((group, name, getattr(kernel, name)) for name in ("is_gone", "members", "state_of", "memory_of")),
        (group, "exact_memory_of", kernel.memory_of),
        (process, "os", kernel),
        (dispatch, "LiveRequest", world.checks.watched),
        (catalog, "_stamps", world.stamps),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    handler, level, propagates = _Log(world), _log.level, _log.propagate
    for place, name, stand_in in places:
        setattr(place, name, stand_in)
    _log.addHandler(handler)
    _log.setLevel(logging.INFO if world._tell is not None else logging.ERROR)
    _log.propagate = False
    world.loop.set_exception_handler(lambda _, context: _note_exception(world, context))
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        _log.propagate = propagates
        for place, name, real in before:
            setattr(place, name, real)


def _note_exception(world: World, context: dict[str, Any]) -> None:
    if world.checks.violation is None:
        world.checks.violation = Violation(f"nobody caught this: {context}")
        world.checks.violation.__cause__ = context.get("exception")
