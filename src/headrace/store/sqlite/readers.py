"""A few threads that read, each with a connection that cannot write. Readers and the writer do not wait for each
other.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from headrace.store.port import StoreUnavailable
from headrace.store.sqlite.settings import StoreSettings
from headrace.store.threads import DiskThreads

T = TypeVar("T")


class Readers:
    """Owns the connections that read, and the threads that use them."""

    def __init__(self, settings: StoreSettings, open_: Callable[[], sqlite3.Connection]) -> None:
        self._settings = settings
        self._open = open_
        self._threads = DiskThreads(settings.readers, waiting_max=settings.reads_waiting_max, name="store-reader")
        self._idle: list[sqlite3.Connection] = []  # append and pop are atomic

    async def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in one snapshot of the database. Raises `StoreBusy` and `StoreUnavailable`."""
        try:
            return await self._threads.do(lambda: self._read(run), self._settings.answer_timeout_s)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"the store failed: {error}") from error

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
        self._threads.close(finishes=True)
        while self._idle:
            self._idle.pop().close()
