"""`headrace demo`: a real stream on the screen, and lines that work as they are pasted."""

import contextlib
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

import headrace
from tests.support.server import PATIENCE_S, eventually, processes
from tests.support.smollm2 import need_model

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def environment(tmp_path):
    """A user who has nothing yet but the model."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "FAL_"))}
    folders = {"XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config", "TMPDIR": "tmp"}
    (tmp_path / "tmp").mkdir()
    (tmp_path / "headrace.toml").write_text("[aliases]\n'a/b' = 'no/such'\n")  # meant for another server
    return ours | {name: str(tmp_path / folder) for name, folder in folders.items()}


@contextlib.contextmanager
def running_demo(environment, folder, *words):
    command = [sys.executable, "-m", "headrace", "demo", *words]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as demo:
        try:
            yield demo
        finally:
            if demo.poll() is None:
                demo.terminate()
                demo.wait(PATIENCE_S)


def children_of(pid):
    return [child for child, parent, _ in processes() if parent == pid]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def read_until(demo, text):
    """Read at least one piece, and on until `text` is among what came."""
    read = b""
    while not read or text not in read:
        piece = os.read(demo.stdout.fileno(), 65_536)
        assert piece, f"the demo ended before {text!r}: {read!r} {demo.stderr.read()!r}"
        read += piece
    return read


def test_once_streams_token_by_token_and_leaves_nothing_but_the_users_key(environment, tmp_path):
    need_model()
    for _ in range(3):  # one during which this test was held up until the last token was there tells nothing
        began = time.monotonic()
        with running_demo(environment, tmp_path, "--once", "--port", str(free_port())) as demo:
            shown = read_until(demo, b"blue.\n")  # the prompt's line
            children = children_of(demo.pid)
            if shown.endswith(b"blue.\n"):
                shown += os.read(demo.stdout.fileno(), 1)
            first_s = time.monotonic() - began
            had_to_wait = False
            while b"finish_reason" not in shown:
                had_to_wait |= not select.select([demo.stdout], [], [], 0)[0]
                shown += read_until(demo, b"")
            demo.stdout.read()
            demo.wait(PATIENCE_S)
        if had_to_wait:
            break
    print(f"the first token was on the screen after {first_s:.2f} s")

    assert 0 == demo.returncode
    assert had_to_wait  # with the first token on the screen, for one that was not made yet
    assert [] == [pid for pid in children if pid in {alive for alive, _, _ in processes()}]
    assert ["config", "data", "headrace.toml", "tmp"] == sorted(path.name for path in tmp_path.iterdir())
    assert [] == list((tmp_path / "tmp").iterdir())


def test_the_pasted_lines_work_and_ctrl_c_ends_it(environment, tmp_path):
    need_model()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running_demo(environment, tmp_path, "--port", str(port)) as demo:
            shown = read_until(demo, b"Ctrl-C stops the server.").decode()
            key = re.search(r"^key  (hr_[a-z2-7]{12}:\S{43})$", shown, re.MULTILINE)[1]
            curl = re.search(r"^curl .*?}'$", shown, re.MULTILINE | re.DOTALL)[0]
            python = re.search(r'^\S*python\S* -c ".*?^"$', shown, re.MULTILINE | re.DOTALL)[0]
            url = re.search(r"^url  (http://127\.0\.0\.1:\d+)$", shown, re.MULTILINE)[1]
            call = f"{shlex.quote(sys.executable)} -m headrace stream headrace/smollm2 prompt=Hi max_tokens=5"
            without_key = paste(f"HEADRACE_URL={url} {call}", environment, tmp_path / "tmp")
            by_curl, by_python = (paste(line, environment, tmp_path) for line in (curl, python))
            children = children_of(demo.pid)
            demo.send_signal(signal.SIGINT)
            demo.wait(PATIENCE_S)
            told = demo.stderr.read().decode()

    assert f"port {port} is taken; using " in told
    assert 0 == demo.returncode
    assert 'data: {"delta":' in by_curl
    assert 20 < len(by_python)
    assert '"finish_reason"' in without_key
    assert key in curl
    assert key in python
    assert children
    eventually(lambda: not set(children) & {pid for pid, _, _ in processes()}, "the server is gone")


def test_pictures_are_painted_on_the_page_that_it_names(environment, tmp_path):
    need_model()
    with running_demo(environment, tmp_path, "--port", str(free_port())) as demo:
        shown = read_until(demo, b"Ctrl-C stops the server.").decode()
        url, id_ = re.search(
            r"^page (http://\S+/headrace/landscapes)#request=(\S+)$", shown, re.MULTILINE
        ).groups()
        key = re.search(r"^key  (\S+)$", shown, re.MULTILINE)[1]
        with contextlib.closing(headrace.Client(url=url.partition("/headrace/")[0], key=key)) as client:
            items = list(client.attach("headrace/landscapes", id_))

    assert "code=" not in shown  # a pipe may be a log
    assert 51 == len(items)
    assert [0.02, 1.0] == [items[at]["progress"] for at in (0, 49)]
    assert 4 == len({image["url"] for image in items[-1]["images"]})


def paste(line, environment, folder):
    done = subprocess.run(["bash", "-c", line], env=environment, cwd=folder, capture_output=True, timeout=100)
    assert 0 == done.returncode, done.stderr.decode()
    return done.stdout.decode()


def test_ending_the_demo_by_term_ends_its_server(environment, tmp_path):
    need_model()
    with running_demo(environment, tmp_path, "--port", str(free_port())) as demo:
        read_until(demo, b"blue.\n")
        children = children_of(demo.pid)
        demo.terminate()
        demo.wait(PATIENCE_S)

    assert 128 + signal.SIGTERM == demo.returncode
    assert children
    eventually(lambda: not set(children) & {pid for pid, _, _ in processes()}, "the server is gone")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a file; --model takes a .gguf"), (b"GGUF?", "is missing or damaged")],
    ids=["absent", "damaged"],
)
def test_a_model_that_cannot_be_served_ends_the_demo_with_a_line(environment, tmp_path, content, message):
    path = tmp_path / "other.gguf"
    if content is not None:
        path.write_bytes(content)
    with running_demo(environment, tmp_path, "--once", "--model", str(path), "--port", str(free_port())) as demo:
        told = demo.stderr.read().decode()
        demo.wait(PATIENCE_S)

    assert 1 == demo.returncode
    assert message in told


def test_a_second_demo_makes_no_second_key(environment, tmp_path):
    need_model()
    for _ in range(2):
        with running_demo(environment, tmp_path, "--once", "--port", str(free_port())) as demo:
            demo.stdout.read()
            demo.wait(PATIENCE_S)

    keys = json.loads((tmp_path / "data" / "headrace" / "keys.json").read_text())["keys"]
    assert ["demo"] == [key["name"] for key in keys]
