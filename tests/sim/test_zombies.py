"""What a node that was thought dead still writes of its attempts is refused; and it would be seen if it were not."""

import asyncio

import pytest

from tests.sim.faults import planted
from tests.sim.natures import Course
from tests.sim.queue_faults import FENCES
from tests.sim.seeds import broken
from tests.sim.scene import QueueScene

pytestmark = pytest.mark.promise("Q2")


class Zombie(QueueScene):
    """The node dies when its attempt has yet to write something, which comes when the next attempt runs."""

    def __init__(self, writes: str) -> None:
        super().__init__()
        self.writes = writes

    def course(self):
        return Course(events=1) if len(self.lives) == 1 else Course(events=3, first_s=5.0)

    async def storm(self):
        self.disk.deliver_late = lambda _: None
        before = {"append": 2, "finish": 3}[self.writes]  # submit, start, append: each waits, and its answer does
        waits = iter([0.001, 0.001] * before)
        self.disk.commit_s = lambda: next(waits, 60.0)
        self.caller()
        await asyncio.sleep(1)
        self.node.die()
        self.disk.commit_s = lambda: 0.001
        await self._start()
        await asyncio.sleep(3)
        del self.disk.deliver_late
        self.late = [one.run.__qualname__.split(".")[1] for one in self.disk.late]
        self.disk.deliver_late(self.node)
        await asyncio.sleep(20)
        self.queue_looks.after_the_storm()


@pytest.mark.parametrize("writes", FENCES)
def test_what_a_zombie_writes_of_an_attempt_that_was_given_up_is_refused(writes):
    world = Zombie(writes)
    world.run()  # that the result and the events are the second attempt's alone is checked

    assert [writes] == world.late
    assert "came late" in world.records.met
    assert ["completed"] == world.endings()


@pytest.mark.parametrize("writes", FENCES)
def test_a_fence_that_is_down_is_found(writes):
    fault, promise = FENCES[writes]

    with planted(fault):
        found = broken(Zombie(writes))

    assert promise in (found or "nothing"), found
