"""The command line against a running server, as processes: what stands on stdout, on stderr, and the status."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.server import PATIENCE_S, Server, eventually, running_server

APPS = '''
import os
import time
from collections.abc import Iterator

import headrace


class Desk(headrace.App, name="test/desk", max_multiplexing=4):
    """What a terminal shows."""

    @headrace.endpoint("/")
    def say(self, input: dict[str, object]) -> Iterator[dict[str, object]]:
        """Say it back."""
        for word in str(input.get("text", "hello there")).split(" "):
            yield {"delta": word}
        yield {"input": input}

    @headrace.endpoint("/fail")
    def fail(self, input: dict[str, object]) -> Iterator[dict[str, object]]:
        yield {"delta": "so far"}
        raise RuntimeError("secret words")

    @headrace.endpoint("/endless")
    def endless(self, input: dict[str, object]) -> Iterator[dict[str, object]]:
        try:
            while True:
                yield {"delta": "on "}
                time.sleep(0.01)
        finally:
            with open(os.environ["ZOO_NOTES"], "a") as notes:
                notes.write("ended\\n")

    @headrace.endpoint("/silent")
    def silent(self, input: dict[str, object]) -> Iterator[dict[str, object]]:
        yield {"delta": "once"}
        for _ in range(6_000):  # in naps: a thread that cannot be interrupted would cost the app its runner
            time.sleep(0.01)

    @headrace.endpoint("/add")
    def add(self, input: dict[str, int]) -> dict[str, int]:
        return {"sum": sum(input.values())}
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    target = tmp_path_factory.mktemp("apps") / "desk.py"
    target.write_text(APPS)
    limits = {"cancel_grace_s": 60}  # a runner that is held up when a reader leaves is not retired for it
    with running_server(target, args=("--alias", "my/desk=test/desk"), limits=limits) as server:
        yield server


def environment(server: Server, **more: str) -> dict[str, str]:
    """The user who started the server."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "FAL_"))}
    (key,) = json.loads((server.folder / "config/headrace/credentials").read_text()).values()
    return ours | {"HEADRACE_URL": server.url, "HEADRACE_KEY": key} | more


def headrace(server: Server, *words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        env=environment(server, **more), input=stdin, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip


def test_in_a_pipe_every_item_is_a_line_of_json(server):
    done = headrace(server, "stream", "test/desk", "text=hi du", "n=5", "on=true", 'quoted="5"')

    assert (0, "") == (done.returncode, done.stderr)
    assert [
        {"delta": "hi"},
        {"delta": "du"},
        {"input": {"text": "hi du", "n": 5, "on": True, "quoted": "5"}},
    ] == [json.loads(line) for line in done.stdout.splitlines()]


def test_the_input_can_come_from_stdin(server):
    done = headrace(server, "stream", "test/desk", "--json", "-", "n=2", stdin='{"text": "hi", "n": 1}')

    assert {"input": {"text": "hi", "n": 2}} == json.loads(done.stdout.splitlines()[-1])


def test_an_item_is_on_stdout_before_the_next_one_is_made(server):
    with streaming(server, "test/desk/silent") as process:
        line = process.stdout.readline()

    assert {"delta": "once"} == json.loads(line)


def test_run_prints_the_result(server):
    done = headrace(server, "run", "test/desk/add", "a=1", "b=2")

    assert (0, {"sum": 3}, "") == (done.returncode, json.loads(done.stdout), done.stderr)


def test_an_alias_is_as_good_as_the_name(server):
    assert {"sum": 3} == json.loads(headrace(server, "run", "my/desk/add", "a=1", "b=2").stdout)


def test_apps_lists_every_view(server):
    done = headrace(server, "apps")

    assert 0 == done.returncode
    assert done.stdout.splitlines()[:3] == [
        "test/desk = my/desk  (ready)",
        "  run     POST /test/desk  Say it back.",
        "  stream  POST /test/desk/stream  Say it back.",
    ]
    assert "  run     POST /test/desk/add" in done.stdout.splitlines()
    assert "/test/desk/add/stream" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stream", "test/desk/fail"], "the stream failed: .*runner_server_error, request [0-9a-f-]{36}"),
        (["run", "test/desk/fail"], "500 from POST .*request [0-9a-f-]{36}"),
        (["run", "test/nobody"], "404 from POST .*no app 'test/nobody'.*headrace apps"),
        (["stream", "test/desk/add"], "404 from POST .*/test/desk/add/stream"),
        (["run", "test/desk/add", "a=x"], "422 from POST .*a: Input should be a valid integer"),
        (["run", "desk"], "'desk' is not an endpoint id"),
        (["run", "test/desk", "--key", "a:b"], "401 from POST .*the argument `key`.*headrace keys create"),
        (["run", "test/desk", "--url", "nowhere"], "url='nowhere' is not a server's address"),
        (
            ["run", "test/desk", "--url", "http://127.0.0.1:1"],
            "127.0.0.1:1.*Start a server: headrace serve app.py",
        ),
        (["stream", "test/desk/silent", "--event-timeout", "0.2"], "no event for 0.2 s"),
        (["stream", "test/desk/silent", "--timeout", "0.2"], "not a byte for 0.2 s"),
    ],
)
def test_a_failure_is_one_line_and_status_1(server, words, message):
    done = headrace(server, *words)

    assert 1 == done.returncode
    assert re.fullmatch(f"headrace: .*{message}.*\n", done.stderr)
    assert "secret words" not in done.stderr


def test_items_before_a_failure_are_shown(server):
    done = headrace(server, "stream", "test/desk/fail")

    assert '{"delta":"so far"}\n' == done.stdout


def test_ctrl_c_closes_the_stream_and_is_130(server):
    with streaming(server, "test/desk/endless") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
        told = process.stderr.read()

    assert (130, b"") == (process.returncode, told)
    eventually(server.saw("ended"), "the server stopped the work")


def test_a_reader_of_the_pipe_that_leaves_ends_it_quietly(server):
    with streaming(server, "test/desk/endless") as process:
        process.stdout.readline()
        process.stdout.close()
        process.wait(PATIENCE_S)
        told = process.stderr.read()

    assert (141, b"") == (process.returncode, told)


def test_on_a_terminal_text_is_joined_and_the_figures_stand_below(server):
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "stream", "test/desk", "text=he l\x1bo"],
        env=environment(server), stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
    ) as process:  # fmt: skip
        os.close(terminal)
        shown = read_terminal(controller)
        process.wait(PATIENCE_S)

    assert 0 == process.returncode
    lines = shown.replace("\r\n", "\n").split("\n")
    assert ["hel\\x1bo", '{"input":{"text":"he l\\u001bo"}}'] == lines[:2]
    assert re.search(r"3 items in [0-9.]+ s, the first after [0-9.]+ s", lines[2])


@contextlib.contextmanager
def streaming(server: Server, app: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `headrace stream` in a pipe."""
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "stream", app],
        env=environment(server), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def read_terminal(controller: int) -> str:
    """Read until nobody writes to the terminal any more."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while piece := os.read(controller, 65_536):
            shown += piece
    os.close(controller)
    return shown.decode()
