"""The model that every server under comparison serves, and the notes it leaves about each request.

It knows nothing of HTTP. What it is told travels in the request's body:

    items        how many it makes
    every_s      seconds between two of them; 0 is as fast as it may
    text_bytes   the length of each item's text
    fails_after  raise after this many; 0 is never
    notes        the file that it keeps its notes in: which process runs it, how much it made, whether it was closed

The plain generator is what most authors write. The async one is the same for servers that treat the two differently.
"""

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Process id, items made, and the monotonic time in nanoseconds at which the generator ended; 0 while it has not.
LAYOUT = struct.Struct("<qqq")


@dataclass(frozen=True, slots=True)
class Notes:
    """What the model wrote down about one request."""

    pid: int = 0
    made: int = 0
    ended_ns: int = 0


def read(path: Path) -> Notes:
    """Return what has been noted so far; nothing before the model began."""
    try:
        return Notes(*LAYOUT.unpack(path.read_bytes()))
    except (FileNotFoundError, struct.error):
        return Notes()


class ModelFault(Exception):
    """What a model raises that cannot go on."""


class Pen:
    """Writes the notes of one request: a single write an item, so that it hardly slows the model."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC)
        self._made = 0

    def made(self, count: int) -> None:
        """Note that `count` items have been made."""
        self._made = count
        self._write(ended_ns=0)

    def ended(self) -> None:
        """Note that the generator is over, by whatever way."""
        self._write(ended_ns=time.monotonic_ns())
        os.close(self._file)

    def _write(self, ended_ns: int) -> None:
        os.pwrite(self._file, LAYOUT.pack(os.getpid(), self._made, ended_ns), 0)


class Model:
    """The generator, in both colours."""

    def sync(self, options: dict) -> Iterator[dict]:
        """Make the items from a plain generator."""
        pen = Pen(options["notes"])
        try:
            for item in _items(options):
                if item["index"] and options["every_s"]:
                    time.sleep(options["every_s"])
                pen.made(item["index"] + 1)
                yield item
        finally:
            pen.ended()

    async def asynchronous(self, options: dict) -> AsyncIterator[dict]:
        """Make them from an async generator, which gives the event loop its turn before each."""
        pen = Pen(options["notes"])
        try:
            for item in _items(options):
                if item["index"]:
                    await asyncio.sleep(options["every_s"])
                pen.made(item["index"] + 1)
                yield item
        finally:
            pen.ended()


def _items(options: dict) -> Iterator[dict]:
    """Return the items that were asked for, and raise where that was asked for."""
    text = "x" * options["text_bytes"]
    for index in range(options["items"]):
        if index and index == options["fails_after"]:
            raise ModelFault("the model failed on purpose")
        yield {"index": index, "text": text}
