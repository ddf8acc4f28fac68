"""What is printed, up to the marks that leave the runner: a real runner with a token, and a node that reads its pipes."""

import json
import os
import re
import time

import pytest

from headrace.core import marks
from headrace.core.frames import Kind
from headrace.runner.output import words_of
from tests.support.pretend_node import PretendNode

TOKEN = "0123456789abcdef"
HEAD = marks.head_of(TOKEN)

MODELS = """
import os, sys, threading, time
import headrace


class Loud:
    def __del__(self):
        print("collected")


class Words(headrace.App, name="t/words", max_multiplexing=8):
    def setup(self):
        print("in setup")

    @headrace.endpoint("/say")
    def say(self, input):
        for text in input["texts"]:
            sys.stdout.write(text)
        return {}

    @headrace.endpoint("/say-on-the-loop")
    async def say_on_the_loop(self, input):
        for text in input["texts"]:
            print(text)
        yield {}

    @headrace.endpoint("/flood")
    def flood(self, input):
        text = "x" * 99 + "\\n"
        for _ in range(input["writes"]):
            sys.stdout.write(text * input["lines"])
        if input.get("rest"):
            time.sleep(1.1)
            print("rested")
        return {}

    @headrace.endpoint("/breaks")
    def breaks(self):
        sys.stdout.close()
        os.close(1)
        print("still here")
        return {}

    @headrace.endpoint("/wrong")
    def wrong(self):
        try:
            sys.stdout.write(b"bytes")
        except TypeError as error:
            print(error)
        return {}

    @headrace.endpoint("/collects")
    def collects(self):
        loud = Loud()
        print(len(str([loud])) > 0)
        del loud
        return {}

    @headrace.endpoint("/holds")
    def holds(self):
        yield {}
        time.sleep(60)

    @headrace.endpoint("/items")
    def items(self, input):
        yield from input["items"]
"""


class Node(PretendNode):
    """A pretend node that gives its runner a token, and can say that requests are queued."""

    def start(self, path="/", body=None, *, is_queued=True, log_items=True, **how) -> int:
        self._told = {"is_queued": is_queued, "log_items": log_items}
        return super().start(path, body, **how)

    def send(self, kind, stream=0, payload=b""):
        if kind is Kind.START:
            head, _, body = payload.partition(b"\n")
            payload = json.dumps({**json.loads(head), **self._told}).encode() + b"\n" + body
        if kind is Kind.SETUP:
            payload = json.dumps({**json.loads(payload), "output_token": TOKEN}).encode()
        super().send(kind, stream, payload)

    @property
    def raw(self) -> bytes:
        return os.pread(self._log.fileno(), 1 << 27, 0)

    @property
    def told(self) -> list[marks.Mark]:
        found = re.findall(re.escape(HEAD) + rb"(.*)\n", self.raw)
        return [marks.decode(payload) for payload in found]

    @property
    def lines(self) -> list[marks.Line]:
        return [mark for mark in self.told if isinstance(mark, marks.Line)]

    @property
    def said(self) -> list[str]:
        return [line.text for line in self.lines]


@pytest.fixture
def node(tmp_path):
    (tmp_path / "words.py").write_text(MODELS)
    with Node(str(tmp_path / "words.py"), limits={"output_line_bytes_max": 100}) as node:
        node.setup()
        yield node


def test_words_in_setup_have_no_mark(node):
    assert "in setup\n" == node.log


def test_whole_lines_are_marked_with_stream_request_level_and_time(node):
    stream = node.start("/say", {"texts": ["one\ntw", "o\n", "three"]})
    node.finish(stream)

    lines = node.lines
    assert ["one", "two", "three"] == [line.text for line in lines]
    assert {(stream, f"r-{stream}", "STDOUT", 0)} == {
        (line.stream, line.request_id, line.level, line.dropped) for line in lines
    }
    assert sorted(line.at for line in lines) == [line.at for line in lines]


def test_a_queued_request_that_runs_alone_owns_both_outputs_from_its_start_to_its_end(node):
    stream = node.start("/say", {"texts": ["words\n"]})
    node.finish(stream)

    told = [mark for mark in node.told if not isinstance(mark, marks.Line)]
    twice = [marks.Owner(stream)] * 2 + [marks.Owner(0)] * 2 + [marks.End(stream)] * 2
    assert twice == told


def test_of_two_requests_at_once_none_owns_the_outputs_and_who_is_left_owns_them_again(node):
    first = node.start("/holds", b"")
    node.receive(first)
    second = node.start("/say", {"texts": ["words\n"]}, is_queued=False)
    node.finish(second)

    owners = [mark.stream for mark in node.told if isinstance(mark, marks.Owner)]
    assert [first, first, 0, 0, first, first] == owners
    assert [] == [mark for mark in node.told if isinstance(mark, marks.End)]


def test_a_direct_request_owns_nothing(node):
    stream = node.start("/say", {"texts": ["words\n"]}, is_queued=False)
    node.finish(stream)

    assert ["words"] == node.said
    assert 1 == len(node.told)


def test_a_request_on_the_loop_says_it_for_itself(node):
    stream = node.start("/say-on-the-loop", {"texts": ["a", "b"]})
    node.finish(stream)

    assert [(stream, "a"), (stream, "b")] == [(line.stream, line.text) for line in node.lines]


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        (["\r10%", "\r20%", "\r30%", "\n"], ["30%"]),
        (["10%\r", "20%\r", "30%\r"], ["30%"]),
        (["a\rb\rc\n"], ["c"]),
        (["windows\r\n", "lines\r", "\n"], ["windows", "lines"]),
        (["\n\n"], ["", ""]),
        ([""], []),
        (["x" * 250 + "\n"], ["x" * 100 + " ... (150 bytes more)"]),
        (["x" * 60, "x" * 60, "\n"], ["x" * 100 + " ... (20 bytes more)"]),
        (["é" * 60 + "\n"], ["é" * 50 + " ... (20 bytes more)"]),
        (["🌅" * 30], ["🌅" * 25 + " ... (20 bytes more)"]),
        (["\x1e" + TOKEN + ' ["end",1]\n'], ["\x1e" + TOKEN + ' ["end",1]']),
        (["\u2028\x00\x1b\n"], ["\u2028\x00\x1b"]),
    ],
)  # fmt: skip
def test_lines_are_bounded_and_one_each_whatever_is_in_them(node, texts, lines):
    node.call("/say", {"texts": texts})

    assert lines == node.said
    assert 1 == node.log.replace("\r", "").count("in setup")


def test_a_flood_is_dropped_beyond_a_requests_share_of_a_second_and_every_byte_of_it_counted(node):
    began = time.monotonic()
    stream = node.start("/flood", {"writes": 10, "lines": 10_000, "rest": True})
    node.finish(stream)
    shares = 2 + int(time.monotonic() - began)  # one a second, however long it was held up, and the first

    whole = node.said.count("x" * 99)
    told = [line for line in node.lines if line.dropped]
    assert 256 * 1024 // (99 + 128) <= whole <= shares * 256 * 1024 // (99 + 128)
    assert 10 * 10_000 * 100 == whole * 100 + sum(line.dropped for line in told)
    assert all(f"printed too much: {line.dropped} bytes were dropped" == line.text for line in told)
    assert "rested" == node.said[-1]
    assert len(node.raw) < shares * 350_000


def test_closed_outputs_do_not_keep_a_request_from_being_heard(node):
    events, error = node.call("/breaks", b"")

    assert ([{}], None) == (events, error)
    assert ["still here"] == node.said


def test_what_is_no_text_is_refused_as_ever(node):
    node.call("/wrong", b"")

    assert ["write() argument must be str, not bytes"] == node.said


def test_what_is_collected_while_something_is_printed_may_print(node):
    node.call("/collects", b"")

    assert ["True", "collected"] == node.said


def test_items_are_lines_of_their_own_when_the_node_wants_them(node):
    items = [{"progress": 0.5}, {"text": "progress"}, {"message": "done"}]

    told = node.start("/items", {"items": items})
    node.finish(told)
    untold = node.start("/items", {"items": items}, log_items=False)
    node.finish(untold)

    # The second one with words came at once after the first, and was the last.
    assert [(told, "INFO", "progress 0.5"), (told, "INFO", "done")] == [
        (line.stream, line.level, line.text) for line in node.lines
    ]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"progress": 0.25}, "progress 0.25"),
        ({"progress": 3}, "progress 3"),
        ({"progress": 1 / 3}, "progress 0.3333"),
        ({"progress": "3/4", "message": "upscaling"}, "progress 3/4: upscaling"),
        ({"message": "two\nlines"}, "two lines"),
        ({"message": ""}, None),
        ({"message": {"role": "assistant"}}, None),
        ({"progress": None, "message": 7}, None),
        ({"progress": True}, None),
        ({"inner": {"progress": 1}}, None),
    ],
)
def test_the_words_of_an_item_are_its_progress_and_its_message(item, words):
    assert words == words_of(json.dumps(item).encode())


CLOSING = """
import os
import headrace

os.close(1)


class Words(headrace.App, name="t/words"):
    @headrace.endpoint("/say")
    def say(self):
        print("heard")
        return {}
"""


def test_a_file_that_closes_its_output_when_it_is_imported_is_heard_all_the_same(tmp_path):
    (tmp_path / "words.py").write_text(CLOSING)
    with Node(str(tmp_path / "words.py")) as node:
        node.setup()
        node.call("/say", b"")

        assert ["heard"] == node.said


def test_without_a_token_nothing_is_marked(tmp_path):
    (tmp_path / "words.py").write_text(MODELS)
    with PretendNode(str(tmp_path / "words.py")) as node:
        node.setup()
        node.call("/say", {"texts": ["plain\n"]})

        assert "in setup\nplain\n" == node.log
