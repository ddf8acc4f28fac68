"""Threads for an author's code: one for a call's whole life, and one for a hook that the loop awaits.

Not an executor: its threads are joined when the interpreter ends, and an author's code that hangs would keep
the process from leaving. Ours are daemons.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Final, TypeAlias, TypeVar

Result = TypeVar("Result")
Job: TypeAlias = Callable[[], None]

#: Threads that wait for their next call; the others end. As many as one runner commonly has slots.
IDLE_THREADS_MAX: Final = 16


class Crew:
    """Runs each job in a thread that no other job shares meanwhile, and keeps a few threads for the next ones.

    A kept thread saves some 60 µs of CPU a request, and spares numeric libraries from setting up at every request
    the pools of threads that they keep for each thread that calls them.
    """

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Job]] = []  # the last to come is the first to go: its caches are warm

    def run(self, job: Job) -> None:
        """Run `job` at once, in a thread; it must not raise. Raises `RuntimeError` when no thread can be had."""
        jobs = self._idle.pop() if self._idle else self._hire()
        jobs.put(job)

    def _hire(self) -> SimpleQueue[Job]:
        # Not with the job as an argument: a Thread keeps those for its life, and with them a request.
        jobs: SimpleQueue[Job] = SimpleQueue()
        threading.Thread(target=self._work, args=(jobs,), name="request", daemon=True).start()
        return jobs

    def _work(self, jobs: SimpleQueue[Job]) -> None:
        while True:
            Context().run(jobs.get())  # an empty context: nothing of one request is seen by the next
            if len(self._idle) >= IDLE_THREADS_MAX:
                return
            self._idle.append(jobs)


async def in_own_thread(function: Callable[[], Result]) -> Result:
    """Run `function` in a new daemon thread; return what it returns, raise what it raises.

    Cancelled, it stops waiting; the thread goes on. Raises `RuntimeError` when no thread can be had.
    """
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()
    results: list[Result] = []
    errors: list[BaseException] = []

    def finish() -> None:
        if not finished.done():
            finished.set_result(None)

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # raised again, where it is awaited
            errors.append(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish)

    threading.Thread(target=run, daemon=True).start()
    await finished
    if errors:
        raise errors[0]
    return results[0]
