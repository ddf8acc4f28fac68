"""The database file and the connections to it: who may hold it, how it is opened, how its tables are made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from headrace.store.port import StoreFault, StoreLocked, StoreTooNew
from headrace.store.sqlite.settings import Durability, StoreSettings

FILE_NAME: Final = "requests.db"
LOCK_NAME: Final = "node.lock"

#: Milliseconds a connection waits for another one's lock. Only a reader that recovers the log, or a checkpoint
#: that cuts it, ever holds one that anybody waits for.
BUSY_MS: Final = 1_000

#: Opens the file at a path in a mode of SQLite's URIs (`rw`, `ro`). Tests put failing connections here.
Connect = Callable[[Path, str], sqlite3.Connection]


class DirectoryLock:
    """The exclusive right to a data directory. The kernel lets go of it when its holder dies, whatever way."""

    def __init__(self, data_dir: Path) -> None:
        """Take it. Raises `StoreLocked` when another process has it, `StoreFault` when the folder is not ours."""
        path = data_dir / LOCK_NAME
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreFault(f"{path}: cannot be opened ({error.strerror}); {_REMEDY}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            os.close(self._descriptor)
            who = f"process {holder}" if holder else "another process"
            message = f"{data_dir}: {who} serves from it; stop that one first, or choose another with --data-dir"
            raise StoreLocked(message, holder) from None
        except OSError as error:
            os.close(self._descriptor)
            raise StoreFault(f"{path}: cannot be locked ({error.strerror}); {_REMEDY}") from error
        with contextlib.suppress(
            OSError
        ):  # a full disk: the lock holds all the same, only its holder is not named
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _holder(self) -> int | None:
        try:
            return int(os.pread(self._descriptor, 32, 0))
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Let go of it. Twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def create(path: Path) -> None:
    """Make the file, if need be, so that nobody else can read it; SQLite gives its other files the same mode.

    Raises `StoreFault`.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreFault(f"{path}: cannot be written ({error.strerror}); {_REMEDY}") from error


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open a connection in a mode of SQLite's URIs. It begins no transaction of its own accord."""
    uri = f"file:{quote(str(path))}?mode={mode}"
    # The thread that closes is not the one that opened; only one at a time uses it.
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=128, timeout=BUSY_MS / 1000
    )


def open_writer(path: Path, settings: StoreSettings, connect: Connect) -> sqlite3.Connection:
    """Open the one connection that writes. Raises `sqlite3.Error`."""
    connection = connect(path, "rw")
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError(
                f"the file system cannot hold a write-ahead log (journal_mode is {mode})"
            )
        level = "FULL" if settings.durability is Durability.FULL else "NORMAL"
        connection.execute(f"PRAGMA synchronous = {level}")
        # The writer makes its own checkpoints, between two groups.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # Deleted content is not written over with zeros: that would double the work of expiry.
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute(f"PRAGMA cache_size = -{settings.cache_bytes // 1024}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path, settings: StoreSettings, connect: Connect) -> sqlite3.Connection:
    """Open a connection that cannot write. Raises `sqlite3.Error`."""
    connection = connect(path, "ro")
    try:
        connection.execute(f"PRAGMA cache_size = -{settings.cache_bytes // 4096}")
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, scripts: Sequence[str], path: Path) -> None:
    """Bring the file to the version of this code: each script whole or not at all.

    Raises `StoreTooNew` for the file of a later version, and `sqlite3.Error`.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(scripts):
        raise StoreTooNew(
            f"{path}: was written by a later Headrace (tables of version {version}, we know {len(scripts)}); "
            "install that version again, or choose another folder with --data-dir"
        )
    for number, script in enumerate(scripts[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


_REMEDY: Final = "check the folder's owner and free space, or choose another with --data-dir"
