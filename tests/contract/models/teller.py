"""A model that says what it does, one line for each item, and one that waits until somebody has seen it at work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import headrace
from pydantic import BaseModel


class Count(BaseModel):
    n: int = 3


class Watched(BaseModel):
    n: int = 3
    seen: Path  # a file that is there once the caller has seen what it wants to see of the request at work


class Step(BaseModel):
    i: int


class Total(BaseModel):
    total: int


#: Seconds after which a watched request goes on all the same.
PATIENCE_S = 30.0


class Teller(headrace.App, name="line/teller", max_multiplexing=8):
    """Prints."""

    @headrace.endpoint("/watched")
    async def watched(self, input: Watched) -> AsyncIterator[Step | Total]:
        """Make one half of the items, and the other once the caller has seen that."""
        for i in range(input.n):
            if i == input.n // 2:
                until = time.monotonic() + PATIENCE_S
                while not input.seen.exists() and time.monotonic() < until:
                    await asyncio.sleep(0.02)
            yield Step(i=i)
        yield Total(total=input.n)

    @headrace.endpoint("/")
    def tell(self, input: Count) -> Iterator[Step]:
        for i in range(input.n):
            print(f"line {i} of {input.n}")
            time.sleep(0.3)
            yield Step(i=i)
