"""The process that ends what a killed node leaves behind."""

import os
import signal
import subprocess

import pytest

from headrace.supervisor import guardian as guardians
from headrace.supervisor.guardian import Guardian


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A guardian that is slow to start, on a busy machine, is let finish all the same."""
    monkeypatch.setattr(guardians, "END_S", 60.0)


@pytest.fixture
def groups():
    """Two process groups of a process each."""
    found = [subprocess.Popen(["sleep", "300"], start_new_session=True) for _ in range(2)]
    yield found
    for process in found:
        process.kill()
        process.wait()


def test_groups_that_are_left_at_the_end_are_killed_and_those_that_are_gone_let_alone(groups):
    left, gone = groups
    with Guardian() as guardian:
        guardian.watch(left.pid)
        guardian.watch(gone.pid)
        guardian.forget(gone.pid)

    assert (left.wait(30), gone.poll()) == (-signal.SIGKILL, None)


def test_a_group_that_is_not_there_any_more_keeps_it_from_nothing(groups):
    left, gone = groups
    gone.kill()
    gone.wait()
    with Guardian() as guardian:
        guardian.watch(gone.pid)
        guardian.watch(left.pid)

    assert left.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_ends_the_node_does_not_end_its_guardian(groups, number):
    with Guardian() as guardian:
        for process in groups:
            guardian.watch(process.pid)
        os.kill(guardian._process.pid, number)

    assert [process.wait(30) for process in groups] == [-signal.SIGKILL] * 2


def test_a_guardian_that_was_killed_is_nobodys_trouble(groups):
    with Guardian() as guardian:
        guardian._process.kill()
        guardian._process.wait()
        for _ in range(10_000):
            guardian.watch(groups[0].pid)

    assert groups[0].poll() is None


def test_a_guardian_that_does_not_read_holds_nobody_up():
    with Guardian() as guardian:
        os.kill(guardian._process.pid, signal.SIGSTOP)
        for _ in range(10_000):
            guardian.watch(1_000_000_000)
        os.kill(guardian._process.pid, signal.SIGCONT)


def test_a_guardian_that_is_held_up_at_the_end_does_its_work_later(groups, monkeypatch):
    monkeypatch.setattr(guardians, "END_S", 0.1)
    with Guardian() as guardian:
        guardian.watch(groups[0].pid)
        os.kill(guardian._process.pid, signal.SIGSTOP)
    assert groups[0].poll() is None

    os.kill(guardian._process.pid, signal.SIGCONT)
    assert guardian._process.wait(60) == 0
    assert groups[0].wait(60) == -signal.SIGKILL
