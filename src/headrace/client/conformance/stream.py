"""A stream's body taken apart: lines, blocks, and where a chunk may end.

`core.sse` reads a stream as a lenient client must. This keeps what that drops: comments, blocks without data, how
each line ended, what stands unfinished at the end.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from headrace.client.conformance.answer import Answer, strict_json

BOM: Final = b"\xef\xbb\xbf"
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


@dataclass(frozen=True, slots=True)
class Block:
    """The lines up to a blank one, comments too. `is_ended` says that the blank line came."""

    lines: tuple[bytes, ...]
    is_ended: bool
    end: int  # the offset in the body behind it

    @property
    def fields(self) -> tuple[tuple[str, bytes], ...]:
        """Every field: its name and its value (WHATWG HTML, 9.2.6)."""
        return tuple(_field(line) for line in self.lines if not line.startswith(b":"))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(name for name, _ in self.fields)

    @property
    def data(self) -> bytes | None:
        """The event's data, None for a block that makes no event."""
        values = [value for name, value in self.fields if name == "data"]
        return b"\n".join(values) if values else None

    @property
    def event(self) -> str:
        """The event's name, "message" when it has none."""
        named = [value.decode("utf-8", "replace") for name, value in self.fields if name == "event"]
        return (named[-1] if named else "") or "message"

    @property
    def json(self) -> Any:
        """The data as JSON, None when there is none, or it is none."""
        try:
            return strict_json(self.data or b"")
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is an event stream, and its parts."""

    answer: Answer
    body: bytes
    blocks: tuple[Block, ...]  # the last one unended, when lines follow the last blank line
    line_ends: Counter[bytes]
    boundaries: frozenset[int]  # the offsets in the body where an event, or a comment between two, ends

    @property
    def events(self) -> tuple[Block, ...]:
        """The blocks that make an event for a client."""
        return tuple(block for block in self.blocks if block.is_ended and block.data is not None)

    @property
    def errors(self) -> tuple[Block, ...]:
        """The events that say `event: error`."""
        return tuple(event for event in self.events if event.event == "error")

    @property
    def event_times_s(self) -> list[float]:
        """When each event was whole, in seconds since the connection stood."""
        chunks = self.answer.chunks
        ends = list(accumulate(len(chunk.data) for chunk in chunks))
        return [chunks[bisect_left(ends, event.end)].at_s for event in self.events]


def read_stream(answer: Answer) -> Stream:
    """Take an answer's body apart."""
    body = answer.body
    blocks: list[Block] = []
    lines: list[bytes] = []
    line_ends: Counter[bytes] = Counter()
    boundaries = {0}
    for line, line_end, end in _lines(body):
        line_ends[line_end] += 1
        if line or not line_end:
            lines.append(line)
        else:
            blocks.append(Block(tuple(lines), True, end))
            lines = []
        if line_end and all(one.startswith(b":") for one in lines):
            boundaries.add(end)
    if lines:
        blocks.append(Block(tuple(lines), False, len(body)))
    del line_ends[b""]
    return Stream(answer, body, tuple(blocks), line_ends, frozenset(boundaries))


def _lines(body: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield each line, what ended it (b"" for nothing), and the offset behind it."""
    start = len(BOM) if body.startswith(BOM) else 0
    while start < len(body):
        match = _LINE.match(body, start)
        assert match is not None, "every position begins a line, if an empty one"
        start = match.end()
        yield match[1], match[2], start


def _field(line: bytes) -> tuple[str, bytes]:
    name, _, value = line.partition(b":")
    return name.decode("utf-8", "replace"), value.removeprefix(b" ")
