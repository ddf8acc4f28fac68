"""Checks of a stream's bytes: each takes a stream and says what it found.

The rules are those of the subset of server-sent events that every known client reads alike; the damages were
seen with fal-client 1.0.3 (httpx-sse 0.4.3) and @fal-ai/client 1.10.1 (eventsource-parser 1.1.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

from headrace.client.conformance.answer import Framing, strict_json
from headrace.client.conformance.findings import JS, PYTHON, Finding, failed, passed, unchecked
from headrace.client.conformance.stream import BOM, Block, Stream

#: Bytes of one event. The JS client took 2.5 s to parse 8 MB, growing faster than the size.
EVENT_BYTES_MAX: Final = 1024 * 1024
#: Events in one second. The JS client took 12.9 s for a burst of 20,000; 2,000 did no harm.
EVENTS_PER_SECOND_MAX: Final = 2_000

_KNOWN_FIELDS: Final = frozenset({"data", "event", "id", "retry"})
_SHOWN_BYTES: Final = 60
#: U+2028, U+2029 and U+0085 in UTF-8: line ends for Python's splitlines, and so for many readers.
_UNICODE_LINE_ENDS: Final = (b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xc2\x85")


def line_ends(stream: Stream) -> Finding:
    """LF alone. Bare CR is worse than CRLF: nobody knows that the line has ended."""
    crs, crlfs, lfs = (stream.line_ends[end] for end in (b"\r", b"\r\n", b"\n"))
    if crs:
        return failed(
            f"a bare CR behind a line ({crs})",
            f"{PYTHON}: each event is held back until the next byte comes; curl: lines overwrite each other",
        )
    if crlfs:
        return failed(
            f"CRLF behind a line ({crlfs})",
            f"{JS}: a CRLF that the network cuts in two is read as a blank line, in the midst of an event",
        )
    return passed(f"LF behind every line ({lfs})")


def bom(stream: Stream) -> Finding:
    """No byte order mark."""
    if stream.body.startswith(BOM):
        return failed("the body begins with EF BB BF", f"{PYTHON}: the first event is lost")
    return passed(f"the body begins with {_shown(stream.body[:8])}")


def ascii_only(stream: Stream) -> Finding:
    """Nothing beyond ASCII: JSON has escapes for it."""
    body = stream.body.removeprefix(BOM)
    if body.isascii():
        return passed("every byte is ASCII")
    at = next(at for at, byte in enumerate(body) if byte > 0x7F)
    if any(mark in body for mark in _UNICODE_LINE_ENDS):
        return failed(
            f"{_shown(body[at : at + 12])} at byte {at}, and a Unicode line end (U+2028, U+2029 or U+0085)",
            "older httpx-sse and readers built on splitlines(): the event is cut in two and is no JSON; "
            f"{JS}: a character that the network cuts in two becomes U+FFFD",
        )
    return failed(
        f"{_shown(body[at : at + 12])} at byte {at}",
        f"{JS}: a character that the network cuts in two becomes U+FFFD, without an error",
    )


def blank_lines(stream: Stream) -> Finding:
    """No blank line that ends nothing."""
    strays = [block for block in stream.blocks if not block.lines]
    return _none_of(
        strays,
        "a blank line that ends no block",
        f"{PYTHON}: JSONDecodeError in the caller's loop, once any event had an id",
        "every blank line ends a block",
    )


def comments(stream: Stream) -> Finding:
    """A comment ends in one newline."""
    ended = [block for block in stream.blocks if block.is_ended and block.lines and not block.fields]
    count = sum(line.startswith(b":") for block in stream.blocks for line in block.lines)
    return _none_of(
        ended,
        "a blank line behind a comment",
        f"{PYTHON}: JSONDecodeError in the caller's loop, once any event had an id",
        f"comments that end in one newline ({count})" if count else "no comments came",
    )


def bare_fields(stream: Stream) -> Finding:
    """No block of `retry`, `event` or `id` without data."""
    bare = [
        block
        for block in stream.blocks
        if block.is_ended and block.data is None and _KNOWN_FIELDS.intersection(block.names)
    ]
    return _none_of(
        bare,
        "a block without data",
        f"{PYTHON}: JSONDecodeError in the caller's loop, the rest of the stream is lost",
        "every block has data",
    )


def known_fields(stream: Stream) -> Finding:
    """No line that is no field: NDJSON, a proxy's page, the second line of a JSON text."""
    unknown = [block for block in stream.blocks if not _KNOWN_FIELDS.issuperset(block.names)]
    return _none_of(
        unknown,
        "a line that is neither a field nor a comment",
        "every client, EventSource too: these lines are dropped without a word",
        "every line is a field or a comment",
    )


def one_line(stream: Stream) -> Finding:
    """One `data` line an event: legal otherwise, but line readers see half a JSON text."""
    several = [event for event in stream.events if event.names.count("data") > 1]
    return _none_of(
        several,
        "an event of several data lines",
        "curl, and whatever reads line by line: no line is a JSON text; the official clients join them",
        f"one data line in every event ({len(stream.events)})",
    )


def no_done(stream: Stream) -> Finding:
    """No end marker: the end of the body is the end."""
    done = [event for event in stream.events if event.data == b"[DONE]"]
    return _none_of(
        done,
        "an event that says [DONE]",
        f"{PYTHON}: JSONDecodeError instead of an end; {JS}: a SyntaxError, and an unhandled rejection "
        "that ends a Node process",
        "no end marker",
    )


def json_data(stream: Stream) -> Finding:
    """Every event is JSON, as RFC 8259 has it: no NaN."""
    events = [event for event in stream.events if event.data != b"[DONE]"]
    return _none_of(
        [event for event in events if _json_fault(event)],
        "an event that is no JSON",
        f"{PYTHON}: JSONDecodeError (NaN it takes, and hands on); {JS}: for-await ends without a word, "
        "listeners get an error and then more events",
        f"JSON in every event ({len(events)})",
    )


def objects(stream: Stream) -> Finding:
    """Every event is a JSON object."""
    events = [event for event in stream.events if event.data != b"[DONE]" and not _json_fault(event)]
    return _none_of(
        [event for event in events if not isinstance(event.json, dict)],
        "an event that is JSON, but no object",
        f'{JS}: for-await drops 0, "", false and null; code that reads a field fails on the rest',
        f"an object in every event ({len(events)})",
    )


def no_ids(stream: Stream) -> Finding:
    """No `id`, since none was asked for."""
    return _none_of(
        [block for block in stream.blocks if "id" in block.names],
        "an id that nobody asked for",
        f"{PYTHON}: from then on every blank line is an event, and one without data a JSONDecodeError; "
        "EventSource: it reconnects with the id and expects to go on there",
        "no ids",
    )


def last_event(stream: Stream) -> Finding:
    """The last event has its blank line."""
    if not stream.blocks:
        return unchecked("no event came")
    last = stream.blocks[-1]
    if last.is_ended or not last.fields:
        return passed("the body ends behind a blank line or a comment")
    return failed(
        f"the body ends in {_shown(last.lines[-1])} without a blank line",
        "every client, EventSource too: the last event, often the result, is dropped without a word",
    )


def chunks(stream: Stream) -> Finding:
    """No chunk ends within an event: clients get whole events in one read."""
    if stream.answer.framing is not Framing.CHUNKED:
        return unchecked(f"the body is not chunked; its end is told by {stream.answer.framing.value}")
    ends = list(accumulate(len(chunk.data) for chunk in stream.answer.chunks))
    cuts = [end for end in ends[:-1] if end not in stream.boundaries]
    if not cuts:
        return passed(f"whole events in every chunk ({len(ends)})")
    around = stream.body[max(0, cuts[0] - 12) : cuts[0]], stream.body[cuts[0] : cuts[0] + 12]
    return failed(
        f"{len(cuts)} of {len(ends)} chunks end within an event, the first between "
        f"{_shown(around[0])} and {_shown(around[1])}",
        f"{JS}: decodes each chunk alone, so a character cut in two becomes U+FFFD, and small cuts of a large "
        "event take quadratic time; curl: half a line on the screen",
    )


def event_size(stream: Stream) -> Finding:
    """No event over a mebibyte."""
    largest = max((len(event.data or b"") for event in stream.events), default=0)
    if largest > EVENT_BYTES_MAX:
        return failed(
            f"an event of {largest} bytes",
            f"{JS}: 8 MB took 2.5 s, growing faster than the size; send a URL instead of inline data",
        )
    return passed(f"the largest event has {largest} bytes")


def burst(stream: Stream) -> Finding:
    """No flood of small events: join what is made at once."""
    most = _most_within_a_second(stream.event_times_s)
    if most > EVENTS_PER_SECOND_MAX:
        return failed(
            f"{most} events within a second",
            f"{JS}: 20,000 at once took 12.9 s, and for-await waits 16 ms after every event; join small events",
        )
    return passed(f"at most {most} events within a second")


def _most_within_a_second(times_s: list[float]) -> int:
    most = first = 0
    for last, time_s in enumerate(times_s):
        while time_s - times_s[first] > 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def _json_fault(event: Block) -> str:
    try:
        strict_json(event.data or b"")
    except ValueError as error:
        return str(error)
    return ""


def _none_of(blocks: list[Block], what: str, damage: str, fine: str) -> Finding:
    """Fail with the first of the bad blocks, pass when there is none."""
    if not blocks:
        return passed(fine)
    first = b"\n".join(blocks[0].lines)
    return failed(f"{what} ({len(blocks)})" + (f", the first in {_shown(first)}" if first else ""), damage)


def _shown(data: bytes) -> str:
    """Return bytes for reading, not too many."""
    return repr(data[:_SHOWN_BYTES])[1:] + ("…" if len(data) > _SHOWN_BYTES else "")


#: Every check of this file: name, promise, function.
CHECKS: Final[Iterable[tuple[str, str, Callable[[Stream], Finding]]]] = (
    ("framing.line-ends", "lines end in LF alone", line_ends),
    ("framing.bom", "no byte order mark", bom),
    ("framing.ascii", "ASCII only, JSON with \\u escapes", ascii_only),
    ("framing.blank-lines", "a blank line ends a block, never nothing", blank_lines),
    ("framing.comments", "a comment ends in one newline", comments),
    ("framing.bare-fields", "no block of retry, event or id without data", bare_fields),
    ("framing.known-fields", "every line is a field or a comment", known_fields),
    ("framing.one-line", "one data line an event", one_line),
    ("framing.no-done", "no [DONE]", no_done),
    ("framing.json", "every event is JSON, without NaN", json_data),
    ("framing.objects", "every event is a JSON object", objects),
    ("framing.no-ids", "no id that was not asked for", no_ids),
    ("framing.last-event", "the last event ends in a blank line", last_event),
    ("framing.chunks", "no chunk ends within an event", chunks),
    ("framing.event-size", "no event over 1 MiB", event_size),
    ("framing.burst", "at most 2,000 events within a second", burst),
)
