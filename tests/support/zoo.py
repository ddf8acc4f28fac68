"""Models that behave and misbehave on demand. Each writes down what became of it, in the file $ZOO_NOTES."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator

import headrace
from pydantic import BaseModel, Field


def note(text: str) -> None:
    with open(os.environ["ZOO_NOTES"], "a") as file:
        file.write(f"{text}\n")


class Count(BaseModel):
    n: int = Field(default=3, ge=0)
    pause: float = 0.0
    name: str = "x"


class Word(BaseModel):
    """One step."""

    i: int


class Result(BaseModel):
    """The end."""

    total: int


class Zoo(headrace.App, name="zoo/zoo", max_multiplexing=8):
    """Every kind of endpoint."""

    def setup(self) -> None:
        note("setup")

    def teardown(self) -> None:
        note("teardown")

    @headrace.endpoint("/")
    def words(self, input: Count) -> Iterator[Word | Result]:
        """Count slowly.

        One item a pause.
        """
        try:
            note(f"start {input.name}")
            for i in range(input.n):
                yield Word(i=i)
                if input.pause:
                    time.sleep(input.pause)
            yield Result(total=input.n)
        finally:
            note(f"finally {input.name}")

    @headrace.endpoint("/async")
    async def words_async(self, input: Count) -> AsyncIterator[Word | Result]:
        try:
            note(f"start {input.name}")
            for i in range(input.n):
                yield Word(i=i)
                if input.pause:
                    await asyncio.sleep(input.pause)
            yield Result(total=input.n)
        finally:
            note(f"finally {input.name}")

    @headrace.endpoint("/def")
    def plain(self, input: Count) -> Result:
        return Result(total=input.n)

    @headrace.endpoint("/async-def")
    async def plain_async(self, input: Count) -> Result:
        return Result(total=input.n)

    @headrace.endpoint("/steps", emits=Word)
    def steps(self, input: Count) -> Result:
        def helper() -> None:
            for i in range(input.n):
                headrace.emit(Word(i=i))

        thread = threading.Thread(target=helper)
        thread.start()
        thread.join()
        return Result(total=input.n)

    @headrace.endpoint("/own/stream")
    def own(self, input: Count) -> Iterator[Word]:
        for i in range(input.n):
            yield Word(i=i)

    @headrace.endpoint("/chat", stream="/talk")
    def chat(self, input: Count) -> Iterator[Word]:
        for i in range(input.n):
            yield Word(i=i)

    @headrace.endpoint("/request")
    def request(self, input: dict) -> dict:
        request = self.current_request
        return {"id": request.request_id, "headers": dict(request.headers), "input": input}

    @headrace.endpoint("/environment")
    def environment(self, input: dict) -> dict:
        return {"names": sorted(os.environ), "parent": open(f"/proc/{os.getpid()}/environ").read()}

    @headrace.endpoint("/text")
    def text(self, input: dict):
        yield {"text": "é 🌅 \u2028 日本"}

    @headrace.endpoint("/big")
    def big(self, input: Count):
        yield {"text": "x" * input.n}
        yield {"length": input.n}

    @headrace.endpoint("/burst")
    async def burst(self, input: Count):
        for i in range(input.n):
            yield {"i": i, "pad": "x" * 200}

    @headrace.endpoint("/flood")
    def flood(self, input: Count):
        """Yield as fast as it may; notes how far it got each 100 events."""
        try:
            for i in range(input.n):
                if i % 100 == 0:
                    note(f"flood {input.name} {i}")
                yield {"i": i, "pad": "x" * 1000}
        finally:
            note(f"finally flood {input.name}")

    @headrace.endpoint("/raise-first")
    def raise_first(self, input: dict):
        raise ValueError("a secret of the model")
        yield {}

    @headrace.endpoint("/raise-later")
    def raise_later(self, input: dict):
        yield {"i": 0}
        yield {"i": 1}
        raise ValueError("a secret of the model")

    @headrace.endpoint("/refuse")
    def refuse(self, input: dict) -> dict:
        raise headrace.AppException("no pictures today", status_code=409)

    @headrace.endpoint("/field")
    def field(self, input: dict) -> dict:
        raise headrace.FieldException("prompt", "too rude")

    @headrace.endpoint("/nothing")
    def nothing(self, input: dict):
        if input.get("never"):
            yield {}

    @headrace.endpoint("/silent")
    async def silent(self, input: Count):
        """Say nothing for a while, then one word."""
        await asyncio.sleep(input.pause)
        yield {"i": 0}

    @headrace.endpoint("/silent-raise")
    async def silent_raise(self, input: Count):
        """Say nothing for a while, then fail."""
        await asyncio.sleep(input.pause)
        raise ValueError("a secret of the model")
        yield {}

    @headrace.endpoint("/die")
    def die(self, input: Count):
        note("die")
        for i in range(input.n):
            yield {"i": i}
        time.sleep(0.2)
        os.kill(os.getpid(), 9)
        yield {}

    @headrace.endpoint("/stuck")
    def stuck(self, input: Count):
        """Yield once, then hear nothing for a long time."""
        yield {"i": 0}
        time.sleep(60)
        yield {"i": 1}


class Single(headrace.App, name="zoo/single"):
    """One slot."""

    @headrace.endpoint("/")
    async def hold(self, input: Count):
        note(f"hold {input.name}")
        try:
            yield {"name": input.name}
            await asyncio.sleep(input.pause)
            yield {"name": input.name, "end": True}
        finally:
            note(f"let go {input.name}")


class Flow(headrace.App, name="workflows/zoo/flow"):
    """An app in a namespace."""

    @headrace.endpoint("/sub/path")
    def sub(self, input: dict):
        yield {"flow": True}


class Lazy(headrace.App, name="zoo/lazy", min_concurrency=0):
    """Set up by its first request."""

    def setup(self) -> None:
        note("lazy setup")

    @headrace.endpoint("/")
    def lazy(self, input: dict) -> dict:
        return {"lazy": True}
