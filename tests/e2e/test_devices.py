"""Which runner has which GPU. The devices are pretended: a model sees its own by the variables, and locks a file for each."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deaths import Crowd, condition, first_pid, group_of, metric
from tests.support.server import Server, data_events, eventually, running_server

#: A lock file stands for each device. A process that a runner starts inherits its locks, as it would hold memory on its
#: devices; so nobody can take one before the last process of the group is gone.
APPS = """
import ctypes, fcntl, os, subprocess, time
import headrace

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


def note(text):
    with open(os.environ["ZOO_NOTES"], "a") as file:
        file.write(f"{text}\\n")


class One(headrace.App, name="me/one", num_gpus=1, keep_alive=1.0, max_multiplexing=2):
    def setup(self):
        self.locks = []
        for device in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
            lock = open(os.path.join(os.environ["LOCKS"], device), "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note(f"device {device} is somebody else's")
            self.locks.append(lock)
            note(f"{type(self).__name__} {os.getpid()} {device}")
        self.child = subprocess.Popen(
            ["sh", "-c", "trap '' TERM; sleep 300 & sleep 300; true"], pass_fds=[lock.fileno() for lock in self.locks]
        )

    @headrace.endpoint("/")
    def devices(self, input: dict) -> dict:
        time.sleep(input.get("pause", 0))
        while "until" in input and not os.path.exists(input["until"]):
            time.sleep(0.01)
        return {"pid": os.getpid(), **{name: os.environ.get(name) for name in VISIBLE}}

    @headrace.endpoint("/stuck")
    def stuck(self, input: dict):
        yield {"pid": os.getpid()}
        ctypes.CDLL(None).usleep(300_000_000)
        yield {}

    @headrace.endpoint("/words")
    def words(self, input: dict):
        yield {"i": 0, "pid": os.getpid()}
        while not os.path.exists(input["until"]):
            time.sleep(0.01)
        for i in range(1, 40):
            yield {"i": i, "pid": os.getpid()}


class Two(One, name="me/two", min_concurrency=2, max_multiplexing=1):
    pass


class Up(One, name="me/up", max_concurrency=3, max_multiplexing=1):
    pass


class Both(One, name="me/both", num_gpus=2):
    pass


class Plain(headrace.App, name="me/plain"):
    @headrace.endpoint("/")
    def devices(self, input: dict) -> dict:
        return {name: os.environ.get(name) for name in VISIBLE}
"""

TWO_DEVICES = ("--no-auth", "--device", "0", "--device", "1")
LIMITS = {"cancel_grace_s": 0.3, "kill_grace_s": 0.3}


@pytest.fixture
def apps(tmp_path):
    """A file of apps, and the environment that they need."""
    (tmp_path / "locks").mkdir()
    path = tmp_path / "apps.py"
    path.write_text(APPS)
    return path, {"LOCKS": str(tmp_path / "locks")}


def seen(server: Server, app: str) -> dict:
    answer = server.post(f"/{app}")
    assert answer.status == 200, answer.body
    return answer.json


def holders(server: Server) -> dict[int, str]:
    """The device that each runner found itself to have."""
    notes = [re.fullmatch(r"\w+ (\d+) (\S+)", note) for note in server.notes()]
    return {int(note[1]): note[2] for note in notes if note}


def never_shared(server: Server) -> bool:
    return not [note for note in server.notes() if "somebody else's" in note]


@contextlib.contextmanager
def touched(go: Path) -> Iterator[None]:
    """Let those go who wait for this file, however the block ends."""
    try:
        yield
    finally:
        go.touch()


def leased(server: Server) -> tuple[float, float]:
    """How many devices are leased, and free."""
    return tuple(metric(server, f'headrace_devices{{state="{state}"}}') for state in ("leased", "free"))


# --- what a runner sees -------------------------------------------------------------------------------------


def test_two_runners_of_one_device_each_see_different_ones(apps):
    path, env = apps
    with running_server(f"{path}:Two", args=TWO_DEVICES, env=env) as server:
        eventually(lambda: condition(server, "me/two")["runners"] == 2, "two are up")
        shown = holders(server)
        one = seen(server, "me/two")

        assert sorted(shown.values()) == ["0", "1"]
        assert [one[name] for name in one if name != "pid"] == [shown[one["pid"]]] * 2 + ["PCI_BUS_ID"]
        assert leased(server) == (2, 0)


@pytest.mark.parametrize(
    ("args", "env"),
    [(("--no-auth", "--device", "1", "--device", "0"), {}), (("--no-auth",), {"HEADRACE_DEVICES": "1,0"})],
)
def test_a_runner_of_two_devices_sees_both_and_one_of_none_sees_none(apps, args, env):
    path, locks = apps
    with running_server(f"{path}:Both", f"{path}:Plain", args=args, env={**locks, **env}) as server:
        both, plain = seen(server, "me/both"), seen(server, "me/plain")

    assert (both["CUDA_VISIBLE_DEVICES"], both["HIP_VISIBLE_DEVICES"]) == ("1,0", "1,0")
    assert (plain["CUDA_VISIBLE_DEVICES"], plain["HIP_VISIBLE_DEVICES"]) == ("-1", "-1")


def test_where_nobody_leases_everybody_sees_what_the_server_sees(apps):
    path, env = apps
    with running_server(f"{path}:Plain", args=TWO_DEVICES, env={**env, "CUDA_VISIBLE_DEVICES": "5,6"}) as server:
        plain = seen(server, "me/plain")

    assert plain == {"CUDA_VISIBLE_DEVICES": "5,6", "HIP_VISIBLE_DEVICES": None, "CUDA_DEVICE_ORDER": None}


@pytest.mark.parametrize(
    ("cls", "devices", "words"),
    [
        ("Both", ["0"], "2 GPUs are wanted; this node has 1 (0)"),
        ("One", ["none"], "1 GPU is wanted; this node has none"),
        ("Two", ["0"], "2 GPUs are wanted; this node has 1 (0)"),
    ],
)
def test_more_devices_than_there_are_is_a_fault_of_the_file_told_at_the_start(apps, cls, devices, words):
    path, _ = apps
    line = APPS[: APPS.index(f"class {cls}(")].count("\n") + 1
    command = [sys.executable, "-m", "headrace", "serve", f"{path}:{cls}", "--port", "0", "--no-auth"]
    told = subprocess.run(
        [*command, *(word for device in devices for word in ("--device", device))],
        cwd=path.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (told.returncode, "serves on" in told.stdout) == (2, False)
    assert f"apps.py:{line}: num_gpus=" in told.stderr
    assert words in told.stderr


# --- who waits for one --------------------------------------------------------------------------------------


def test_a_runner_beyond_the_devices_waits_until_one_is_given_back(apps):
    path, env = apps
    go = path.parent / "go"
    with running_server(f"{path}:Up", args=TWO_DEVICES, env=env) as server:
        with Crowd(server, "/me/up", 8, {"until": str(go)}) as crowd, touched(go):
            eventually(lambda: condition(server, "me/up")["runners"] == 2, "a second one is up")
            eventually(lambda: condition(server, "me/up")["waiting"] == 6, "both are at work")
            victim = next(pid for pid in holders(server) if group_of(pid))
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: len(holders(server)) == 3, "a third one is up")
        shown = holders(server)
        successor = list(shown)[2]

        assert sorted(answer.status for answer in crowd.answers) == [200] * 7 + [503]
        assert shown[successor] == shown[victim]
        assert never_shared(server)


def test_a_device_is_given_back_when_the_last_of_the_group_is_gone(apps):
    path, env = apps
    with running_server(f"{path}:One", args=("--no-auth", "--device", "7"), env=env) as server:
        for _ in range(3):
            pid = seen(server, "me/one")["pid"]
            # It, a shell and two that sleep, deaf to TERM, with the lock in their hands.
            eventually(lambda pid=pid: len(group_of(pid)) == 4, "its whole family is there")
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: list(holders(server))[-1] != pid, "another one has the device")

            assert not group_of(pid)

        assert set(holders(server).values()) == {"7"}
        assert never_shared(server)


@pytest.mark.parametrize(("devices", "is_beside"), [(("0", "1"), True), (("0",), False)])
def test_the_successor_of_a_retired_runner_starts_beside_it_where_a_device_is_free_else_after_it(
    apps, devices, is_beside
):
    path, env = apps
    go = path.parent / "go"
    args = ("--no-auth", *(word for device in devices for word in ("--device", device)))
    with running_server(f"{path}:One", args=args, env=env, limits=LIMITS) as server:
        with (
            server.open("/me/one/stuck/stream") as stuck,
            server.open("/me/one/words/stream", {"until": str(go)}) as other,
        ):
            retired = first_pid(stuck)
            assert first_pid(other) == retired
            stuck.close()
            eventually(lambda: f"runner {retired} is retired" in server.log, "it is retired")
            if not is_beside:
                go.touch()  # the other stream ends, and the device is free
            successor = seen(server, "me/one")["pid"]
            was_beside = retired in group_of(retired)
            go.touch()
            other.read_until(b"\r\n0\r\n\r\n")
        eventually(lambda: not group_of(retired), "the retired one is gone")

        assert (was_beside, successor != retired) == (is_beside, True)
        assert len(data_events(other.body)) == 40
        assert (holders(server)[retired] != holders(server)[successor]) == is_beside
        assert never_shared(server)


def test_an_idle_runner_gives_its_device_to_another_app(apps):
    path, env = apps
    lazy = APPS.replace('name="me/one", num_gpus=1', 'name="me/one", num_gpus=1, min_concurrency=0')
    path.write_text(lazy.replace('name="me/both", num_gpus=2', 'name="me/both", num_gpus=2, min_concurrency=0'))
    with running_server(f"{path}:One", f"{path}:Both", args=TWO_DEVICES, env=env) as server:
        for _ in range(2):
            assert seen(server, "me/one")["CUDA_VISIBLE_DEVICES"] in {"0", "1"}
            assert seen(server, "me/both")["CUDA_VISIBLE_DEVICES"] == "0,1"
        eventually(lambda: leased(server) == (0, 2), "all are given back")

        assert never_shared(server)


def test_whatever_dies_whenever_no_device_is_ever_two_runners(apps):
    path, env = apps
    chance = random.Random(7)
    with running_server(f"{path}:One", f"{path}:Up", args=TWO_DEVICES, env=env) as server:
        until = time.monotonic() + 5
        victim = 0
        while time.monotonic() < until or len(holders(server)) <= 5:
            for app in ("me/one", "me/up"):
                server.post(f"/{app}")  # one that is served ends any suspicion of a crash loop
            alive = [pid for pid in holders(server) if group_of(pid)]
            if alive:
                victim = chance.choice(alive)
                with contextlib.suppress(ProcessLookupError):  # it is dead already, its children not yet
                    os.kill(victim, signal.SIGKILL)
            time.sleep(chance.uniform(0, 0.3))
        eventually(lambda: not group_of(victim), "the server knows of the last death")
        eventually(server.is_ready, "both are up again")
        both = {seen(server, app)["CUDA_VISIBLE_DEVICES"] for app in ("me/one", "me/up")}

        assert both == {"0", "1"}
        assert len(holders(server)) > 5
        assert never_shared(server)


# --- who may not be starved -----------------------------------------------------------------------------------


def test_an_app_that_keeps_a_runner_up_gets_its_device_back_whoever_else_waits_for_one(apps):
    path, env = apps
    with running_server(f"{path}:One", f"{path}:Up", args=TWO_DEVICES, env=env) as server:
        is_over = threading.Event()

        def press() -> None:
            while not is_over.is_set():
                server.post("/me/up", {"pause": 0.1})

        crowd = [threading.Thread(target=press) for _ in range(4)]
        for one in crowd:
            one.start()
        try:
            eventually(lambda: condition(server, "me/up")["waiting"] > 0, "some wait, and so does a second runner")
            os.kill(seen(server, "me/one")["pid"], signal.SIGKILL)
            eventually(lambda: server.post("/me/one").status == 200, "the other app is back")
        finally:
            is_over.set()
            for one in crowd:
                one.join()

        assert never_shared(server)


def test_a_file_is_reloaded_where_its_old_runner_has_the_only_device_and_others_wait_for_it(apps):
    path, env = apps
    go = path.parent / "go"
    args = ("--no-auth", "--device", "0", "--reload")
    with running_server(f"{path}:Up", args=args, env=env, limits=LIMITS) as server:
        with Crowd(server, "/me/up", 6, {"until": str(go)}) as crowd, touched(go):
            eventually(lambda: condition(server, "me/up")["waiting"] == 5, "one is served, the others wait")
            path.write_text(APPS.replace('return {"pid"', 'return {"edited": True, "pid"'))
            eventually(lambda: f"reloaded {path}" in server.log, "the new version has taken over")

        assert {answer.status for answer in crowd.answers} == {200}
        assert {"edited" in answer.json for answer in crowd.answers} == {False, True}
        assert len(holders(server)) == 2  # none of the old version was started once more
        assert never_shared(server)
