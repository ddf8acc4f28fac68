"""Which part of a content a GET asks for (RFC 9110, sections 13 and 14). Pure.

One range is answered; several at once are not worth their multipart body, and a server may ignore the header: the
whole content is then the answer, as it is for anything that cannot be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: Ten digits are 10 GB; more than nineteen is no offset of anybody's.
_RANGE: Final = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE | re.ASCII)


class NotSatisfiable(Exception):
    """A range that lies wholly behind the end of the content: 416."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the bytes of a content, at least one."""

    start: int
    stop: int  # behind the last one

    @property
    def length(self) -> int:
        """How many they are."""
        return self.stop - self.start


def part_of(range_: str | None, if_range: str | None, etag: str, size: int) -> Part | None:
    """Return the part that the headers `Range` and `If-Range` ask for; None for the whole.

    `etag` is the content's strong validator, quoted. Raises `NotSatisfiable`.
    """
    if range_ is None or (if_range is not None and if_range.strip() != etag):
        return None  # a date never matches: we give none out (section 13.1.5)
    match = _RANGE.fullmatch(range_)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many bytes
        wanted = min(int(match[2]), size)
        if not int(match[2]):
            raise NotSatisfiable
        return Part(size - wanted, size) if wanted else None
    start = int(match[1])
    stop = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:  # says nothing: ignored (section 14.1.1)
        return None
    if start >= size:
        raise NotSatisfiable
    return Part(start, stop)


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller has the content already: 304. Compared weakly (section 13.1.2)."""
    if if_none_match is None:
        return False
    known = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return etag.removeprefix("W/") in known or known == ["*"]
