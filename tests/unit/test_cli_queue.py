"""`headrace submit`, `status`, `logs`, `result`, `cancel` and `attach`: what stands where, and the exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli import app
from tests.support.fake_queue import STEPS, WAITING, Step, fake_queue, line_of
from tests.support.scripted import LAST_CHUNK, STREAM_HEAD, chunk, scripted
from tests.support.shells import no_credentials  # noqa: F401

ALL_LINES = [line_of(text) for step in STEPS for text in step.logs]


def headrace(url: str, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "--url", url, "--key", "id:secret"])


def test_submit_prints_the_id_alone() -> None:
    with fake_queue() as queue:
        shown = headrace(
            queue.url, "submit", "me/app", "a=1", "--path", "fast", "--webhook", "https://e.test/w",
            "--priority", "low", "--hint", "h1",
        )  # fmt: skip
        [call] = queue.calls

    assert (0, "r1\n", "") == (shown.exit_code, shown.stdout, shown.stderr)
    assert ("/queue/me/app/fast", {"fal_webhook": "https://e.test/w"}, {"a": 1}, "low", "h1") == (
        call.path,
        call.query,
        json.loads(call.body),
        call.headers["x-fal-queue-priority"],
        call.headers["x-fal-runner-hint"],
    )


def test_submit_and_wait_tells_the_way_on_stderr_and_the_result_on_stdout() -> None:
    with fake_queue() as queue:
        shown = headrace(queue.url, "submit", "me/app", "--wait")

    assert (0, '{"sum": 3}\n') == (shown.exit_code, shown.stdout)
    line = "2026-01-01T00:00:00Z  INFO  "
    assert ["request r1", "in line, 1 before it", *(line + text for text in ("one", "two", "three", "four"))] == (
        shown.stderr.splitlines()
    )


def test_a_priority_that_is_none_is_one_line() -> None:
    shown = headrace("http://127.0.0.1:1", "submit", "me/app", "--priority", "high")

    assert (1, "headrace: priority='high' must be one of ('normal', 'low')\n") == (shown.exit_code, shown.stderr)


def test_ctrl_c_while_waiting_leaves_the_request_and_says_how_to_come_back() -> None:
    with fake_queue(steps=WAITING) as queue:
        words = ["submit", "me/app", "--wait", "--url", queue.url, "--key", "id:secret"]
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", *words], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        with process:
            before = [process.stderr.readline(), process.stderr.readline()]
            process.send_signal(signal.SIGINT)
            after = process.stderr.read()
            process.wait(30)

    assert ["request r1\n", "in line, 3 before it\n"] == before
    assert (130, "The request goes on. Come back with: headrace result me/app r1\n") == (process.returncode, after)
    assert "cancel" not in queue.operations()


def test_status_is_json() -> None:
    with fake_queue() as queue:
        headrace(queue.url, "submit", "me/app")
        shown = [
            headrace(queue.url, "status", "me/app", "r1", *more).stdout
            for more in ([], [], ["--logs"], ["--logs"])
        ]

    assert [
        {"status": "IN_QUEUE", "queue_position": 1},
        {"status": "IN_PROGRESS"},
        {"status": "IN_PROGRESS", "logs": ALL_LINES[:3]},
        {"status": "COMPLETED", "logs": ALL_LINES, "metrics": {"inference_time": 0.5}},
    ] == [json.loads(text) for text in shown]


def test_the_status_of_a_failed_request_says_so_and_is_no_failure_of_the_command() -> None:
    with fake_queue(steps=(Step("COMPLETED", error="HTTP 422", error_type="validation_error"),)) as queue:
        headrace(queue.url, "submit", "me/app")
        shown = headrace(queue.url, "status", "me/app", "r1")

    assert (0, ("HTTP 422", "validation_error")) == (
        shown.exit_code,
        (json.loads(shown.stdout)["error"], json.loads(shown.stdout)["error_type"]),
    )


def test_logs_are_lines_of_json_in_a_pipe_now_or_to_the_end() -> None:
    with fake_queue() as queue:
        headrace(queue.url, "submit", "me/app")
        now = [headrace(queue.url, "logs", "me/app", "r1").stdout for _ in range(2)]
        all_ = headrace(queue.url, "logs", "me/app", "r1", "--follow").stdout

    assert ["", [ALL_LINES[0]]] == [now[0], [json.loads(line) for line in now[1].splitlines()]]
    assert ALL_LINES == [json.loads(line) for line in all_.splitlines()]


def test_a_result_is_waited_for_and_printed() -> None:
    with fake_queue(result=(200, {"text": "grün"})) as queue:
        headrace(queue.url, "submit", "me/app")
        shown = headrace(queue.url, "result", "me/app/fast", "r1")

    assert (0, '{"text": "gr\\u00fcn"}\n') == (shown.exit_code, shown.stdout)


def test_a_failed_result_is_one_line_and_1() -> None:
    with fake_queue(result=(500, {"detail": "boom", "error_type": "runner_server_error"})) as queue:
        headrace(queue.url, "submit", "me/app")
        shown = headrace(queue.url, "result", "me/app", "r1")

    assert (1, "") == (shown.exit_code, shown.stdout)
    assert "boom (runner_server_error)" in shown.stderr
    assert 1 == len(shown.stderr.splitlines())


def test_cancel_is_quiet_on_stdout_and_a_second_one_says_that_it_is_over() -> None:
    with fake_queue(steps=WAITING) as queue:
        headrace(queue.url, "submit", "me/app")
        first = headrace(queue.url, "cancel", "me/app", "r1")
        second = headrace(queue.url, "cancel", "me/app", "r1")

    assert (0, "", "request r1 is asked to stop\n") == (first.exit_code, first.stdout, first.stderr)
    assert (1, "headrace: request r1 is over already; its result: headrace result me/app r1\n") == (
        second.exit_code,
        second.stderr,
    )


@pytest.mark.parametrize(
    "words", [["status"], ["logs"], ["logs", "--follow"], ["result"], ["cancel"]], ids=" ".join
)
def test_an_unknown_request_is_one_line_that_does_not_speak_of_apps(words: list[str]) -> None:
    with fake_queue() as queue:
        shown = headrace(queue.url, words[0], "me/app", "nobody", *words[1:])

    assert (1, 1) == (shown.exit_code, len(shown.stderr.splitlines()))
    assert "There is no such request" in shown.stderr
    assert "headrace apps" not in shown.stderr


@pytest.mark.parametrize("command", ["status", "logs", "result", "cancel", "attach"])
def test_what_cannot_be_an_id_is_refused(command: str) -> None:
    shown = headrace("http://127.0.0.1:1", command, "me/app", "../keys")

    assert (1, "headrace: '../keys' is not a request's id\n") == (shown.exit_code, shown.stderr)


# --- attach -------------------------------------------------------------------------------------------------


def test_attach_shows_the_events_behind_the_one_that_is_named() -> None:
    events = [chunk(b'id: r1.1.%d\ndata: {"i": %d}\n\n' % (at, at)) for at in (3, 4)]
    with scripted([STREAM_HEAD, *events, LAST_CHUNK]) as server:
        shown = headrace(server.url, "attach", "me/app/fast", "r1", "--after", "r1.1.2")
        [request] = server.requests

    assert (0, '{"i":3}\n{"i":4}\n') == (shown.exit_code, shown.stdout)
    assert "/me/app/requests/r1/stream" == request.line.split()[1]
    assert "r1.1.2" == request.headers["last-event-id"]


def test_attach_behind_the_last_event_says_that_there_is_no_more() -> None:
    with scripted([b"HTTP/1.1 204 No Content\r\n\r\n"]) as server:
        shown = headrace(server.url, "attach", "me/app", "r1", "--after", "r1.1.9")

    assert (0, "", "Nothing came after that event: the request is over.\n") == (
        shown.exit_code,
        shown.stdout,
        shown.stderr,
    )
