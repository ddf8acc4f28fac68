"""How a server starts, and how it says why it does not: faults by file and line, before anything listens."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys

import pytest

from headrace.store.sqlite.file import FILE_NAME
from headrace.supervisor.attempt import NODE
from tests.support.server import STARTING_S, ZOO, eventually, running_server
from tests.support.stores import a_request, a_store

GOOD = """
import headrace

class Good(headrace.App, name="me/good"):
    @headrace.endpoint("/")
    def good(self, input: dict) -> dict:
        return {"good": True}
"""

TWO_OF_ONE_NAME = GOOD + GOOD.replace("class Good", "class Better")

FAULTS = [
    ("syntax", "import headrace\n\ndef broken(:\n    pass\n", 3, "SyntaxError"),
    ("import", "import headrace\nimport no_such_module_here\n", 2, "no_such_module_here"),
    ("raises", "import headrace\n\nx = 1 / 0\n", 3, "ZeroDivisionError"),
    ("leaves", "import sys\nsys.exit(3)\n", 2, "SystemExit"),
    ("no app", "import headrace\n", 1, "App"),
    ("name", GOOD.replace("me/good", "no-slash"), 4, "owner/alias"),
    ("reserved", GOOD.replace("me/good", "queue/good"), 4, "kept for the server"),
    ("knob", GOOD.replace('name="me/good"', 'name="me/good", max_multiplexin=2'), 4, "max_multiplexin"),
    ("path", GOOD.replace('"/"', '"no-slash"'), 5, "must begin with '/'"),
    ("requests", GOOD.replace('"/"', '"/a/requests/b"'), 5, "/requests"),
    ("openapi", GOOD.replace('"/"', '"/openapi.json"'), 5, "description of the app"),
    ("two apps of one name", TWO_OF_ONE_NAME, 10, "me/good"),
    (
        "two views of one path",
        GOOD
        + """
    @headrace.endpoint("/stream")
    def other(self, input: dict):
        yield {}

    @headrace.endpoint("/", stream="/stream")
    def third(self, input: dict):
        yield {}
""",
        13,
        "claims /me/good",
    ),
    ("stream of a plain function", GOOD.replace('"/"', '"/", stream="/s"'), 5, "generators"),
    ("two inputs", GOOD.replace("input: dict", "input: dict, other: dict"), 5, "input"),
]


def headrace(*args: str, cwd=None, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=STARTING_S, **options)


@pytest.mark.parametrize(
    ("source", "line", "words"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_a_fault_of_a_file_is_told_by_file_and_line_with_status_2(tmp_path, source, line, words):
    (tmp_path / "app.py").write_text(source)

    told = headrace("serve", "app.py", "--port", "0", "--no-auth", cwd=tmp_path)

    assert told.returncode == 2
    assert re.search(rf"app\.py:{line}(-\d+)?\b", told.stderr) or re.search(rf"app\.py:{line + 1}\b", told.stderr)
    assert words in told.stderr
    assert "serves on" not in told.stdout
    assert "asyncio" not in told.stderr


def test_two_files_that_claim_one_name_are_both_named(tmp_path):
    (tmp_path / "a.py").write_text(GOOD)
    (tmp_path / "b.py").write_text(GOOD)

    told = headrace("serve", "a.py", "b.py", "--port", "0", "--no-auth", cwd=tmp_path)

    assert told.returncode == 2
    assert "a.py:4" in told.stderr
    assert "b.py:4" in told.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["missing.py"], "missing.py"),
        (["good.py:Missing"], "Missing"),
        (["no_such_module:App"], "no_such_module"),
        (["good.py", "--alias", "x=y"], "x"),
        (["good.py", "--alias", "me/new=no/app"], "no/app"),
        (["good.py", "--port", "none"], "none"),
        (["good.py", "--host", "0.0.0.0"], "loopback"),
    ],
)
def test_a_wrong_argument_is_told_with_status_2(tmp_path, args, words):
    (tmp_path / "good.py").write_text(GOOD)

    told = headrace("serve", *args, *([] if "--port" in args else ["--port", "0"]), "--no-auth", cwd=tmp_path)

    assert (told.returncode, "Traceback" in told.stderr) == (2, False)
    assert words in told.stderr


def test_check_loads_prints_and_leaves(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)

    told = headrace("serve", "good.py", "--check", cwd=tmp_path)

    assert told.returncode == 0
    assert "me/good" in told.stdout
    assert "serves on" not in told.stdout


def test_a_class_can_be_named_in_a_file_or_a_module(tmp_path):
    (tmp_path / "good.py").write_text(
        GOOD + GOOD.replace("class Good", "class Other").replace("me/good", "me/other")
    )

    for target in ("good.py:Other", "good:Other"):
        told = headrace("serve", target, "--check", cwd=tmp_path)

        assert (told.returncode, told.stderr) == (0, "")
        assert "me/other" in told.stdout
        assert "me/good" not in told.stdout


def test_a_taken_port_is_told_with_the_next_free_one(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        told = headrace("serve", "good.py", "--no-auth", "--port", str(port), cwd=tmp_path)

    assert told.returncode == 2
    free = int(re.search(r"--port (\d+)", told.stderr)[1])
    assert f"port {port} on 127.0.0.1 is in use" in told.stderr
    assert free > port


def test_a_store_that_fails_as_it_is_taken_over_is_told_in_one_line_with_status_2(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)
    data = tmp_path / "data"
    asyncio.run(_leave_an_attempt(data))
    with contextlib.closing(sqlite3.connect(data / FILE_NAME)) as connection:
        connection.execute(
            "CREATE TRIGGER breaks BEFORE UPDATE ON requests BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )

    told = headrace("serve", "good.py", "--port", "0", "--no-auth", "--data-dir", str(data), cwd=tmp_path)

    assert (told.returncode, "serves on" in told.stdout) == (2, False)
    assert "Traceback" not in told.stderr
    assert f"headrace: {data}: what is queued there cannot be taken over" in told.stderr.splitlines()[-1]
    assert "disk I/O error" in told.stderr.splitlines()[-1]


async def _leave_an_attempt(data):
    """Leave what a node leaves that dies while it works: a request that is its own."""
    async with a_store(data) as store:
        new = a_request(app="me/good")
        await store.submit(new)
        await store.start(new.id, node=NODE, lease_until=2_000.0, at=1_000.0)


FAILS_THEN_WORKS = """
import os, pathlib
import headrace

class Moody(headrace.App, name="me/moody"):
    def setup(self):
        with open(os.environ["ZOO_NOTES"], "a") as file:
            file.write("try\\n")
        mended = pathlib.Path(os.environ["ZOO_NOTES"] + ".mended")
        if not mended.exists():
            raise RuntimeError("no model today")

    @headrace.endpoint("/")
    def moody(self, input: dict) -> dict:
        return {"works": True}
"""


def test_a_setup_that_raises_is_told_by_file_and_line_and_shown_on_ready_until_it_works(tmp_path):
    (tmp_path / "moody.py").write_text(FAILS_THEN_WORKS)
    limits = {"restart_backoff_s": 0.5, "restart_backoff_max_s": 1.0}
    with running_server(tmp_path / "moody.py", limits=limits, until_ready=False) as server:
        eventually(
            lambda: "fault" in server.request("GET", "/ready").json["apps"]["me/moody"], "the fault is shown"
        )
        shown = server.request("GET", "/ready")
        refused = server.post("/me/moody")
        eventually(lambda: len(server.notes()) >= 2, "it is tried again")
        server.release("mended")
        eventually(server.is_ready, "it works in the end")
        works = server.post("/me/moody")

    assert shown.status == 503
    assert shown.json["apps"]["me/moody"]["state"] == "failing"
    assert "moody.py:11: RuntimeError: no model today" in shown.json["apps"]["me/moody"]["fault"]
    assert "moody.py:11: RuntimeError: no model today" in server.log
    assert (refused.status, refused.json["error_type"]) == (503, "runner_scheduling_failure")
    assert int(refused.headers["retry-after"]) >= 1
    assert works.json == {"works": True}


WAITS_FOR_ITS_TEST = """
    def setup(self):
        import os, time
        while not os.path.exists(os.environ["ZOO_NOTES"] + ".ready"):
            time.sleep(0.01)
"""


def test_requests_wait_for_a_setup_that_takes_its_time(tmp_path):
    (tmp_path / "slow.py").write_text(GOOD.replace("    @headrace", f"{WAITS_FOR_ITS_TEST}\n    @headrace"))
    with running_server(tmp_path / "slow.py", until_ready=False) as server, server.open("/me/good") as call:
        eventually(lambda: server.request("GET", "/ready").json["apps"]["me/good"]["waiting"] == 1, "it waits")
        before = server.request("GET", "/ready")
        (server.folder / "notes.ready").touch()
        call.read_until(b'{"good":true}')

    assert (before.status, before.json["apps"]["me/good"]["state"]) == (503, "starting")
    assert call.head.startswith(b"HTTP/1.1 200 ")


def test_ctrl_c_ends_the_server_with_status_0():
    with running_server() as server:
        os.kill(server.process.pid, signal.SIGINT)

        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log


def test_what_a_model_prints_is_in_the_log_with_the_apps_name_and_bounded():
    with running_server(ZOO.with_name("printer.py")) as server:
        server.post("/zoo/printer")
        eventually(lambda: "after the flood" in server.log, "its output is relayed")

    assert re.search(r"\[zoo/printer [0-9a-f-]+\] hello from the model", server.log)
    assert re.search(r"\(\d+ bytes more\)", server.log)
    assert len(server.log) < 200_000
