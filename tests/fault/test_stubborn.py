"""Runners that do not leave: deaf to cancelling and to TERM, with a family, or without a node. They go all the same."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.bystander import bystander
from tests.support.deaths import bearers, first_pid, group_of, metric, noted, started_at
from tests.support.recorder import spread_ms
from tests.support.server import ZOO, Server, data_events, eventually, processes, running_server

MODELS = Path(__file__).parent / "models" / "dying.py"

#: Short graces: their sum is the time between the last wish and the end.
LIMITS = {"cancel_grace_s": 0.3, "kill_grace_s": 0.3}


@pytest.fixture(scope="module")
def server():
    apps = [f"{ZOO}:Zoo", f"{MODELS}:Deaf", f"{MODELS}:Brief"]
    with running_server(*apps, limits=LIMITS) as server:
        yield server


def family_of(pid: int) -> set[int]:
    """Wait until a deaf runner's family is complete, and return it: itself, a shell and two that sleep."""
    eventually(lambda: len(group_of(pid)) == 4, "its family is complete")
    return group_of(pid)


def is_retired(server: Server, pid: int) -> bool:
    return f"runner {pid} of test/deaf leaves: retired" in server.log


def gone_at(pid: int) -> float:
    """Wait until a process has ended, and return when."""
    eventually(lambda: pid not in {one for one, _, _ in processes()}, f"process {pid} is gone")
    return time.monotonic()


# --- deaf ---------------------------------------------------------------------------------------------------


@pytest.mark.promise("R5")
def test_a_deaf_runner_is_retired_and_killed_with_its_family_when_its_other_streams_have_ended(
    server, count, figures
):
    orphans_s, ended_s = [], []
    retired = 'headrace_runner_ends_total{app="test/deaf",reason="retired"}'
    before = metric(server, retired)

    with bystander(server) as other:
        for turn in range(count(smoke=2, full=20)):
            name = f"unharmed {turn}"
            with (
                server.open("/test/deaf/stuck/stream", {"pause": 300}) as stuck,
                server.open("/test/deaf/stream", {"n": 10_000, "pause": 0.02, "name": name}) as unharmed,
            ):
                pid = first_pid(stuck)
                family = family_of(pid)
                first = first_pid(unharmed)
                stuck.close()
                eventually(lambda pid=pid: is_retired(server, pid), "it is retired")
                was_there = pid in group_of(pid)
                seen = unharmed.bytes.count(b"data: ")
                unharmed.read_until(b'{"i":%d,' % (seen + 20))
                server.release(name)
                unharmed.read_until(b"\r\n0\r\n\r\n")
                ended_at = time.monotonic()
            killed_at = gone_at(pid)
            eventually(lambda pid=pid: not group_of(pid), "its family is gone")
            orphans_s.append(time.monotonic() - killed_at)
            ended_s.append(killed_at - ended_at)
            successor = server.post("/test/deaf/stream", {"n": 1})

            assert (pid in family, first, was_there) == (True, pid, True)
            events = data_events(unharmed.body)
            assert events == [{"i": i, "pid": pid} for i in range(len(events))]
            assert data_events(successor.body)[0]["pid"] != pid
            eventually(lambda turn=turn: metric(server, retired) == before + turn + 1, "it is counted")

    figures(
        "R5",
        **spread_ms(orphans_s),
        from_last_end_worst_ms=max(ended_s) * 1000,
        others_gap_ms=other.gap_ms,
        target="0 orphans after 1 s",
    )


@pytest.mark.promise("R5")
def test_a_runner_that_hears_nothing_at_all_is_killed_with_its_family(server, count, figures):
    orphans_s, ended_s = [], []

    with bystander(server) as other:
        for turn in range(count(smoke=1, full=10)):
            with server.open("/test/deaf/busy/stream", {"pause": 300, "name": f"{turn}"}) as busy:
                pid = first_pid(busy)
                family_of(pid)
                server.release(f"{turn}")
                eventually(lambda turn=turn: noted(server, f"busy {turn}"), "it is busy")
            left_at = time.monotonic()
            killed_at = gone_at(pid)
            eventually(lambda pid=pid: not group_of(pid), "its family is gone")
            orphans_s.append(time.monotonic() - killed_at)
            ended_s.append(killed_at - left_at)

    figures(
        "R5",
        **spread_ms(orphans_s),
        from_leaving_worst_ms=max(ended_s) * 1000,
        others_gap_ms=other.gap_ms,
        target="0 orphans after 1 s; three graces of 0.3 s from the leaving",
    )


@pytest.mark.promise("R5")
def test_a_retired_runner_takes_nothing_new_and_its_successor_serves_meanwhile(server):
    with (
        bystander(server),
        server.open("/test/deaf/stuck/stream", {"pause": 300}) as stuck,
        server.open("/test/deaf/stream", {"n": 10_000, "pause": 0.02, "name": "meanwhile"}) as unharmed,
    ):
        pid = first_pid(stuck)
        assert first_pid(unharmed) == pid
        stuck.close()
        eventually(lambda: is_retired(server, pid), "it is retired")
        successors = {data_events(server.post("/test/deaf/stream", {"n": 1}).body)[0]["pid"] for _ in range(3)}
        while_leaving = metric(server, 'headrace_runners{app="test/deaf",state="leaving"}')
        server.release("meanwhile")
        unharmed.read_until(b"\r\n0\r\n\r\n")
        eventually(lambda: not group_of(pid), "it is gone")

    assert (len(successors), pid in successors, while_leaving) == (1, False, 1)
    events = data_events(unharmed.body)
    assert events == [{"i": i, "pid": pid} for i in range(len(events))]


@pytest.mark.promise("R5")
def test_a_retired_runner_is_gone_after_request_timeout_at_the_latest(server, figures):
    with (
        bystander(server),
        server.open("/test/brief/stuck/stream", {"pause": 300}) as stuck,
        server.open("/test/brief/stream", {"n": 10_000, "pause": 0.02}) as endless,
    ):
        pid = first_pid(stuck)
        assert first_pid(endless) == pid
        left_at = time.monotonic()
        stuck.close()
        endless.read_to_end()
        took_s = gone_at(pid) - left_at
        eventually(lambda: not group_of(pid), "its family is gone")

    assert b'"type":"request_timeout"' in endless.body
    figures("R5", gone_ms=took_s * 1000, target="request_timeout (5 s here) and the graces (0.9 s)")


@pytest.mark.promise("R5")
def test_a_process_with_a_session_of_its_own_is_out_of_reach_and_in_nobodys_way(server, figures):
    with bystander(server):
        escaped = server.post("/test/deaf/escape").json["pid"]
        try:
            with server.open("/test/deaf/stream", {"n": 10_000, "pause": 0.01}) as stream:
                pid = first_pid(stream)
                killed_at = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                stream.read_to_end()
            successor = data_events(server.post("/test/deaf/stream", {"n": 1}).body)[0]["pid"]
            delay_s = started_at(successor) - killed_at

            assert escaped in {one for one, _, _ in processes()}
            assert delay_s < 10
        finally:
            os.kill(escaped, signal.SIGKILL)
    figures("R5", successor_started_ms=delay_s * 1000, target="started within 1 s")


# --- without a node -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def doomed(*targets: object, env: dict[str, str] | None = None):
    """A server that will be killed; whatever it leaves behind is swept up at the end."""
    with running_server(*targets, limits=LIMITS, env=env) as server:
        try:
            yield server
        finally:
            for pid in bearers(str(server.folder)) - {server.process.pid}:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def kill_node(server: Server) -> float:
    """Kill it and wait until all that it and its runners started is gone; return the seconds that took."""
    children = set(server.children())
    assert server.process.pid in bearers(str(server.folder))
    killed_at = time.monotonic()
    server.process.kill()
    server.process.wait()
    eventually(lambda: not bearers(str(server.folder)), "all of them are gone", seconds=20)
    took_s = time.monotonic() - killed_at
    eventually(lambda: not children & {pid for pid, _, _ in processes()}, "so is the guardian")
    return took_s


@pytest.mark.promise("R8")
@pytest.mark.parametrize("how", ["idle", "streaming", "busy"])
def test_when_the_node_is_killed_its_runners_and_their_families_go(how, count, figures):
    times_s = []

    for _ in range(count(smoke=1, full=5)):
        with doomed(f"{ZOO}:Zoo", f"{MODELS}:Deaf") as server, contextlib.ExitStack() as streams:
            if how == "streaming":
                first_pid(streams.enter_context(server.open("/test/deaf/stream", {"n": 10_000, "pause": 0.01})))
            elif how == "busy":
                ask = {"pause": 300, "name": "busy"}
                first_pid(streams.enter_context(server.open("/test/deaf/busy/stream", ask)))
                server.release("busy")
                eventually(lambda: noted(server, "busy busy"), "it is busy")
            times_s.append(kill_node(server))

    figures("R8", **spread_ms(times_s))


@pytest.mark.promise("R8")
def test_when_the_node_is_killed_while_a_runner_starts_or_imports_that_one_goes_too(tmp_path, count, figures):
    (tmp_path / "slow.py").write_text(
        "import os, time, headrace\n"
        'if os.path.exists(os.environ["SLOW"]):\n'
        "    time.sleep(300)\n"
        'class Slow(headrace.App, name="test/slow"):\n'
        '    @headrace.endpoint("/")\n'
        '    def pid(self, input: dict) -> dict: return {"pid": os.getpid()}\n'
    )
    flag = tmp_path / "flag"
    times_s = []

    turns = count(smoke=3, full=10)
    for turn in range(turns):
        flag.unlink(missing_ok=True)
        with doomed(tmp_path / "slow.py", env={"SLOW": str(flag)}) as server:
            pid = server.post("/test/slow").json["pid"]
            flag.touch()
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid, server=server: set(server.runner_pids()) - {pid}, "the next one starts")
            time.sleep(turn * 0.3 / turns)  # the moment of the fault: from its first instruction to its import
            times_s.append(kill_node(server))

    figures("R8", **spread_ms(times_s))
