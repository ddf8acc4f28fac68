"""A small calm world, in which only what a test writes down happens."""

from __future__ import annotations

import dataclasses
from random import Random

from headrace.core.limits import Limits
from tests.sim.callers import Caller, QueueCall, Wish
from tests.sim.clients import Habit
from tests.sim.disk import DiskPlan
from tests.sim.natures import Course, Nature
from tests.sim.plan import Plan
from tests.sim.wire import Pace
from tests.sim.world import World

QUIET = dataclasses.replace(Limits(), drain_s=0.5)
HEADERS = {"host": "127.0.0.1", "content-type": "application/json"}


class Scene(World):
    """A calm world with one app of one slot, in which only what a test writes down happens."""

    def __init__(self, limits: Limits, **knobs: object) -> None:
        drawn = Plan.draw(Random(0), has_queue=False)
        calm = {
            "max_multiplexing": 1,
            "min_concurrency": 1,
            "max_concurrency": 1,
            "num_gpus": 0,
            "memory_limit": 0,
        }
        app = dataclasses.replace(drawn.apps[0], name="sim/model", **{**calm, **knobs})
        plan = dataclasses.replace(
            drawn, limits=limits, apps=(app,), devices=(), pace=Pace(0.0, 0.0, 1 << 17), reloads=1,
            loads_rough=False, stops_in_storm=True, restarts=(), jumps=(), disk=DiskPlan(), result_age_s=3_600.0,
        )  # fmt: skip
        super().__init__(0, plan=plan)

    def nature(self) -> Nature:
        return Nature()

    def course(self) -> Course:
        return Course()

    def client(self, **headers: str) -> None:
        """Have one more patient client come, for a stream."""
        self.add_client(Habit("/sim/model/stream", headers={**HEADERS, **headers}))


class QueueScene(Scene):
    """A calm world whose callers come when a test says so."""

    def __init__(self, limits: Limits = QUIET, **knobs: object) -> None:
        super().__init__(limits, **{"request_timeout": 30.0, "first_event_timeout": 0.0, **knobs})

    def caller(self, *visits: tuple[float, str], **more: object) -> Caller:
        """Have a caller come, and look at its request at these times after its submit."""
        headers = {**HEADERS, **more.pop("headers", {})}
        return self.add_caller(Wish("sim/model", headers=headers, visits=visits, **more))

    def fail_once(self, where: str) -> None:
        """Have the next transaction fail there: "commit", or "committed" for one whose answer is lost."""
        fails = iter([where])
        self.disk.fails_where = lambda: next(fails, "")

    def lose_answer(self, number: int) -> None:
        """Have nobody told of a transaction in time, counted from the next one."""
        waits = iter([0.001, 0.001] * (number - 1) + [0.001, 40.0])
        self.disk.commit_s = lambda: next(waits, 0.001)
        self.disk.troubled_at, self.disk.has_failed = self.loop.time() + 50, True

    def endings(self) -> list[str | None]:
        """How each request has ended."""
        return [one.ending and (one.ending.error_type or one.ending.state) for one in self.records.all.values()]

    def told(self, action: str) -> list[QueueCall]:
        """The calls of one kind."""
        return [one for one in self.clients if isinstance(one, QueueCall) and one._action == action]
