"""A runner from HELLO to its leaving: setup, teardown, EOF, SIGTERM, and a node that talks nonsense."""

import json
import os
import signal
from pathlib import Path

import pytest

from headrace.core.frames import VERSION, Kind, encode
from tests.support.pretend_node import DEADLINE_S, PretendNode, RunnerGone

EXAMPLES = Path(__file__).parents[2] / "examples"

LIVING = """
import asyncio, os, signal, sys, threading, time
import headrace

class Living(headrace.App, name="t/living", max_multiplexing=4):
    %(setup)s
    %(teardown)s

    @headrace.endpoint("/words")
    def words(self):
        try:
            while True:
                yield {"pid": os.getpid()}
                time.sleep(0.001)
        finally:
            print("closed words", flush=True)

    @headrace.endpoint("/async-words")
    async def async_words(self):
        try:
            while True:
                yield {}
                await asyncio.sleep(0.001)
        finally:
            print("closed async words", flush=True)

    @headrace.endpoint("/stuck")
    def stuck(self):
        yield {}
        time.sleep(3600)

    @headrace.endpoint("/background")
    async def background(self):
        async def ignore():
            while True:
                try: await asyncio.sleep(3600)
                except asyncio.CancelledError: pass
        self.task = asyncio.create_task(ignore())
        threading.Thread(target=time.sleep, args=(3600,)).start()
        return {}

    @headrace.endpoint("/forks")
    def forks(self):
        pid = os.fork()
        if pid == 0:
            time.sleep(3600)
        return {"pid": pid}

    @headrace.endpoint("/process")
    def process(self):
        return {"interval": sys.getswitchinterval(), "sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN}

class Other(Living, name="t/other"):
    pass
"""

DEF = "def {0}(self): print('{0}', threading.current_thread() is threading.main_thread())"
ASYNC = "async def {0}(self): print('{0}', threading.current_thread() is threading.main_thread())"


def living(
    tmp_path, setup: str = DEF.format("setup"), teardown: str = DEF.format("teardown"), **limits
) -> PretendNode:
    file = tmp_path / "living.py"
    file.write_text(LIVING % {"setup": setup, "teardown": teardown})
    # Long, for who takes part in the leaving may be held up; nobody waits for it to pass.
    return PretendNode(str(file), limits={"kill_grace_s": 60.0, **limits})


def test_hello_tells_the_apps_and_setup_picks_one(tmp_path):
    with living(tmp_path) as node:
        hello = node.setup("t/other")

        assert (VERSION, node.process.pid) == (hello["version"], hello["pid"])
        assert ["t/living", "t/other"] == [app["name"] for app in hello["apps"]]
        assert "setup False\n" == node.log


@pytest.mark.parametrize(
    ("setup", "teardown", "log"),
    [
        (DEF.format("setup"), DEF.format("teardown"), "setup False\nteardown False\n"),
        (ASYNC.format("setup"), ASYNC.format("teardown"), "setup True\nteardown True\n"),
        ("", "", ""),
    ],
)
@pytest.mark.parametrize("how", ["eof", "term"])
def test_setup_and_teardown_run_once_each(tmp_path, setup, teardown, log, how):
    with living(tmp_path, setup, teardown) as node:
        node.setup()
        node.socket.close() if how == "eof" else node.process.send_signal(signal.SIGTERM)

        assert 0 == node.exit_status()
        assert log == node.log


@pytest.mark.parametrize(
    ("setup", "line", "message"),
    [
        ("def setup(self): 1 / 0", 6, "ZeroDivisionError: division by zero"),
        ("async def setup(self): raise ValueError('no weights')", 6, "ValueError: no weights"),
        ("def setup(self): sys.exit(3)", 6, "SystemExit: 3"),
        ("def setup(self): headrace.emit({})", 6, "RuntimeError: emit() works only while a request runs, and none does"),
        ("def __init__(self, path): pass", 5, "TypeError: Living.__init__() missing 1 required"),
    ],
)  # fmt: skip
def test_a_failed_setup_is_a_fault_and_the_runner_leaves(tmp_path, setup, line, message):
    with living(tmp_path, setup) as node:
        kind, payload = node.receive(0)
        node.send(Kind.SETUP, 0, b'{"app": "t/living"}')
        fault = node.fault()

        assert 1 == node.exit_status()
        assert (str(tmp_path / "living.py"), line) == (fault["file"], fault["line"])
        assert message in fault["message"]
        assert "teardown" not in node.log


def test_ping_is_answered_during_a_long_setup(tmp_path):
    with living(tmp_path, "def setup(self): time.sleep(3600)") as node:
        node.receive(0)
        node.send(Kind.SETUP, 0, b'{"app": "t/living"}')
        node.send(Kind.PING, 0, b"there?")

        assert (Kind.PONG, b"there?") == node.receive(0)
        assert "runner_scheduling_failure" == node.call("/words")[1]["type"]
        node.socket.close()
        assert 0 == node.exit_status()


@pytest.mark.promise("R8")
@pytest.mark.parametrize("how", ["eof", "term"])
def test_leaving_closes_every_generator_and_then_tears_down(tmp_path, how):
    with living(tmp_path) as node:
        node.setup()
        streams = [node.start("/words"), node.start("/async-words")]
        for stream in streams:
            node.receive(stream)
        if how == "term":
            node.process.send_signal(signal.SIGTERM)
            assert ["shutting_down"] * 2 == [node.finish(stream)[1]["type"] for stream in streams]
        else:
            node.socket.close()

        assert 0 == node.exit_status()
        lines = node.log.splitlines()
        assert {"closed words", "closed async words"} == set(lines[1:3])
        assert ["setup False", "teardown False"] == [lines[0], *lines[3:]]


@pytest.mark.parametrize("path", ["/stuck", "/background"])
def test_code_that_does_not_end_cannot_keep_the_runner(tmp_path, path):
    # On the loop, teardown() is done by the time that anybody looks at the clock, which is short here.
    with living(tmp_path, teardown=ASYNC.format("teardown"), kill_grace_s=1.0) as node:
        node.setup()
        node.receive(node.start(path))
        node.socket.close()

        assert 0 == node.exit_status()
        assert "teardown True" in node.log


@pytest.mark.parametrize(
    "teardown", ["def teardown(self): time.sleep(3600)", "async def teardown(self): await asyncio.sleep(3600)"]
)
def test_a_teardown_that_hangs_is_left_behind(tmp_path, teardown):
    with living(tmp_path, teardown=teardown, kill_grace_s=1.0) as node:
        node.setup()
        node.socket.close()

        assert 0 == node.exit_status()
        assert "teardown() took more than 0.4 seconds" in node.log


def test_a_teardown_that_raises_is_logged(tmp_path):
    with living(tmp_path, teardown="def teardown(self): 1 / 0") as node:
        node.setup()
        node.socket.close()

        assert 0 == node.exit_status()
        assert "teardown() failed" in node.log


def test_an_interrupt_from_the_terminal_is_the_nodes_business(tmp_path):
    with living(tmp_path) as node:
        node.setup()
        node.process.send_signal(signal.SIGINT)

        assert ([{"interval": 0.0005, "sigint": True}], None) == node.call("/process")


def test_a_forked_worker_does_not_keep_the_link_open(tmp_path):
    with living(tmp_path) as node:
        node.setup()
        (forked,), _ = node.call("/forks")
        os.kill(node.process.pid, signal.SIGKILL)
        with pytest.raises(RunnerGone):
            while node.pump(DEADLINE_S):
                pass

        os.kill(forked["pid"], signal.SIGKILL)  # it was alive all the time


@pytest.mark.promise("R7")
@pytest.mark.parametrize(
    "nonsense",
    [
        (2**31).to_bytes(4, "big") + b"\x03\x00\x00\x00\x01",
        encode(99, 1),
        encode(Kind.EVENT, 1, b"{}"),
        encode(Kind.SETUP, 0, b"no json"),
        encode(Kind.SETUP, 0, b'{"app": "t/none"}'),
        encode(Kind.SETUP, 0, b'{"app": "t/living"}'),
        encode(Kind.START, 1, b"no json\n{}"),
        encode(Kind.START, 1, b"[]\n{}"),
        encode(Kind.START, 1, b'{"path": "/words"}\n{}'),
        encode(Kind.CHECK, 1, b""),
        encode(Kind.WINDOW, 1, b"123"),
        encode(Kind.START, 1, json.dumps({"request_id": "r", "path": "/words", "window": 1}).encode() + b"\n") * 2,
    ],
    ids=lambda nonsense: nonsense[:24].hex(),
)
def test_a_node_that_breaks_the_contract_is_left_in_order(tmp_path, nonsense):
    with living(tmp_path) as node:
        node.setup()
        node.socket.sendall(nonsense)

        assert 0 == node.exit_status()
        assert "teardown False" in node.log


@pytest.mark.promise("R7")
def test_a_node_that_ends_within_a_frame_is_left_in_order(tmp_path):
    with living(tmp_path) as node:
        node.setup()
        stream = node.start("/words")
        node.receive(stream)
        node.socket.sendall(encode(Kind.WINDOW, stream, b"1234")[:-1])
        node.socket.close()

        assert 0 == node.exit_status()
        assert ["closed words", "teardown False"] == node.log.splitlines()[1:]


def test_limits_are_the_nodes(tmp_path):
    with living(tmp_path, event_bytes_max=10) as node:
        node.setup()

        assert "event_too_large" == node.call("/words")[1]["type"]


def test_the_hello_example_says_hello():
    with PretendNode(f"{EXAMPLES}/hello_stream.py") as node:
        node.setup("demo/hello")
        events, error = node.call("/", {"name": "Ada"})

    assert ([{"word": "Hello"}, {"word": "Ada"}, {"text": "Hello Ada"}], None) == (events, error)


def test_the_callback_example_sends_each_step_and_then_the_result():
    with PretendNode(f"{EXAMPLES}/steps_by_callback.py") as node:
        node.setup("demo/heat")
        events, error = node.call("/", {"size": 8, "steps": 20, "every": 5})

    assert error is None
    assert [5, 10, 15, 20] == [event["step"] for event in events[:-1]]
    assert events[0]["change"] > events[3]["change"] > 0
    assert 0 < events[-1]["centre"] < 100
