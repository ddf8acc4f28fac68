"""What a runner prints, line by line: to the request's log or the node's, bounded per line and per second.

A model may print a progress bar or a hundred megabytes of garbage; neither may cost the other apps their node.
What is left out is counted. The last lines are kept, for the story of a runner that died.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import Final

from headrace.core import marks
from headrace.core.limits import Limits
from headrace.supervisor.request_log import RequestLog

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
    """The two outputs of one runner, whose marks begin with `token`'s head, if it makes any.

    `logs` are those of the queued requests it holds, by stream.
    """

    def __init__(
        self, limits: Limits, token: str | None = None, logs: MutableMapping[int, RequestLog] | None = None
    ) -> None:
        self._limits = limits
        self.head = marks.head_of(token) if token is not None else None
        self.logs = logs if logs is not None else {}
        self.label = "runner"  # the app's name, once it is known
        self.on_dropped: Callable[[int], None] = lambda _: None  # told how many bytes
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._is_crash = False
        self._tasks: list[asyncio.Task[None]] = []

    def relay(self, stream: asyncio.StreamReader, name: str, level: str = "STDOUT") -> None:
        """Log each line of `stream` until it ends."""
        self._tasks.append(asyncio.create_task(_Relay(self, stream, level, self._limits).run(), name=name))

    async def end(self) -> None:
        """Read what is left; give up on a pipe that somebody still holds open."""
        _, late = await asyncio.wait(self._tasks, timeout=1.0)
        for task in late:  # a process that left the group has inherited the pipe
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def log(self, text: str, *, request_id: str = "") -> None:
        """Log one line in the node's log."""
        self._remember(text)
        _output.info("[%s] %s", f"{self.label} {request_id}" if request_id else self.label, text)

    def log_unmarked(self, line: bytes, level: str, owner: int) -> None:
        """Log a line that says of itself nothing: a queued request's, while it runs alone, or the runner's own."""
        text = line.decode("utf-8", "replace").rstrip()
        self._is_crash |= text.startswith(_CRASH)
        log = self.logs.get(owner)
        if log is None or self._is_crash:  # what a crash says is for the operator
            self.log(text)
        else:
            self._remember(text)
            log.add(text, level, time.time())

    def log_kept(self, line: marks.Line) -> bool:
        """Log a line in the log of the queued request that it belongs to; False when there is none."""
        log = self.logs.get(line.stream)
        if log is None:
            return False
        self._remember(line.text)
        if line.dropped:
            self.on_dropped(line.dropped)
        log.add(line.text, line.level, line.at)
        return True

    def stream_ended(self, stream: int) -> None:
        """One output has said that nothing more of a stream will come."""
        if (log := self.logs.get(stream)) is not None:
            log.output_ended()

    def output_ended(self) -> None:
        """One output is at its end."""
        for log in self.logs.values():
            log.output_ended()

    def _remember(self, text: str) -> None:
        # A crash in native code names itself and the thread at fault first, and then every other thread.
        if text.startswith(_CRASH):
            self._is_crash = True
            self.last_lines.clear()
        if not self._is_crash or len(self.last_lines) < LAST_LINES:
            self.last_lines.append(text)

    def tell_dropped(self, count: int) -> None:
        """Log that a runner printed more than is taken."""
        self.on_dropped(count)
        _output.warning("[%s] printed too much: %d bytes were dropped", self.label, count)


class _Relay:
    """One pipe: the lines that are not complete yet, and what was logged and dropped in this second."""

    def __init__(self, output: Output, stream: asyncio.StreamReader, level: str, limits: Limits) -> None:
        self._output = output
        self._stream = stream
        self._level = level
        self._line_bytes_max = limits.output_line_bytes_max
        self._bytes_per_s_max = limits.output_bytes_per_s_max
        self._line = b""  # at most `output_line_bytes_max` of it
        self._cut_bytes = 0  # of the same line, beyond that
        self._held = b""  # perhaps the beginning of a mark's head
        self._mark: bytes | None = None  # what has come of a mark; None outside of marks
        self._owner = 0  # the stream to which unmarked lines belong
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
            self._extend_line(self._held)
            if self._line:
                self._end_line()
        finally:
            self._begin_second()
            self._output.output_ended()

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

    # --- marks ----------------------------------------------------------------------------------------------

    def _take(self, piece: bytes) -> None:
        """Take the marks out of a piece, and the lines between them."""
        head = self._output.head
        if head is None:
            self._take_lines(piece)
            return
        piece, self._held = self._held + piece, b""
        at = 0
        while True:
            if self._mark is not None:
                end = piece.find(b"\n", at)
                self._mark += piece[at : end if end >= 0 else None]
                if end < 0 and len(self._mark) <= 6 * self._line_bytes_max + marks.MARK_BYTES_MAX:
                    return
                self._end_mark()
                at = end + 1 if end >= 0 else len(piece)
            start = piece.find(head, at)
            if start < 0:
                break
            self._take_lines(piece[at:start])
            self._mark, at = b"", start + len(head)
        self._take_lines(self._hold_back(piece[at:], head))

    def _hold_back(self, piece: bytes, head: bytes) -> bytes:
        """Keep what may be the beginning of a mark; return the rest."""
        start = piece.rfind(head[:1], max(0, len(piece) - len(head) + 1))
        if start >= 0 and head.startswith(piece[start:]):
            self._held = piece[start:]
            return piece[:start]
        return piece

    def _end_mark(self) -> None:
        payload, self._mark = self._mark or b"", None
        try:
            mark = marks.decode(payload)
        except ValueError:  # somebody wrote between its bytes
            self._take_lines(payload + b"\n")
            return
        match mark:
            case marks.Owner():
                if self._line:
                    self._end_line()
                self._owner = mark.stream
            case marks.End():
                self._output.stream_ended(mark.stream)
            case marks.Line():
                self._take_marked(mark)

    def _take_marked(self, line: marks.Line) -> None:
        if self._output.log_kept(line):
            return
        if self._logged_bytes >= self._bytes_per_s_max:
            self._dropped_bytes += len(line.text) + 1 + line.dropped
            return
        self._logged_bytes += len(line.text) + LINE_OVERHEAD_BYTES
        if line.dropped:
            self._output.tell_dropped(line.dropped)
        else:
            self._output.log(line.text.rstrip(), request_id=line.request_id)

    # --- lines without a mark -------------------------------------------------------------------------------

    def _take_lines(self, piece: bytes) -> None:
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
        line = line + b" ... (%d bytes more)" % cut if cut else line
        self._output.log_unmarked(line, self._level, self._owner)
