"""One life of the node: built, run and taken down as `headrace.node` does it, or killed.

All of it happens in a context of its own (`clock.LIFE`), so that it can be ended at any moment as by `kill -9`. What
outlives it is the disk; and its runners, for as long as they need to notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from headrace.core.errors import RequestError
from headrace.core.request import RequestId, new_request_id
from headrace.supervisor.catalog import Catalog, load_all
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.meters import Meters
from headrace.supervisor.pool import Pool
from headrace.supervisor.queue import Queue
from headrace.supervisor.streams import LiveRequest
from headrace.supervisor.tickets import Ticket
from tests.sim.clock import LIFE
from tests.sim.processes import SimLauncher
from tests.sim.views import Views

if TYPE_CHECKING:
    from headrace.store.sqlite import SqliteStore
    from tests.sim.clients import Client
    from tests.sim.world import World

TARGET = "model.py"

#: Seconds that what a node has left behind may take to end: a runner's last words are waited for.
_SETTLE_S = 0.5


class Node:
    """A node from its start to its end."""

    def __init__(self, world: World, life: int) -> None:
        self.life = life
        self.context = world.loop.outside.copy()
        self.context.run(LIFE.set, life)
        self.meters = Meters()
        self.launcher = SimLauncher(world)
        self.offset_s = world.offset_s  # of the wall clock, when its own began
        self.refused = 0
        self.began_at = 0.0
        self.is_up = False
        self.is_killed = False
        self.is_stopping = False
        self.has_begun = asyncio.Event()  # or has failed to, or was killed meanwhile
        self.fault: Exception | None = None  # why it did not begin
        self.clients: dict[Client, None] = {}  # connected
        self.catalog: Catalog
        self.dispatcher: Dispatcher
        self.store: SqliteStore
        self.queue: Queue
        self.views: Views
        self._world = world
        self._tasks: list[asyncio.Task[Any]] = []

    def do(self, act: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Do something within this life."""
        return self._world.loop.create_task(act, context=self.context.copy(), name=name)

    async def start(self) -> None:
        """Load, open the store, and begin to serve; `fault` says why it could not."""
        world = self._world
        try:
            loaded = await load_all([TARGET], self.launcher, world.limits)
            self.catalog = Catalog(loaded, {}, self.launcher, world.limits, self.meters)
            self.dispatcher = _CountingDispatcher(self)
            self.store = world.disk.open()
            self.queue, self.offset_s = _WatchedQueue(self), world.offset_s
            self.views = Views(self, world.limits, world.loop.time)
            await self.queue.open()
        except Exception as fault:  # a process that cannot start says why, and ends
            self.fault = fault
            self.has_begun.set()
            return
        self._tasks = [
            self.do(self.catalog.run(reload=bool(world.plan.reloads)), "catalog"),
            self.do(self.dispatcher.hold_within_bounds(), "memory"),
            self.do(self.queue.run(), "queue"),
        ]
        for task in self._tasks:
            task.add_done_callback(world.must_be_well, context=world.loop.outside)
        self.is_up, self.began_at = True, world.loop.time()
        self.has_begun.set()
        world.disk.deliver_late(self)

    async def stop(self) -> None:
        """As SIGTERM does it. Nothing of it is left then."""
        await asyncio.wait([self.do(self._world.drain())])
        for client in tuple(self.clients):
            client.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self.is_up = False
        await asyncio.wait([self.do(self.store.close())])
        await asyncio.sleep(_SETTLE_S)

    async def drain(self) -> None:
        """Let what runs finish, for a while, and end the rest."""
        self.is_stopping = True
        self.dispatcher.drain()
        await self.dispatcher.finished(self._world.limits.drain_s, asyncio.Event())
        self.dispatcher.end_all()
        await asyncio.sleep(1.0)

    def die(self) -> None:
        """As `kill -9` does it."""
        world = self._world
        world.loop.kill(self.life)
        self.is_killed, self.is_up = True, False
        for client in tuple(self.clients):
            client.cut()
        if hasattr(self, "store"):
            world.disk.die_with(self.store)
        world.kernel.node_died(self.life)
        self.has_begun.set()


class _CountingDispatcher(Dispatcher):
    """The real dispatcher, with ids from the seed, whose refusals are counted."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.catalog, node.meters, node=7, limits=node._world.limits)
        self._of = node

    def new_id(self) -> RequestId:
        return new_request_id(self._of._world.dice.randbytes(16), 7, self._of._world.wall_s())

    def open(self, *args: Any, **kwargs: Any) -> LiveRequest:
        try:
            return super().open(*args, **kwargs)
        except RequestError:
            self._of.refused += 1
            raise


class _WatchedQueue(Queue):
    """The real queue; whoever's turn it is must be next."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.store, node.dispatcher, node._world.limits)
        self._of = node

    def attempt(self, ticket: Ticket, pool: Pool) -> Coroutine[Any, Any, None]:
        self._of._world.queue_looks.is_next(self, ticket)
        return super().attempt(ticket, pool)
