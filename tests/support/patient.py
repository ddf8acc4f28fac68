"""Models that go on when their test lets them, so that nothing in it depends on how long anything takes.

A test lets them by making the file `$ZOO_NOTES.NAME`: `server.release(NAME)`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

import headrace


def note(text: str) -> None:
    with open(os.environ["ZOO_NOTES"], "a") as file:
        file.write(f"{text}\n")


def is_released(name: str) -> bool:
    return os.path.exists(f"{os.environ['ZOO_NOTES']}.{name}")


class Patient(headrace.App, name="test/patient"):
    """One slot."""

    @headrace.endpoint("/")
    async def hold(self, input: dict) -> AsyncIterator[dict]:
        """Say a word, and another one when NAME is released."""
        name = input["name"]
        note(f"hold {name}")
        yield {"name": name}
        while not is_released(name):
            await asyncio.sleep(0.01)
        yield {"name": name, "end": True}

    @headrace.endpoint("/words")
    async def words(self, input: dict) -> AsyncIterator[dict]:
        """Say `n` words, each when NAME.NUMBER is released."""
        for number in range(input["n"]):
            while not is_released(f"{input['name']}.{number}"):
                await asyncio.sleep(0.01)
            yield {"i": number}


class Steps(headrace.App, name="test/steps"):
    """Tells how far it is, and goes a step further when NAME.NUMBER is released."""

    @headrace.endpoint("/")
    def steps(self, input: dict) -> Iterator[dict]:
        print("begins")
        for number in range(input["n"]):
            while not is_released(f"{input['name']}.{number}"):
                time.sleep(0.01)
            time.sleep(0.12)  # of more than ten in a second some would be left out
            yield {"progress": number / input["n"], "message": f"step {number}"}
        yield {"progress": 1.0}
