"""Threads that wait for the disk: so many callers and no more, each told in time, also when all is closed."""

import asyncio
import threading

import pytest

from headrace.store.port import StoreBusy, StoreUnavailable
from headrace.store.threads import DiskThreads

PATIENCE_S = 30.0


def play(scene, waiting_max=2):
    threads = DiskThreads(1, waiting_max=waiting_max, name="test")
    try:
        return asyncio.run(scene(threads))
    finally:
        threads.close(finishes=False)


def test_what_a_step_returns_or_raises_is_its_callers():
    async def scene(threads):
        with pytest.raises(KeyError, match="missing"):
            await threads.do(lambda: {}["missing"], PATIENCE_S)
        return await threads.do(threading.get_ident, PATIENCE_S)

    assert play(scene) != threading.get_ident()


def test_one_more_than_may_wait_is_refused_until_a_step_is_done():
    gate = threading.Event()

    async def scene(threads):
        waiting = [asyncio.create_task(threads.do(lambda: gate.wait(PATIENCE_S), PATIENCE_S)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreBusy, match="2 steps wait"):
            await threads.do(lambda: None, PATIENCE_S)
        gate.set()
        await asyncio.gather(*waiting)
        return await threads.do(lambda: "again", PATIENCE_S)

    assert play(scene) == "again"


def test_who_has_waited_long_enough_is_told_and_its_place_is_kept_until_the_step_is_done():
    begun, gate = threading.Event(), threading.Event()

    def step():
        begun.set()
        gate.wait(PATIENCE_S)

    async def scene(threads):
        while not begun.is_set():  # one whose thread was late is taken back
            with pytest.raises(StoreUnavailable, match=r"within 0\.01 s"):
                await threads.do(step, 0.01)
        with pytest.raises(StoreBusy):
            await threads.do(lambda: None, PATIENCE_S)
        gate.set()

    play(scene, waiting_max=1)


def test_threads_that_are_closed_say_so_take_no_place_and_finish_what_they_took():
    gate, done = threading.Event(), []

    async def scene(threads):
        first = asyncio.create_task(threads.do(lambda: gate.wait(PATIENCE_S), PATIENCE_S))
        last = asyncio.create_task(threads.do(lambda: done.append("last"), PATIENCE_S))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(threads.close, finishes=True))
        while not threads._threads._shutdown:
            await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(first, last, closing)
        for _ in range(3):  # more often than there are places
            with pytest.raises(StoreUnavailable, match="closed"):
                await threads.do(lambda: None, PATIENCE_S)
        threads.later(lambda: done.append("too late"))

    play(scene)

    assert done == ["last"]
