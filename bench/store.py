"""What the store takes: acknowledged submits a second, and what a million old requests cost.

    python bench/store.py                    64 submitters at full durability, on this disk
    python bench/store.py --sync-ms 4        as if each sync took 4 ms longer (needs a C compiler)
    python bench/store.py --old 1000000      with that many ended requests, beside a store that has none, as a ratio
    python bench/store.py --busy 0.9         beside an event loop that is 90 % busy with other things

It prints what one sync of this disk takes beside it: without that the rest means nothing.
"""

import argparse
import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from headrace.core.request import new_request_id  # noqa: E402
from headrace.store.port import NewRequest  # noqa: E402
from headrace.store.sqlite import Durability, SqliteStore, StoreSettings  # noqa: E402
from headrace.supervisor.queue import EXPIRE_AT_ONCE, EXPIRE_PAUSE_S  # noqa: E402
from tests.support import disk  # noqa: E402

BODY = b'{"prompt": "a watercolour of a mill by a river, early in the morning", "seed": 42}'

#: Seconds for which each of several stores is measured at a time.
SLICE_S = 0.5

#: As many ended requests as asked for, an hour of them, without going through the front door one by one. Their ids are
#: as a node makes them (`core/request.py`): the minute, then chance.
FILL = """
INSERT INTO requests (id, app, endpoint, view, owner, headers, priority, may_retry, state, attempt, created_at,
    started_at, finished_at, status, result_bytes, spare_since)
WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < :many)
SELECT printf('%03x', (:now - 3600 + n * 3600.0 / :many) / 64 & 4095) || substr(lower(hex(randomblob(4))), 1, 5)
    || lower('-' || hex(randomblob(2)) || '-' || hex(randomblob(2)) || '-' || hex(randomblob(2)) || '-'
    || hex(randomblob(6))), 'bench/old', '', 'run', 'hr_aaaaaaaaaaaa', '{"user-agent": "bench"}', 0, 1, 'completed', 1,
    :now - 3600 + n * 3600.0 / :many, :now, :now, 200, 40, :now - 3600 + n * 3600.0 / :many
FROM count
"""
FILL_RESULTS = "INSERT INTO results SELECT number, '{}', zeroblob(40) FROM requests WHERE app = 'bench/old'"


def sync_ms(folder: Path) -> tuple[float, float]:
    """The median and the 99th percentile of writing and syncing 8 KiB, in place."""
    times = []
    file = os.open(folder / "sync", os.O_RDWR | os.O_CREAT)
    os.pwrite(file, bytes(4 << 20), 0)
    os.fsync(file)
    for turn in range(200):
        os.pwrite(file, bytes(8192), turn * 8192)
        began = time.perf_counter()
        os.fdatasync(file)
        times.append((time.perf_counter() - began) * 1000)
    os.close(file)
    times.sort()
    return times[100], times[198]


def fill(folder: Path, many: int) -> None:
    """Put ended requests into the file of a store that is closed."""
    with sqlite3.connect(folder / "requests.db") as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(FILL, {"many": many, "now": time.time()})
        connection.execute(FILL_RESULTS)
    connection.close()


def keep_busy(loop: asyncio.AbstractEventLoop, share: float) -> None:
    """Work on the loop for a share of each millisecond, as streams do."""
    end = time.perf_counter() + share / 1000
    while time.perf_counter() < end:
        sum(range(50))
    loop.call_later((1 - share) / 1000, keep_busy, loop, share)


async def submit(store: SqliteStore, submitters: int, seconds: float) -> list[float]:
    """How long each submit waited for its acknowledgement."""
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        while (began := time.perf_counter()) < end:
            now = time.time()
            id_ = new_request_id(os.urandom(16), 0, now)
            await store.submit(
                NewRequest(id=id_, app="bench/new", endpoint="", view="run", body=BODY, created_at=now)
            )
            waits.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(submitters)))
    return sorted(waits)


async def expire(store: SqliteStore, done: list[int]) -> None:
    """Forget old requests, a step at a time, as a node does."""
    while True:
        done.append((await store.expire(time.time() + 3600, limit=EXPIRE_AT_ONCE)).requests)
        await asyncio.sleep(EXPIRE_PAUSE_S)


def written_bytes() -> int:
    """What this process has written to files, the write-ahead log and the checkpoints together; 0 where nobody tells."""
    told = Path("/proc/self/io")
    return int(told.read_text().partition("wchar: ")[2].split()[0]) if told.exists() else 0


async def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    settings = StoreSettings(durability=Durability(args.durability))
    if args.busy:
        keep_busy(asyncio.get_running_loop(), args.busy)
    (folder / "none").mkdir()
    if not args.old:
        async with SqliteStore(folder / "none", settings) as store:
            await submit(store, args.submitters, 0.5)
            before = written_bytes()
            waits = await submit(store, args.submitters, args.seconds)
            seen = told(waits, args.seconds, written_bytes() - before)
        return {**seen, "submitters": args.submitters, "busy": args.busy}
    (folder / "old").mkdir()
    await SqliteStore(folder / "old", settings).close()
    fill(folder / "old", args.old)
    async with SqliteStore(folder / "none", settings) as none, SqliteStore(folder / "old", settings) as old:
        return await compare(args, none, old)


async def compare(args: argparse.Namespace, none: SqliteStore, old: SqliteStore) -> dict[str, object]:
    """Submit by turns to a store with nothing in it, to one with old requests, and to that one while it forgets them.

    What else the machine does meets all three alike.
    """
    waits: dict[str, list[float]] = {"none": [], "old": [], "expiring": []}
    written = dict.fromkeys(waits, 0)
    expired: list[int] = []
    for turn in range(1 + round(args.seconds / SLICE_S)):
        for name, seen in waits.items():
            store = none if name == "none" else old
            expiry = asyncio.create_task(expire(store, expired)) if name == "expiring" else None
            before = written_bytes()
            slice_ = await submit(store, args.submitters, SLICE_S)
            if expiry is not None:
                expiry.cancel()
            if turn:  # the first warms up
                seen += slice_
                written[name] += written_bytes() - before
    each = {name: told(sorted(seen), args.seconds, written[name]) for name, seen in waits.items()}
    ratios = {
        f"{name}_{what}": round(each[name][what] / each["none"][what], 2)
        for name in ("old", "expiring")
        for what in ("acks_per_s", "p50_ms", "p99_ms", "written_kib")
    }
    return {**each, "ratios": ratios, "old_requests": args.old, "expired": sum(expired)}


def told(waits: list[float], seconds: float, written: int) -> dict[str, float]:
    """What to tell of some submits' sorted waits, and of the bytes that were written meanwhile."""
    middle, late = (waits[int(len(waits) * part)] * 1000 for part in (0.5, 0.99))
    return {
        "acks_per_s": round(len(waits) / seconds),
        "p50_ms": round(middle, 2),
        "p99_ms": round(late, 2),
        "worst_ms": round(waits[-1] * 1000, 2),
        "written_kib": round(written / len(waits) / 1024, 1),  # for each submit
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the store takes.")
    parser.add_argument("--submitters", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--durability", choices=["full", "fast"], default="full")
    parser.add_argument("--sync-ms", type=float, default=0, help="what each sync takes longer than this disk's")
    parser.add_argument("--old", type=int, default=0, help="ended requests in the file")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--busy", type=float, default=0, help="the share of time that the loop has other work")
    parser.add_argument("--folder", type=Path, help="where to put the file: the disk to measure")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=args.folder) as name:
        folder = Path(name)
        if args.sync_ms and "DISK_FOLDER" not in os.environ:
            slow = disk.environment(folder.parent, sync_ms=args.sync_ms)
            folder.rmdir()
            os.execve(sys.executable, [sys.executable, *sys.argv], slow)
        middle, late = sync_ms(folder)
        seen = {"sync_ms": round(middle, 2), "sync_p99_ms": round(late, 2)} | asyncio.run(measure(args, folder))
    if args.json:
        print(json.dumps(seen))
    else:
        for name, value in seen.items():
            print(f"{name:12} {value:>12,}" if isinstance(value, int | float) else f"{name:12} {value}")


if __name__ == "__main__":
    main()
