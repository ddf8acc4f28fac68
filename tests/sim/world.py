"""One storm, from its seed: the real node on a virtual clock, among simulated runners and clients.

Real are the gateway's views, the whole supervisor, the core and the store; simulated are the clocks, the sockets, the
processes, what runs in them, the disk, and the people. What must hold is in `checks`, `records` and the looks.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from headrace.core.limits import Limits
from headrace.core.spec import AppSpec
from headrace.supervisor.catalog import Loaded
from headrace.supervisor.pool import Pool
from tests.sim.callers import Caller, Wish
from tests.sim.checks import Checks
from tests.sim.clients import Client, Habit
from tests.sim.clock import VirtualLoop
from tests.sim.disk import Disk
from tests.sim.looks import Looks
from tests.sim.machine import instead_of_the_machine
from tests.sim.natures import Course, Nature
from tests.sim.node import Node
from tests.sim.plan import Plan, changed
from tests.sim.processes import Kernel
from tests.sim.queue_looks import QueueLooks
from tests.sim.records import Records

#: Seconds since 1970, where the virtual time begins.
_BEGAN_S = 1_700_000_000.0

Tell = Callable[[str], None]


class World:
    """Everything of one seed. `tell`, if given, gets the story line by line. An odd seed has a queue."""

    def __init__(self, seed: int, tell: Tell | None = None, plan: Plan | None = None) -> None:
        self.dice = Random(seed)
        self.plan = plan or Plan.draw(self.dice, has_queue=bool(seed % 2))
        self.loop = VirtualLoop()
        self.kernel = Kernel()
        self._tell = tell
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self.checks = Checks(self)
        self.records = Records(self)
        self.looks = Looks(self)
        self.queue_looks = QueueLooks(self)
        self.lives: list[Node] = []
        self.pools: dict[Pool, None] = {}  # every one that was ever looked up in this life
        self.clients: list[Client] = []
        self.active_clients: dict[Client, None] = {}
        self.callers: dict[str, Caller] = {}  # by their agent
        self.start_timeouts: dict[str, float] = {}  # of clients, by their agent
        self.is_storm = self.plan.loads_rough
        self.has_begun = False
        self.is_ending = False
        self.has_failed = False  # some runner did not come up, or died
        self._versions, self._edited_ns = 1, 0  # of the target's file
        self.offset_s = 0.0  # of the wall clock, by its jumps
        self.disk = Disk(self)
        self._is_restarting = False
        self._apps = self.plan.apps

    @property
    def limits(self) -> Limits:
        """The node's bounds."""
        return self.plan.limits

    @property
    def node(self) -> Node:
        """The node of today, or of yesterday while there is none."""
        return self.lives[-1]

    @property
    def is_told(self) -> bool:
        """Whether anybody listens to the story."""
        return self._tell is not None

    def wall_s(self, node: Node | None = None) -> float:
        """Return the time of the wall clock; as a node has it for which it never jumped, where one is given."""
        return _BEGAN_S + self.loop.time() + (self.offset_s if node is None else node.offset_s)

    def is_served(self, app: str) -> bool:
        """Whether the node of today serves an app; what is queued for another waits until somebody does."""
        return not self.node.is_up or app in self.node.catalog.routes.apps

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
            self._timers.append(self.loop.call_later(after_s, act, context=self.loop.outside))

    def look_for_pools(self) -> None:
        """Remember the pools of today."""
        for pool in self.node.catalog.pools.values():
            self.pools[pool] = None

    def runner_ends(self) -> set[str]:
        """Return why runners ended, so far."""
        apps = [app for node in self.lives for app in node.meters._apps.values()]
        counters = [app.numbers.counters["headrace_runner_ends_total"] for app in apps]
        return {reason for counter in counters for (_, reason), count in counter.items() if count.value}

    def met(self) -> set[str]:
        """Return what happened to queued requests, and to the node."""
        ends = ("did not start" if node.fault else "killed" if node.is_killed else "" for node in self.lives)
        stops = ("stopped meanwhile" for node in self.lives[:-1] if node.is_stopping and not node.is_killed)
        return {*self.records.met, *ends, *stops}

    # --- the whole of it --------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through it. Raises `Violation` for a broken promise, and whatever else goes wrong."""
        self.note(str(self.plan))
        with instead_of_the_machine(self):
            self.loop.run(self._main(), self._at_end)
            if self.checks.violation is not None:
                raise self.checks.violation

    def _at_end(self) -> None:
        self.looks.nothing_is_left()
        self.checks.is_over = True

    async def _main(self) -> None:
        await self._start()
        if self.node.fault is not None:
            assert self.plan.loads_rough, self.node.fault
            self._forget_timers()
            return
        self.is_storm = self.has_begun = True
        self.loop.after_turn, self.loop.at_rest = self.looks.after_turn, self.looks.at_rest
        await self.storm()
        if not self.plan.stops_in_storm:
            await self._calm()
        while self._is_restarting:
            await asyncio.sleep(0.5)
        self.is_ending = True
        self.note("the node is to stop")
        await self.node.stop()
        for client in self.clients:
            client.hang_up()
        while left := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(left)
        self._forget_timers()
        self.kernel.bury_orphans()

    def _forget_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    async def storm(self) -> None:
        """Have clients come, files edited, clocks jump and nodes die, at random."""
        plan, dice = self.plan, self.dice
        for _ in range(plan.reloads):
            self.later(dice.random() * (plan.arrive_within_s + 5), self.edit)
        for after_s, kills in plan.restarts:
            self.later(after_s, lambda kills=kills: self.spawn(self.restart(kills=kills)))
        for after_s, by_s in plan.jumps:
            self.later(after_s, lambda by_s=by_s: self._jump(by_s))
        comers = [self._add_drawn_client] * plan.clients + [self._add_drawn_caller] * plan.callers
        dice.shuffle(comers)
        arrivals = sorted(dice.random() * plan.arrive_within_s for _ in comers)
        for come, at, behind in zip(comers, arrivals, [0.0, *arrivals], strict=False):
            if at > behind:
                await asyncio.sleep(at - behind)
            come(dice.choice(plan.apps).name)
        await asyncio.sleep(dice.choice((0.0, 5.0, 40.0)))

    async def _calm(self) -> None:
        """The storm is over: from now on whoever starts is of good nature, and all there is comes to its end."""
        self.note("the storm is over")
        self.is_storm = False
        self.disk.heal()
        self.versions += 1  # what could not be loaded in the storm can be now
        deadline = self.loop.time() + self.plan.ends_within_s
        while not (all(task.done() for task in self._tasks) and self.node.is_up and self._is_settled()):
            if self.loop.time() > deadline:
                self.looks.after_the_storm()  # it knows what is wrong
                self.checks.fail(f"clients wait for ever: {[task for task in self._tasks if not task.done()]}")
            for client in tuple(self.active_clients):
                if client.waits_for is not None and not self.is_served(client.waits_for):
                    client.leave()  # nothing will ever come
            await asyncio.sleep(1.0)
        self.looks.after_the_storm()

    def _is_settled(self) -> bool:
        node = self.node
        return (
            not any(self.is_served(live.route.app.name) for live in node.dispatcher._live.values())
            and not any(self.is_served(record.app) for record in self.records.open)
            and not any(self.is_served(ticket.new.app) for ticket in node.queue._tickets.values())
            and all(
                pool.fleet.working == len(pool.fleet.runners) == pool.app.min_concurrency
                and not pool.fleet._starting
                for pool in node.catalog.pools.values()
            )
        )

    # --- the node -----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Start a node; it may have failed to."""
        node = Node(self, len(self.lives) + 1)
        self.lives.append(node)
        self.pools.clear()
        starting = node.do(node.start(), "start")
        starting.add_done_callback(self.must_be_well, context=self.loop.outside)
        await node.has_begun.wait()
        if node.fault is not None:
            told = str(node.fault).replace(str(self.disk.folder), "DATA_DIR")  # which is another in every run
            self.note(f"the node does not start: {told}")
        if node.fault is not None and node.life > 1:  # of the first there is nothing left
            node.die()

    async def restart(self, *, kills: bool) -> None:
        """End the node, whatever it is at, and start another on the same disk."""
        if self._is_restarting or self.is_ending or not self.is_storm:
            return
        self._is_restarting = True
        self.note(f"the node is {'killed' if kills else 'told to stop'}")
        if kills:
            self.node.die()
        else:
            await self.node.stop()
        self.pools.clear()
        await asyncio.sleep(self.dice.choice((0.0, 0.1, 3.0)))
        await self._start()
        while not self.node.is_up:
            await asyncio.sleep(1.0)
            await self._start()
        self._is_restarting = False

    async def drain(self) -> None:
        """What a node that is told to stop does first."""
        await self.node.drain()

    def _jump(self, by_s: float) -> None:
        if self.is_storm:
            self.note(f"the wall clock jumps by {by_s} s")
            self.offset_s += by_s

    def edit(self) -> None:
        """Somebody edits the file, if the storm is not over."""
        if not self.is_storm:
            return
        self.versions += 1
        self._apps = changed(self._apps, self.dice)
        self.note(f"the file is changed: {self._apps}")

    @property
    def versions(self) -> int:
        """How many there were of the target's file."""
        return self._versions

    @versions.setter
    def versions(self, number: int) -> None:
        self._versions = number
        self._edited_ns = max(self._edited_ns + 1, int(self.wall_s() * 1e9))

    def stamps(self, one: Loaded) -> dict[Path, int]:
        """Return when the files of a target were changed."""
        return {Path(one.target): self._edited_ns}

    # --- the people ---------------------------------------------------------------------------------------

    def _add_drawn_client(self, app: str) -> None:
        self.add_client(Habit.draw(self.dice, app, self.plan.rough_clients))

    def _add_drawn_caller(self, app: str) -> None:
        number = len(self.callers) + 1
        self.add_caller(Wish.draw(self.dice, app, number, self.plan.rough_clients))

    def add_client(self, habit: Habit, agent: str | None = None) -> None:
        """Have one more client come, with a direct request."""
        client = Client(self, len(self.clients) + 1, habit, agent)
        if wait_s := habit.headers.get("x-fal-request-start-timeout"):
            self.start_timeouts[client.agent] = float(wait_s)
        self.clients.append(client)
        self.active_clients[client] = None
        self.note(f"client {client.number}: {habit}")
        self.spawn(client.run())

    def add_caller(self, wish: Wish) -> Caller:
        """Have one more caller come, with a request for the queue."""
        caller = Caller(self, len(self.callers) + 1, wish)
        self.callers[caller.agent] = caller
        self.note(f"caller {caller.number}: {wish}")
        self.spawn(caller.run())
        return caller

    def spawn(self, act: Coroutine[Any, Any, None]) -> None:
        """Do something in a task of its own. Nothing may be raised there."""
        task = self.loop.create_task(act)
        task.add_done_callback(self.must_be_well)
        self._tasks.append(task)

    def must_be_well(self, task: asyncio.Task[Any]) -> None:
        """Nothing may be raised in a task."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.checks.note(False, f"a task raised {error!r}", error)
