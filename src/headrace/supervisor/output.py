"""What a runner prints, line by line into the node's log: bounded per line and per second, the rest counted.

A model may print a progress bar or a hundred megabytes of garbage; neither may cost the other apps their node. The
last lines are kept, for the story of a runner that died.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from headrace.core.limits import Limits

_output = logging.getLogger("headrace.output")

#: Lines kept of each runner: a traceback with its head.
LAST_LINES: Final = 30

#: How the story of a crash begins (CPython's faulthandler).
_CRASH: Final = "Fatal Python error:"


class Output:
    """The two outputs of one runner."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.label = "runner"  # the app's name, once it is known
        self.on_dropped: Callable[[int], None] = lambda _: None  # told how many bytes
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._is_crash = False
        self._tasks: list[asyncio.Task[None]] = []

    def relay(self, stream: asyncio.StreamReader, name: str) -> None:
        """Log each line of `stream` until it ends."""
        self._tasks.append(asyncio.create_task(_Relay(self, stream, self._limits).run(), name=name))

    async def end(self) -> None:
        """Read what is left; give up on a pipe that somebody still holds open."""
        _, late = await asyncio.wait(self._tasks, timeout=1.0)
        for task in late:  # a process that left the group has inherited the pipe
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def log(self, line: bytes) -> None:
        """Log one line."""
        text = line.decode("utf-8", "replace").rstrip()
        self._remember(text)
        _output.info("[%s] %s", self.label, text)

    def _remember(self, text: str) -> None:
        # A crash in native code names itself and the thread at fault first, and then every other thread.
        self._is_crash |= text.startswith(_CRASH)
        if text.startswith(_CRASH):
            self.last_lines.clear()
        if not self._is_crash or len(self.last_lines) < LAST_LINES:
            self.last_lines.append(text)

    def tell_dropped(self, count: int) -> None:
        """Log that a runner printed more than is taken."""
        self.on_dropped(count)
        _output.warning("[%s] printed too much: %d bytes were dropped", self.label, count)


class _Relay:
    """One pipe, and how much of it was logged in this second."""

    def __init__(self, output: Output, stream: asyncio.StreamReader, limits: Limits) -> None:
        self._output = output
        self._stream = stream
        self._limits = limits
        self._second = monotonic()
        self._logged_bytes = 0
        self._dropped_bytes = 0

    async def run(self) -> None:
        try:
            while line := await self._next_line():
                self._take(line)
        finally:
            if self._dropped_bytes:
                self._output.tell_dropped(self._dropped_bytes)

    def _take(self, line: bytes) -> None:
        now = monotonic()
        if now - self._second >= 1.0:
            if self._dropped_bytes:
                self._output.tell_dropped(self._dropped_bytes)
            self._second, self._logged_bytes, self._dropped_bytes = now, 0, 0
        self._logged_bytes += len(line)
        if self._logged_bytes > self._limits.output_bytes_per_s_max:
            self._dropped_bytes += len(line)
        else:
            self._output.log(line)

    async def _next_line(self) -> bytes:
        """Return the next line, `b""` at the end. One over the limit is cut there, and its rest counted."""
        try:
            return await self._stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            return end.partial
        except asyncio.LimitOverrunError:
            line = await self._stream.readexactly(self._limits.output_line_bytes_max)
            return line + b" ... (%d bytes more)" % await self._skip_line()

    async def _skip_line(self) -> int:
        dropped = 0
        while True:
            try:
                return dropped + len(await self._stream.readuntil(b"\n"))
            except asyncio.IncompleteReadError as end:
                return dropped + len(end.partial)
            except asyncio.LimitOverrunError as overrun:
                dropped += len(await self._stream.readexactly(overrun.consumed))
