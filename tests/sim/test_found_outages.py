"""What the simulation has found, and reviews have, in a queue whose store is slow, fails, or does not answer.

As in `test_found_queue`, each fault has a small world of its own, so that it stays found.
"""

import asyncio

import pytest

from headrace.store.port import StoreUnavailable
from headrace.supervisor import queue as queues
from headrace.supervisor.queue import Queue
from tests.sim.callers import Caller, QueueCall
from tests.sim.clients import Habit
from tests.sim.natures import Course
from tests.sim.scene import QueueScene

# --- answers that are lost --------------------------------------------------------------------------------------


def test_a_submit_that_took_effect_unanswered_waits_like_any_other():
    class LostAnswer(QueueScene):
        async def storm(self):
            self.lose_answer(1)
            self.caller(tries=1)
            await asyncio.sleep(60)

    world = LostAnswer()
    world.run()

    assert [503] == [one.status for one in world.told("submit")]
    assert ["completed"] == world.endings()


@pytest.mark.parametrize("answered_after_s", [20.0, 40.0])
def test_who_watches_a_request_whose_submit_is_not_answered_yet_sees_it_run(answered_after_s):
    class LateAnswer(QueueScene):
        def course(self):
            return Course(events=3)

        async def storm(self):
            waits = iter([0.001, answered_after_s])
            self.disk.commit_s = lambda: next(waits, 0.001)
            self.disk.troubled_at, self.disk.has_failed = self.loop.time() + 50, True
            caller = self.caller(tries=1)
            await asyncio.sleep(10)
            (id_,) = self.records.all
            habit = Habit(f"/sim/model/requests/{id_}/stream", "GET", b"", {"host": "127.0.0.1"})
            watcher = Caller(self, 99, caller.wish)
            watcher.id = id_
            self.spawn(QueueCall(watcher, habit, "stream").go())
            await asyncio.sleep(80)

    world = LateAnswer()
    world.run()

    assert ["completed"] == world.endings()
    assert [True] == [one.is_complete for one in world.told("stream")]
    assert [(1, 1)] == next(iter(world.records.all.values())).runs


def test_a_retry_whose_answer_is_lost_is_tried_again_all_the_same():
    class LostAnswer(QueueScene):
        def course(self):
            return Course(end="never") if len(self.kernel.children) == 1 else Course()

        async def storm(self):
            self.caller()
            await asyncio.sleep(1)
            self.fail_once("committed")
            self.kernel.children[1_000].end(1)
            await asyncio.sleep(60)

    world = LostAnswer()
    world.run()

    assert ["completed"] == world.endings()
    assert 2 == next(iter(world.records.all.values())).attempt


def test_a_request_that_is_cancelled_behind_a_start_whose_answer_is_lost_ends():
    class LostAnswer(QueueScene):
        async def storm(self):
            self.lose_answer(2)  # its submit's is not
            caller = self.caller()
            await asyncio.sleep(30.5)  # the start is given up, and will be looked for in half a second
            await caller._visit("cancel")
            await asyncio.sleep(60)

    world = LostAnswer()
    world.run()

    assert ["client_cancelled"] == world.endings()


# --- steps that take a while, or fail ---------------------------------------------------------------------------


def test_a_request_that_is_cancelled_while_its_body_is_fetched_is_given_to_no_runner():
    class Fetches(QueueScene):
        async def storm(self):
            self.disk.read_s = lambda: 0.5  # its body is too large to wait in memory
            self.caller((0.3, "cancel"), body=b'{"valid":true,"pad":"%b"}' % (b"x" * 20_000))
            await asyncio.sleep(20)

    world = Fetches()
    world.run()

    assert ["client_cancelled"] == world.endings()
    assert [] == next(iter(world.records.all.values())).runs


def test_while_the_store_fails_one_of_a_line_is_tried_again_and_not_all_of_it():
    class LongLine(QueueScene):
        tries = 0

        def course(self):
            return Course(events=1, first_s=1.0)

        async def storm(self):
            for _ in range(30):
                self.caller()
            await asyncio.sleep(0.5)
            begin = self.node.queue.attempt

            def attempt(*of):
                self.tries += 1
                return begin(*of)

            self.node.queue.attempt = attempt
            self.disk._fail(10.0, is_gone=False)
            await asyncio.sleep(10)
            self.tries_meanwhile = self.tries
            await asyncio.sleep(90)

    world = LongLine()
    world.run()

    assert 0 < world.tries_meanwhile <= 11
    assert ["completed"] * 30 == world.endings()


def test_who_cannot_be_read_does_not_keep_the_others_from_their_turn():
    class Unreadable(QueueScene):
        async def storm(self):
            body = self.node.store.body

            async def unreadable(id_):
                if id_ == self.first:
                    raise StoreUnavailable("its page is damaged") from self.disk.broke("a page is damaged")
                return await body(id_)

            self.node.store.body = unreadable
            large = b'{"valid":true,"pad":"%b"}' % (b"x" * 20_000)
            for _ in range(4):
                self.caller(body=large)
            await asyncio.sleep(0.0015)  # they are stored
            (self.first, *_) = self.records.all
            await asyncio.sleep(20)
            self.ended_meanwhile = self.endings()
            self.first = None
            await asyncio.sleep(20)

    world = Unreadable()
    world.run()

    assert [None, "completed", "completed", "completed"] == world.ended_meanwhile


def test_submits_and_cancels_that_the_store_does_not_answer_are_bounded(monkeypatch):
    monkeypatch.setattr(queues, "UNANSWERED_MAX", 5)

    class Outage(QueueScene):
        def course(self):
            return Course(end="never")

        async def storm(self):
            runs = self.caller()
            await asyncio.sleep(0.5)
            self.disk._fail(10.0, is_gone=False)
            for _ in range(20):
                self.caller(tries=1)
                await asyncio.sleep(0.1)
                self.spawn(runs._visit("cancel"))
            await asyncio.sleep(2)
            self.waiting = len(self.node.queue._undecided), len(self.node.queue._unstopped)
            self.tasks = [task.get_name() for task in asyncio.all_tasks() if "cancel" in task.get_name()]
            await asyncio.sleep(10)
            self.caller(tries=1)
            await asyncio.sleep(20)
            self.left = len(self.node.queue._undecided), len(self.node.queue._unstopped)

    world = Outage()
    world.run()

    assert [200] + [503] * 5 + [429] * 15 + [200] == [one.status for one in world.told("submit")]
    assert ((5, 1), (0, 0)) == (world.waiting, world.left)
    assert ["unanswered cancels"] == world.tasks
    assert "client_cancelled" == world.endings()[0]


def test_a_submit_that_is_not_answered_before_the_queue_runs_is_looked_for_all_the_same():
    class Early(QueueScene):
        async def storm(self):
            self.node.die()
            run, Queue.run = Queue.run, _late(Queue.run)
            try:
                await self._start()
                self.fail_once("committed")
                self.caller(tries=1)
                await asyncio.sleep(30)
            finally:
                Queue.run = run

    world = Early()
    world.run()

    assert [503] == [one.status for one in world.told("submit")]
    assert ["completed"] == world.endings()


def _late(run):
    async def late(queue):
        await asyncio.sleep(1)
        await run(queue)

    return late


def test_who_begins_while_the_store_cannot_tell_that_it_is_too_late_is_not_too_late():
    class FailsAtTheDeadline(QueueScene):
        def __init__(self):
            super().__init__()
            self._courses = iter([Course(events=1, first_s=1.3), Course(events=1, end="dies")])

        def course(self):
            return next(self._courses, Course())

        async def storm(self):
            self.caller()
            await asyncio.sleep(0.1)
            self.caller(headers={"x-fal-request-start-timeout": "1"}, start_timeout_s=1.0)
            await asyncio.sleep(0.95)
            self.fail_once("commit")  # at 1.1 s; it begins at 1.3, its runner dies, and at 2.1 it is in line again
            await asyncio.sleep(60)

    world = FailsAtTheDeadline()
    world.run()

    assert ["completed", "completed"] == world.endings()
    assert [1, 2] == [one.attempt for one in world.records.all.values()]
