"""What a model says belongs to the request that it says it for: each line once, in order, with its level."""

import concurrent.futures
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import RawStream, Server, eventually, running_server

WORDS = Path(__file__).parents[1] / "support/words.py"

#: Goes a step further when the test lets it.
STEPS = f"{Path(__file__).parents[1] / 'support/patient.py'}:Steps"


@pytest.fixture(scope="module")
def server():
    with running_server(WORDS, STEPS) as server:
        yield server


class Queued:
    """A queued request, and what it has said."""

    def __init__(self, server: Server, path: str, body: object = None) -> None:
        self._server = server
        answer = server.post(f"/queue/{path}" if path.startswith("test/") else f"/queue/zoo/{path}", body or {})
        assert answer.status == 200, answer.body
        self.id = answer.json["request_id"]
        self._path = answer.json["status_url"].split("/", 3)[3]

    def status(self) -> dict:
        return self._server.request("GET", f"/{self._path}?logs=1").json

    def until(self, status: str) -> dict:
        eventually(lambda: self.status()["status"] == status, f"{self.id} is {status}")
        return self.status()

    def logs(self) -> list[dict]:
        """All of its lines, once it has ended."""
        return self.until("COMPLETED")["logs"]

    def lines(self) -> list[tuple[str, str]]:
        return [(line["level"], line["message"]) for line in self.logs()]

    def said(self) -> list[str]:
        return [line["message"] for line in self.logs()]

    def follow(self, on_news: Callable[[bytes], object] = lambda _: None) -> list[dict]:
        """Read its status stream to the end; return its events. `on_news` is told of what has come so far."""
        stream = RawStream(self._server.port)
        with stream:
            head = f"GET /{self._path}/stream?logs=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            stream.socket.sendall(head.encode())
            while not stream.is_whole:
                piece = stream.socket.recv(65_536)
                assert piece, f"the connection ended early; it said {stream.bytes[-500:]!r}"
                stream.bytes += piece
                on_news(stream.body)
            blocks = stream.body.split(b"\n\n")
        return [
            json.loads(line[6:]) for block in blocks for line in block.splitlines() if line.startswith(b"data: ")
        ]


# --- printed --------------------------------------------------------------------------------------------------


def test_each_printed_line_is_a_line_of_its_requests_log(server):
    begun = time.time()
    request = Queued(server, "words/print")

    lines = request.lines()

    assert [
        ("STDOUT", "one"),
        ("STDOUT", "two, and a half"),
        ("STDOUT", "schön 🌅 \u2028 \x1b[1m \x00"),
        ("STDOUT", "half of a pair: ?"),
        ("STDOUT", "three"),
        ("STDOUT", "four"),
        ("STDOUT", ""),
        ("STDOUT", "five"),
        ("STDERR", "to stderr"),
        ("STDOUT", "a list"),
        ("STDOUT", "the end, without an end"),
    ] == lines
    assert {"USER"} == {line["source"] for line in request.logs()}
    stamps = [line["timestamp"] for line in request.logs()]
    assert sorted(stamps) == stamps
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp) for stamp in stamps)
    assert stamps[0] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun))
    assert "two, and a half" not in server.log


def test_what_is_said_outside_of_requests_is_the_runners(server):
    said = Queued(server, "words/print").said()

    assert "[zoo/words] said in setup" in server.log
    assert "said while the file is imported" in server.log
    assert "said in setup" not in said


def test_log_records_and_warnings_have_their_levels(server):
    lines = Queued(server, "words/log").lines()

    assert [
        ("WARN", "a warning"),
        ("ERROR", "an error of 4 words"),
        ("DEBUG", "a detail"),
        ("INFO", "a word"),
        ("ERROR", "two"),
        ("ERROR", "lines"),
    ] == lines[:6]
    assert ("STDERR", True) == (lines[6][0], lines[6][1].endswith("UserWarning: soft ground"))


def test_a_progress_bar_is_one_line(server):
    assert [("STDERR", "100%"), ("STDOUT", "done 100")] == Queued(server, "words/bar").lines()


def test_a_stream_of_the_authors_own_stays_theirs_and_ours_is_a_whole_text_stream(server):
    said = Queued(server, "words/own").said()

    assert {"utf-8 1 False w True", "through the buffer"} == set(said)


# --- whose ----------------------------------------------------------------------------------------------------


def test_threads_and_tasks_of_requests_at_once_say_it_for_their_own(server):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        requests = list(
            pool.map(
                lambda path: Queued(server, f"words/{path}", {"name": f"said by {path[-1]}"}),
                ["threads?1", "tasks?2", "threads?3", "tasks?4"],
            )
        )
    said = [request.said() for request in requests]

    for number, lines in ((1, said[0]), (3, said[2])):
        assert sorted(f"said by {number} {thread}.{turn}" for thread in range(5) for turn in range(20)) == sorted(
            lines
        )
    for number, lines in ((2, said[1]), (4, said[3])):
        expected = [f"said by {number} {task}.{turn}" for task in range(3) for turn in range(20)]
        assert sorted([*expected, f"said by {number} to_thread"]) == sorted(lines)


def test_a_forked_worker_says_it_for_the_request_that_forked_it(server):
    assert ["f forked"] == Queued(server, "words/fork", {"name": "f"}).said()


def test_a_thread_that_outlives_its_request_says_it_to_the_runners_log(server):
    late = Queued(server, "words/late", {"name": "late-1"})
    assert ["late-1 is on time"] == late.said()

    other = Queued(server, "words/hold", {"name": "other-1"})
    other.until("IN_PROGRESS")
    server.release("late-1")
    eventually(lambda: f"[zoo/words {late.id}] late-1 is late" in server.log, "it is told")
    server.release("other-1")

    assert [] == other.said()
    assert ["late-1 is on time"] == late.said()


def test_raw_words_belong_to_a_request_while_it_runs_alone(server):
    request = Queued(server, "words/raw", {"name": "alone"})
    request.until("IN_PROGRESS")
    server.release("alone")
    lines = request.lines()  # before another begins: with two at once, raw words are nobody's
    after = Queued(server, "words/print")

    # The two outputs are two pipes: in order, each.
    assert ["alone by number", "alone by echo", "alone printed", "alone last"] == [
        text for level, text in lines if level == "STDOUT"
    ]
    assert ["alone to 2"] == [text for level, text in lines if level == "STDERR"]
    assert not any("alone" in text for text in after.said())


def test_raw_words_of_several_requests_at_once_are_the_runners(server):
    other = Queued(server, "words/hold", {"name": "other-2"})
    other.until("IN_PROGRESS")
    request = Queued(server, "words/raw", {"name": "crowd"})
    eventually(lambda: "crowd printed" in str(request.status().get("logs")), "it has written")
    server.release("other-2")
    assert [] == other.said()
    server.release("crowd")

    lines = request.lines()

    # Alone again, it may have the last word.
    assert ("STDOUT", "crowd printed") in lines
    assert not any(words in str(lines) for words in ("by number", "by echo", "to 2"))
    for words in ("by number", "by echo", "to 2"):
        eventually(lambda words=words: f"[zoo/words] crowd {words}" in server.log, f"{words} is told")


def test_the_words_of_a_direct_request_are_in_the_nodes_log_with_its_id(server):
    answer = server.post("/zoo/words/print")

    label = f"[zoo/words {answer.headers['x-fal-request-id']}]"
    eventually(lambda: f"{label} the end, without an end" in server.log, "it is told")
    assert f"{label} two, and a half" in server.log


def test_the_traceback_of_an_accident_is_the_operators_alone(server):
    request = Queued(server, "words/raises")

    assert ["said before"] == request.said()
    eventually(lambda: "ValueError: a secret of the model" in server.log, "its traceback is told")


# --- how it is told -------------------------------------------------------------------------------------------


def test_a_status_stream_tells_each_line_once_and_in_order_and_a_plain_status_all_of_them(server):
    request = Queued(server, "test/steps", {"name": "followed", "n": 12})

    # A step follows when the one before it has been told of, so that each is in an event of its own.
    events = request.follow(lambda body: server.release(f"followed.{body.count(b': step ')}"))

    told = [line["message"] for event in events for line in event.get("logs") or []]
    expected = [
        "begins",
        *(f"progress {round(number / 12, 4)}: step {number}" for number in range(12)),
        "progress 1.0",
    ]
    assert expected == told
    assert expected == request.said() == request.said()
    assert len([event for event in events if event.get("logs")]) >= 5
    assert "COMPLETED" == events[-1]["status"]


def test_items_are_at_most_ten_lines_a_second_and_the_last_is_never_lost(server):
    begun = time.monotonic()
    said = Queued(server, "words/steps", {"times": 400, "pause": 0.001}).said()
    seconds = time.monotonic() - begun

    assert "progress 1.0" == said[-1]
    assert 3 <= len(said) <= 10 * seconds + 3
    assert ["begins", "progress 0.0: step 0"] == said[:2]


def test_items_are_no_lines_where_the_app_says_so_nor_of_direct_requests(server):
    direct = server.post("/zoo/words/steps", {"times": 1})

    assert ["printed"] == Queued(server, "quiet").said()
    assert 200 == direct.status
    eventually(lambda: direct.headers["x-fal-request-id"] in server.log, "what it printed is told")
    assert "step 0" not in server.log


def test_lines_of_all_attempts_are_there_each_once(server):
    request = Queued(server, "words/tries")

    events = request.follow()

    told = [line["message"] for event in events for line in event.get("logs") or []]
    assert ["attempt 1", "attempt 2"] == told == request.said()


def test_a_line_before_a_crash_is_there_and_the_crash_is_the_operators(server):
    request = Queued(server, "words/dies")

    assert ["the last word"] == request.said()
    eventually(lambda: "Fatal Python error: Segmentation fault" in server.log, "the crash is told")


def test_a_flood_is_bounded_and_counted_and_the_next_words_are_heard(server):
    megabytes = 20
    other = Queued(server, "words/steps", {"times": 10, "pause": 0.1})
    flood = Queued(server, "words/flood", {"bytes": megabytes * 1_000_000})
    said = flood.said()

    assert ["before the flood", "after the flood"] == [said[0], said[-1]]
    left_out = sum(int(found) for found in re.findall(r"(?:too much: |\.\.\. \()(\d+) bytes", "\n".join(said)))
    whole = sum(1 + len(line) for line in said if re.fullmatch(r"x+", line))
    assert left_out >= 0.9 * 2 * megabytes * 1_000_000
    assert abs(2 * megabytes * 1_000_000 + 1 - (left_out + whole)) <= 16 * 1024 + 1
    assert sum(map(len, said)) <= 2 * 1024 * 1024
    assert "progress 1.0" == other.said()[-1]
