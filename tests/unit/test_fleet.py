"""What a fleet keeps in mind about its starts, without a process."""

import asyncio
from types import SimpleNamespace
from typing import Any

from headrace.core.limits import Limits
from headrace.supervisor.fleet import Fleet
from headrace.supervisor.runner import Leaving


async def _killed() -> None: ...


def test_one_death_does_not_cut_the_pause_short_that_a_failed_start_began():
    app: Any = SimpleNamespace(name="test/app", num_gpus=0, min_concurrency=1)
    process = SimpleNamespace(pid=1, kill=_killed, ending="it died")
    runner: Any = SimpleNamespace(
        process=process, leaving=None, is_lost=True, leave=lambda why: setattr(runner, "leaving", why)
    )

    async def main() -> tuple[float, float]:
        fleet: Any = Fleet(app, "app.py", None, Limits(), None)  # type: ignore[arg-type]
        fleet._not_before = before = fleet._now() + 60
        await fleet._see_off(runner)
        return before, fleet._not_before

    before, after = asyncio.run(main())

    assert runner.leaving is Leaving.DIED
    assert before == after
