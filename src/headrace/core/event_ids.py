"""The id of an event: `<request id>.<attempt>.<number>`, so that one of another request is known at once.

Readers who asked for ids get one with every event, the error event too, and come back with the last one they saw.
Only letters, digits, `-` and `.` are in it: an id with others makes browsers ask first (a CORS preflight) before
they reconnect, and one over 128 bytes does so too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ID: Final = re.compile(r"([0-9a-f-]{36})\.([1-9][0-9]{0,7})\.(0|[1-9][0-9]{0,17})", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventId:
    """Where a reader is in a request's log: it has seen event `number` of an attempt, counted from 0."""

    request: str
    attempt: int
    number: int

    def __str__(self) -> str:
        return f"{self.request}.{self.attempt}.{self.number}"


def parse_event_id(text: str) -> EventId:
    """Read an id of ours. Raises `ValueError` for anything else."""
    match = _ID.fullmatch(text)
    if match is None:
        shown = text if len(text) <= 80 else f"{text[:77]}…"
        raise ValueError(f"{shown!r} is no event id of ours: '<request id>.<attempt>.<number>'")
    return EventId(match[1], int(match[2]), int(match[3]))


class Labels:
    """Puts ids to the events of one attempt."""

    __slots__ = ("_prefix",)

    def __init__(self, request: str, attempt: int) -> None:
        self._prefix = f"{request}.{attempt}.".encode("ascii")

    def line(self, number: int) -> bytes:
        """Return the `id:` line of an event."""
        return b"id: %b%d\n" % (self._prefix, number)

    def framed(self, first: int, texts: list[bytes]) -> bytes:
        """Return events as a stream has them, the first of which has the number `first`."""
        return b"".join([b"%bdata: %b\n\n" % (self.line(first + at), text) for at, text in enumerate(texts)])
