"""A function in a thread of its own, awaited from the loop.

Not an executor: its threads are joined when the interpreter ends, and an author's code that hangs would keep
the process from leaving.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


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
