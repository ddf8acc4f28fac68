"""The reader that keeps a queued request's events: it copies the log to the store, in groups.

It sets the request's pace: a model that is faster than the disk waits for it, a window ahead. Other readers read
the log in memory and are never held up by it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from headrace.core.limits import cost_of
from headrace.store.port import RequestStore, StoreBusy, StoreUnavailable
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)

#: Seconds for which events gather before they are written together: one commit for some 50 events of a model that
#: makes 1,000 a second.
GATHER_S: Final = 0.05

#: Seconds until a store that could not write is asked again.
ASK_AGAIN_S: Final = 1.0


class Recorder:
    """Keeps the events of one attempt."""

    def __init__(self, live: LiveRequest, store: RequestStore) -> None:
        self._live = live
        self._store = store
        self._attempt = live.attempt
        self._position = 0
        self._cost = 0
        self._news = asyncio.Event()
        self._is_over = False

    def wake(self) -> None:
        """There is something to write, or the attempt is over."""
        self._news.set()

    def end(self) -> None:
        """Nothing more will come: `run` returns when all is written."""
        self._is_over = True
        self._news.set()

    async def run(self) -> bool:
        """Write until the attempt is over; whether all of it was kept. False when the attempt may not any more."""
        while True:
            await self._news.wait()
            if not self._is_over:
                await asyncio.sleep(GATHER_S)
            self._news.clear()
            if not await self._write():
                return False
            if self._is_over:
                return True

    async def _write(self) -> bool:
        replay = self._live.replay
        while self._position < replay.end:
            self._position = max(self._position, replay.first)
            texts = replay.since(self._position)
            try:
                if not await self._store.append(self._live.id, self._attempt, self._position, texts):
                    return False
            except (StoreUnavailable, StoreBusy) as fault:
                _log.warning("events of %s wait for the store: %s", self._live.id, fault)
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            self._position += len(texts)
            self._cost += cost_of(texts)
            self._live.took(self, self._position, self._cost)
        return True
