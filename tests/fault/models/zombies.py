"""A model whose every item says which attempt of which process made it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import headrace
from pydantic import BaseModel


class Ask(BaseModel):
    n: int = 20
    pause: float = 0.05
    name: str = "x"


class Zombies(headrace.App, name="test/zombies", max_multiplexing=4):
    """Notes the beginning of each attempt: `start NAME ATTEMPT PID`."""

    @headrace.endpoint("/")
    async def work(self, input: Ask) -> AsyncIterator[dict]:
        me = {"attempt": self.current_request.attempt, "pid": os.getpid()}
        with open(os.environ["ZOO_NOTES"], "a") as file:
            file.write(f"start {input.name} {me['attempt']} {me['pid']}\n")
        for i in range(input.n):
            yield {"i": i, **me}
            await asyncio.sleep(input.pause)
        yield {"total": input.n, **me}
