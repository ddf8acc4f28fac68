"""The comparison rig breaks a server of ours for real, and its words follow from what it measured."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.compare.behaviours import Flooded, Killed, Left, Raised
from bench.compare.client import CUT, OPEN, WHOLE, Stream
from bench.compare.table import phrase

ROOT = Path(__file__).parents[2]

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ITEM = b'14\r\ndata: {"index": 0}\n\n\r\n'
ERROR = b'30\r\nevent: error\ndata: {"error": {"type": "oops"}}\n\n\r\n'
FINAL_CHUNK = b"0\r\n\r\n"


@pytest.mark.timeout(400)
def test_each_mishap_is_done_to_a_server_of_ours_and_told_in_its_row() -> None:
    """The rig measures against the clock: health within a second, 3 s of work that a reader leaves undone.

    A machine that is held up for so long spoils a row, and then all of it is done once more, twice at most.
    """
    command = [sys.executable, "bench/compare/run.py", "--only", "headrace", "--quick"]
    for _ in range(3):
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
        if ran.returncode == 0 and not (wrong := wrong_rows(ran.stdout)):
            break

    assert ran.returncode == 0, ran.stderr
    assert wrong == []


def wrong_rows(table: str) -> list[str]:
    """The rows that do not say what our server does."""
    head, _, raises, leaves, stalls, killed = table.splitlines()
    assert head.startswith("|  | Headrace ")
    is_right = {
        raises: "3 items, an `error` event (`runner_server_error`), then a cut" in raises,
        leaves: "all 150" not in leaves and "finally" not in leaves,
        stalls: "paused after" in stalls,
        killed: "`error` event (`runner_disconnected`)" in killed
        and "another client is served" in killed
        and "health stays up" in killed,
    }
    return [row for row, is_so in is_right.items() if not is_so]


@pytest.mark.parametrize(
    ("answer", "is_left_open", "expected"),
    [
        (HEAD + ITEM * 3 + FINAL_CHUNK, False, (200, 3, WHOLE, None)),
        (HEAD + ITEM * 3, False, (200, 3, CUT, None)),
        (HEAD + ITEM * 3, True, (200, 3, OPEN, None)),
        (HEAD + ITEM * 3 + ERROR, False, (200, 3, CUT, "oops")),
        (HEAD + ITEM * 3 + ERROR + FINAL_CHUNK, False, (200, 3, WHOLE, "oops")),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}", True, (500, 0, WHOLE, None)),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{", False, (500, 0, CUT, None)),
        (b"", False, (None, 0, CUT, None)),
    ],
)
def test_the_client_sees_an_end_as_the_bytes_have_it(
    answer: bytes, is_left_open: bool, expected: tuple[int | None, int, str, str | None]
) -> None:
    with scripted_server(answer, is_left_open) as port, Stream(port, "/", {}) as stream:
        stream.read(time.monotonic() + 10, events=expected[1])
        stream.read(time.monotonic() + (0.3 if expected[2] is OPEN else 10))

    assert expected == (stream.status, stream.events, stream.ending, stream.error)


KILLED = Killed(False, False, 9, CUT, None, 0.01, 3, WHOLE, 0.5, 0.0)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Raised(200, 3, WHOLE, None), "a clean 200 with 3 items: the error is never told"),
        (Raised(200, 3, CUT, None), "3 items, then a cut: it knows that it failed, not why"),
        (Raised(200, 3, OPEN, None), "3 items, then the stream hangs"),
        (Raised(500, 0, WHOLE, None), "status 500, 0 items"),
        (Left(150, 5, 150, 3.02, 3.01, 3.02), "all 150 are made, the next waits 3.0 s"),
        (
            Left(150, 5, 6, 0.0004, None, 4.35),
            "stops at 6, the next waits under 1 ms; the model's `finally:` has not run 4 s later",
        ),
        (Left(150, 5, 6, None, 0.02, 10.0), "stops at 6, the next is never answered"),
        (Flooded(300_000, 300_000, 458_271_744, 23.5, False), "+458 MB: all 300,000 items are made"),
        (Flooded(300_000, 559, -8, 3.1, True), "+0 MB: paused after 559 of 300,000 items"),
        (Flooded(300_000, 90_000, 95_000_000, 60, False), "+95 MB in 60 s and going on, 90,000 items made"),
        (
            KILLED,
            "cut after 10 ms; another client is served; new requests are answered after 500 ms; health stays up",
        ),
        (
            Killed(False, False, 9, OPEN, None, None, 0, OPEN, None, None),
            "hangs 30 s and longer; another client hangs too; no new request is answered in 30 s; health is down",
        ),
    ],
)
def test_a_phrase_says_no_more_and_no_less_than_was_measured(
    outcome: Raised | Left | Flooded | Killed, expected: str
) -> None:
    assert expected == phrase(outcome)


@contextlib.contextmanager
def scripted_server(answer: bytes, is_left_open: bool) -> Iterator[int]:
    """Answer one request with these bytes, then close, or leave the connection open until the test is over."""
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)
                if is_left_open:
                    is_over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        is_over.set()
        thread.join(30)
