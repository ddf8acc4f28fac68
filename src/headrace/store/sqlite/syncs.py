"""At durability `fast`: brings to the disk, once a second, what commits have left in the system's memory.

SQLite at `synchronous=NORMAL` syncs the write-ahead log only when it is emptied, which on a quiet node may be
hours later; the system writes it back some 30 s after. With a thread that syncs it beside the commits, what a
power cut can take is a second's worth, and no commit waits.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from headrace.store.sqlite.settings import StoreSettings

_log = logging.getLogger(__name__)


class Syncs:
    """Owns the thread that makes them."""

    def __init__(self, path: Path, settings: StoreSettings) -> None:
        self._log_file = path.with_name(f"{path.name}-wal")
        self._every_s = settings.sync_every_s
        self._is_dirty = False
        self._is_closing = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._live, name="store-syncs", daemon=True)
        self._thread.start()

    def committed(self) -> None:
        """Note that something was committed."""
        with self._change:
            if not self._is_dirty:
                self._is_dirty = True
                self._change.notify()

    def close(self, timeout_s: float) -> None:
        """End the thread. What is in the log by then is synced by the last checkpoint."""
        with self._change:
            self._is_closing = True
            self._change.notify()
        self._thread.join(timeout_s)

    def _live(self) -> None:
        while self._wait_until_dirty():
            is_synced = self._sync()
            with self._change:
                self._is_dirty |= not is_synced  # then it is tried again, also without another commit
                self._change.wait_for(lambda: self._is_closing, self._every_s)

    def _wait_until_dirty(self) -> bool:
        """Wait for a commit; False when it is over instead."""
        with self._change:
            self._change.wait_for(lambda: self._is_dirty or self._is_closing)
            self._is_dirty = False  # what is committed from here on is the next sync's
            return not self._is_closing

    def _sync(self) -> bool:
        """Sync the log; False when that failed."""
        try:
            # SQLite has no locks on this file that closing it here could take away, as it has on the database.
            descriptor = os.open(self._log_file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning("the store cannot sync its log: %s", error)
            return False
        return True
