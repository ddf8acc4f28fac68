"""What the simulation has found in the queue, each fault in a small world of its own, so that it stays found.

That nothing is told before it is kept, forgotten, passed over, or told in two ways is checked all along, as in a storm.
"""

import asyncio
import dataclasses

import pytest

from tests.sim.callers import QueueCall
from tests.sim.clients import Habit
from tests.sim.natures import Course
from tests.sim.scene import QUIET, QueueScene

# --- nothing is told before it is kept --------------------------------------------------------------------------


def test_a_cancel_that_meets_an_ending_on_its_way_to_the_disk_is_told_to_the_readers_too():
    class MeetsAnEnding(QueueScene):
        def course(self):
            return Course(events=3, gap_s=0.01)

        async def storm(self):
            self.caller((0.1, "stream"))
            await asyncio.sleep(0.3)
            stops = self.caller((0.05, "stream"), (0.4, "cancel"))
            await asyncio.sleep(0.1)
            self.disk.commit_s = lambda: 0.5  # it has begun, and is done before any of that is on the disk
            await asyncio.sleep(20)
            assert stops.has_stopped

    world = MeetsAnEnding()
    world.run()

    assert world.endings()[0] == "completed"
    assert world.endings()[1] in {"completed", "client_cancelled"}
    assert 2 <= len(world.told("stream"))


def test_an_ending_that_cannot_be_kept_yet_is_not_told_yet():
    class FullDisk(QueueScene):
        async def storm(self):
            self.caller((0.02, "stream"))
            await asyncio.sleep(0.05)
            self.disk._fail(5.0, is_gone=False)
            await asyncio.sleep(3)
            self.told_meanwhile = [one.is_complete for one in self.told("stream")]
            await asyncio.sleep(20)

    world = FullDisk()
    world.course = lambda: Course(events=3, first_s=0.2)
    world.run()

    assert [False] == world.told_meanwhile
    assert [True] == [one.is_complete for one in world.told("stream")]


def test_the_deadline_of_a_request_that_is_not_retried_is_told_when_it_is_kept():
    class Stuck(QueueScene):
        def course(self):
            return Course(end="never", on_cancel="late")

        async def storm(self):
            self.caller((0.1, "stream"), headers={"x-fal-no-retry": "1"})
            await asyncio.sleep(20)

    world = Stuck(request_timeout=1.0)
    world.run()

    assert ["request_timeout"] == world.endings()
    assert "request_timeout" == world.told("stream")[0].error["type"]


def test_a_runner_is_not_kept_for_a_queued_request_whose_deadline_has_passed():
    class Hangs(QueueScene):
        def course(self):
            return Course(end="never", on_cancel="stuck")

        async def storm(self):
            self.caller(headers={"x-fal-no-retry": "1"})
            await asyncio.sleep(100)

    world = Hangs(request_timeout=30.0)
    world.run()

    ended = next(iter(world.records.all.values()))
    assert ["request_timeout"] == world.endings()
    assert ended.ended_at < 30 + QUIET.cancel_grace_s + QUIET.kill_grace_s + 1


# --- clocks -----------------------------------------------------------------------------------------------------


@pytest.mark.promise("G6")
@pytest.mark.parametrize("by_s", [3_600.0, -3_600.0])
def test_a_clock_that_jumps_ends_no_wait_forgets_no_result_and_loses_no_lease(by_s):
    class Jumps(QueueScene):
        def course(self):
            return Course(events=1, first_s=20.0)

        async def storm(self):
            self.caller()
            self.caller(headers={"x-fal-request-start-timeout": "30"}, start_timeout_s=30.0)
            self.caller(headers={"x-fal-request-start-timeout": "30"}, start_timeout_s=30.0)
            await asyncio.sleep(5)
            self._jump(by_s)
            await asyncio.sleep(80)

    world = Jumps()
    world.run()

    assert ["completed", "completed", "startup_timeout"] == world.endings()


def test_a_start_deadline_that_passed_while_there_was_no_node_is_told_by_the_next_one():
    class Restarts(QueueScene):
        def course(self):
            return Course(end="never")

        async def storm(self):
            self.caller()
            await asyncio.sleep(0.1)
            self.caller(headers={"x-fal-request-start-timeout": "1"}, start_timeout_s=1.0)
            await asyncio.sleep(0.1)
            self.node.die()
            await asyncio.sleep(5)
            await self._start()
            await asyncio.sleep(10)

    world = Restarts()
    world.run()

    assert "startup_timeout" == world.endings()[1]


# --- stopping ---------------------------------------------------------------------------------------------------


class Stops(QueueScene):
    """Has a node stop that could drain for a minute, and another go on, while a model takes five seconds."""

    def __init__(self):
        super().__init__(dataclasses.replace(QUIET, drain_s=60.0))

    def course(self):
        return Course(events=1, first_s=5.0)

    async def stop_and_start(self):
        began_at = self.loop.time()
        await self.node.stop()
        self.took_s = self.loop.time() - began_at
        await self._start()
        await asyncio.sleep(20)


def test_a_node_that_stops_does_not_wait_for_who_waits():
    class OneWaits(Stops):
        async def storm(self):
            self.caller()
            await asyncio.sleep(0.2)
            self.caller((0.1, "stream"))
            await asyncio.sleep(1)
            await self.stop_and_start()

    world = OneWaits()
    world.run()

    assert world.took_s < 10
    assert ["completed", "completed"] == world.endings()


def test_a_node_that_stops_does_not_wait_for_an_attempt_that_it_will_not_make():
    class ItsRunnerDies(Stops):
        async def storm(self):
            self.caller()
            await asyncio.sleep(1)
            self.later(1.0, lambda: self.kernel.children[1_000].end(1))
            await self.stop_and_start()

    world = ItsRunnerDies()
    world.run()

    assert world.took_s < 10
    assert ["completed"] == world.endings()


# --- the line, and what is kept ---------------------------------------------------------------------------------


def test_a_queue_is_fed_by_what_a_reload_has_started():
    class Reload(QueueScene):
        def course(self):
            return Course(events=1, first_s=8.0)

        async def storm(self):
            self.caller()
            await asyncio.sleep(0.1)
            self.caller()
            self.versions += 1
            await asyncio.sleep(5)
            self.runs = [len(one.runs) for one in self.records.all.values()]
            await asyncio.sleep(20)

    world = Reload()
    world.run()

    assert [1, 1] == world.runs


class Gone(QueueScene):
    """The next node has other files; the one after it has the app again."""

    is_gone = False

    def specs(self):
        return (dataclasses.replace(self._apps[0], name="sim/other"),) if self.is_gone else self._apps

    async def goes(self, caller, for_s):
        """Ask for the status a while after the next node's start, and have the one after it start later."""
        for is_gone, runs_s in ((True, for_s), (False, 20)):
            await asyncio.sleep(0.1)
            self.node.die()
            self.is_gone = is_gone
            await self._start()
            await asyncio.sleep(1)
            await caller._ask("GET", "status")
            await asyncio.sleep(runs_s)

    async def storm(self):
        caller = self.caller()
        await self.goes(caller, for_s=60)


def test_who_waits_for_an_app_that_is_not_served_can_be_asked_for_and_goes_on_when_it_is():
    world = Gone()
    world.course = lambda: Course(end="never") if len(world.lives) == 1 else Course()
    world.run()

    asked = [call for call in world.told("status") if call.node is world.lives[1]]
    assert [202] * len(asked) == [one.status for one in asked]
    assert asked
    assert ["completed"] == world.endings()


def test_who_waits_too_long_for_an_app_that_is_not_served_fails_and_is_told():
    world = Gone(dataclasses.replace(QUIET, unserved_wait_s=30.0))
    world.course = lambda: Course(end="never")
    world.run()

    assert ["not_found"] == world.endings()
    asked = [call for call in world.told("status") if call.node is world.lives[1]]
    assert {202, 200} == {one.status for one in asked}


def test_a_result_outlives_a_lack_of_memory_for_events():
    class Short(QueueScene):
        def course(self):
            return Course(events=40, text_bytes_max=300, gap_s=0.05)

        async def storm(self):
            self.caller((0.02, "stream"))
            await asyncio.sleep(20)

    world = Short(dataclasses.replace(QUIET, events_bytes_max=2_000))
    world.run()

    assert ["completed"] == world.endings()


def test_who_comes_late_to_more_events_than_memory_keeps_does_not_take_a_part_for_the_whole():
    class Late(QueueScene):
        def course(self):
            return Course(events=20)

        async def storm(self):
            self.caller((60.0, "stream"))
            await asyncio.sleep(70)

    world = Late(dataclasses.replace(QUIET, replay_events_max=8, replay_s=1.0))
    world.run()

    assert [412] == [one.status for one in world.told("stream")]


def test_a_stream_of_statuses_goes_on_when_the_disk_comes_back():
    class Outage(QueueScene):
        async def storm(self):
            caller = self.caller()
            await asyncio.sleep(0.5)
            habit = Habit(f"{caller._base}/status/stream", "GET", b"", {"host": "127.0.0.1"})
            self.spawn(QueueCall(caller, habit, "status/stream", b"logs=1").go())
            await asyncio.sleep(0.1)
            self.disk._fail(4.0, is_gone=True)
            await asyncio.sleep(30)

    world = Outage()
    world.course = lambda: Course(events=3, first_s=1.0)
    world.run()

    assert [True] == [one.is_complete for one in world.told("status/stream")]


def test_a_reader_of_an_earlier_attempt_is_told_when_the_next_is_not_kept_from_its_start():
    class Trimmed(QueueScene):
        def course(self):
            return Course(events=30, gap_s=0.01, end="never")

        async def storm(self):
            caller = self.caller()
            await asyncio.sleep(0.5)
            self.kernel.children[1_000].end(1)
            await asyncio.sleep(4)
            headers = {"host": "127.0.0.1", "last-event-id": f"{caller.id}.1.3"}
            path = f"/sim/model/requests/{caller.id}/stream"
            call = QueueCall(caller, Habit(path, "GET", b"", headers, position=4, attempt=1), "stream")
            await asyncio.wait_for(call.go(), 5)
            self.status = call.status

    world = Trimmed(dataclasses.replace(QUIET, replay_events_max=8))
    world.run()

    assert 412 == world.status


def test_a_queued_request_that_nobody_watches_is_no_work_after_a_leaving():
    class Unwatched(QueueScene):
        def course(self):
            return Course(events=3, gap_s=0.1)

        async def storm(self):
            self.disk.commit_s = lambda: 0.5  # its ending takes a while to be kept
            self.caller()
            await asyncio.sleep(20)

    world = Unwatched()
    world.run()

    (app,) = world.node.meters._apps.values()
    assert ["completed"] == world.endings()
    assert [0.0] == [one.value for one in app.numbers.counters["headrace_work_after_leave_seconds_total"].values()]


def test_a_request_of_a_runner_that_leaves_by_itself_is_tried_again():
    class Leaves(QueueScene):
        def course(self):
            return Course(events=20, gap_s=0.1)

        async def storm(self):
            self.caller((0.1, "stream"))
            await asyncio.sleep(0.5)
            self.kernel.children[1_000].inside.terminate()
            await asyncio.sleep(30)

    world = Leaves()
    world.run()

    assert ["completed"] == world.endings()
    assert 2 == next(iter(world.records.all.values())).attempt


def test_a_runner_is_told_once_to_stop_a_request_whose_deadline_passes_and_that_is_cancelled():
    class Twice(QueueScene):
        def course(self):
            return Course(end="never", on_cancel="late")

        async def storm(self):
            self.dice.seed(3)
            self.caller((1.05, "cancel"))
            await asyncio.sleep(20)

    world = Twice(request_timeout=1.0)
    world.run()  # a runner that is told twice complains

    assert ["client_cancelled"] == world.endings()
