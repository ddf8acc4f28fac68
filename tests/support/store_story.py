"""A story of a few requests, told to a store that may fail at any word, and how it must end whatever happens.

Each step is said again when the store says that it is unavailable, as a node would; no step may need more than a few
times. `python -m tests.support.store_story FOLDER EVERY` tells it on a disk that fails (`disk.fails`), for every
EVERY-th change of a file, and prints one JSON line: how many changes there were, and how many times it was told.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from headrace.core.request import State
from headrace.store.port import LogLine, StoreFault, StoreUnavailable
from headrace.store.sqlite import SqliteStore, StoreSettings, file
from tests.support import disk
from tests.support.stores import CANCELLED, a_request, an_outcome

T = TypeVar("T")

#: How often a step is said, where what fails fails once. An operation may be in a group that fails, and then alone.
TRIES = 4

LARGE = an_outcome(body=b"large " * 20_000)
#: A checkpoint every few operations, so that its calls fail, too.
SETTINGS = StoreSettings(checkpoint_bytes=60_000, readers=1)


@dataclasses.dataclass
class Teller:
    """Says things to a store until it does them."""

    folder: Path
    connect: file.Connect = file.connect
    failures: int = 0

    def open(self) -> SqliteStore:
        for _ in range(TRIES):
            try:
                return SqliteStore(self.folder, SETTINGS, connect=self.connect)
            except StoreFault:
                self.failures += 1
        raise AssertionError("the store does not open")

    async def say(self, step: Callable[[], Awaitable[T]]) -> T:
        for _ in range(TRIES):
            try:
                return await step()
            except StoreUnavailable:
                self.failures += 1
        raise AssertionError("the store does not heal")

    async def start(self, store: SqliteStore, id_: str) -> int:
        """A start whose answer was lost is found in the record."""
        told = await self.say(lambda: store.start(id_, node="here", lease_until=1_030.0, at=1_001.0))
        record = await self.say(lambda: store.get(id_))
        assert record.state is State.RUNNING, record
        assert told in {None, record.attempt}
        return record.attempt

    async def finish(self, store: SqliteStore, id_: str, attempt: int, outcome: Any = None) -> None:
        outcome = outcome or an_outcome()
        told = await self.say(lambda: store.finish(id_, attempt, outcome))
        result = await self.say(lambda: store.result(id_))
        assert result in (outcome, dataclasses.replace(CANCELLED, at=outcome.at))
        assert told in {None, result.state}

    async def tell(self) -> dict[str, Any]:
        """The story, from an empty folder to what is left of it."""
        store = self.open()
        say = self.say
        first = [a_request(id_, webhook=f"https://{id_}", idempotency_key=id_) for id_ in "abc"]
        await asyncio.gather(*(say(lambda new=new: store.submit(new)) for new in first))
        await asyncio.gather(*(say(lambda id_=id_: store.submit(a_request(id_))) for id_ in "defgh"))
        attempt = await self.start(store, "a")
        await say(lambda: store.append("a", attempt, 0, [b"0", b"1"]))
        await say(lambda: store.append("a", attempt, 2, [b"2"]))
        early = an_outcome(at=1_500.0)
        await asyncio.gather(
            self.finish(store, "a", attempt, early), self.start(store, "b"), self.start(store, "d")
        )
        await say(lambda: store.requeue("b", 1, not_before=0, at=0))
        attempt = await self.start(store, "b")
        await say(lambda: store.cancel("d", CANCELLED))
        await self.finish(store, "d", 1)
        await say(lambda: store.cancel("e", CANCELLED))
        await say(lambda: store.end_queued("f", an_outcome(State.FAILED)))
        await store.close()
        store = self.open()
        await say(lambda: store.release("here", at=1_002.0))
        attempt = await self.start(store, "b")
        await say(lambda: store.append_logs("b", attempt, [LogLine("it works", "INFO", "USER", 1_003.0)] * 2))
        await self.finish(store, "b", attempt, LARGE)
        await say(lambda: store.delivered("a"))
        await say(lambda: store.bury_delivery("b", at=2_100.0, error="gone"))
        await say(lambda: store.expire(1_500.0 + 3_600.0, limit=9))
        left = await self.left(store)
        await store.close()
        return left

    async def left(self, store: SqliteStore) -> dict[str, Any]:
        """All that can be read, but for log lines, which are there twice when they were said twice."""
        say = self.say
        found: dict[str, Any] = {}
        for id_ in "abcdefgh":
            record = await say(lambda id_=id_: store.get(id_))
            if record is not None:
                found[id_] = (
                    record.state, record.status, await say(lambda id_=id_: store.result(id_)),
                    await say(lambda id_=id_: store.events(id_, 0, limit=99)),
                    await say(lambda id_=id_: store.body(id_)),
                    await say(lambda id_=id_: store.position(id_)),
                )  # fmt: skip
        found["dead"] = [one.request for one in await say(lambda: store.dead_deliveries(limit=9))]
        found["due"] = [one.request for one in await say(lambda: store.due_deliveries(1e9, limit=9))]
        return found


async def main(folder: Path, every: int) -> None:
    disk.fails(0)
    expected = await Teller(folder / "calm").tell()
    changes = disk.changes_made()
    told = 0
    for number in range(1, changes + 1, every):
        teller = Teller(folder / "fails")
        disk.fails(number)
        left = await teller.tell()
        disk.fails(0)
        assert left == expected, (number, left, expected)
        async with SqliteStore(teller.folder) as store:
            assert await teller.left(store) == expected, number
        shutil.rmtree(teller.folder)
        told += 1
    print(json.dumps({"changes": changes, "told": told}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
