"""The one thread that writes. What waits at a moment shares one transaction, and so one sync of the disk.

An operation is a function of the connection. It refuses (`StoreRefusal`) before it writes, and has no effect but
in the database: so a group in which something fails is rolled back and done again one by one, and only the guilty
fail. Nobody is answered before the COMMIT that holds what they asked for.

It does not know what the operations are about.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from headrace.store.port import StoreBusy, StoreRefusal, StoreUnavailable
from headrace.store.sqlite.checkpoints import Checkpoints
from headrace.store.sqlite.settings import Durability, StoreSettings
from headrace.store.sqlite.syncs import Syncs

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: What an operation writes beyond the bytes it was given, by estimate: two or three pages.
OPERATION_BYTES: Final = 10 * 1024


class Operation(Generic[T]):
    """Something that waits to be written, and who waits for it."""

    __slots__ = ("answer", "error", "future", "loop", "run", "size")

    def __init__(self, run: Callable[[sqlite3.Connection], T], size: int) -> None:
        self.run = run
        self.size = size
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.answer: T | None = None
        self.error: Exception | None = None

    def settle(self) -> None:
        """Answer whoever still waits, on their loop."""
        if self.future.done():
            return  # the caller was cancelled
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.answer)  # type: ignore[arg-type]  # run() returned a T


class Writer:
    """Owns the connection that writes, and the thread that uses it."""

    def __init__(self, path: Path, settings: StoreSettings, open_: Callable[[], sqlite3.Connection]) -> None:
        """Start with a connection from `open_`, which also opens the next one after a failure."""
        self._settings = settings
        self._open = open_
        self._connection: sqlite3.Connection | None = open_()
        self._checkpoints = Checkpoints(path, settings, open_)
        self._syncs = Syncs(path, settings) if settings.durability is Durability.FAST else None
        self._waiting: deque[Operation[Any]] = deque()
        self._waiting_bytes = 0
        self._is_closing = False
        self._is_failing = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._live, name="store-writer", daemon=True)
        self._thread.start()

    # --- the loop's side --------------------------------------------------------------------------------

    async def write(self, run: Callable[[sqlite3.Connection], T], *, size: int = 0, is_new: bool = False) -> T:
        """Do an operation and return its answer, once it is on the disk. `size` is the bytes it carries.

        `is_new` says that it makes work rather than ends it. Raises what `run` raises, `StoreBusy` and
        `StoreUnavailable`.
        """
        operation = Operation(run, size)
        self._enqueue(operation, self._settings.submits_share if is_new else 1.0)
        try:
            async with asyncio.timeout(self._settings.answer_timeout_s):
                return await operation.future
        except TimeoutError:
            message = f"the disk did not answer within {self._settings.answer_timeout_s:g} s"
            raise StoreUnavailable(message) from None

    def _enqueue(self, operation: Operation[Any], share: float) -> None:
        settings = self._settings
        with self._change:
            if self._is_closing:
                raise StoreUnavailable("the store is closed")
            is_full = len(self._waiting) >= settings.waiting_max * share
            if is_full or self._waiting_bytes + operation.size > settings.waiting_bytes_max * share:
                raise StoreBusy(f"{len(self._waiting)} operations wait for the disk already")
            self._waiting.append(operation)
            self._waiting_bytes += operation.size
            self._change.notify()

    def close(self, timeout_s: float) -> bool:
        """Do what waits, take nothing new, and end the thread; False when it is still at it after `timeout_s`."""
        with self._change:
            self._is_closing = True
            self._change.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- the thread's side ------------------------------------------------------------------------------

    def _live(self) -> None:
        while (group := self._next_group()) is not None:
            if group:
                self._commit(group)
                self._tell(group)
                self._note_committed(group)
        if self._syncs is not None:
            self._syncs.close(self._settings.close_timeout_s)
        self._checkpoints.close(self._settings.close_timeout_s)
        self._disconnect()  # which makes the last checkpoint

    def _next_group(self) -> list[Operation[Any]] | None:
        """Wait for operations and take those that are there, but for those whose callers have left.

        None once the store is closed and nothing waits.
        """
        with self._change:
            while not self._waiting:
                if self._is_closing:
                    return None
                self._change.wait()
            group: list[Operation[Any]] = []
            size = 0
            while self._waiting and len(group) < self._settings.group_max:
                if group and size + self._waiting[0].size > self._settings.group_bytes_max:
                    break
                operation = self._waiting.popleft()
                self._waiting_bytes -= operation.size
                if not operation.future.cancelled():
                    size += operation.size
                    group.append(operation)
        return group

    def _note_committed(self, group: Sequence[Operation[Any]]) -> None:
        if self._connection is not None:
            size = sum(operation.size for operation in group) + OPERATION_BYTES * len(group)
            self._checkpoints.committed(size, self._connection)
            if self._syncs is not None:
                self._syncs.committed()

    def _commit(self, group: Sequence[Operation[Any]]) -> None:
        """Do a group in one transaction or, if that fails, each of it in its own."""
        try:
            self._transact(group)
        # Whatever it is, it must reach the callers it concerns, and leave no transaction open.
        except Exception as error:
            self._abandon(error)
            if len(group) > 1:
                for operation in group:
                    self._commit((operation,))
                return
            group[0].error = _as_told(error)
        else:
            self._note(is_failing=False)

    def _transact(self, group: Sequence[Operation[Any]]) -> None:
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        for operation in group:
            operation.error = None
            before = connection.total_changes
            try:
                operation.answer = operation.run(connection)
            except StoreRefusal as refusal:
                assert connection.total_changes == before, "an operation refuses before it writes"
                operation.error = refusal
        connection.execute("COMMIT")

    def _abandon(self, error: Exception) -> None:
        """After a failure: no transaction stays open, and the next one begins with a connection of its own."""
        if isinstance(error, (sqlite3.Error, OSError)):
            self._note(is_failing=True, why=error)
            self._disconnect()
        elif self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # it is of no use any more, whatever closing it says
                connection.close()  # which rolls back

    def _note(self, *, is_failing: bool, why: Exception | None = None) -> None:
        """Tell the operator when it begins to fail and when it works again, not of each failure."""
        if is_failing and not self._is_failing:
            _log.error("the store fails: %s; what was acknowledged is safe, new requests are refused", why)
        elif self._is_failing and not is_failing:
            _log.warning("the store works again")
        self._is_failing = is_failing

    def _tell(self, group: Sequence[Operation[Any]]) -> None:
        """Answer a group with one wake-up of each loop in it."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Operation[Any]]] = {}
        for operation in group:
            by_loop.setdefault(operation.loop, []).append(operation)
        for loop, operations in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, operations)


def _settle(operations: Sequence[Operation[Any]]) -> None:
    for operation in operations:
        operation.settle()


def _as_told(error: Exception) -> Exception:
    """The caller's view of a failure: SQLite's and the system's are the store's; any other is a fault of ours."""
    if isinstance(error, (sqlite3.Error, OSError)):
        unavailable = StoreUnavailable(f"the store failed: {error}")
        unavailable.__cause__ = error
        return unavailable
    return error
