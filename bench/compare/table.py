"""What was measured, in words: a phrase for each outcome, a table for the README, a page around both.

It computes nothing but words, and no word stands here that does not follow from a figure.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.compare.behaviours import RECOVERY_S, Flooded, Killed, Left, Raised
from bench.compare.client import CUT, OPEN

PAGE = Path(__file__).parent / "page.md"

#: What one server did, by the name of the behaviour.
Outcome = Raised | Left | Flooded | Killed
Column = Mapping[str, Outcome]

#: The rows, in their order: the behaviour's name, and the README's words for it.
ROWS = {
    "raises": "the model raises after its 3rd item",
    "leaves": "the reader leaves after item 5 of 150",
    "stalls": "the reader stops reading a 300 MB stream",
    "killed": "the model's process is killed mid-stream",
}


def phrase(outcome: Outcome) -> str:
    """Return one cell."""
    match outcome:
        case Raised():
            return _raised(outcome)
        case Left():
            return _left(outcome)
        case Flooded():
            return _flooded(outcome)
        case Killed():
            return _killed(outcome)


def _raised(seen: Raised) -> str:
    items = f"{seen.events} items"
    if seen.status != 200:
        return f"status {seen.status}, {items}"
    if seen.error:
        end = {CUT: "then a cut", OPEN: "but the stream stays open"}.get(seen.ending, "then a clean end")
        return f"{items}, an `error` event (`{seen.error}`), {end}"
    if seen.ending == CUT:
        return f"{items}, then a cut: it knows that it failed, not why"
    if seen.ending == OPEN:
        return f"{items}, then the stream hangs"
    return f"a clean 200 with {items}: the error is never told"


def _left(seen: Left) -> str:
    made = f"all {seen.items} are made" if seen.made >= seen.items else f"stops at {seen.made}"
    waits = "the next is never answered" if seen.next_s is None else f"the next waits {_seconds(seen.next_s)}"
    closed = (
        "" if seen.closed_s is not None else f"; the model's `finally:` has not run {seen.watched_s:.0f} s later"
    )
    return f"{made}, {waits}{closed}"


def _flooded(seen: Flooded) -> str:
    grown = f"{max(0, seen.grown_bytes) / 1e6:+.0f} MB"
    if seen.made >= seen.items:
        return f"{grown}: all {seen.items:,} items are made"
    if seen.is_paused:
        return f"{grown}: paused after {seen.made:,} of {seen.items:,} items"
    return f"{grown} in {seen.seconds:.0f} s and going on, {seen.made:,} items made"


def _killed(seen: Killed) -> str:
    return "; ".join([_told(seen), _other(seen), _next(seen), _health(seen)])


def _told(seen: Killed) -> str:
    if seen.told_s is None:
        return f"hangs {RECOVERY_S:.0f} s and longer"
    how = f"`error` event (`{seen.error}`), cut" if seen.error else "cut"
    return f"{how} after {_seconds(seen.told_s)}"


def _other(seen: Killed) -> str:
    if seen.other_ending == OPEN:
        return "another client hangs too"
    if seen.other_ending == CUT or seen.other_events < 3:
        return "another client is cut too"
    return "another client is served"


def _next(seen: Killed) -> str:
    if seen.answers_s is not None:
        return f"new requests are answered after {_seconds(seen.answers_s)}"
    if seen.is_server and seen.has_left:
        return "no request is answered again: that process was the server"
    return f"no new request is answered in {RECOVERY_S:.0f} s"


def _health(seen: Killed) -> str:
    if seen.health_down_s is None:
        return "health is down"
    if seen.health_down_s == 0:
        return "health stays up"
    return f"health is down for {_seconds(seen.health_down_s)}"


def _seconds(value: float) -> str:
    if value < 0.001:
        return "under 1 ms"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def table(columns: Mapping[str, Column]) -> str:
    """Return the rows by servers as Markdown."""
    measured = [name for name in ROWS if any(name in column for column in columns.values())]
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    for name in measured:
        cells = [phrase(column[name]) if name in column else "–" for column in columns.values()]
        lines.append([ROWS[name], *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(
    plain: Mapping[str, Column],
    asynchronous: Mapping[str, Column],
    others: Mapping[str, Column],
    machine: str,
) -> str:
    """Return the whole page."""
    return PAGE.read_text().format(
        plain=table(plain),
        asynchronous=table(asynchronous) if asynchronous else "Not in this run.",
        others="\n".join(_listed(others)) or "Not in this run.",
        machine=machine,
        recovery_s=RECOVERY_S,
    )


def _listed(columns: Mapping[str, Column]) -> Sequence[str]:
    """Return the outcomes one below the other: these servers did not meet every mishap."""
    return [
        f"- **{server}**, {ROWS[name]}: {phrase(outcome)}"
        for server, column in columns.items()
        for name, outcome in column.items()
    ]
