r"""What an author's code prints, marked with the request that it belongs to (`core.marks`).

`sys.stdout` and `sys.stderr` become text streams that ask, at each write, which call this code works for. Whole
lines of a call are marked; everything else goes where it went before, and so does whatever an author does with
streams of their own. All marks but those of `tell_owner` leave by one output, so that lines keep their order.

A progress bar (`\r`) counts as the last state of its line. This file knows no frames and no link.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol, cast

import orjson

from headrace.app.context import CURRENT, RUNNING
from headrace.core import marks
from headrace.core.limits import Limits

#: Seconds between two lines that items with `progress` or `message` make: ten a second are for people.
ITEM_EVERY_S: Final = 0.1

#: What a line costs beyond its text, in bytes, against a request's share of a second (as in the node's log).
LINE_OVERHEAD_BYTES: Final = 128

#: The level of the log record that is being written by this code.
_LEVEL: Final[ContextVar[str | None]] = ContextVar("headrace_level", default=None)


class Printing(Protocol):
    """What a call has for this file."""

    output: CallOutput


class Outputs:
    """Both outputs of this process, and who owns what is written to them without a mark."""

    def __init__(self, fds: tuple[int, int], token: str, limits: Limits) -> None:
        self._fds = fds
        self._head = marks.head_of(token)
        self.line_bytes_max: Final = limits.output_line_bytes_max
        self.bytes_per_s_max: Final = limits.output_bytes_per_s_max
        self._owner = 0
        self.kept_calls = 0  # queued requests that run
        # Reentrant: a `__del__` that prints may run while its own thread is in here.
        self.lock = threading.RLock()
        os.register_at_fork(after_in_child=self._forget_other_threads)

    def _forget_other_threads(self) -> None:
        self.lock = threading.RLock()

    def write(self, mark: marks.Mark, number: int = 0) -> None:
        """Write a mark to output `number`, at once."""
        rest = memoryview(marks.encode(self._head, mark))
        with self.lock, contextlib.suppress(OSError):  # the node is gone: nobody to tell
            while rest:
                rest = rest[os.write(self._fds[number], rest) :]

    def tell_owner(self) -> None:
        """Mark from where on unmarked words belong to another: to a queued request while it runs alone."""
        if not self.kept_calls and not self._owner:  # direct requests alone: the common case, and nothing to tell
            return
        with self.lock:
            running = tuple(RUNNING)
            output = cast("Printing", running[0]).output if len(running) == 1 else None
            owner = output.stream if output is not None and output.is_kept else 0
            if owner != self._owner:
                self._owner = owner
                for number in (0, 1):
                    self.write(marks.Owner(owner), number)


_fds: tuple[int, int] | None = None
_outputs: Outputs | None = None


def install() -> None:
    """Put our streams in place, before an author's file can keep the others. Until `mark`, nothing is marked."""
    global _fds  # noqa: PLW0603 - a process has one standard output
    with contextlib.suppress(OSError):  # started without them: nobody would read a mark
        _fds = os.dup(1), os.dup(2)  # of our own: the author's code may close numbers 1 and 2
    for name, level in (("stdout", "STDOUT"), ("stderr", "STDERR")):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # Under both names: whoever resets one to the other keeps it, and it must never be collected.
            marked = MarkedStream(stream, level)
            setattr(sys, name, marked)
            setattr(sys, f"__{name}__", marked)
    logging.StreamHandler.emit = _emitting(logging.StreamHandler.emit)  # type: ignore[method-assign]


def mark(token: str, limits: Limits) -> None:
    """Mark what is printed from now on."""
    global _outputs  # noqa: PLW0603 - a process has one standard output
    if _fds is not None:
        _outputs = Outputs(_fds, token, limits)


def _emitting(emit: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(emit)
    def emit_with_level(handler: Any, record: logging.LogRecord) -> None:
        token = _LEVEL.set(_level_of(record.levelno))
        try:
            emit(handler, record)
        finally:
            _LEVEL.reset(token)

    return emit_with_level


def _level_of(number: int) -> str:
    if number >= logging.ERROR:
        return "ERROR"
    if number >= logging.WARNING:
        return "WARN"
    return "INFO" if number >= logging.INFO else "DEBUG"


def tell(text: str) -> bool:
    """Write the runner's own words, which belong to no request even while one runs alone; False: nobody marks."""
    if _outputs is None:
        return False
    for line in text.removesuffix("\n").split("\n"):
        _outputs.write(marks.Line(0, "", "STDERR", time.time(), line), 1)
    return True


def begin(output: CallOutput) -> None:
    """Say that a call has begun: it is among those that run."""
    if _outputs is not None:
        with _outputs.lock:
            _outputs.kept_calls += output.is_kept
            _outputs.tell_owner()


class MarkedStream(io.TextIOWrapper):
    """A standard stream that knows whose words are written to it."""

    def __init__(self, stream: io.TextIOWrapper, level: str) -> None:
        encoding, errors = stream.encoding, stream.errors
        # By the line: a print() is a log line now, not at the next 8 KiB.
        super().__init__(cast("io.BufferedWriter", stream.detach()), encoding, errors, line_buffering=True)
        self.mode = "w"  # type: ignore[misc]  # the stream that it replaces has one
        self._level = level

    def write(self, text: str, /) -> int:
        """Write text: to the log of the request that this code works for, or where it went before."""
        call = CURRENT.get()
        if call is None or _outputs is None or not isinstance(text, str):
            return super().write(text)
        cast("Printing", call).output.write(_LEVEL.get() or self._level, text)
        return len(text)


class CallOutput:
    """The words of one call. From any thread; bounded by the line and by the second, the rest counted and told."""

    __slots__ = (
        "_dropped",
        "_item",
        "_item_at",
        "_lines",
        "_request_id",
        "_second",
        "_spent",
        "is_kept",
        "stream",
    )

    def __init__(self, stream: int, request_id: str, *, is_kept: bool) -> None:
        self.stream = stream
        self.is_kept: Final = is_kept  # by the node's store: of a queued request
        self._request_id: Final = request_id
        self._lines: dict[tuple[str, int], _Unfinished] = {}  # by level and thread
        self._second = 0.0
        self._spent = 0
        self._dropped = 0
        self._item: bytes | None = None
        self._item_at = 0.0

    def write(self, level: str, text: str) -> None:
        """Take what was printed: mark the lines it completes, keep the rest until its line is whole."""
        outputs = _outputs
        if outputs is None:
            return
        with outputs.lock:
            # By thread: two that print at once do not share a line.
            key = level, threading.get_ident()
            line = self._lines.pop(key, None) or _Unfinished()
            at = 0
            while (end := text.find("\n", at)) >= 0:
                if not self._has_room(outputs):
                    last = text.rfind("\n") + 1
                    self._dropped += line.clear() + _bytes_of(text[at:last])
                    at = last
                    break
                line.extend(text[at:end], outputs.line_bytes_max)
                self._tell(outputs, level, line.take(outputs.line_bytes_max))
                at = end + 1
            line.extend(text[at:], outputs.line_bytes_max)
            if line.text:
                self._lines[key] = line
            if self.stream == 0:  # it is over: nothing will end this line
                self._end_lines(outputs)

    def _has_room(self, outputs: Outputs) -> bool:
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._spent = now, 0
            self._tell_dropped(outputs)
        return self._spent < outputs.bytes_per_s_max

    def _tell(self, outputs: Outputs, level: str, text: str, dropped: int = 0) -> None:
        self._spent += len(text) + LINE_OVERHEAD_BYTES
        outputs.write(marks.Line(self.stream, self._request_id, level, time.time(), text, dropped))

    def _tell_dropped(self, outputs: Outputs) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._tell(outputs, "WARN", f"printed too much: {dropped} bytes were dropped", dropped)

    def _end_lines(self, outputs: Outputs) -> None:
        lines, self._lines = self._lines, {}
        for (level, _), line in lines.items():
            if self._has_room(outputs):
                self._tell(outputs, level, line.take(outputs.line_bytes_max))
            else:
                self._dropped += line.clear()

    def take_item(self, event: bytes) -> None:
        """Make a line of an item with `progress` or `message`: at most ten a second, and the last one."""
        outputs = _outputs
        if outputs is None or not (b'"progress"' in event or b'"message"' in event):
            return
        with outputs.lock:
            self._item = event
            now = time.monotonic()
            if now - self._item_at >= ITEM_EVERY_S:
                self._item_at = now
                self._tell_item(outputs)

    def _tell_item(self, outputs: Outputs) -> None:
        event, self._item = self._item, None
        text = words_of(event) if event is not None and len(event) <= outputs.line_bytes_max else None
        if text is not None:
            self._tell(outputs, "INFO", text)

    def end(self) -> None:
        """Tell what is left. What is printed later is the runner's, under the request's id."""
        outputs = _outputs
        if outputs is None:
            return
        with outputs.lock:
            self._end_lines(outputs)
            self._tell_item(outputs)
            self._tell_dropped(outputs)
            outputs.kept_calls -= self.is_kept
            outputs.tell_owner()
            if self.is_kept:
                for number in (0, 1):
                    outputs.write(marks.End(self.stream), number)
            self.stream = 0


class _Unfinished:
    """A line that nothing has ended yet: its beginning, and how many bytes are left out."""

    __slots__ = ("_cut", "_may_end", "text")

    def __init__(self) -> None:
        self.text = ""
        self._cut = 0
        self._may_end = False  # it ended with a carriage return: the next text begins it anew, a newline does not

    def extend(self, text: str, bytes_max: int) -> None:
        if not text:
            return
        if self._may_end:
            self.clear()
        if "\r" in text:
            self._may_end = text.endswith("\r")
            text = text.removesuffix("\r")
            if "\r" in text:
                self.text, self._cut, text = "", 0, text[text.rfind("\r") + 1 :]
        room = bytes_max - len(self.text)
        self.text += text[:room]
        if len(text) > room:
            self._cut += _bytes_of(text[room:])

    def clear(self) -> int:
        """Begin anew; return how many bytes are forgotten."""
        forgotten = _bytes_of(self.text) + self._cut
        self.text, self._cut, self._may_end = "", 0, False
        return forgotten

    def take(self, bytes_max: int) -> str:
        """Return the line, cut to `bytes_max` of UTF-8, and begin anew."""
        text, cut = self.text, self._cut
        if not text.isascii() and len(raw := text.encode("utf-8", "replace")) > bytes_max:
            text = raw[:bytes_max].decode("utf-8", "ignore")
            cut += len(raw) - bytes_max
        self.clear()
        return f"{text} ... ({cut} bytes more)" if cut else text


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def words_of(event: bytes) -> str | None:
    """Return the line that an item makes: its `progress` and its `message`, None when it has neither in words."""
    item = orjson.loads(event)
    message = item.get("message")
    progress = item.get("progress")
    has_progress = isinstance(progress, int | float | str) and not isinstance(progress, bool)
    progress = round(progress, 4) if isinstance(progress, float) else progress
    words = [f"progress {progress}"] if has_progress else []
    words += [message] if isinstance(message, str) and message else []
    return ": ".join(words).replace("\n", " ") or None
