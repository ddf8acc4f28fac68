"""The servers under test: how each is started, where it serves which workload, and how it is stopped.

All of a server's processes are pinned to one core, and the load generator to another, so that neither pays for
the other and every server has the same machine.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.tree import Tree, descendants
from tests.support import disk

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "bench" / "peers"
#: Peers live in an environment of their own, away from our pins.
PEER_PYTHON = ROOT / ".venv" / "bench" / "bin" / "python"

#: Seconds a server may take from its start to its first answer. LitServe imports for some of them.
START_S = 60.0
#: Seconds a server may take to leave after SIGTERM.
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """One server that can be put under test."""

    name: str  # as the tables call it
    key: str  # as the command line calls it
    command: Callable[[int, str], list[str]]  # (port, empty directory) to argv
    target: Callable[[str], str]  # a workload's path
    is_peer: bool = True  # needs the peers' environment
    skips: frozenset[str] = frozenset()  # workloads that say nothing about it
    sync_ms: float = 0.0  # what each sync of its data takes longer than this disk's; needs a C compiler

    def environment(self, directory: str) -> dict[str, str]:
        """Return what it is started with; `directory` is where it has its data."""
        slowed = disk.environment(Path(directory), sync_ms=self.sync_ms) if self.sync_ms else os.environ
        return {**slowed, "PYTHONPATH": str(ROOT)}

    def request(self, workload: str, until_ns: int) -> bytes:
        """Return the bytes of one request for a workload."""
        body = b'{"workload":"%b","until_ns":%d}' % (workload.encode(), until_ns)
        return load.post(self.target(workload), body)


def _peer(file: str, python: Path | str = PEER_PYTHON) -> Callable[[int, str], list[str]]:
    return lambda port, _: [str(python), str(PEERS / file), str(port)]


def headrace_serving(file: str) -> Callable[[int, str], list[str]]:
    """Return the command that serves one of our own files."""
    executable = Path(sys.executable).parent / "headrace"
    command = [str(executable), "serve", str(PEERS / file), "--no-auth"]
    return lambda port, directory: [*command, "--port", str(port), "--data-dir", directory]


SERVERS = (
    Server(
        "Headrace",
        "headrace",
        headrace_serving("headrace_app.py"),
        "/bench/events/{}/stream".format,
        is_peer=False,
    ),
    Server(
        "LitServe 0.2.19",
        "litserve",
        _peer("litserve_app.py"),
        lambda workload: "/sync" if workload == "sync" else "/async",
    ),
    Server("FastAPI + StreamingResponse", "fastapi", _peer("fastapi_app.py"), "/{}".format),
    Server(
        "raw uvloop (bound)",
        "raw",
        _peer("raw_app.py", sys.executable),
        "/{}".format,
        is_peer=False,
        skips=frozenset({"sync"}),  # it has no thread to run a plain generator on
    ),
)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    server: Server
    port: int
    tree: Tree
    directory: Path  # where it has its data

    def request(self, workload: str, until_ns: int) -> bytes:
        """Return the bytes of one request for a workload."""
        return self.server.request(workload, until_ns)


@contextlib.contextmanager
def apart(servers: Iterable[Server]) -> Iterator[list[Running]]:
    """Start servers, all on one core, and keep this process to another while they run."""
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(running(server, cores[0])) for server in servers]
        os.sched_setaffinity(0, {cores[-1]})
        stack.callback(os.sched_setaffinity, 0, cores)
        yield started


@contextlib.contextmanager
def running(server: Server, core: int) -> Iterator[Running]:
    """Start a server on `core`, wait until it streams, and stop it with all its processes at the end."""
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "output").open("w+b") as output:
        port = free_port()
        process = _started(server.command(port, directory), core, server.environment(directory), output)
        try:
            _wait_until_it_streams(server, process, port)
            yield Running(server, port, Tree(process.pid), Path(directory))
        except Exception as error:
            output.seek(0)
            error.add_note(f"{server.name} printed:\n{output.read().decode(errors='replace')[-4000:]}")
            raise
        finally:
            stop(process)


def _started(
    command: list[str], core: int, environment: Mapping[str, str], output: object
) -> subprocess.Popen[bytes]:
    """Start `command` pinned to `core`: a child inherits the affinity its parent has when it is born."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    finally:
        os.sched_setaffinity(0, before)


def _wait_until_it_streams(server: Server, process: subprocess.Popen[bytes], port: int) -> None:
    """Return once a short request got its three events; raise TimeoutError when it never does."""
    deadline = time.monotonic() + START_S
    probe = server.request("short", 0)
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, load.BadAnswer):
            if load.answer_of(port, probe).count(b"\n\n") == 3:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{server.name} did not stream within {START_S:.0f} s (exit status {process.poll()})")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server's whole tree: politely first, then surely."""
    tree = descendants(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for pid in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(STOP_S)


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
