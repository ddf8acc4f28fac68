"""What a runner prints, on its way into the log: whole lines, bounded, and every byte that is left out counted."""

import asyncio
import logging
from unittest import mock

import pytest

from headrace.core import marks
from headrace.core.limits import Limits
from headrace.supervisor import output as outputs
from headrace.supervisor import request_log
from headrace.supervisor.output import LAST_LINES, LINE_OVERHEAD_BYTES, Output
from headrace.supervisor.request_log import RequestLog

TOKEN = "0123456789abcdef"

LIMITS = Limits(output_line_bytes_max=100, output_bytes_per_s_max=10 * (LINE_OVERHEAD_BYTES + 1))


class Printed:
    """What became of pieces that a runner printed within one second, and then left."""

    def __init__(self, *pieces: bytes, limits: Limits = LIMITS, queued: tuple[int, ...] = ()) -> None:
        self.dropped: list[int] = []
        self.lines: list[str] = []
        self.last_lines: list[str] = []
        self.kept: dict[int, list[tuple[str, str]]] = {}
        self.queued = queued
        with mock.patch.object(outputs, "monotonic", lambda: 0.0):
            asyncio.run(self._print(pieces, limits))

    async def _print(self, pieces: tuple[bytes, ...], limits: Limits) -> None:
        loop = asyncio.get_running_loop()
        loop.time = lambda: 0.0  # however slow this is, its second does not pass
        log = logging.getLogger("headrace.output")
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            logs = {stream: RequestLog(limits) for stream in self.queued}
            output, pipe = Output(limits, TOKEN, logs), asyncio.StreamReader()
            output.on_dropped = self.dropped.append
            output.relay(pipe, "a pipe", "STDERR")
            for piece in pieces:
                pipe.feed_data(piece)
                for _ in range(5):
                    await asyncio.sleep(0)  # the relay reads it
            pipe.feed_eof()
            await output.end()
            self.last_lines = list(output.last_lines)
            self.kept = {
                stream: [(line.level, line.message) for line in log.take()] for stream, log in logs.items()
            }
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


# --- marks ------------------------------------------------------------------------------------------------------


def mark(made: marks.Mark) -> bytes:
    return marks.encode(marks.head_of(TOKEN), made)


def line(stream: int, text: str, level: str = "STDOUT", *, dropped: int = 0) -> bytes:
    return mark(marks.Line(stream, f"r-{stream}", level, 1.5, text, dropped))


STORY = (
    b"nobody\'s\n" + mark(marks.Owner(7)) + b"raw\nhalf of a" + line(7, "printed") + b" line\nunfinished"
    + mark(marks.Owner(0)) + line(7, "r\u00e9sum\u00e9", "WARN") + mark(marks.End(7)) + line(9, "direct") + b"\x1e again\n\x1e0123"
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 17, 18, 19, 1_000])
def test_marked_words_go_where_they_belong_and_others_to_the_owner_however_they_come(size):
    printed = Printed(*(STORY[i : i + size] for i in range(0, len(STORY), size)), limits=Limits(), queued=(7,))

    assert [
        ("STDERR", "raw"),
        ("STDOUT", "printed"),
        ("STDERR", "half of a line"),
        ("STDERR", "unfinished"),
        ("WARN", "r\u00e9sum\u00e9"),
    ] == printed.kept[7]
    assert [
        "[runner] nobody's",
        "[runner r-9] direct",
        "[runner] \x1e again",
        "[runner] \x1e0123",
    ] == printed.lines


def test_without_the_token_a_mark_is_text():
    forged = line(7, "forged").replace(TOKEN.encode(), b"f" * 16)

    printed = Printed(forged, limits=Limits(), queued=(7,))

    assert {7: []} == printed.kept
    assert 1 == len(printed.lines)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b'["end"]',
        b'["end","7"]',
        b'["line",7,"r",null,0.5,"x",0]',
        b'["line",7',
        b"\xff",
        b"x" * 9_000,
        b"[" * 9_000,
        b'["line",7,"r","STDOUT",1e300,"x",0]',
        b'["line",7,"r","STDOUT",NaN,"x",0]',
    ],
)
def test_a_mark_that_cannot_be_read_is_text_and_harms_nothing(payload):
    broken = marks.head_of(TOKEN) + payload + b"\n"

    printed = Printed(broken, line(7, "next"), b"last\n", limits=Limits(), queued=(7,))

    assert [("STDOUT", "next")] == printed.kept[7]
    assert [f"[runner] {payload.decode(errors='replace')}", "[runner] last"] == printed.lines


def test_what_a_mark_says_is_whole_text_of_a_level_that_there_is():
    broken = marks.head_of(TOKEN) + b'["line",7,"r","LOUD",0.5,"half: \\ud800",-1]\n'

    assert [("STDOUT", "half: ?")] == Printed(broken, limits=Limits(), queued=(7,)).kept[7]


def test_a_mark_without_an_end_is_bounded():
    printed = Printed(marks.head_of(TOKEN) + b"x" * 10_000, b"\nnext\n", queued=(7,))

    assert "[runner] next" in printed.lines
    assert sum(map(len, printed.lines)) < 1_000


def test_marked_words_of_direct_requests_share_the_outputs_second():
    printed = Printed(*(line(9, "x") for _ in range(500)))

    assert 10 == printed.lines.count("[runner r-9] x")
    assert 2 * 490 == sum(printed.dropped)


def test_what_a_request_left_out_is_counted_for_its_runner():
    printed = Printed(line(9, "told", dropped=5), line(7, "told", dropped=6), queued=(7,), limits=Limits())

    assert [5, 6] == printed.dropped
    assert [("STDOUT", "told")] == printed.kept[7]


def test_the_story_of_a_crash_is_nobodys_but_the_operators():
    crash = b"Fatal Python error: Aborted\n\nThread 1:\n"

    printed = Printed(mark(marks.Owner(7)), b"raw\n", crash, limits=Limits(), queued=(7,))

    assert [("STDERR", "raw")] == printed.kept[7]
    assert "[runner] Fatal Python error: Aborted" in printed.lines
    assert "Fatal Python error: Aborted" == printed.last_lines[0]


def test_a_log_is_complete_once_both_outputs_have_said_so_or_are_at_their_end(monkeypatch):
    async def settle(pieces: tuple[bytes, bytes]) -> float:
        log = RequestLog(Limits())
        output, pipes = Output(Limits(), TOKEN, {7: log}), (asyncio.StreamReader(), asyncio.StreamReader())
        for pipe, piece in zip(pipes, pieces, strict=True):
            output.relay(pipe, "a pipe")
            pipe.feed_data(piece)
            if not piece:
                pipe.feed_eof()
        began = asyncio.get_running_loop().time()
        await log.settle()
        took_s = asyncio.get_running_loop().time() - began
        for pipe in pipes:
            pipe.feed_eof()
        await output.end()
        return took_s

    end = mark(marks.End(7))
    assert asyncio.run(settle((end, b"words"))) >= request_log.SETTLE_S - 0.01
    monkeypatch.setattr(request_log, "SETTLE_S", 60.0)
    for pieces in ((end, end), (end, b""), (b"", b"")):
        assert asyncio.run(settle(pieces)) < 30
