"""Syncs at durability `fast`: soon after a commit, one for many, and never in the way of one."""

import os
import threading

import pytest

from headrace.store.sqlite import StoreSettings
from headrace.store.sqlite.syncs import Syncs
from tests.support.server import eventually

PATIENCE_S = 30.0


class Disk:
    """A disk that counts its syncs, holds them up, or fails."""

    def __init__(self):
        self.made = 0
        self.began = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False

    def fdatasync(self, descriptor):
        fails = self.fails  # as it is when the sync begins
        self.began.release()
        assert self.gate.wait(PATIENCE_S)
        if fails:
            raise OSError(5, "Input/output error")
        self.made += 1
        os.fsync(descriptor)

    def wait_for_one(self):
        assert self.began.acquire(timeout=PATIENCE_S), "no sync began"


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    monkeypatch.setattr("headrace.store.sqlite.syncs.os.fdatasync", disk.fdatasync)
    return disk


@pytest.fixture
def syncs(tmp_path, disk):
    (tmp_path / "x.db-wal").write_bytes(b"frames")
    syncs = Syncs(tmp_path / "x.db", StoreSettings(sync_every_s=0.01))
    yield syncs
    disk.gate.set()
    syncs.close(PATIENCE_S)


def test_a_commit_is_synced_without_its_asking(syncs, disk):
    for turn in range(1, 4):
        syncs.committed()
        disk.wait_for_one()

    syncs.close(PATIENCE_S)
    assert disk.made == turn


def test_commits_during_a_sync_share_the_next_one(syncs, disk):
    disk.gate.clear()
    syncs.committed()
    disk.wait_for_one()
    for _ in range(100):
        syncs.committed()  # returns at once: it does not wait for the disk
    disk.gate.set()
    disk.wait_for_one()

    syncs.close(PATIENCE_S)
    assert disk.made == 2


def test_without_a_commit_nothing_is_synced(syncs, disk):
    syncs.close(PATIENCE_S)

    assert disk.made == 0


def test_a_sync_that_fails_is_told_and_the_next_one_is_made(syncs, disk, caplog):
    disk.fails = True
    disk.gate.clear()
    syncs.committed()
    disk.wait_for_one()
    disk.fails = False
    syncs.committed()  # before the first one has failed: they share the next
    disk.gate.set()
    disk.wait_for_one()

    syncs.close(PATIENCE_S)
    assert "the store cannot sync its log: [Errno 5]" in caplog.text
    assert disk.made == 1


def test_a_sync_that_fails_is_made_again_without_another_commit(syncs, disk):
    disk.fails = True
    syncs.committed()
    disk.wait_for_one()
    disk.wait_for_one()
    disk.fails = False
    eventually(lambda: disk.made, "a sync is made")

    syncs.close(PATIENCE_S)
    assert disk.made == 1


def test_a_log_that_is_not_there_is_told_too(tmp_path, disk, caplog):
    syncs = Syncs(tmp_path / "x.db", StoreSettings())
    syncs.committed()
    eventually(lambda: "the store cannot sync its log: [Errno 2]" in caplog.text, "it is told")
    syncs.close(PATIENCE_S)

    assert disk.made == 0
