"""Streams that come and go, in every way there is, leave nothing behind: neither in the node nor in a runner."""

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bystander import bystander
from tests.support.leaving import MODELS, is_idle, metric
from tests.support.server import PATIENCE_S, ROOT, RawStream, Server, eventually, running_server

WITNESS = ROOT / "tests" / "support" / "witness"

#: MiB that a process may grow in all the cycles: what a garbage collector and an allocator keep for later.
GROWTH_MIB_MAX = 16

#: Readers at once, and slots in the one runner.
READERS, SLOTS = 4, 16

#: Requests that are kept for late readers when they are over.
KEPT = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("witness")
    (folder / "tmp").mkdir()
    env = {"PYTHONPATH": str(WITNESS), "WITNESS": str(folder), "TMPDIR": str(folder / "tmp")}
    # No runner is to be given up: a busy machine may hold one up for seconds.
    limits = {"replay_s": 600, "replays_max": KEPT, "cancel_grace_s": 60}
    with running_server(f"{MODELS}:Leaving", env=env, limits=limits) as server:
        server.witness = folder
        yield server


# --- the ways to come and go --------------------------------------------------------------------------------------


def opened(server: Server, path: str, **ask: object) -> contextlib.closing[RawStream]:
    return contextlib.closing(server.open(path, ask))


def to_the_end(server: Server) -> None:
    with opened(server, "/test/leaving/stream") as stream:
        stream.read_until(b"\r\n0\r\n\r\n")


def to_the_end_of_a_sync_one(server: Server) -> None:
    with opened(server, "/test/leaving/sync/stream") as stream:
        stream.read_until(b"\r\n0\r\n\r\n")


def a_run(server: Server) -> None:
    assert server.post("/test/leaving", {"n": 1}).json == {"total": 1}


def leaves_in_mid_stream(server: Server) -> None:
    with opened(server, "/test/leaving/stream", n=1_000_000, pause=0.01) as stream:
        stream.read_until(b"data: ")


def leaves_a_sync_one(server: Server) -> None:
    with opened(server, "/test/leaving/sync/stream", n=1_000_000, pause=0.01) as stream:
        stream.read_until(b"data: ")


def resets(server: Server) -> None:
    stream = server.open("/test/leaving/stream", {"n": 1_000_000, "pause": 0.01})
    stream.read_until(b"data: ")
    stream.reset()


def leaves_without_reading(server: Server) -> None:
    with opened(server, "/test/leaving/stream", n=1_000_000, pad=10_000):
        pass


def leaves_a_run(server: Server) -> None:
    with opened(server, "/test/leaving/thinks"):
        pass


def is_told_of_a_failure(server: Server) -> None:
    with opened(server, "/test/leaving/fails/stream") as stream:
        stream.read_to_end()


def is_refused(server: Server) -> None:
    assert server.post("/test/leaving/stream", {"n": "many"}).status == 422


def says_half_a_head(server: Server) -> None:
    with contextlib.closing(RawStream(server.port)) as stream:
        stream.socket.sendall(b"POST /test/leaving/stream HTTP/1.1\r\nHost: local")


def cancels(server: Server) -> None:
    with opened(server, "/test/leaving/stream", n=1_000_000, pause=0.01) as stream:
        stream.read_until(b"data: ")
        request_id = re.search(rb"x-fal-request-id: (\S+)", stream.head)[1].decode()
        assert server.request("PUT", f"/test/leaving/requests/{request_id}/cancel").status == 202
        stream.read_to_end()


CYCLES: list[Callable[[Server], None]] = [
    to_the_end, to_the_end_of_a_sync_one, a_run, leaves_in_mid_stream, leaves_a_sync_one, resets, leaves_without_reading,
    leaves_a_run, is_told_of_a_failure, is_refused, says_half_a_head, cancels,
]  # fmt: skip


def come_and_go(server: Server, turns: int) -> None:
    """Do each of them in turn, `turns` in all, by several readers at once."""
    faults = []

    def read(first: int) -> None:
        try:
            for turn in range(first, turns, READERS):
                CYCLES[turn % len(CYCLES)](server)
        except Exception as fault:  # told by the test, not by a thread
            faults.append(fault)

    readers = [threading.Thread(target=read, args=(first,)) for first in range(READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert faults == []


def fill_the_crew(server: Server) -> None:
    """Have a runner make the threads that it keeps, whoever comes: a sync stream in every slot."""
    with contextlib.ExitStack() as streams:
        for _ in range(SLOTS):
            stream = streams.enter_context(opened(server, "/test/leaving/sync/stream", n=1_000_000, pause=0.01))
            stream.read_until(b"data: ")


# --- what is counted ----------------------------------------------------------------------------------------------


def held_by(pid: int, witness: Path) -> dict[str, object]:
    """What a process holds: descriptors, threads, tasks, and objects of ours."""
    told = witness / str(pid)
    told.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    eventually(told.exists, "the witness answers")
    seen = json.loads(told.read_text())
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "tasks": seen["tasks"],
        # Not the store's: it sweeps at its own times, and no direct call comes to it.
        "objects": {name: n for name, n in seen["objects"].items() if not name.startswith("headrace.store.")},
    }


def held(server: Server) -> dict[str, object]:
    """What all of it holds, once nobody is connected."""
    said = {kind: metric(server, "headrace_held_bytes", kind=kind) for kind in ("events", "bodies")}
    [runner] = server.runner_pids()
    node: dict[str, object] = {}

    def nobody_is_connected() -> bool:
        node.update(held_by(server.process.pid, server.witness))
        return "headrace.gateway.protocol.GuardedProtocol" not in node["objects"]

    eventually(nobody_is_connected, "every connection is forgotten")
    files = sorted(str(path) for path in (server.witness / "tmp").rglob("*"))
    return {"node": node, "runner": held_by(runner, server.witness), "files": files, "bytes": said}


def resting(server: Server) -> dict[str, object]:
    """What is held once nothing changes any more: the last timers of what has ended take a second.

    The requests that are kept are the same each time: refused ones, whose errors must keep nothing else.
    """
    eventually(lambda: is_idle(server, "test/leaving"), "no slot is held")
    for _ in range(3 * KEPT):  # one that is still being read is kept beyond its turn, and then goes first
        is_refused(server)
    seen = [held(server)]

    def rests() -> bool:
        time.sleep(0.4)
        seen.append(held(server))
        return len(seen) > 4 and seen[-4:] == [seen[-1]] * 4

    eventually(rests, "nothing changes any more", seconds=2 * PATIENCE_S)
    return seen[-1]


def resident_mib(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


@pytest.mark.promise("S13")
def test_streams_that_come_and_go_leave_no_task_descriptor_thread_or_file(server, count, figures):
    pids = {"node": server.process.pid, "runner": server.runner_pids()[0]}
    fill_the_crew(server)
    come_and_go(server, 8 * len(CYCLES))
    before = resting(server)
    before_mib = {who: resident_mib(pid) for who, pid in pids.items()}

    with bystander(server, path="/test/leaving/stream", ticks=20) as other:
        come_and_go(server, count(smoke=240, full=2_000))
    after = resting(server)

    grown = {f"{who}_grew_mib": resident_mib(pid) - before_mib[who] for who, pid in pids.items()}
    figures("S13", descriptors=before["node"]["descriptors"], tasks=before["node"]["tasks"],
            runner_threads=before["runner"]["threads"], **grown, others_gap_ms=other.gap_ms)  # fmt: skip
    assert after == before
    assert after["node"]["objects"]["headrace.supervisor.streams.LiveRequest"] == KEPT
    assert "headrace.runner.call.RunningCall" not in after["runner"]["objects"]
    assert "Headrace's own" not in server.log
    assert max(grown.values()) < GROWTH_MIB_MAX
