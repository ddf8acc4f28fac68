"""A runner's process is seen off whole, whatever becomes of whoever does that."""

import asyncio
import signal
from subprocess import PIPE

from headrace.core.limits import Limits
from headrace.supervisor.link import RunnerLink
from headrace.supervisor.process import RunnerProcess

PATIENCE_S = 30.0


def test_who_ends_a_runner_and_is_cancelled_waits_until_it_is_gone():
    async def scene():
        limits = Limits()
        child = await asyncio.create_subprocess_exec("sleep", "60", stdout=PIPE, start_new_session=True)
        process = RunnerProcess(child, RunnerLink(limits, "token", None), limits)
        ending = asyncio.create_task(process.kill())
        await asyncio.sleep(0)  # it has sent the signal, and waits
        ending.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([ending])
        assert ending.cancelled()
        return child.returncode, asyncio.all_tasks() - {asyncio.current_task()}

    code, left = asyncio.run(scene())

    assert code == -signal.SIGKILL
    assert left == set()
