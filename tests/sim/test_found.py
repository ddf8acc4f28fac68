"""What the simulation has found, each fault in a small world of its own, so that it stays found."""

import asyncio
import dataclasses

import pytest

from headrace.core.limits import Limits
from tests.sim.natures import Course, Nature
from tests.sim.scene import Scene


def test_a_request_that_a_reload_hands_over_is_told_of_its_own_deadline():
    class Reload(Scene):
        def course(self):
            return Course(end="never")

        async def storm(self):
            self.client()
            await asyncio.sleep(0.1)
            self.client()
            await asyncio.sleep(0.1)
            self.client(**{"x-fal-request-start-timeout": "4"})
            await asyncio.sleep(2)
            self.versions += 1
            await asyncio.sleep(5)

    world = Reload(dataclasses.replace(Limits(), drain_s=0.5), request_timeout=30.0, first_event_timeout=0.0)
    world.run()  # that nobody waits longer than he wants to is checked all along

    assert [200, 200, 504] == [client.status for client in world.clients]
    assert "user" == world.clients[2].headers["x-fal-request-timeout-type"]
    assert b"within 4 s" in world.clients[2].body


def test_a_node_that_stops_while_a_failed_start_is_being_ended_ends_it_all_the_same():
    class StopsMeanwhile(Scene):
        def nature(self):
            # The pipes stay open, so that its end takes a second.
            return Nature(birth="mute", orphan_keeps_pipes=True) if self.is_storm else Nature()

        async def storm(self):
            await asyncio.sleep(0.2)  # it is ready
            self.kernel.children[1_000].end(1)
            await asyncio.sleep(2.8)  # its successor is given up 2 s after its start; the node stops a second on

    world = StopsMeanwhile(dataclasses.replace(Limits(), drain_s=0.5), startup_timeout=3.0)
    world.run()  # that every runner which started is counted among the ended, and gone, is checked at the end

    assert {"died", "load_failed"} <= world.runner_ends()


@pytest.mark.parametrize("turns", range(14))
def test_a_node_that_stops_while_a_changed_file_is_loaded_just_stops_and_leaves_no_process(turns):
    """Whatever has just been done and whatever is next: the stop comes so many turns of the loop after the start."""

    class StopsThen(Scene):
        def nature(self):
            if self.is_storm:
                self.has_started.set()
            return Nature(hello_s=0.0)

        async def storm(self):
            self.has_started = asyncio.Event()
            await asyncio.sleep(0.2)
            self.versions += 1
            await self.has_started.wait()

        async def drain(self):
            for _ in range(turns):
                await asyncio.sleep(0)

    world = StopsThen(Limits())
    world.run()  # that nothing is raised, and no process left behind, is checked at the end

    assert [1_000, 1_001] == list(world.kernel.children)
