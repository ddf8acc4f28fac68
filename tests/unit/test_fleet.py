"""A fleet sees every process off that it was given, whatever it is at when it is told to leave."""

import asyncio

from headrace.core.limits import Limits
from headrace.core.spec import AppSpec
from headrace.supervisor.fleet import Fleet

APP = AppSpec("t/app", "App", "app.py", 1, "", ())
PATIENCE_S = 30.0


class Process:
    """A process that takes a while to end."""

    def __init__(self) -> None:
        self.kills = 0
        self.is_gone = False
        self.is_ending = asyncio.Event()
        self.may_end = asyncio.Event()

    async def kill(self) -> None:
        self.kills += 1
        self.is_ending.set()
        await self.may_end.wait()
        self.is_gone = True


def test_a_node_that_leaves_while_it_ends_a_first_runner_ends_that_one_all_the_same():
    async def scene() -> Process:
        first = Process()
        fleet = Fleet(APP, "app.py", None, Limits(), None, sees_devices=False)
        running = asyncio.create_task(fleet.run(first))
        await first.is_ending.wait()
        running.cancel()
        await asyncio.sleep(0)
        first.may_end.set()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([running])
        assert running.cancelled()
        return first

    first = asyncio.run(scene())

    assert (first.kills, first.is_gone) == (2, True)
