"""The reader that keeps a queued request's events and log lines: it copies them to the store, in groups.

It sets the request's pace: a model that is faster than the disk waits for it, a window ahead. Other readers read
the log in memory and are never held up by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from headrace.core.limits import cost_of
from headrace.store.port import LogLine, RequestStore, StoreBusy, StoreUnavailable
from headrace.supervisor.request_log import RequestLog
from headrace.supervisor.streams import LiveRequest
from headrace.supervisor.unanswered import ASK_AGAIN_S

_log = logging.getLogger(__name__)

#: Seconds for which events gather before they are written together: one commit for some 50 events of a model that
#: makes 1,000 a second.
GATHER_S: Final = 0.05


class Recorder:
    """Keeps the events of one attempt, and what it logs."""

    def __init__(
        self, live: LiveRequest, log: RequestLog, store: RequestStore, on_logged: Callable[[], None]
    ) -> None:
        self._live = live
        self._log = log
        self._store = store
        self._on_logged = on_logged  # new lines are in the store
        self._attempt = live.attempt
        self._position = 0
        self._cost = 0
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._lines_kept: int | None = None  # of all attempts, once it was asked
        log.on_news = self.wake

    def wake(self) -> None:
        """There is something to write, or the attempt is over."""
        self._news.set()

    def end(self) -> None:
        """Nothing more will come: `run` returns when all is written."""
        self._over.set()
        self._news.set()

    async def run(self) -> bool:
        """Write until the attempt is over; whether all of it was kept. False when the attempt may not any more."""
        while True:
            await self._news.wait()
            if not self._over.is_set():
                await self._gather()
            is_last = self._over.is_set()
            if is_last:
                await self._log.settle()
            self._news.clear()
            if not await self._write() or not await self._write_lines():
                return False
            if is_last:
                return True
            if self._over.is_set():
                self._news.set()

    async def _gather(self) -> None:
        """Let events gather for a while, or until the attempt is over: a short one's result does not wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._over.wait()

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

    async def _write_lines(self) -> bool:
        lines = self._log.take()
        while lines:
            try:
                if self._lines_kept is None:
                    self._lines_kept = await self._count_kept()
                is_ours = await self._store.append_logs(self._live.id, self._attempt, lines)
            except (StoreUnavailable, StoreBusy) as fault:
                _log.warning("log lines of %s wait for the store: %s", self._live.id, fault)
                await asyncio.sleep(ASK_AGAIN_S)
                lines = await self._not_yet_kept(lines)
                continue
            if is_ours:
                self._lines_kept += len(lines)
                self._on_logged()
            return is_ours
        return True

    async def _count_kept(self) -> int:
        page = await self._store.logs(self._live.id, 0, limit=1)
        return page.end if page is not None else 0

    async def _not_yet_kept(self, lines: list[LogLine]) -> list[LogLine]:
        """Return the lines to be written again: a store that failed may have kept them all the same."""
        with contextlib.suppress(StoreUnavailable, StoreBusy):
            if self._lines_kept is not None and (end := await self._count_kept()) > self._lines_kept:
                self._lines_kept = end
                return []
        return lines
