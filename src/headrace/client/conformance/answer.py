"""An HTTP/1.1 answer as it stood on the wire: head, chunks with their times, and how it ended.

HTTP libraries hide what a conformance check must see: where chunks were cut, whether the final one came, whether
the connection was closed or reset. This reads just enough of RFC 9112 to tell. It knows no socket and no clock:
bytes and times are given to it.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Never

#: Bytes of a head before we call it none. Twice what nginx takes.
_HEAD_BYTES_MAX: Final = 64 * 1024

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


class Ending(enum.Enum):
    """How we came to stop reading."""

    COMPLETE = "was complete"  # by its own framing; the connection was still open
    FIN = "was closed"
    RESET = "was reset"
    SILENT = "fell silent"  # no byte for as long as we would wait
    LEFT = "was left by us"
    UNREACHABLE = "could not be made"


class Framing(enum.Enum):
    """What says where the body ends (RFC 9112, section 6.3)."""

    CHUNKED = "chunked"
    LENGTH = "Content-Length"
    CLOSE = "the end of the connection"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk's data, or, without chunked framing, what one read of the socket gave."""

    data: bytes
    at_s: float  # when its last byte came, in seconds since the connection stood


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `status` is None when no head came; `fault` then says why, as far as we know."""

    status: int | None
    headers: tuple[tuple[str, str], ...]  # names in lower case
    framing: Framing
    chunks: tuple[Chunk, ...]  # the last one may be cut short by the ending
    is_whole: bool  # the framing's own end came: the final chunk, or every byte of the length
    ending: Ending
    arrivals_s: tuple[float, ...]  # when bytes came, each read of the socket
    ended_s: float
    fault: str

    @property
    def body(self) -> bytes:
        """What came of the body."""
        return b"".join(chunk.data for chunk in self.chunks)

    def header(self, name: str) -> str | None:
        """Return a header's value, several joined as RFC 9110 section 5.2 says; None when it is absent."""
        values = [value for other, value in self.headers if other == name]
        return ", ".join(values) if values else None

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case; "" for none."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    @property
    def is_event_stream(self) -> bool:
        """Whether this is a stream that began: 200 and the right type."""
        return self.status == 200 and self.media_type == "text/event-stream"

    @property
    def json(self) -> Any:
        """The body as JSON, None when it is not (or when it says null)."""
        try:
            return strict_json(self.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        """Say in a few words what came."""
        if self.status is not None:
            return f"{self.status} {self.media_type or 'without a content type'}"
        return f"no answer: {self.fault or f'the connection {self.ending.value}'}"


def strict_json(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8. Raises `ValueError`, also for Python's NaN and Infinity."""
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_constant(word: str) -> Never:
    raise ValueError(f"{word} is no JSON")


class AnswerParser:
    """Takes the bytes of one answer, however they are cut."""

    def __init__(self) -> None:
        self.is_complete = False
        self.fault = ""
        self._buffer = bytearray()
        self._step: Callable[[float], bool] = self._read_head
        self._status: int | None = None
        self._headers: tuple[tuple[str, str], ...] = ()
        self._framing = Framing.CLOSE
        self._chunks: list[Chunk] = []
        self._left = 0  # bytes of the chunk, or of the body with a length, that have not come
        self._arrivals_s: list[float] = []

    def feed(self, data: bytes, at_s: float) -> None:
        """Take what one read gave, at `at_s` seconds."""
        self._arrivals_s.append(at_s)
        self._buffer += data
        while not self.is_complete and not self.fault and self._step(at_s):
            pass

    def answer(self, ending: Ending, ended_s: float, fault: str = "") -> Answer:
        """Return what came, now that nothing more will."""
        chunks = self._chunks
        if self._framing is Framing.CHUNKED and self._step == self._read_chunk and self._buffer:
            # The chunk that the ending cut: its bytes did reach the client's parser.
            chunks = [*chunks, Chunk(bytes(self._buffer[: self._left]), self._arrivals_s[-1])]
        return Answer(
            status=self._status,
            headers=self._headers,
            framing=self._framing,
            chunks=tuple(chunks),
            is_whole=self.is_complete,
            ending=ending,
            arrivals_s=tuple(self._arrivals_s),
            ended_s=ended_s,
            fault=fault or self.fault,
        )

    # Each step takes one thing off the buffer; False says that it needs more bytes.

    def _read_head(self, _at_s: float) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_BYTES_MAX:
                self.fault = f"{_HEAD_BYTES_MAX} bytes and no end of a head"
            return False
        status_line, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        match = _STATUS_LINE.fullmatch(status_line)
        if match is None:
            self.fault = f"{status_line[:80]!r} is no HTTP/1.1 status line"
            return False
        if match[1].startswith(b"1"):  # an interim answer; the real one follows
            return True
        self._status = int(match[1])
        self._headers = tuple(_header(line) for line in lines)
        self._choose_framing()
        return True

    def _choose_framing(self) -> None:
        headers = dict(self._headers)
        length = headers.get("content-length", "")
        self._step = self._read_rest
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self._framing, self._step = Framing.CHUNKED, self._read_chunk_size
        elif length.isdecimal() or self._status in {204, 304}:
            self._framing = Framing.LENGTH
            self._left = 0 if self._status in {204, 304} else int(length)
            self.is_complete = self._left == 0

    def _read_rest(self, at_s: float) -> bool:
        size = len(self._buffer) if self._framing is Framing.CLOSE else min(len(self._buffer), self._left)
        if size == 0:
            return False
        self._take(size, at_s)
        self._left -= size
        self.is_complete = self._framing is Framing.LENGTH and self._left == 0
        return True

    def _read_chunk_size(self, _at_s: float) -> bool:
        line = self._take_line()
        if line is None:
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            self.fault = f"{line[:80]!r} is no chunk size"
            return False
        self._left = int(match[1], 16)
        self._step = self._read_chunk if self._left else self._read_trailer
        return True

    def _read_chunk(self, at_s: float) -> bool:
        if len(self._buffer) < self._left + 2:
            return False
        self._take(self._left, at_s)
        if self._buffer[:2] != b"\r\n":
            self.fault = f"{bytes(self._buffer[:2])!r} where a chunk ends"
            return False
        del self._buffer[:2]
        self._step = self._read_chunk_size
        return True

    def _read_trailer(self, _at_s: float) -> bool:
        line = self._take_line()
        self.is_complete = line == b""
        return line is not None

    def _take(self, size: int, at_s: float) -> None:
        self._chunks.append(Chunk(bytes(self._buffer[:size]), at_s))
        del self._buffer[:size]

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_BYTES_MAX:
                self.fault = f"{_HEAD_BYTES_MAX} bytes and no end of a chunk's first line"
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _header(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("latin-1").partition(":")
    return name.strip().lower(), value.strip()
