"""Models that make more than anybody takes: events, results and words on their outputs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import headrace
from pydantic import BaseModel

#: What a flood is made of: text that nothing on the way can shorten.
PAD = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=512 * 1024))

MIB = 1024 * 1024


class Flood(BaseModel):
    """How much to make. A flood of `bytes` in all ends behind the event that reaches it."""

    name: str = "x"
    events: int = 0
    bytes: int = 0
    size: int = 1_000  # bytes of each event's text
    pause: float = 0.0


class Text(BaseModel):
    """One text, which is `unit` times `units`, and `pad` letters."""

    unit: str = "x"
    units: int = 0
    pad: int = 0


class Print(BaseModel):
    """What to print, and where: descriptor 1 or 2."""

    kind: str
    bytes: int
    to: int = 1


class Written(BaseModel):
    """Bytes for the link, and how often."""

    base64: str
    times: int = 1


class Ticks(BaseModel):
    n: int
    pause: float
    name: str = "x"


async def ticks(input: Ticks) -> AsyncIterator[dict[str, Any]]:
    """The contract of a bystander, each event by the clock: a late one does not make the next one late."""
    begun = time.monotonic()
    for i in range(input.n):
        yield {"i": i}
        await asyncio.sleep(max(0.0, begun + (i + 1) * input.pause - time.monotonic()))
    yield {"total": input.n}


class Hoarding(headrace.App, name="fault/hoarding", max_multiplexing=2_000):
    """Makes without end. What became of each flood is told by `/made`, from memory."""

    def setup(self) -> None:
        self.made: dict[str, int] = {}
        self.over: list[str] = []

    @headrace.endpoint("/made")
    async def tell(self, input: dict) -> dict[str, Any]:
        return {"made": self.made, "over": self.over}

    @headrace.endpoint("/ticks")
    async def ticks(self, input: Ticks):
        async for tick in ticks(input):
            yield tick

    @headrace.endpoint("/flood")
    async def flood(self, input: Flood):
        try:
            for i in range(input.events):
                self.made[input.name] = i + 1
                yield {"i": i, "pad": PAD[: input.size]}
                if input.pause:
                    await asyncio.sleep(input.pause)
        finally:
            self.over.append(input.name)

    @headrace.endpoint("/flood-sync")
    def flood_sync(self, input: Flood) -> Iterator[dict[str, Any]]:
        try:
            for i in range(input.events):
                self.made[input.name] = i + 1
                yield {"i": i, "pad": PAD[: input.size]}
        finally:
            self.over.append(input.name)

    @headrace.endpoint("/hashed")
    def hashed(self, input: Flood) -> Iterator[dict[str, Any]]:
        """Small events and large ones, over the frame's size too; at the end, the hash of all their texts."""
        yield from _hashed(input)

    @headrace.endpoint("/hashed-async")
    async def hashed_async(self, input: Flood):
        for item in _hashed(input):
            yield item

    @headrace.endpoint("/text")
    def text(self, input: Text) -> Iterator[dict[str, str]]:
        yield {"text": input.unit * input.units + "x" * input.pad}

    @headrace.endpoint("/second-text")
    async def second_text(self, input: Text):
        yield {"text": "first"}
        yield {"text": input.unit * input.units + "x" * input.pad}

    @headrace.endpoint("/result")
    def result(self, input: Text) -> dict[str, str]:
        """A plain function: its result is no event."""
        return {"text": input.unit * input.units + "x" * input.pad}

    @headrace.endpoint("/length")
    async def length(self, input: dict) -> dict[str, int]:
        return {"length": len(input["pad"])}


def _hashed(input: Flood) -> Iterator[dict[str, Any]]:
    digest, made, i = hashlib.sha256(), 0, 0
    sizes = random.Random(11)
    while made < input.bytes:
        size = sizes.choice((10, 1_000, 30_000, 64_000, 70_000, 300_000))
        pad = PAD[i % 1_000 : i % 1_000 + size]
        digest.update(b"%d %b\n" % (i, pad.encode()))
        yield {"i": i, "pad": pad}
        made += size
        i += 1
    yield {"events": i, "sha256": digest.hexdigest()}


class Calm(headrace.App, name="fault/calm", max_multiplexing=100):
    """A neighbour in a process of its own."""

    @headrace.endpoint("/")
    async def ticks(self, input: Ticks):
        async for tick in ticks(input):
            yield tick


class Rogue(headrace.App, name="fault/rogue", max_multiplexing=8):
    """Writes what it likes on its runner's link, around the runner."""

    @headrace.endpoint("/write")
    async def write(self, input: Written) -> dict[str, int]:
        data = base64.b64decode(input.base64)
        for _ in range(input.times):
            await asyncio.to_thread(_write_all, _link(), data)
        await asyncio.sleep(60)
        return {"written": len(data) * input.times}

    @headrace.endpoint("/hold")
    async def hold(self, input: dict):
        yield {"i": 0}
        await asyncio.sleep(60)

    @headrace.endpoint("/length")
    async def length(self, input: dict) -> dict[str, int]:
        return {"length": len(input)}


def _link() -> int:
    """The descriptor of this process's link to its node."""
    told = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    return int(told[told.index(b"--fd") + 1])


def _write_all(fd: int, data: bytes) -> None:
    while data:
        with contextlib.suppress(BlockingIOError):
            data = data[os.write(fd, data) :]


class Talkative(headrace.App, name="fault/talkative", max_multiplexing=2):
    """Prints without end."""

    @headrace.endpoint("/print")
    def print(self, input: Print) -> dict[str, int]:
        piece = {
            "lines": b"step 17 of 1000: loss 0.1234, 12.3 it/s\n" * 1_600,
            "tiny-lines": b"x\n" * 32_000,
            "empty-lines": b"\n" * 64_000,
            "one-line": b"=" * 64_000,
            "garbage": random.Random(3).randbytes(64_000),
            "carriage-returns": b"\r 12%|===>     |" * 4_000,
        }[input.kind]
        printed = 0
        while printed < input.bytes:
            printed += os.write(input.to, piece)
        os.write(input.to, b"\nthe last word of %b\n" % input.kind.encode())
        return {"printed": printed}
