"""The store and what breaks under it: its process, its disk, its power. What it acknowledged is there, and is whole."""

import asyncio
import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from headrace.store.sqlite import SqliteStore
from tests.support import disk
from tests.support.server import eventually
from tests.support.store_story import Teller
from tests.support.store_work import History
from tests.support.stores import an_outcome, started

WORK = "tests.support.store_work"
PATIENCE_S = 60.0

#: Seconds after which a full run kills no more: a busy machine shows fewer.
KILLING_S = 3_000

needs_compiler = pytest.mark.skipif(disk.COMPILER is None, reason="needs a C compiler")


def work(folder, acks, seed, requests, durability="full", pause_s=0.0, **options):
    command = [sys.executable, "-m", WORK, folder, acks, str(seed), str(requests), durability, str(pause_s)]
    return subprocess.Popen(command, **options)


def is_sound(path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- its process ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)  # it starts many processes, each with all its imports
@pytest.mark.promise("Q1")
def test_what_was_acknowledged_survives_a_kill_at_any_moment(tmp_path, recorder, count, figures):
    """The store's part: submits, attempts, events, cancels and endings, 16 at once, in one file killed again and again."""
    seed = random.Random(20)
    folder, acks = tmp_path / "data", tmp_path / "acks"
    kills, read_to, lost = 0, 0, []
    history = History()
    wanted, over_at = (500 if recorder.is_full else 20), time.monotonic() + KILLING_S
    while kills < wanted and time.monotonic() < over_at:
        kills += 1
        child = work(folder, acks, kills, 100_000)
        if kills % 5:  # else it is killed while it opens the file, or before
            eventually(lambda: acks.exists() and acks.stat().st_size > read_to, "it works", seconds=PATIENCE_S)  # noqa: B023
        time.sleep(seed.uniform(0.0, 0.35))  # the moment is what the test is about
        child.kill()
        assert child.wait(PATIENCE_S) == -signal.SIGKILL
        if acks.exists():
            told = acks.read_bytes()
            history.read(told[read_to : told.rindex(b"\n") + 1] if b"\n" in told[read_to:] else b"")
            read_to = told.rfind(b"\n") + 1
        lost += look_at(folder, history, history.touched)
        history.touched.clear()
    lost += look_at(folder, history, history.known)
    count(smoke=kills, full=kills)

    figures("Q1", kills=kills, requests=len(history.known), lost=len(lost))
    assert lost == []
    assert len(history.known) > kills
    assert is_sound(folder / "requests.db")


def look_at(folder, history, ids) -> list[str]:
    async def go():
        async with SqliteStore(folder) as store:
            return await history.lost(store, ids) + await history.mixed(store, ids)

    return asyncio.run(go())


# --- its power ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["full", "fast"])
def recorded(request, tmp_path_factory):
    """Every change that a store's work made to its disk, and what it acknowledged, in one order."""
    folder = tmp_path_factory.mktemp("power")
    journal = folder.with_suffix(".journal")
    pause_s = 0.4 if request.param == "fast" else 0.0  # long enough for more than one sync a second
    environment = disk.environment(folder, journal=journal)
    child = work(folder, folder / "acks", "p", 60, request.param, pause_s, env=environment)
    assert child.wait(PATIENCE_S) == 0
    return request.param, folder, disk.read_journal(journal)


@needs_compiler
@pytest.mark.promise("Q3", "Q4")
def test_a_power_cut_at_any_point_takes_nothing_that_was_acknowledged(recorded, tmp_path, count, figures):
    """At durability `fast` it may take what was acknowledged since the last sync; then what is left must be whole."""
    durability, folder, changes = recorded
    seed = random.Random(30)
    points, lost, mixed, windows_s = count(smoke=25, full=2_000), [], [], []
    for _ in range(points):
        made = changes[: seed.randrange(len(changes))]
        data = rebuilt(made, folder, tmp_path, seed)
        acknowledged = acknowledged_in(made)
        safe = acknowledged if durability == "full" else acknowledged_in(made[: last_sync(made)])

        async def look(data=data, acknowledged=acknowledged, safe=safe):
            async with SqliteStore(data) as store:
                gone = [known for id_, known in acknowledged.known.items() if await store.get(id_) is None]
                return await safe.lost(store), await acknowledged.mixed(store), gone

        complaints, worse, gone = asyncio.run(look())
        lost += complaints
        mixed += worse
        windows_s.append(max((acknowledged.last_at - known.since for known in gone), default=0.0))
        assert is_sound(data / "requests.db")

    if durability == "full":
        figures("Q3", points=points, changes=len(changes), lost=len(lost), corrupt=len(mixed))
    else:
        figures("Q4", points=points, window_ms=max(windows_s) * 1000, beyond=len(lost), corrupt=len(mixed))
    assert mixed == []
    assert lost == []


def acknowledged_in(changes) -> History:
    """What had been acknowledged when these were all the changes."""
    history = History()
    history.read(b"".join(change.content for change in changes if change.path.endswith("acks")))
    return history


def last_sync(changes) -> int:
    """How many changes there were at the last sync of the write-ahead log."""
    syncs = (at for at, change in enumerate(changes) if change.kind == "S" and change.path.endswith("-wal"))
    return max(syncs, default=0)


def rebuilt(made, folder, tmp_path, seed):
    """The data directory as the power cut may have left it."""
    data = tmp_path / "cut"
    data.mkdir(exist_ok=True)
    for name in data.iterdir():
        name.unlink()
    for path, content in disk.power_cut(made, seed).items():
        if path.startswith(str(folder / "requests.db")):
            (data / path.rpartition("/")[2]).write_bytes(content)
    return data


# --- its disk -------------------------------------------------------------------------------------------------


class Failing(sqlite3.Connection):
    """A connection of which one statement fails: as if before it was done, or after, when only the answer is lost."""

    calls = 0
    at = 0
    is_done_first = False
    lock = threading.Lock()

    def execute(self, *args):
        with Failing.lock:
            Failing.calls += 1
            is_one = Failing.calls == Failing.at
        if not is_one:
            return super().execute(*args)
        if Failing.is_done_first:
            super().execute(*args).fetchall()
        raise sqlite3.OperationalError("disk I/O error")

    def executescript(self, script):
        self.execute("SELECT 1")
        return super().executescript(script)


def failing(path, mode):
    with Failing.lock:
        Failing.calls += 1
        is_one = Failing.calls == Failing.at
    if is_one:
        raise sqlite3.OperationalError("unable to open database file")
    uri = f"file:{path}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=Failing)


@pytest.mark.promise("Q5")
@pytest.mark.parametrize("is_done_first", [False, True], ids=["before it is done", "after it is done"])
def test_whichever_call_of_sqlite_fails_the_story_ends_the_same(tmp_path, is_done_first, count, figures):
    Failing.at, Failing.calls, Failing.is_done_first = 0, 0, is_done_first
    expected = asyncio.run(Teller(tmp_path / "calm", failing).tell())
    calls = Failing.calls
    numbers = range(1, calls + 1)
    chosen = random.Random(50).sample(numbers, min(count(smoke=30, full=100_000), calls))
    unnoticed = 0
    for number in sorted(chosen):
        teller = Teller(tmp_path / str(number), failing)
        Failing.at, Failing.calls = number, 0
        left = asyncio.run(teller.tell())
        Failing.at = 0
        assert left == expected, number
        assert asyncio.run(seen_again(teller)) == expected, number
        unnoticed += teller.failures == 0

    figures("Q5", calls=calls, failed=len(chosen), unnoticed=unnoticed, false=0)


async def seen_again(teller):
    async with SqliteStore(teller.folder) as store:
        return await teller.left(store)


@needs_compiler
@pytest.mark.promise("Q5")
def test_whichever_change_of_a_file_fails_the_story_ends_the_same(tmp_path, count, figures):
    every = count(smoke=12, full=1)
    command = [sys.executable, "-m", "tests.support.store_story", tmp_path, str(every)]
    told = subprocess.run(command, env=disk.environment(tmp_path), capture_output=True, text=True, timeout=600)

    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout)
    figures("Q5", changes_of_files=seen["changes"], failed=seen["told"], false=0)


FULL_DISK = """
import asyncio, json, resource, sys
from pathlib import Path
from headrace.store.port import StoreUnavailable
from headrace.store.sqlite import SqliteStore
from tests.support.stores import a_request, an_outcome, started

async def main(folder):
    async with SqliteStore(folder) as store:
        running = await started(store)
        taken, refused = [], 0
        largest = max(entry.stat().st_size for entry in folder.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 200_000, resource.RLIM_INFINITY))
        for number in range(100):
            new = a_request(f"r{number}", body=bytes(10_000))
            try:
                await store.submit(new)
                taken.append(new.id)
            except StoreUnavailable:
                refused += 1
                assert await store.get(new.id) is None
                assert (await store.get(running)).attempt == 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.submit(a_request("after"))
        assert await store.finish(running, 1, an_outcome())
        print(json.dumps({"taken": [*taken, "after"], "refused": refused}))

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.promise("G5")
def test_a_full_disk_refuses_submits_loses_nothing_and_heals(tmp_path, count, figures):
    for turn in range(count(smoke=1, full=5)):
        folder = tmp_path / str(turn)
        told = subprocess.run(
            [sys.executable, "-c", FULL_DISK, folder], capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert told.returncode == 0, told.stderr
        seen = json.loads(told.stdout)

        async def stored(folder=folder, seen=seen):
            async with SqliteStore(folder) as store:
                return [id_ for id_ in seen["taken"] if await store.body(id_) is not None]

        assert seen["refused"] > 10
        assert len(seen["taken"]) > 5
        assert asyncio.run(stored()) == seen["taken"]
    figures("G5", target="0 acknowledged and lost (the store's part)", refused=seen["refused"], lost=0)


# --- results --------------------------------------------------------------------------------------------------


@pytest.mark.promise("Q8")
def test_a_result_that_can_be_read_is_whole_and_its_requests_own(tmp_path, count, figures):
    reads = count(smoke=1_000, full=10_000)

    def body(id_):
        return f"{id_} ".encode() * 5_000

    async def go():
        seen = {"none": 0, "whole": 0, "wrong": 0}
        async with SqliteStore(tmp_path) as store:
            open_ids: list[str] = []

            async def write():
                before = None
                while sum(seen.values()) < reads:
                    id_ = await started(store)
                    open_ids.append(id_)
                    await store.append(id_, 1, 0, [b"x" * 1_000])
                    await store.finish(id_, 1, an_outcome(body=body(id_)))
                    if before is not None:  # one that has ended is read until the next one has, too
                        open_ids.remove(before)
                    before = id_

            async def read():
                while sum(seen.values()) < reads:
                    for id_ in tuple(open_ids):
                        result = await store.result(id_)
                        is_right = result is not None and result.body == body(id_) and result.status == 200
                        seen["none" if result is None else "whole" if is_right else "wrong"] += 1
                    await asyncio.sleep(0)

            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(write() for _ in range(8)), *(read() for _ in range(8)))
        return seen

    seen = asyncio.run(go())

    figures("Q8", reads=sum(seen.values()), whole=seen["whole"], wrong=seen["wrong"])
    assert seen["wrong"] == 0
    assert seen["whole"] > 0


# --- many of them ---------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.promise("Q9")
def test_submits_at_once_share_the_syncs_of_a_slow_disk(tmp_path, count, figures):
    seconds = count(smoke=1, full=10)
    command = [
        sys.executable,
        "bench/store.py",
        "--sync-ms",
        "4",
        "--seconds",
        str(seconds),
        "--folder",
        tmp_path,
        "--json",
    ]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout)
    figures(
        "Q9", acks_per_s=seen["acks_per_s"], p50_ms=seen["p50_ms"], p99_ms=seen["p99_ms"], sync_ms=seen["sync_ms"]
    )
    # With one sync each, a submit would wait for those of all others. The median, which one hold-up does not move.
    assert seen["p50_ms"] < seen["submitters"] * seen["sync_ms"] / 2


@pytest.mark.promise("Q10")
def test_submits_do_not_wait_for_old_requests_nor_for_their_expiry(tmp_path, count, figures):
    many = count(smoke=20_000, full=1_000_000)
    seconds = 0.5 if many < 100_000 else 20
    command = [sys.executable, "bench/store.py", "--old", str(many), "--seconds", str(seconds)]
    told = subprocess.run(
        [*command, "--folder", tmp_path, "--json"], capture_output=True, text=True, timeout=1_200
    )

    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout)
    figures("Q10", old=many, expired=seen["expired"], **seen["ratios"])
    assert seen["expired"] > 0
    assert all(seen[name]["acks_per_s"] > 10 for name in ("none", "old", "expiring"))
