"""Empties the write-ahead log into the database, beside the writer and off the way of its commits.

With a million ids in an index, what 800 submits have touched is as many pages all over the file: some 50 ms of
writing, which no submit should wait for. So a thread of its own does it, with a connection of its own.

SQLite before 3.51.3 has a race there (its "WAL-reset bug"): a checkpoint that begins when nothing is left to do
can mistake a log that a commit begins anew at that moment for the old one, and lose pages. It cannot happen here.
A log begins anew only when all of it is in the database; a checkpoint begins only when something was committed
since the last one ended, so some of the log is not; and there is one checkpoint at a time.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from headrace.store.sqlite.settings import StoreSettings

_log = logging.getLogger(__name__)


class Checkpoints:
    """Owns the thread that makes them."""

    def __init__(self, path: Path, settings: StoreSettings, open_: Callable[[], sqlite3.Connection]) -> None:
        self._log_file = path.with_name(f"{path.name}-wal")
        self._settings = settings
        self._open = open_
        self._written = 0  # bytes committed, by estimate, since the last checkpoint ended
        self._is_closing = False
        self._change = threading.Condition()
        #: Held while a checkpoint is made, whoever makes it.
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="store-checkpoints", daemon=True)
        self._thread.start()

    def committed(self, size: int, connection: sqlite3.Connection) -> None:
        """Note what the writer, whose thread and connection this is, has committed just now.

        A log that grew too long meanwhile is emptied on the spot, and cut: while commits never pause, a checkpoint
        beside them is always a little behind, and the log does not begin anew.
        """
        with self._change:
            self._written += size
            if self._is_due():
                self._change.notify()
        if self._log_bytes() > self._settings.wal_bytes_max and self._turn.acquire(blocking=False):
            try:
                self._make(connection, "TRUNCATE")
            finally:
                self._turn.release()

    def close(self, timeout_s: float) -> None:
        """End the thread."""
        with self._change:
            self._is_closing = True
            self._change.notify()
        self._thread.join(timeout_s)

    def _live(self) -> None:
        while self._wait_until_due():
            with self._turn:
                if self._is_due():  # still: the writer may have made one meanwhile
                    self._make_beside()

    def _wait_until_due(self) -> bool:
        """Wait for enough to do; False when it is over instead."""
        with self._change:
            while not self._is_due() and not self._is_closing:
                self._change.wait()
            return not self._is_closing

    def _is_due(self) -> bool:
        return self._written >= self._settings.checkpoint_bytes

    def _make_beside(self) -> None:
        try:
            with contextlib.closing(self._open()) as connection:
                self._make(connection, "PASSIVE")
        except sqlite3.Error as error:
            self._failed(error)

    def _make(self, connection: sqlite3.Connection, mode: str) -> None:
        try:
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            self._failed(error)
        with self._change:
            self._written = 0

    def _failed(self, error: sqlite3.Error) -> None:
        # Nothing is lost: it stays in the log, and the next one tries again.
        _log.warning("the store cannot make a checkpoint: %s", error)
        with self._change:
            self._written = 0

    def _log_bytes(self) -> int:
        try:
            return self._log_file.stat().st_size
        except OSError:
            return 0
