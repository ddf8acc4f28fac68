"""The durable queue of one node, in one SQLite file: a method hands an operation to the writer or to a reader."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.core.request import FINAL, RequestId, State
from headrace.store.port import (
    Cancelling,
    Delivery,
    EventPage,
    Expired,
    LogLine,
    LogPage,
    NewRequest,
    Outcome,
    Record,
    StoreFault,
    Submitted,
)
from headrace.store.sqlite import file, keeping, reads, requests, trail
from headrace.store.sqlite.readers import Readers
from headrace.store.sqlite.settings import StoreSettings
from headrace.store.sqlite.sql import migrations
from headrace.store.sqlite.writer import Writer


class SqliteStore:
    """`store.port.RequestStore` in DATA_DIR/requests.db, of which it holds the exclusive right.

    Opening it blocks: for milliseconds after a clean end, and for as long as it takes to read the write-ahead log
    after any other. Nothing else here does. What a method does is told by the protocol.
    """

    def __init__(
        self,
        data_dir: Path,
        settings: StoreSettings | None = None,
        *,
        connect: file.Connect = file.connect,
    ) -> None:
        """Open the store, and make it where there is none.

        Raises `StoreLocked` when another node serves from the folder, `StoreTooNew` for the file of a later
        Headrace, and `StoreFault` when it cannot be read or written.
        """
        self._settings = settings = settings or StoreSettings()
        path = data_dir / file.FILE_NAME
        self._lock = file.DirectoryLock(data_dir)
        try:
            file.create(path)
            with contextlib.closing(file.open_writer(path, settings, connect)) as connection:
                file.migrate(connection, migrations(), path)
            self._readers = Readers(settings, lambda: file.open_reader(path, settings, connect))
            self._writer = Writer(path, settings, lambda: file.open_writer(path, settings, connect))
        except BaseException as error:
            self._lock.release()
            if not isinstance(error, sqlite3.Error):
                raise
            raise StoreFault(
                f"{path}: cannot be used ({error}); check the disk's free space, restore the file from a backup, "
                "or choose another folder with --data-dir"
            ) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Do what waits, take nothing new, and let go of the data directory.

        While the disk hangs, the folder stays locked until the process has ended.
        """
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.close()
        if self._writer.close(self._settings.close_timeout_s):
            self._lock.release()

    # --- the life of a request --------------------------------------------------------------------------

    async def submit(self, new: NewRequest) -> Submitted:
        """Queue a request."""
        return await self._writer.write(lambda on: requests.submit(on, new), size=len(new.body), is_new=True)

    async def start(self, id_: RequestId, *, node: str, lease_until: float, at: float) -> int | None:
        """Begin an attempt."""
        return await self._writer.write(lambda on: requests.start(on, id_, node, lease_until, at))

    async def renew(self, ids: Sequence[RequestId], *, node: str, lease_until: float) -> frozenset[RequestId]:
        """Prolong leases."""
        return await self._writer.write(lambda on: requests.renew(on, ids, node, lease_until))

    async def finish(self, id_: RequestId, attempt: int, outcome: Outcome) -> State | None:
        """End a request by its attempt."""
        large = self._settings.large_result_bytes
        _must_be_final(outcome)
        return await self._writer.write(
            lambda on: requests.finish(on, id_, attempt, outcome, large), size=len(outcome.body)
        )

    async def requeue(self, id_: RequestId, attempt: int, *, not_before: float, at: float) -> State | None:
        """Give up an attempt that may be tried again."""
        return await self._writer.write(lambda on: requests.requeue(on, id_, attempt, not_before, at))

    async def end_queued(self, id_: RequestId, outcome: Outcome) -> bool:
        """End a request that has not started."""
        large = self._settings.large_result_bytes
        _must_be_final(outcome)
        return await self._writer.write(
            lambda on: requests.end_queued(on, id_, outcome, large), size=len(outcome.body)
        )

    async def cancel(self, id_: RequestId, outcome: Outcome) -> Cancelling:
        """Cancel a request."""
        large = self._settings.large_result_bytes
        if outcome.state is not State.CANCELLED:
            raise ValueError(f"a cancelled request does not end as {outcome.state.value}")
        return await self._writer.write(
            lambda on: requests.cancel(on, id_, outcome, large), size=len(outcome.body)
        )

    async def release(self, node: str, *, at: float) -> int:
        """Give up the attempts of a dead node."""
        return await self._writer.write(lambda on: requests.release(on, node, at))

    # --- what it leaves behind on its way ---------------------------------------------------------------

    async def append(self, id_: RequestId, attempt: int, first: int, texts: Sequence[bytes]) -> bool:
        """Keep events."""
        bound = self._settings.events_bytes_max
        return await self._writer.write(
            lambda on: trail.append_events(on, id_, attempt, first, texts, bound), size=sum(map(len, texts))
        )

    async def append_logs(self, id_: RequestId, attempt: int, lines: Sequence[LogLine]) -> bool:
        """Keep log lines."""
        bound = self._settings.logs_bytes_max
        return await self._writer.write(
            lambda on: trail.append_logs(on, id_, attempt, lines, bound),
            size=sum(len(line.message) for line in lines),
        )

    # --- reads ------------------------------------------------------------------------------------------

    async def get(self, id_: RequestId) -> Record | None:
        """Return a record."""
        return await self._readers.read(lambda on: reads.get(on, id_))

    async def body(self, id_: RequestId) -> bytes | None:
        """Return a body."""
        return await self._readers.read(lambda on: reads.body(on, id_))

    async def position(self, id_: RequestId) -> int | None:
        """Return a place in the queue."""
        return await self._readers.read(lambda on: reads.position(on, id_))

    async def result(self, id_: RequestId) -> Outcome | None:
        """Return how a request ended."""
        return await self._readers.read(lambda on: reads.result(on, id_))

    async def events(self, id_: RequestId, first: int, *, limit: int) -> EventPage | None:
        """Return a page of events."""
        return await self._readers.read(lambda on: trail.events(on, id_, first, limit))

    async def logs(self, id_: RequestId, first: int, *, limit: int) -> LogPage | None:
        """Return a page of log lines."""
        return await self._readers.read(lambda on: trail.logs(on, id_, first, limit))

    async def open_requests(self, *, after: int = 0, limit: int) -> Sequence[Record]:
        """Return a page of what has not ended."""
        return await self._readers.read(lambda on: reads.open_requests(on, after, limit))

    # --- webhooks ---------------------------------------------------------------------------------------

    async def due_deliveries(self, now: float, *, limit: int) -> Sequence[Delivery]:
        """Return webhooks whose time has come."""
        return await self._readers.read(lambda on: reads.due_deliveries(on, now, limit))

    async def delivered(self, id_: RequestId) -> None:
        """Take a webhook out of the outbox."""
        await self._writer.write(lambda on: keeping.delivered(on, id_))

    async def retry_delivery(self, id_: RequestId, *, next_at: float, error: str) -> None:
        """Note a failed try."""
        await self._writer.write(lambda on: keeping.retry_delivery(on, id_, next_at, error))

    async def bury_delivery(self, id_: RequestId, *, at: float, error: str) -> None:
        """Give a webhook up."""
        await self._writer.write(lambda on: keeping.bury_delivery(on, id_, at, error))

    async def dead_deliveries(self, *, limit: int) -> Sequence[Delivery]:
        """Return dead letters."""
        return await self._readers.read(lambda on: reads.dead_deliveries(on, limit))

    async def revive_delivery(self, id_: RequestId, *, at: float) -> bool:
        """Make a dead letter due."""
        return await self._writer.write(lambda on: keeping.revive_delivery(on, id_, at))

    # --- retention --------------------------------------------------------------------------------------

    async def expire(self, now: float, *, limit: int) -> Expired:
        """Forget a bounded number of ended requests."""
        settings = self._settings
        return await self._writer.write(lambda on: keeping.expire(on, now, limit, settings))


def _must_be_final(outcome: Outcome) -> None:
    if outcome.state not in FINAL:
        raise ValueError(f"a request does not end as {outcome.state.value}")
