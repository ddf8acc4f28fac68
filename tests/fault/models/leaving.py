"""Models whose readers leave. Each notes in the file $ZOO_NOTES when it began and when it was closed.

The times are CLOCK_MONOTONIC's, which every process of a machine shares: a test may subtract its own from them.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator

import headrace
from pydantic import BaseModel

#: Of this process; `PyDLL`, unlike `CDLL`, keeps the interpreter's lock during a call.
C, C_WITH_THE_LOCK = ctypes.CDLL(None), ctypes.PyDLL(None)


class Ask(BaseModel):
    n: int = 3
    pause: float = 0.0
    name: str = "x"
    pad: int = 0  # bytes
    burst: int = 0  # events without a pause, at first


class Life:
    """`with Life(name) as life:` notes its beginning and its end, and `life.yields()` when control was last given away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.yielded_at = 0.0

    def note(self, what: str, value: object) -> None:
        with open(os.environ["ZOO_NOTES"], "a") as file:
            file.write(f"{what} {self.name} {value}\n")

    def yields(self) -> None:
        self.yielded_at = time.monotonic()

    def __enter__(self) -> Life:
        self.note("start", time.monotonic())
        return self

    def __exit__(self, *_: object) -> None:
        closed_at = time.monotonic()
        self.note("yielded", self.yielded_at)
        self.note("finally", closed_at)


class Leaving(headrace.App, name="test/leaving", max_multiplexing=16):
    """Every way to be busy when the reader leaves."""

    # --- those that look up -----------------------------------------------------------------------------------

    @headrace.endpoint("/")
    async def words(self, input: Ask) -> AsyncIterator[dict]:
        with Life(input.name) as life:
            for i in range(input.n):
                life.yields()
                yield {"i": i, "pad": "x" * input.pad} if input.pad else {"i": i}
                await asyncio.sleep(input.pause if i >= input.burst else 0)
            yield {"total": input.n}

    @headrace.endpoint("/sync")
    def words_sync(self, input: Ask) -> Iterator[dict]:
        with Life(input.name) as life:
            for i in range(input.n):
                life.yields()
                yield {"i": i, "pad": "x" * input.pad} if input.pad else {"i": i}
                time.sleep(input.pause)
            yield {"total": input.n}

    @headrace.endpoint("/emits", emits=dict)
    def words_emitted(self, input: Ask) -> dict:
        with Life(input.name) as life:
            for i in range(input.n):
                life.yields()
                headrace.emit({"i": i})
                time.sleep(input.pause)
            return {"total": input.n}

    # --- those that think first -------------------------------------------------------------------------------

    @headrace.endpoint("/thinks")
    async def thinks(self, input: Ask) -> AsyncIterator[dict]:
        with Life(input.name) as life:
            life.note("id", self.current_request.request_id)
            await asyncio.sleep(600)
            yield {}

    @headrace.endpoint("/ponders")
    async def ponders(self, input: Ask) -> AsyncIterator[dict]:
        """Say nothing until the file $ZOO_NOTES.NAME is there."""
        with Life(input.name):
            while not os.path.exists(f"{os.environ['ZOO_NOTES']}.{input.name}"):
                await asyncio.sleep(0.01)
            for i in range(input.n):
                yield {"i": i, "pad": "x" * input.pad}
            yield {"total": input.n}

    @headrace.endpoint("/thinks-in-steps")
    def thinks_in_steps(self, input: Ask) -> Iterator[dict]:
        with Life(input.name):
            deadline = time.monotonic() + 600
            while time.monotonic() < deadline:
                time.sleep(0.01)
            yield {}

    # --- those that do not look up ----------------------------------------------------------------------------

    @headrace.endpoint("/busy")
    def busy(self, input: Ask) -> Iterator[dict]:
        with Life(input.name):
            yield {"pid": os.getpid()}
            work_for(600)
            yield {}

    @headrace.endpoint("/busy-function")
    def busy_function(self, input: Ask) -> dict:
        with Life(input.name):
            work_for(600)
            return {}

    @headrace.endpoint("/asleep")
    def asleep(self, input: Ask) -> Iterator[dict]:
        """In a system call, with a child of its own."""
        with Life(input.name), subprocess.Popen(["sleep", "600"]):
            yield {"pid": os.getpid()}
            time.sleep(600)
            yield {}

    @headrace.endpoint("/in-c")
    def in_c(self, input: Ask) -> Iterator[dict]:
        """In a library's function that lets other threads run."""
        with Life(input.name):
            yield {"pid": os.getpid()}
            C.sleep(600)
            yield {}

    @headrace.endpoint("/in-c-with-the-lock")
    def in_c_with_the_lock(self, input: Ask) -> Iterator[dict]:
        """In a library's function that lets nobody run for `pause` seconds, once the file $ZOO_NOTES.NAME is there."""
        with Life(input.name) as life:
            yield {"pid": os.getpid()}
            while not os.path.exists(f"{os.environ['ZOO_NOTES']}.{input.name}"):
                time.sleep(0.01)  # until its reader has the event, which could not leave any more
            life.note("holds", time.monotonic())
            C_WITH_THE_LOCK.usleep(int(input.pause * 1_000_000))
            time.sleep(600)
            yield {}

    # --- one that fails ---------------------------------------------------------------------------------------

    @headrace.endpoint("/fails")
    async def fails(self, input: Ask) -> AsyncIterator[dict]:
        yield {"i": 0}
        raise ValueError("as it was asked to")


def work_for(seconds: float) -> None:
    """Keep a core busy, with a step in Python every millisecond or so: no lock is held for long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(range(10_000))


class OneSlot(headrace.App, name="test/one-slot"):
    """One request at a time."""

    @headrace.endpoint("/")
    async def words(self, input: Ask) -> AsyncIterator[dict]:
        with Life(input.name):
            for i in range(input.n):
                yield {"i": i}
                await asyncio.sleep(input.pause)


class Finish(headrace.App, name="test/finish", max_multiplexing=4, on_disconnect="finish"):
    """What was begun is brought to its end."""

    words = Leaving.words
    words_sync = Leaving.words_sync
    ponders = Leaving.ponders


class Grace(headrace.App, name="test/grace", max_multiplexing=4, on_disconnect="grace:1"):
    """A second for a reader that comes back."""

    words = Leaving.words
