"""Two apps for what only a queue can do: `headrace serve bench/peers/queued_app.py`. One works, one is always busy."""

import asyncio
import time
from collections.abc import AsyncIterator

import headrace
from bench.workloads import Model, event


class Free(headrace.App, name="bench/free", max_concurrency=1, max_multiplexing=64):
    """Has a slot for everybody and answers at once."""

    short = headrace.endpoint("/short")(Model.short)

    @headrace.endpoint("/answer")
    async def answer(self, input: dict) -> dict:
        """Do next to nothing: what is left is the queue's own cost."""
        return {"t": time.time_ns()}

    @headrace.endpoint("/watched")
    async def watched(self, input: dict) -> AsyncIterator[dict]:
        """One event; from `from_ns` on `rate_hz` a second, or flat out for 0. By then its readers are there."""
        yield event(0, time.time_ns())
        await asyncio.sleep(max(0.0, (input["from_ns"] - time.time_ns()) / 1e9))
        index, rate_hz, started = 1, input["rate_hz"], time.monotonic()
        while (now_ns := time.time_ns()) < input["until_ns"]:
            yield event(index, now_ns)
            index += 1
            await asyncio.sleep(max(0.0, started + index / rate_hz - time.monotonic()) if rate_hz else 0)


class Busy(headrace.App, name="bench/busy", max_concurrency=1, max_multiplexing=1):
    """Has one slot, which a silent stream holds: whatever is submitted waits."""

    silent = headrace.endpoint("/silent")(Model.silent)

    @headrace.endpoint("/answer")
    async def answer(self, input: dict) -> dict:
        """Wait for the slot, for ever."""
        return {}
