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

#: What a line costs beyond its text, in bytes: its head in the log, and the 20 µs that logging takes. Without it
#: a megabyte of empty lines passes for a megabyte, and holds the node up for seconds.
LINE_OVERHEAD_BYTES: Final = 128

#: Bytes taken from a pipe at once: all that Linux holds of one, and what asyncio reads ahead.
_PIECE_BYTES: Final = 64 * 1024

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
    """One pipe: the line that is not complete yet, and what was logged and dropped in this second."""

    def __init__(self, output: Output, stream: asyncio.StreamReader, limits: Limits) -> None:
        self._output = output
        self._stream = stream
        self._line_bytes_max = limits.output_line_bytes_max
        self._bytes_per_s_max = limits.output_bytes_per_s_max
        self._line = b""  # at most `output_line_bytes_max` of it
        self._cut_bytes = 0  # of the same line, beyond that
        self._second = monotonic()
        self._logged_bytes = 0
        self._dropped_bytes = 0

    async def run(self) -> None:
        try:
            while (piece := await self._read()) != b"":
                if piece is None or monotonic() - self._second >= 1.0:
                    self._begin_second()
                if piece is not None:
                    self._take(piece)
            if self._line:
                self._end_line()
        finally:
            self._begin_second()

    async def _read(self) -> bytes | None:
        """Return what was printed, `b""` at the end; None when there are drops to tell of and nothing comes."""
        try:
            async with asyncio.timeout(1.0 if self._dropped_bytes else None):
                return await self._stream.read(_PIECE_BYTES)
        except TimeoutError:
            return None

    def _begin_second(self) -> None:
        if self._dropped_bytes:
            self._output.tell_dropped(self._dropped_bytes)
        self._second, self._logged_bytes, self._dropped_bytes = monotonic(), 0, 0

    def _take(self, piece: bytes) -> None:
        """Log the lines that `piece` completes while this second has room for one; count the rest."""
        at = 0
        while (end := piece.find(b"\n", at)) >= 0:
            if self._logged_bytes >= self._bytes_per_s_max:
                # Not line by line: of a flood there are too many.
                last = piece.rfind(b"\n")
                self._dropped_bytes += len(self._line) + last + 1 - at
                self._line, self._cut_bytes, at = b"", 0, last + 1
                break
            self._extend_line(piece[at:end])
            self._end_line()
            at = end + 1
        self._extend_line(piece[at:])

    def _extend_line(self, text: bytes) -> None:
        room = self._line_bytes_max - len(self._line)
        self._line += text[:room]
        cut = max(0, len(text) - room)
        self._cut_bytes += cut
        self._dropped_bytes += cut

    def _end_line(self) -> None:
        line, cut = self._line, self._cut_bytes
        self._line, self._cut_bytes = b"", 0
        self._logged_bytes += len(line) + LINE_OVERHEAD_BYTES
        self._output.log(line + b" ... (%d bytes more)" % cut if cut else line)
