"""A few threads that read, each with a connection that cannot write. Readers and the writer do not wait for each
other.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from headrace.store.port import StoreBusy, StoreUnavailable
from headrace.store.sqlite.settings import StoreSettings

T = TypeVar("T")


class Readers:
    """Owns the connections that read, and the threads that use them."""

    def __init__(self, settings: StoreSettings, open_: Callable[[], sqlite3.Connection]) -> None:
        self._settings = settings
        self._open = open_
        self._places = threading.BoundedSemaphore(settings.reads_waiting_max)
        self._threads = ThreadPoolExecutor(settings.readers, thread_name_prefix="store-reader")
        self._idle: list[sqlite3.Connection] = []  # append and pop are atomic
        self._is_closed = False

    async def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in one snapshot of the database. Raises `StoreBusy` and `StoreUnavailable`."""
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        if not self._places.acquire(blocking=False):
            raise StoreBusy(f"{self._settings.reads_waiting_max} reads wait for the disk already")
        reading = self._threads.submit(self._read, run)
        reading.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(self._settings.answer_timeout_s):
                return await asyncio.wrap_future(reading)
        except TimeoutError:
            message = f"the disk did not answer within {self._settings.answer_timeout_s:g} s"
            raise StoreUnavailable(message) from None
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"the store failed: {error}") from error

    def _leave(self, _: Future[T]) -> None:
        self._places.release()

    def _read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            connection.execute("BEGIN")
            answer = run(connection)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # the next read opens a new one
                connection.close()
            raise
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Let reads that are under way finish, and close every connection."""
        self._is_closed = True
        self._threads.shutdown(wait=True)
        while self._idle:
            self._idle.pop().close()
