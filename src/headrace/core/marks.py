r"""How a runner says whose words are whose, on the outputs that its author's code prints to.

    \x1e TOKEN JSON-array \n

A mark is one line between any others. It is written at once and by hand, not sent over the link: so the last words
before a crash arrive, forked workers keep their request, and events never wait behind words. The token is a secret
of the node's for each runner, told in SETUP: text that a model merely prints is never taken for a mark.

This file knows the format. It does not know pipes, nor what becomes of a line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, TypeAlias

#: Bytes of a mark around its text: token, numbers, request id and quotes, with much to spare.
MARK_BYTES_MAX: Final = 512

#: Seconds since 1970, in the year 5138: what counts as a time.
_FAR_FUTURE: Final = 1e11

#: fal's levels of a line.
LEVELS: Final = frozenset({"STDOUT", "STDERR", "DEBUG", "INFO", "WARN", "ERROR"})


@dataclass(frozen=True, slots=True)
class Line:
    """One line that belongs to a request, or (stream 0) to one that is over, or (no id either) to the runner."""

    stream: int
    request_id: str
    level: str
    at: float  # seconds since 1970
    text: str
    dropped: int = 0  # bytes that were left out; `text` says so


@dataclass(frozen=True, slots=True)
class Owner:
    """What follows on this output, without a mark of its own, belongs to a stream; 0: to nobody."""

    stream: int


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more of this stream will follow on this output."""

    stream: int


Mark: TypeAlias = Line | Owner | End


def head_of(token: str) -> bytes:
    """Return how every mark of a runner begins."""
    return b"\x1e%b " % token.encode("ascii")


def encode(head: bytes, mark: Mark) -> bytes:
    """Return the bytes of a mark. Halves of surrogate pairs in a text become question marks."""
    match mark:
        case Line():
            text = _legible(mark.text)
            fields = ["line", mark.stream, mark.request_id, mark.level, mark.at, text, mark.dropped]
        case Owner():
            fields = ["owner", mark.stream]
        case End():
            fields = ["end", mark.stream]
    return head + json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def decode(payload: bytes) -> Mark:
    """Return the mark whose bytes between head and newline are given. Raises `ValueError` for any others."""
    try:
        fields = json.loads(payload)
    except RecursionError as error:
        raise ValueError("a mark that cannot be read") from error
    match fields:
        case ["line", int(stream), str(id_), str(level), float(at), str(text), int(dropped)] if (
            0 <= at < _FAR_FUTURE
        ):
            level = level if level in LEVELS else "STDOUT"
            return Line(stream, _legible(id_), level, at, _legible(text), max(0, dropped))
        case ["owner", int(stream)]:
            return Owner(stream)
        case ["end", int(stream)]:
            return End(stream)
        case _:
            raise ValueError("a mark that cannot be read")


def _legible(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
