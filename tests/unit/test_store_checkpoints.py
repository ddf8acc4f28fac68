"""Checkpoints: beside the commits, one at a time, and never one that has nothing to do."""

import contextlib
import sqlite3
import threading
import time

import pytest

from headrace.store.sqlite import StoreSettings, file
from headrace.store.sqlite.checkpoints import Checkpoints

PATIENCE_S = 30.0


class Bench:
    """Checkpoints of a file with a table, a connection that writes, and a note of each checkpoint."""

    def __init__(self, folder, **settings):
        self.path = folder / "x.db"
        self.settings = StoreSettings(**({"checkpoint_bytes": 1_000} | settings))
        file.create(self.path)
        self.writer = self.open_writer()
        self.writer.execute("CREATE TABLE t (x)")
        self.made: list[str] = []
        self.at_once = self.most_at_once = 0
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False
        bench = self

        class Noted(sqlite3.Connection):
            def execute(self, statement, *args):
                if "wal_checkpoint" not in statement:
                    return super().execute(statement, *args)
                bench.at_once += 1
                bench.most_at_once = max(bench.at_once, bench.most_at_once)
                try:
                    assert bench.gate.wait(PATIENCE_S)
                    if bench.fails:
                        raise sqlite3.OperationalError("disk I/O error")
                    return super().execute(statement, *args)
                finally:
                    bench.at_once -= 1
                    bench.made.append(statement)

        self.factory = Noted
        self.checkpoints = Checkpoints(self.path, self.settings, self.open)

    def open_writer(self):
        return file.open_writer(self.path, self.settings, file.connect)

    def open(self):
        return file.open_writer(
            self.path,
            self.settings,
            lambda path, mode: sqlite3.connect(
                f"file:{path}?mode={mode}", uri=True, isolation_level=None, factory=self.factory
            ),
        )

    def commit(self, size):
        self.writer.execute("INSERT INTO t VALUES (zeroblob(?))", (size,))
        self.checkpoints.committed(size, self.writer)

    def wait_for(self, many):
        deadline = time.monotonic() + PATIENCE_S
        while len(self.made) < many:
            assert time.monotonic() < deadline, f"{len(self.made)} checkpoints, not {many}"
            time.sleep(0.001)
        with self.checkpoints._turn:
            pass  # and it is noted that it was made


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.gate.set()
    bench.checkpoints.close(PATIENCE_S)
    assert not bench.checkpoints._thread.is_alive()
    bench.writer.close()


def test_one_is_made_when_enough_was_committed(bench):
    bench.commit(999)
    bench.checkpoints.committed(0, bench.writer)
    assert bench.made == []
    bench.commit(1)
    bench.wait_for(1)

    assert bench.made == ["PRAGMA wal_checkpoint(PASSIVE)"]
    with contextlib.closing(sqlite3.connect(f"file:{bench.path}?mode=ro&immutable=1", uri=True)) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (2,)


def test_what_is_committed_while_one_is_made_does_not_begin_the_next(bench):
    """So that none begins when all of the log is in the database: the race of SQLite's WAL-reset bug."""
    bench.gate.clear()
    bench.commit(1_000)
    deadline = time.monotonic() + PATIENCE_S
    while not bench.at_once:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    for _ in range(10):
        bench.commit(1_000)
    bench.gate.set()
    bench.wait_for(1)
    bench.commit(999)
    with bench.checkpoints._turn:
        assert len(bench.made) == 1
    bench.commit(1)
    bench.wait_for(2)

    assert bench.most_at_once == 1


def test_commits_go_on_meanwhile(bench):
    bench.gate.clear()
    bench.commit(1_000)
    for _ in range(100):
        bench.commit(1_000)
    count = bench.writer.execute("SELECT count(*) FROM t").fetchone()

    assert count == (101,)
    assert bench.made == []


def test_one_that_fails_is_told_and_made_again(bench, caplog):
    bench.fails = True
    bench.commit(1_000)
    bench.wait_for(1)
    with bench.checkpoints._turn:
        bench.fails = False
    bench.commit(1_000)
    bench.wait_for(2)

    assert [record.message for record in caplog.records] == ["the store cannot make a checkpoint: disk I/O error"]


def test_a_log_that_grew_too_long_is_emptied_by_the_writer(tmp_path):
    bench = Bench(tmp_path, checkpoint_bytes=10**9, wal_bytes_max=500_000)
    log = bench.path.with_name("x.db-wal")
    bench.commit(400_000)
    before = log.stat().st_size
    bench.commit(400_000)
    after = log.stat().st_size
    bench.checkpoints.close(PATIENCE_S)
    bench.writer.close()

    assert (before > 400_000, after) == (True, 0)
