"""A few threads that wait for the disk, so that the loop need not, for a bounded number of callers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from headrace.store.port import StoreBusy, StoreUnavailable

T = TypeVar("T")


class DiskThreads:
    """Threads that do one step after another. What a step raises, whoever asked for it gets."""

    def __init__(self, count: int, *, waiting_max: int, name: str) -> None:
        self._waiting_max = waiting_max
        self._places = threading.BoundedSemaphore(waiting_max)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def do(self, step: Callable[[], T], timeout_s: float | None) -> T:
        """Do a step in a thread. Raises `StoreBusy` and `StoreUnavailable` beside what the step raises."""
        if not self._places.acquire(blocking=False):
            raise StoreBusy(f"{self._waiting_max} steps wait for the disk already")
        try:
            doing = self._threads.submit(step)
        except RuntimeError:
            self._places.release()
            raise StoreUnavailable("the store is closed") from None
        doing.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(doing)
        except TimeoutError:
            raise StoreUnavailable(f"the disk did not answer within {timeout_s:g} s") from None

    def _leave(self, _: Future[T]) -> None:
        self._places.release()

    def later(self, step: Callable[[], object]) -> None:
        """Have a step done that nobody waits for. Once they are closed, it is not: the process lets go of all."""
        with contextlib.suppress(RuntimeError):
            self._threads.submit(step)

    def close(self, *, finishes: bool) -> None:
        """Take nothing new; with `finishes`, block until what was taken is done, else let go of what waits."""
        self._threads.shutdown(wait=finishes, cancel_futures=not finishes)
