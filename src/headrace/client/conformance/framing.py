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
    crs, crlfs = stream.line_ends[b"\r"], stream.line_ends[b"\r\n"]
    if crs:
        return failed(
            f"{crs} lines end in a bare CR",
            f"{PYTHON}: each event is held back until the next byte comes; curl: lines overwrite each other",
        )
    if crlfs:
        return failed(
            f"{crlfs} lines end in CRLF",
            f"{JS}: a CRLF that the network cuts in two makes a blank line, and half an event is delivered",
        )
    return passed(f"{stream.line_ends[b'\n']} lines end in LF")


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
            "httpx-sse before 0.4.1 and readers built on splitlines(): the event is cut in two and is no JSON; "
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
        "blank lines that end no block",
        f"{PYTHON}: JSONDecodeError in the caller's loop, once any event had an id",
        "every blank line ends a block",
    )


def comments(stream: Stream) -> Finding:
    """A comment ends in one newline."""
    ended = [block for block in stream.blocks if block.is_ended and block.lines and not block.fields]
    count = sum(line.startswith(b":") for block in stream.blocks for line in block.lines)
    return _none_of(
        ended,
        "comments followed by a blank line",
        f"{PYTHON}: JSONDecodeError in the caller's loop, once any event had an id",
        f"{count} comments" if count else "no comments came",
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
        "blocks without data",
        f"{PYTHON}: JSONDecodeError in the caller's loop, the rest of the stream is lost",
        "every block has data",
    )


def known_fields(stream: Stream) -> Finding:
    """No line that is no field: NDJSON, a proxy's page, the second line of a JSON text."""
    unknown = [block for block in stream.blocks if not _KNOWN_FIELDS.issuperset(block.names)]
    return _none_of(
        unknown,
        "blocks with lines that are neither a field nor a comment",
        "every client, EventSource too: these lines are dropped without a word",
        "every line is a field or a comment",
    )


def one_line(stream: Stream) -> Finding:
    """One `data` line an event: legal otherwise, but line readers see half a JSON text."""
    several = [event for event in stream.events if event.names.count("data") > 1]
    return _none_of(
        several,
        "events of several data lines",
        "curl, and whatever reads line by line: no line is a JSON text; the official clients join them",
        f"{len(stream.events)} events of one data line",
    )


def no_done(stream: Stream) -> Finding:
    """No end marker: the end of the body is the end."""
    done = [event for event in stream.events if event.data == b"[DONE]"]
    return _none_of(
        done,
        "events say [DONE]",
        f"{PYTHON}: JSONDecodeError instead of an end; {JS}: a SyntaxError, and an unhandled rejection "
        "that ends a Node process",
        "no end marker",
    )


def json_data(stream: Stream) -> Finding:
    """Every event is JSON, as RFC 8259 has it: no NaN."""
    events = [event for event in stream.events if event.data != b"[DONE]"]
    return _none_of(
        [event for event in events if _json_fault(event)],
        "events are no JSON",
        f"{PYTHON}: JSONDecodeError (NaN it takes, and hands on); {JS}: for-await ends without a word, "
        "listeners get an error and then more events",
        f"{len(events)} events are JSON",
    )


def objects(stream: Stream) -> Finding:
    """Every event is a JSON object."""
    events = [event for event in stream.events if event.data != b"[DONE]" and not _json_fault(event)]
    return _none_of(
        [event for event in events if not isinstance(event.json, dict)],
        "events are JSON, but no objects",
        f'{JS}: for-await drops 0, "", false and null; code that reads a field fails on the rest',
        f"{len(events)} events are objects",
    )


def no_ids(stream: Stream) -> Finding:
    """No `id`, since none was asked for."""
    return _none_of(
        [block for block in stream.blocks if "id" in block.names],
        "blocks have an id that nobody asked for",
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
        return passed(f"{len(ends)} chunks, all of whole events")
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
    times_s = event_times_s(stream)
    most = _most_within_a_second(times_s)
    if most > EVENTS_PER_SECOND_MAX:
        return failed(
            f"{most} events within a second",
            f"{JS}: 20,000 at once took 12.9 s, and for-await waits 16 ms after every event; join small events",
        )
    return passed(f"at most {most} events within a second")


def event_times_s(stream: Stream) -> list[float]:
    """Return when each event was whole, in seconds since the connection stood."""
    times: list[float] = []
    so_far = b""
    for chunk in stream.answer.chunks:
        so_far += chunk.data
        *whole, so_far = so_far.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
        times += [chunk.at_s for block in whole if b"data" in block]
    return times


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
    first = blocks[0].lines
    shown = f", the first {_shown(b'\n'.join(first))}" if first else ""
    return failed(f"{len(blocks)} {what}{shown}", damage)


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
