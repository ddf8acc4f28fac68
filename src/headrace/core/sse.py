"""The event stream format: bytes to events, and an event to bytes.

The decoder follows the WHATWG rules ("9.2.5 Parsing an event stream", "9.2.6 Interpreting an event stream" of the
HTML standard) to the letter, in whatever way the bytes are cut. It takes time linear in the bytes, never raises
for anything a peer may send, and hands over an event as soon as its blank line is known.

Nearly all streams are blocks of one line, `data: …` and a blank line. Those take a short way, a few string
operations for a whole piece of the stream; everything else takes the full rules, line by line. Both give the
same events: the tests compare them with a reference written straight from the standard's text.

This file does not know what the data is (JSON is the SDK's business), nor connections, nor when to reconnect.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import repeat
from typing import Final, NamedTuple

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
#: Between two blocks of the usual kind: the end of one and the beginning of the next.
_BETWEEN: Final = "\n\ndata: "
#: Longer numbers are ignored: reading one takes time quadratic in its digits, and Python itself stops at 4,300.
_RETRY_DIGITS_MAX: Final = 4_000


class Event(NamedTuple):
    """One event: what `MessageEvent` has in a browser."""

    type: str  # the `event` field, "message" when there was none
    data: str  # the `data` fields, joined by line feeds
    id: str  # the last id seen up to here, "" when there was none


# A NamedTuple's own constructor is a Python function; this is the same without the call, half the time.
_event = partial(tuple.__new__, Event)


class Decoder:
    """Turns the pieces of a stream into events.

    `last_event_id` is what a reconnecting client would send as `Last-Event-ID`; an id is adopted when its block
    ends, so the id of an event that the end of the stream cuts off is not. `retry_ms` is the reconnection time
    that the server asked for, in milliseconds, None until it did.
    """

    def __init__(self, last_event_id: str = "") -> None:
        """Begin a stream; `last_event_id` is the id that an earlier connection ended with."""
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        # A block has begun and not ended, or the stream has not: the short way is closed.
        self._is_inside = True
        self._bom: bytes | None = b""  # how much of a BOM was seen; None after the first bytes
        self._skips_line_feed = False  # the last byte was a CR, so an LF now belongs to it
        self._line: list[bytes] = []  # pieces of a line that has not ended
        self._line_bytes = 0
        self._data: list[str] = []
        self._data_bytes = 0
        self._type = ""
        self._id = last_event_id

    @property
    def unfinished(self) -> int:
        """The bytes of the event that has begun and not ended; comments do not count.

        At the end of a stream this is what the end cut off. A caller that bounds its memory looks here
        after each `feed`.
        """
        return self._data_bytes + self._line_bytes

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that end in this piece."""
        if (
            not self._is_inside
            and not self._skips_line_feed
            and data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and (plain := self._plain(data[6:-2])) is not None
        ):
            return plain
        data = self._after_bom(data)
        data = self._with_line_feeds_only(data)
        events: list[Event] = []
        start = self._through_block(data, events) if self._is_inside else 0
        end = data.rfind(b"\n\n", start)
        if end >= 0 and data.startswith(b"data: ", start):
            plain = self._plain(data[start + 6 : end])
            if plain is not None:
                events += plain
                start = end + 2
        self._through_lines(data, start, events)
        return events

    def close(self) -> list[Event]:
        """End the stream: an event that has begun is dropped, as the standard says. Returns no event."""
        self._line.clear()
        self._line_bytes = 0
        self._forget_block()
        self._id = self.last_event_id
        return []

    def _plain(self, blocks: bytes) -> list[Event] | None:
        """Return the events of blocks that are one data line each, or None where the full rules are needed.

        `blocks` comes without its first `data: ` and its last blank line.
        """
        if b"\r" in blocks:
            return None
        try:
            text = blocks.decode()
        except UnicodeDecodeError:
            return None
        lines = text.split(_BETWEEN)
        if text.count("\n") != 2 * (len(lines) - 1):
            return None
        return list(map(_event, zip(repeat("message"), lines, repeat(self.last_event_id), strict=False)))

    def _after_bom(self, data: bytes) -> bytes:
        """Drop one byte order mark at the very beginning ("UTF-8 decode" strips it), though it come in pieces."""
        if self._bom is None:
            return data
        data = self._bom + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._bom = data
            return b""
        self._bom = None
        return data.removeprefix(_BOM)

    def _with_line_feeds_only(self, data: bytes) -> bytes:
        """Make each line end one LF. A CR at the end of a piece ends its line at once, and eats an LF after it."""
        if self._skips_line_feed and data:
            self._skips_line_feed = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._skips_line_feed = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _through_block(self, data: bytes, events: list[Event]) -> int:
        """Take lines to the end of the block that is open; return where the next one starts."""
        start = 0
        while self._is_inside and (end := data.find(b"\n", start)) >= 0:
            self._end_line(data[start:end], events)
            start = end + 1
        return start

    def _through_lines(self, data: bytes, start: int, events: list[Event]) -> None:
        """Take the rest of a piece by the full rules, and keep the line that it cuts."""
        if start == len(data):
            return
        *lines, rest = data[start:].split(b"\n")
        for line in lines:
            self._end_line(line, events)
        if rest:
            self._is_inside = True
            self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        """Remember a piece of a line. Of a comment, one colon says everything."""
        if self._line_bytes == 0 and (self._line or piece.startswith(b":")):
            self._line = [b":"]
            return
        self._line.append(piece)
        self._line_bytes += len(piece)

    def _end_line(self, line: bytes, events: list[Event]) -> None:
        if self._line:
            self._line.append(line)
            line = b"".join(self._line)
            self._line.clear()
            self._line_bytes = 0
        if line:
            self._is_inside = True
            self._field(line)
        else:
            self._dispatch(events)

    def _field(self, line: bytes) -> None:
        """Process one field. A line that begins with a colon is a comment: its name is empty, no field of ours."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value.decode("utf-8", "replace"))
            self._data_bytes += len(value) + 1
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS_MAX:
            self.retry_ms = int(value)  # of bytes, isdigit knows ASCII only

    def _dispatch(self, events: list[Event]) -> None:
        """End the block: its id is adopted with or without data, an event is made only of data."""
        self.last_event_id = self._id
        if self._data:
            events.append(Event(self._type or "message", "\n".join(self._data), self._id))
        self._forget_block()

    def _forget_block(self) -> None:
        self._is_inside = False
        self._data.clear()
        self._data_bytes = 0
        self._type = ""


def encode(data: str, *, event: str | None = None, id: str | None = None) -> bytes:
    r"""Return one event as bytes: `event:`, `id:`, a `data:` line for each line of `data`, a blank line.

    Any text is legal data; CRLF, CR and LF in it all arrive as LF, the only line end the format can carry.
    Raises `ValueError` for what would be another field or be dropped in silence: CR or LF in `event` or
    `id`, NUL in `id`, and lone surrogates anywhere (they have no UTF-8).
    """
    fields = []
    for name, value in (("event", event), ("id", id)):
        if value is None:
            continue
        if "\n" in value or "\r" in value or (name == "id" and "\0" in value):
            raise ValueError(f"the field {name!r} cannot hold {value!r}: no CR, no LF, and no NUL in an id")
        fields.append(f"{name}: {value}\n")
    lines = _LINE_END.split(data) if "\n" in data or "\r" in data else [data]
    fields += [f"data: {line}\n" for line in lines]
    fields.append("\n")
    return "".join(fields).encode()
