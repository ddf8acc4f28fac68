"""The log lines of one attempt at a queued request, between the runner's outputs and the store.

A bounded heap of lines that the request's recorder takes now and then. It does not know where lines come from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from headrace.core.limits import EVENT_OVERHEAD_BYTES, Limits
from headrace.store.port import LogLine

#: Seconds to wait, once an attempt is over, for what it printed last. It is in the pipe by then, so that only a
#: process that holds the pipe open, or one that never says where its words end, makes anybody wait.
SETTLE_S: Final = 0.25

#: Outputs that a runner has.
_OUTPUTS: Final = 2


class RequestLog:
    """The lines that wait for the store; while there is no room for more, bytes are dropped and counted."""

    def __init__(self, limits: Limits) -> None:
        self._bytes_max = limits.log_bytes_waiting_max
        self._lines: list[LogLine] = []
        self._bytes = 0
        self._dropped = 0
        self._outputs_open = _OUTPUTS
        self._is_complete = asyncio.Event()
        self.on_news: Callable[[], None] = lambda: None

    def add(self, message: str, level: str, at: float) -> bool:
        """Take a line; False when there is no room for it."""
        if self._bytes >= self._bytes_max:
            self._dropped += len(message)
            return False
        if not self._lines:
            self.on_news()
        self._lines.append(LogLine(message, level, "USER", at))
        self._bytes += len(message) + EVENT_OVERHEAD_BYTES
        return True

    def take(self) -> list[LogLine]:
        """Return the lines since the last time, and a line on what was dropped."""
        lines, self._lines, self._bytes = self._lines, [], 0
        if self._dropped:
            told = f"printed too much: {self._dropped} characters were dropped"
            lines.append(LogLine(told, "WARN", "USER", time.time()))
            self._dropped = 0
        return lines

    def output_ended(self) -> None:
        """Nothing more will come from one of the outputs."""
        self._outputs_open -= 1
        if self._outputs_open <= 0:
            self._is_complete.set()

    async def settle(self) -> None:
        """Wait until all that was printed is here, for `SETTLE_S` at most."""
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._is_complete.wait()
        except TimeoutError:
            return
