"""What a runner prints, on its way into the log: whole lines, bounded, and every byte that is left out counted."""

import asyncio
import logging

import pytest

from headrace.core.limits import Limits
from headrace.supervisor.output import LAST_LINES, LINE_OVERHEAD_BYTES, Output

LIMITS = Limits(output_line_bytes_max=100, output_bytes_per_s_max=10 * (LINE_OVERHEAD_BYTES + 1))


class Printed:
    """What became of pieces that a runner printed, and then left."""

    def __init__(self, *pieces: bytes, limits: Limits = LIMITS) -> None:
        self.dropped: list[int] = []
        self.lines: list[str] = []
        self.last_lines: list[str] = []
        asyncio.run(self._print(pieces, limits))

    async def _print(self, pieces: tuple[bytes, ...], limits: Limits) -> None:
        log = logging.getLogger("headrace.output")
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            output, pipe = Output(limits), asyncio.StreamReader()
            output.on_dropped = self.dropped.append
            output.relay(pipe, "a pipe")
            for piece in pieces:
                pipe.feed_data(piece)
                await asyncio.sleep(0.001)  # the relay reads it
            pipe.feed_eof()
            await output.end()
            self.last_lines = list(output.last_lines)
        finally:
            log.removeHandler(handler)


def test_lines_are_logged_as_they_are_however_they_come():
    text = b"one\ntwo\n\nthr\xc3\xa9e\r\nlast"

    expected = ["[runner] one", "[runner] two", "[runner] ", "[runner] thr\xe9e", "[runner] last"]
    assert expected == Printed(text).lines
    assert expected == Printed(*(text[i : i + 1] for i in range(len(text)))).lines


def test_what_is_not_text_is_logged_as_such():
    assert ["[runner] \ufffd\ufffd\x00"] == Printed(b"\xff\xfe\x00\n").lines


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_long_line_is_cut_and_its_rest_counted(size):
    text = b"=" * 350 + b"\nnext\n"
    printed = Printed(*(text[i : i + size] for i in range(0, len(text), size)))

    assert [f"[runner] {'=' * 100} ... (250 bytes more)", "[runner] next"] == printed.lines[:2]
    assert 250 == sum(printed.dropped)
    assert "[runner] printed too much: 250 bytes were dropped" == printed.lines[-1]


def test_a_line_as_long_as_may_be_is_whole():
    printed = Printed(b"=" * 100 + b"\n")

    assert ([f"[runner] {'=' * 100}"], []) == (printed.lines, printed.dropped)


def test_what_a_second_has_no_room_for_is_dropped_and_counted_to_the_byte():
    printed = Printed(b"x\n" * 500, b"y" * 30, b"y\n" * 3, b"the end")

    # Ten lines of one byte fill the second; the last, which nothing ended, is told as the runner's last word.
    assert ["[runner] x"] * 10 + ["[runner] the end"] == printed.lines[:11]
    assert 2 * 490 + 30 + 2 * 3 == sum(printed.dropped)


def test_empty_lines_cost_too():
    printed = Printed(b"\n" * 10_000)

    assert 11 == printed.lines.count("[runner] ")
    assert 9_989 == sum(printed.dropped)


def test_the_next_second_has_room_again_and_drops_are_told_even_in_silence():
    dropped: list[int] = []

    async def flood() -> list[str]:
        output, pipe = Output(LIMITS), asyncio.StreamReader()
        told = asyncio.Event()
        output.on_dropped = lambda count: (dropped.append(count), told.set())
        output.relay(pipe, "a pipe")
        pipe.feed_data(b"x\n" * 500)
        await asyncio.wait_for(told.wait(), 30)  # nothing more is printed
        pipe.feed_data(b"again\n")
        pipe.feed_eof()
        await output.end()
        return list(output.last_lines)

    assert ["x"] * 10 + ["again"] == asyncio.run(flood())
    assert [2 * 490] == dropped


def test_the_last_lines_are_kept_for_the_story_of_a_death():
    limits = Limits(output_line_bytes_max=100)
    lines = [f"line {i}" for i in range(100)]

    assert lines[-LAST_LINES:] == Printed("\n".join(lines).encode(), limits=limits).last_lines
