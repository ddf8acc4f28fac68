"""A small calm world, in which only what a test writes down happens."""

from __future__ import annotations

import dataclasses
from random import Random

from headrace.core.limits import Limits
from tests.sim.clients import Habit
from tests.sim.disk import DiskPlan
from tests.sim.natures import Course, Nature
from tests.sim.plan import Plan
from tests.sim.wire import Pace
from tests.sim.world import World

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
