"""The model that every server under test serves: generators of small events, as a token stream makes them.

One class, used unchanged by all Python servers, so that the generator's own cost is the same for each. It knows
nothing of HTTP. Every method takes `{"until_ns": N}` and stops by itself at that wall-clock time: LitServe lets a
generator run on when its client leaves, and would spend the next window's CPU on the last window's streams.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

#: Events per second of one `step` or `paced` stream: a fast model at conversation speed.
RATE_HZ = 50


def event(index: int, now_ns: int) -> dict:
    """Return one event: 85 to 95 bytes on the wire with its SSE and chunk framing."""
    return {"index": index, "text": " token", "t": now_ns, "finish_reason": None}


class Beat:
    """Wakes all who wait on it at once, `RATE_HZ` times a second, like one decoding step of an LLM engine."""

    def __init__(self) -> None:
        self._struck = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0

    async def next(self) -> None:
        """Return at the next beat."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            # uvloop's timers can be a millisecond early: never the same beat twice.
            self._number = max(self._number, int(loop.time() * RATE_HZ)) + 1
            self._timer = loop.call_at(self._number / RATE_HZ, self._strike)
        await self._struck.wait()

    def _strike(self) -> None:
        self._timer = None
        self._struck.set()
        self._struck.clear()


class Model:
    """The workloads. A server exposes each method under its name."""

    beat = Beat()

    async def tick(self, input: dict) -> AsyncIterator[dict]:
        """Flat out, giving the loop a turn per event: what the server itself can carry."""
        index, until_ns = 0, input["until_ns"]
        while (now_ns := time.time_ns()) < until_ns:
            yield event(index, now_ns)
            index += 1
            await asyncio.sleep(0)

    async def step(self, input: dict) -> AsyncIterator[dict]:
        """All streams woken together, as by one decoding step."""
        index, until_ns = 0, input["until_ns"]
        while (now_ns := time.time_ns()) < until_ns:
            yield event(index, now_ns)
            index += 1
            await self.beat.next()

    async def paced(self, input: dict) -> AsyncIterator[dict]:
        """Each stream on a timer of its own, out of phase by the moment it was opened."""
        index, until_ns, started = 0, input["until_ns"], time.monotonic()
        while (now_ns := time.time_ns()) < until_ns:
            yield event(index, now_ns)
            index += 1
            await asyncio.sleep(max(0.0, started + index / RATE_HZ - time.monotonic()))

    def sync(self, input: dict) -> Iterator[dict]:
        """Flat out from a plain generator, the usual kind of model code."""
        index, until_ns = 0, input["until_ns"]
        while (now_ns := time.time_ns()) < until_ns:
            yield event(index, now_ns)
            index += 1

    async def short(self, input: dict) -> AsyncIterator[dict]:
        """Three events and the end: what a request costs."""
        for index in range(3):
            yield event(index, time.time_ns())

    async def silent(self, input: dict) -> AsyncIterator[dict]:
        """One event, then an open stream with nothing to say: what a stream holds in memory."""
        yield event(0, time.time_ns())
        await asyncio.sleep(max(0.0, (input["until_ns"] - time.time_ns()) / 1e9))


#: The names a server exposes, each at `/NAME` (ours at `/bench/events/NAME/stream`).
WORKLOADS = ("tick", "step", "paced", "sync", "short", "silent")
