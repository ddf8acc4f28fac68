"""Requests that draw together: a step of all of them is one forward pass.

A request joins between two passes and leaves between two passes, and no other notices. This file knows nothing of
Headrace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from model import Drawing, Model, Pixels


@dataclass(eq=False)
class Job:
    """The drawings of one request, and what it has not looked at yet: at most one look for each of its steps."""

    drawings: Sequence[Drawing]
    looks: asyncio.Queue[list[Pixels] | Exception] = field(default_factory=asyncio.Queue)
    has_failed: bool = False

    @property
    def is_drawing(self) -> bool:
        return not self.has_failed and not self.drawings[0].is_done  # all of a request have the same steps


class Studio:
    """Advances the drawings of all requests at once. All of it runs on one event loop, but for the passes."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._jobs: list[Job] = []
        self._joined = asyncio.Event()
        self.passes = 0

    async def draw(self, drawings: Sequence[Drawing]) -> AsyncGenerator[list[Pixels], None]:
        """Gives what the drawings look like after each of their steps; closed early, it stops drawing them."""
        job = Job(drawings)
        self._jobs.append(job)
        self._joined.set()
        try:
            for _ in range(drawings[0].steps):
                look = await job.looks.get()
                if isinstance(look, Exception):
                    raise look
                yield look
        finally:
            self._jobs.remove(job)

    async def work(self) -> None:
        """Makes pass after pass while anybody draws; for ever, so it is a task that `setup` starts."""
        while True:
            drawing = [job for job in self._jobs if job.is_drawing]
            if not drawing:
                self._joined.clear()
                await self._joined.wait()
                continue
            try:
                # A thread, for the loop has previews to send; onnxruntime gives up the GIL while it works.
                await asyncio.to_thread(self._model.advance, [one for job in drawing for one in job.drawings])
            except Exception as error:  # theirs, not that of who draws after them
                for job in drawing:
                    job.has_failed = True
                    job.looks.put_nowait(error)
            else:
                self.passes += 1
                for job in drawing:
                    job.looks.put_nowait([one.preview for one in job.drawings])
