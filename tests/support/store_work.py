"""A program that works with a store until it is killed, and what must be true of the store then.

    python -m tests.support.store_work FOLDER ACKS SEED REQUESTS DURABILITY PAUSE_S

It opens the store in FOLDER as a node does, takes over what the one before it left, and adds REQUESTS requests, many
at once, with a pause before each thing it does. Each acknowledgement is written to ACKS as soon as it has it, with the
time. `History` reads that file and compares.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.request import FINAL, State
from headrace.store.port import Cancelling
from headrace.store.sqlite import Durability, SqliteStore, StoreSettings
from tests.support.stores import CANCELLED, a_request, an_outcome

WORKERS = 16
NODE = "worker"


def body_of(id_: str) -> bytes:
    return f"the body of {id_} ".encode() * (1 + hash_of(id_) % 50)


def result_of(id_: str, attempt: int) -> bytes:
    return f"the result of {id_} by attempt {attempt} ".encode() * (1 + hash_of(id_) % 300)


def event_of(id_: str, attempt: int, number: int) -> bytes:
    return f"event {number} of {id_} by attempt {attempt}".encode()


def hash_of(text: str) -> int:
    return sum(text.encode())


class Work:
    """The program's work with one store."""

    def __init__(self, store: SqliteStore, acks: Path, seed: str, pause_s: float) -> None:
        self.store = store
        self.pause_s = pause_s
        self.random = random.Random(seed)
        self.acks = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def ack(self, *words: object) -> None:
        os.write(self.acks, json.dumps([time.monotonic(), *words]).encode() + b"\n")

    async def work(self, ids: list[str]) -> None:
        await self.store.release(NODE, at=1_000.0)
        waiting = [record.id for record in await self.store.open_requests(limit=10_000)]
        ids = ids[::-1]

        async def one() -> None:
            while waiting or ids:
                await asyncio.sleep(self.pause_s)
                if waiting and (not ids or self.random.random() < 0.5):
                    await self.have_an_attempt(waiting.pop(0))
                elif ids:
                    waiting.append(await self.submit(ids.pop()))

        await asyncio.gather(*(one() for _ in range(WORKERS)))

    async def submit(self, id_: str) -> str:
        await self.store.submit(a_request(id_, body=body_of(id_)))
        self.ack("submit", id_)
        return id_

    async def have_an_attempt(self, id_: str) -> None:
        if self.random.random() < 0.1:
            how = await self.store.cancel(id_, CANCELLED)
            self.ack("cancel", id_, how.value)
        attempt = await self.store.start(id_, node=NODE, lease_until=2_000.0, at=1_000.0)
        if attempt is None:
            return
        self.ack("start", id_, attempt)
        end = 0
        for _ in range(self.random.randrange(4)):
            more = self.random.randrange(1, 5)
            texts = [event_of(id_, attempt, number) for number in range(end, end + more)]
            assert await self.store.append(id_, attempt, end, texts)
            end += more
            self.ack("events", id_, attempt, end)
        if self.random.random() < 0.2:
            how = await self.store.cancel(id_, CANCELLED)
            self.ack("cancel", id_, how.value)
        if self.random.random() < 0.2:
            state = await self.store.requeue(id_, attempt, not_before=0.0, at=1_000.0)
            self.ack("requeue", id_, attempt, state.value)
            if state is State.QUEUED:
                await self.have_an_attempt(id_)
            return
        state = await self.store.finish(id_, attempt, an_outcome(body=result_of(id_, attempt)))
        self.ack("finish", id_, attempt, state.value)


@dataclass
class Known:
    """What was acknowledged of one request."""

    since: float  # when it was acknowledged first
    attempt: int = 0
    events: dict[int, int] = field(default_factory=dict)  # of each attempt: how many
    end: tuple[str, int | None] | None = None  # its final state, and by which attempt
    is_cancelled: bool = False


class History:
    """All that was acknowledged."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.touched: set[str] = set()  # whoever looks empties it
        self.last_at = 0.0  # the last acknowledgement

    def read(self, acks: bytes) -> None:
        """Add acknowledgements; what follows the last line end was cut off by a kill."""
        for line in acks.split(b"\n")[:-1]:
            self.last_at, what, id_, *rest = json.loads(line)
            known = self.known.setdefault(id_, Known(self.last_at))
            self.touched.add(id_)
            if what == "start":
                assert rest[0] > known.attempt, f"{id_}: attempt {rest[0]} after {known.attempt}"
                known.attempt = rest[0]
            elif what == "events":
                known.events[rest[0]] = rest[1]
            elif what == "cancel":
                known.is_cancelled |= rest[0] in {Cancelling.DEQUEUED.value, Cancelling.REQUESTED.value}
            if what in {"finish", "requeue"} and rest[1] != State.QUEUED.value:
                assert known.end is None, f"{id_} ended twice: {known.end}, {rest}"
                known.end = rest[1], rest[0]

    async def lost(self, store: SqliteStore, ids: Iterable[str] | None = None) -> list[str]:
        """What was acknowledged and is not so; nothing, if all is well."""
        complaints = []
        for id_ in self.known if ids is None else ids:
            known = self.known[id_]
            record = await store.get(id_)
            if record is None:
                complaints.append(f"{id_} is lost")
                continue
            if record.attempt < known.attempt:
                complaints.append(f"{id_}: attempt {known.attempt} is lost, it is at {record.attempt}")
            if known.end is not None and record.state.value != known.end[0]:
                complaints.append(f"{id_}: ended as {known.end}, is {record.state}")
            if known.is_cancelled and record.state not in {State.CANCELLING, State.CANCELLED}:
                complaints.append(f"{id_}: was cancelled, is {record.state}")
            page = await store.events(id_, 0, limit=0)
            if page.end < known.events.get(record.attempt, 0):
                complaints.append(f"{id_}: {page.end} of {known.events[record.attempt]} events")
        return complaints

    async def mixed(self, store: SqliteStore, ids: Iterable[str] | None = None) -> list[str]:
        """What is there in part, or is another's; nothing, if all is well."""
        complaints = []
        for id_ in self.known if ids is None else ids:
            if await store.get(id_) is not None:
                complaints += await self._mixed(store, id_)
        return complaints

    async def _mixed(self, store: SqliteStore, id_: str) -> list[str]:
        record = await store.get(id_)
        result = await store.result(id_)
        page = await store.events(id_, 0, limit=1_000)
        body = await store.body(id_)
        complaints = []
        if (result is not None) != (record.state in FINAL) or (body is None) != (record.state in FINAL):
            complaints.append(f"{id_}: is {record.state}, result {result}, body {body!r}")
        if body is not None and body != body_of(id_):
            complaints.append(f"{id_}: the body is another's")
        if record.state is State.COMPLETED and result.body != result_of(id_, record.attempt):
            complaints.append(f"{id_}: the result is another's")
        if page.events != tuple((i, event_of(id_, record.attempt, i)) for i in range(page.end)):
            complaints.append(f"{id_}: events of another attempt: {page}")
        return complaints


async def main(folder: Path, acks: Path, seed: str, requests: int, durability: str, pause_s: float) -> None:
    settings = StoreSettings(durability=Durability(durability), checkpoint_bytes=300_000)
    async with SqliteStore(folder, settings) as store:
        await Work(store, acks, seed, pause_s).work([f"{seed}-{number}" for number in range(requests)])


if __name__ == "__main__":
    folder, acks, seed, requests, durability, pause_s = sys.argv[1:]
    asyncio.run(main(Path(folder), Path(acks), seed, int(requests), durability, float(pause_s)))
