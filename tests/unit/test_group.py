"""What the kernel says of a process group, asked about real processes."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.supervisor import group as groups

MiB = 1024 * 1024

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")

#: Starts a process that sleeps, and says its number.
CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
"""

SLEEP = """
import time
print("ready", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def running(code: str, *args: str) -> Iterator[tuple[int, str]]:
    """A Python process that leads a group of its own: its number, and the line it said when it was ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    try:
        yield process.pid, process.stdout.readline().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def soon(claim) -> bool:
    """Whether a claim comes true within half a minute."""
    deadline = time.monotonic() + 30
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def wait_until_it_is_a_zombie(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@linux
def test_a_group_is_its_leader_and_what_that_started():
    with running(CHILD + SLEEP) as (leader, child):
        assert {leader, int(child)} == {member.pid for member in groups.members(leader)}
        # The child was only just started.
        assert soon(lambda: all(member.resident_bytes > MiB for member in groups.members(leader)))


@linux
def test_a_process_with_a_session_of_its_own_is_not_a_member():
    left = CHILD.replace("stdout=", "start_new_session=True, stdout=")
    with running(left + SLEEP) as (leader, child):
        try:
            assert [leader] == [member.pid for member in groups.members(leader)]
            assert [int(child)] == [member.pid for member in groups.members(int(child))]
        finally:
            os.killpg(int(child), signal.SIGKILL)


@linux
def test_a_stopped_process_has_state_t_until_it_goes_on():
    with running(SLEEP) as (leader, _):
        os.kill(leader, signal.SIGSTOP)
        assert soon(lambda: groups.state_of(leader) == "T")
        assert ["T"] == [member.state for member in groups.members(leader)]

        os.kill(leader, signal.SIGCONT)
        assert soon(lambda: groups.state_of(leader) == "S")


@linux
def test_a_processes_state_is_read_behind_any_name(tmp_path):
    python = tmp_path / "a) Z 1 (b"
    python.symlink_to(Path(sys.executable).resolve())
    process = subprocess.Popen(
        [python, "-c", SLEEP], stdout=subprocess.PIPE, start_new_session=True, env={"PYTHONHOME": sys.base_prefix}
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        assert b"(a) Z 1 (b) " in Path(f"/proc/{process.pid}/stat").read_bytes()
        assert soon(lambda: groups.state_of(process.pid) == "S")
        assert [process.pid] == [member.pid for member in groups.members(process.pid)]
    finally:
        process.kill()
        process.communicate()


@linux
def test_what_is_gone_has_no_state_no_members_and_no_memory():
    with running(SLEEP) as (leader, _):
        pass

    assert groups.state_of(leader) is None
    assert groups.members(leader) == []
    assert groups.memory_of(leader) == 0
    assert groups.exact_memory_of(leader) == 0
    assert groups.is_gone(leader)


@linux
def test_a_zombie_leader_is_not_alive_but_the_child_it_left_is():
    with running(CHILD) as (leader, child):
        wait_until_it_is_a_zombie(leader)

        assert groups.state_of(leader) == "Z"
        assert [int(child)] == [member.pid for member in groups.members(leader)]
        assert not groups.is_gone(leader)


@linux
def test_a_group_whose_leader_nobody_waits_for_is_gone_all_the_same():
    with running(CHILD + SLEEP) as (leader, _):
        os.killpg(leader, signal.SIGKILL)
        is_gone = asyncio.run(groups.gone(leader, timeout_s=60))

        assert is_gone
        assert groups.state_of(leader) == "Z"
        os.killpg(leader, 0)  # the kernel still knows the group: signal 0 would not have told


@linux
def test_a_process_whose_main_thread_left_is_alive():
    code = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
    with running(code) as (leader, _):
        assert soon(lambda: groups.state_of(leader) == "Z")

        assert [leader] == [member.pid for member in groups.members(leader)]
        assert not groups.is_gone(leader)


def test_a_living_group_is_not_gone_at_the_deadline():
    with running(SLEEP) as (leader, _):
        assert not asyncio.run(groups.gone(leader, timeout_s=0.1))
        assert not asyncio.run(groups.gone(leader, timeout_s=0))


@linux
def test_waiting_for_a_group_lets_the_loop_work_and_ends_with_it():
    async def go(leader: int) -> bool:
        asyncio.get_running_loop().call_later(0.05, os.killpg, leader, signal.SIGKILL)
        return await groups.gone(leader, timeout_s=60)

    with running(SLEEP) as (leader, _):
        assert asyncio.run(go(leader))


@linux
def test_the_memory_of_a_group_is_what_its_members_allocated():
    code = f"""
kept = b"x" * {50 * MiB}
{SLEEP}"""
    with running(code) as (leader, _):
        assert 50 * MiB < groups.memory_of(leader) < 80 * MiB
        assert 50 * MiB < groups.exact_memory_of(leader) < 80 * MiB


@linux
def test_a_file_that_is_read_by_mmap_is_not_counted(tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"x" * 50 * MiB)
    code = f"""
import mmap, sys
with open(sys.argv[1], "rb") as file:
    weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
assert all(weights[at] == ord("x") for at in range(0, len(weights), 4096))
{SLEEP}"""
    with running(code, str(weights)) as (leader, _):
        assert sum(member.resident_bytes for member in groups.members(leader)) > 50 * MiB
        assert groups.memory_of(leader) < 40 * MiB
        assert groups.exact_memory_of(leader) < 40 * MiB


@linux
def test_what_a_fork_shares_counts_twice_but_once_when_asked_exactly():
    code = f"""
import os
kept = b"x" * {50 * MiB}
os.fork() or __import__("time").sleep(600)
{SLEEP}"""
    with running(code) as (leader, _):
        assert groups.memory_of(leader) > 100 * MiB
        assert 50 * MiB < groups.exact_memory_of(leader) < 80 * MiB


@linux
def test_processes_that_come_and_go_meanwhile_do_no_harm():
    code = """
import subprocess
print("ready", flush=True)
while True:
    subprocess.run(["true"])
"""
    with running(code) as (leader, _):
        for _ in range(200):
            assert leader in {member.pid for member in groups.members(leader)}
            assert groups.memory_of(leader) > 0


def test_without_proc_all_but_whether_it_is_gone_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(groups, "_PROC", tmp_path)
    with running(SLEEP) as (leader, _):
        assert groups.members(leader) is None
        assert groups.state_of(leader) is None
        assert groups.memory_of(leader) is None
        assert groups.exact_memory_of(leader) is None
        assert not groups.is_gone(leader)

    assert groups.is_gone(leader)
