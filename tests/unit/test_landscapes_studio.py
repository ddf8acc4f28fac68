"""The example's batcher: who is in a pass, and that nobody notices who else was. The model here only counts."""

import asyncio
import contextlib
import threading

import pytest

from tests.support.landscapes import module

studio, model = module("studio"), module("model")


class Counting:
    """Stands for the model: writes down each pass, and makes it only when it is let."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.let = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def advance(self, drawings) -> None:
        self.passes.append(len(drawings))
        self.begun.release()
        assert self.let.acquire(timeout=30)
        if any(drawing.steps == 13 for drawing in drawings):
            raise RuntimeError("an unlucky number")
        for drawing in drawings:
            drawing.step += 1


@contextlib.asynccontextmanager
async def open_studio():
    counting = Counting()
    open_ = studio.Studio(counting)
    work = asyncio.create_task(open_.work())
    try:
        yield open_, counting
    finally:
        counting.let.release(100)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


def pictures(steps, count=1):
    return [model.Drawing("day", seed, steps) for seed in range(count)]


async def looks_of(open_, drawings):
    return [look async for look in open_.draw(drawings)]


async def begun(counting):
    """Until the next pass has begun."""
    assert await asyncio.to_thread(counting.begun.acquire, timeout=30)


def test_requests_join_and_leave_between_two_passes_and_each_has_all_its_steps():
    async def story():
        async with open_studio() as (open_, counting):
            first = asyncio.create_task(looks_of(open_, pictures(4)))
            await begun(counting)
            second = asyncio.create_task(looks_of(open_, pictures(2, count=3)))
            await asyncio.sleep(0)  # it has joined, amid a pass
            counting.let.release(100)
            return len(await first), [len(look) for look in await second], counting.passes

    steps, looks, passes = asyncio.run(story())

    assert 4 == steps
    assert [3, 3] == looks
    assert [1, 4, 4, 1] == passes


def test_who_is_cancelled_draws_no_more_and_the_others_go_on():
    async def story():
        async with open_studio() as (open_, counting):
            gone = asyncio.create_task(looks_of(open_, pictures(9)))
            stays = asyncio.create_task(looks_of(open_, pictures(3)))
            await begun(counting)
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
            counting.let.release(100)
            return len(await stays), counting.passes

    steps, passes = asyncio.run(story())

    assert 3 == steps
    assert [2, 1, 1] == passes


def test_a_pass_that_fails_fails_who_was_in_it_and_the_next_request_draws():
    async def story():
        async with open_studio() as (open_, counting):
            counting.let.release(100)
            with pytest.raises(RuntimeError, match="unlucky"):
                await looks_of(open_, pictures(13))
            return len(await looks_of(open_, pictures(2)))

    assert 2 == asyncio.run(story())


def test_a_look_is_what_was_there_when_its_pass_ended():
    async def story():
        painter = model.Model()
        open_ = studio.Studio(painter)
        work = asyncio.create_task(open_.work())
        try:
            return await looks_of(open_, [model.Drawing("mountains", 1, 3)])
        finally:
            work.cancel()

    looks = asyncio.run(story())
    *_, alone = [[d.preview for d in drawings] for drawings in model.Model().draw("mountains", 1, steps=3)]

    assert 3 == len(looks)
    assert (looks[0][0] != looks[2][0]).any()
    assert (looks[2][0] == alone[0]).all()
