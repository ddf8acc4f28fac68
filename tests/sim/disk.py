"""A node's disk: a real SQLite file, on which every operation takes virtual time, and may fail.

The store is the real one. Its writer and its readers work on the simulated loop instead of threads: an operation waits,
is done at one instant, and its answer takes a while more. So a node can die before a commit, or behind one of which
nobody was told. Connections fail as SQLite's do, before, within and behind a transaction; and each change that a
transaction leaves in the table of requests is told to `records` by triggers, whoever made it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from headrace.core.request import RequestId
from headrace.store.port import StoreBusy, StoreUnavailable
from headrace.store.sqlite import SqliteStore, StoreSettings, file, trail
from headrace.store.sqlite.writer import Operation, Writer

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

_MEMORY = Path("/dev/shm")

#: What a transaction does to requests, as `records` is told it.
_TRIGGERS = """
CREATE TEMP TRIGGER sim_new AFTER INSERT ON main.requests BEGIN
    SELECT note('new', new.id, new.number, new.app, new.priority, new.headers, new.start_deadline);
END;
CREATE TEMP TRIGGER sim_moved AFTER UPDATE OF state, attempt, lease_until ON main.requests BEGIN
    SELECT note('moved', new.id, old.state, new.state, old.attempt, new.attempt, new.lease_until, new.status,
        new.error_type);
END;
CREATE TEMP TRIGGER sim_gone AFTER DELETE ON main.requests BEGIN
    SELECT note('gone', old.id, old.is_large);
END;
CREATE TEMP TRIGGER sim_result AFTER INSERT ON main.results BEGIN
    SELECT note('result', id, new.body) FROM main.requests WHERE number = new.request;
END;
"""


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """How bad a disk is."""

    rough: float = 0.0
    sync_s: float = 0.001  # what a commit takes, at most, while all is well
    outages: tuple[tuple[float, float, bool], ...] = ()  # when, for how long, whether it cannot even be read

    @classmethod
    def draw(cls, dice: Random, within_s: float) -> DiskPlan:
        """Return a disk; a good one, more often than not."""
        rough = dice.choice((0.0, 0.0, 0.3, 1.0))
        return cls(
            rough=rough,
            sync_s=dice.choice((0.0, 0.005, 0.1)),
            outages=tuple(
                (dice.random() * (within_s + 10), dice.choice((0.5, 5.0, 40.0)), dice.random() < 0.5)
                for _ in range(dice.choice((0, 0, 1, 2)) if rough else 0)
            ),
        )


class Disk:
    """The folder of a node's data, which outlives the node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plan = world.plan.disk
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-sim-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.is_full = self.is_gone = False
        self.has_failed = False  # for somebody, once
        self.troubled_at = -1e9  # when anything was slow or failed last
        self.late: list[Operation[Any]] = []  # what a dead node had on its way here
        self._connections: list[Connection] = []
        self._kind = type("Connection", (Connection,), {"disk": self})
        for after_s, for_s, is_gone in self.plan.outages:
            world.later(after_s, lambda for_s=for_s, is_gone=is_gone: self._fail(for_s, is_gone))

    def open(self) -> SqliteStore:
        """Open the store, as a node does. Raises `StoreFault`."""
        settings = StoreSettings(
            result_age_s=self.world.plan.result_age_s, large_result_age_s=self.world.plan.result_age_s / 2,
            large_result_bytes=2_000, checkpoint_bytes=100_000,
        )  # fmt: skip
        return SqliteStore(self.folder, settings, connect=self._connect)

    def die_with(self, store: SqliteStore) -> None:
        """A node dies: the kernel closes its files, and unlocks them. What it had on its way may come late."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        store._lock.release()
        self.late = [one for one in store._writer._waiting if _is_fenced(one)]

    def events_of(self, id_: str) -> tuple[tuple[int, bytes], ...]:
        """Return all events that are kept of a request, numbered."""
        with contextlib.closing(sqlite3.connect(self.folder / file.FILE_NAME)) as connection:
            page = trail.events(connection, RequestId(id_), 0, 1 << 30)
        assert page is not None
        return page.events

    def remove(self) -> None:
        """The end of the world."""
        for connection in self._connections:
            connection.close()
        shutil.rmtree(self.folder)

    # --- time -------------------------------------------------------------------------------------------

    def commit_s(self) -> float:
        """Draw what the next commit takes."""
        if not self._may_fail:
            return 0.001
        dice = self.world.dice
        if dice.random() < 0.01 * self.plan.rough:
            self.troubled_at = self.world.loop.time() + 40
            self.has_failed = True
            return dice.choice((1.0, 8.0, 40.0))  # the last is longer than anybody waits for an answer
        return dice.random() * self.plan.sync_s

    @property
    def calm_s(self) -> float:
        """Seconds since anything was slow or failed."""
        return 0.0 if self.is_full else self.world.loop.time() - self.troubled_at

    @property
    def answers_within_s(self) -> float:
        """Seconds within which whoever waits for the disk has surely been told."""
        return 2.5 if self.calm_s > 5 else math.inf

    def deliver_late(self, node: Node) -> None:
        """What a node before this one had on its way comes now and then only after it, as from a zombie."""
        late, self.late = self.late, []
        for operation in late:
            after_s = self.world.dice.choice((0.0, 0.05, 2.0))
            self.world.later(after_s, functools.partial(self._deliver, node, operation))

    def _deliver(self, node: Node, operation: Operation[Any]) -> None:
        if node.is_up:
            self.world.note("what a dead node wanted to write comes late")
            self.world.records.met.add("came late")
            node.do(self._write(node, operation))

    async def _write(self, node: Node, operation: Operation[Any]) -> None:
        with contextlib.suppress(StoreUnavailable, StoreBusy):
            await node.store._writer.write(operation.run)

    def read_s(self) -> float:
        """Draw what the next read takes."""
        return self.world.dice.choice((0.0, 0.0, 0.0005))

    @property
    def _may_fail(self) -> bool:
        return self.world.is_storm and self.world.has_begun

    # --- faults -----------------------------------------------------------------------------------------

    def _fail(self, for_s: float, is_gone: bool) -> None:
        if not self._may_fail:
            return
        self.world.note(f"the disk {'is gone' if is_gone else 'is full'} for {for_s} s")
        self.is_full, self.is_gone = True, is_gone
        self.world.later(for_s, self.heal)

    def heal(self) -> None:
        """It works again."""
        if self.is_full:
            self.world.note("the disk works again")
            self.troubled_at = max(self.troubled_at, self.world.loop.time())
        self.is_full = self.is_gone = False

    def fails_where(self) -> str:
        """Draw where the next transaction fails; nowhere, mostly."""
        if self.is_full:
            return "begin"
        dice = self.world.dice
        if self._may_fail and self.plan.rough and dice.random() < 0.03 * self.plan.rough:
            return dice.choice(("begin", "statement", "commit", "committed"))
        return ""

    def broke(self, where: str) -> sqlite3.Error:
        """Return what SQLite raises for it."""
        self.troubled_at = max(self.troubled_at, self.world.loop.time())
        self.has_failed = True
        self.world.note(f"the disk fails: {where}")
        return sqlite3.OperationalError(f"disk I/O error ({where})")

    # --- connections ------------------------------------------------------------------------------------

    def _connect(self, path: Path, mode: str) -> sqlite3.Connection:
        if self.is_gone:
            raise self.broke("it cannot be opened")
        uri = f"file:{path}?mode={mode}"
        connection: Connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, factory=self._kind
        )
        self._connections.append(connection)
        if mode == "rw":
            connection.listen()
        return connection


class Connection(sqlite3.Connection):
    """A connection that may fail, and that tells what its transactions did."""

    disk: Disk

    def listen(self) -> None:
        """From now on note what is done to requests."""
        self._notes: list[tuple[Any, ...]] = []
        self._where = ""
        self.create_function("note", -1, lambda *note: self._notes.append(note))
        tables = super().execute("SELECT name FROM main.sqlite_master WHERE name = 'requests'").fetchone()
        if tables is not None:
            self.executescript(_TRIGGERS)

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        """As SQLite's, unless the disk fails."""
        match sql:
            case "BEGIN":  # a reader's
                if self.disk.is_gone:
                    raise self.disk.broke("it cannot be read")
            case "BEGIN IMMEDIATE":
                self._notes.clear()
                self._where = self.disk.fails_where()
                self._fail_if("begin")
            case "COMMIT" if hasattr(self, "_notes"):
                self._fail_if("commit")
                super().execute(sql)
                self.disk.world.records.apply(self._notes)
                self._notes.clear()
                self._fail_if("committed")
                return super().execute("SELECT 0")
            case _ if getattr(self, "_where", "") == "statement":
                self._fail_if("statement")
        return super().execute(sql, parameters)

    def _fail_if(self, where: str) -> None:
        if self._where == where:
            self._where = ""
            raise self.disk.broke(where)


# --- instead of threads ---------------------------------------------------------------------------------------


class SimWriter(Writer):
    """The real writer, whose thread is the loop."""

    def __init__(
        self, disk: Disk, path: Path, settings: StoreSettings, open_: Callable[[], sqlite3.Connection]
    ) -> None:
        self._disk = disk
        self._loop = asyncio.get_running_loop()
        self._is_at_work = False
        self._due: asyncio.TimerHandle | None = None
        super().__init__(path, settings, open_)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and everybody was answered."""
        return not self._is_at_work

    def _enqueue(self, operation: Operation[Any], share: float) -> None:
        super()._enqueue(operation, share)
        if not self._is_at_work:
            self._is_at_work = True
            self._due = self._loop.call_later(self._disk.commit_s(), self._work)

    def _work(self) -> None:
        group = self._next_group() if self._waiting else []
        if group:
            self._commit(group)
        self._due = self._loop.call_later(self._disk.commit_s(), self._answer, group)

    def _answer(self, group: list[Operation[Any]]) -> None:
        self._tell(group)
        self._note_committed(group)
        if self._checkpoints._is_due():
            self._checkpoints._make_beside()
        self._is_at_work = bool(self._waiting)
        if self._waiting:
            self._due = self._loop.call_later(self._disk.commit_s(), self._work)

    def close(self, timeout_s: float) -> bool:
        """Do what waits, at once."""
        while self._waiting:
            if group := self._next_group():
                self._commit(group)
                self._tell(group)
        if self._due is not None:
            self._due.cancel()  # whoever has not been told yet has left
        self._is_closing = True
        self._disconnect()
        return True


class SimExecutor:
    """What runs reads, on the loop: each sees one instant, and is told a little later what it was."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._is_closed = False

    def submit(self, run: Callable[[], Any]) -> Future[Any]:
        """Run it soon."""
        if self._is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self._waiting.append((future, run))
        self._loop.call_later(self._disk.read_s(), self._work)
        return future

    def _work(self) -> None:
        if self._waiting:
            future, run = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    answer = run()
                except Exception as error:  # it is for whoever asked
                    self._loop.call_later(self._disk.read_s(), future.set_exception, error)
                else:
                    self._loop.call_later(self._disk.read_s(), future.set_result, answer)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:  # noqa: ARG002 - the store always waits
        """Finish what is under way, at once."""
        self._is_closed = True
        while wait and self._waiting:
            self._work()


class NoThread:
    """Stands where a thread would: what it would do is done by others."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...

    def join(self, timeout_s: float | None = None) -> None: ...


def _is_fenced(operation: Operation[Any]) -> bool:
    """Whether it is an attempt's, so that it may come late: the store must refuse it then."""
    _, name, *_ = operation.run.__qualname__.split(".")
    return name in {"finish", "requeue", "append", "append_logs"}
