"""What a server holds, from outside: resident memory as the kernel counts it, and the server's own metrics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import Server, eventually

MIB = 1024 * 1024


def metric(server: Server, name: str, **labels: str) -> float:
    """The sum of all series of a metric that have these labels."""
    found = [
        sample.value
        for family in text_string_to_metric_families(server.request("GET", "/metrics").body.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, f"no series of {name} has {labels}"
    return sum(found)


def resident_bytes(pid: int, field_name: str = "VmRSS") -> int:
    """What the kernel says in /proc/PID/status: VmRSS is now, VmHWM the most there was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field_name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the kernel gives no {field_name} for process {pid}")


def settled(value: Callable[[], object], *, seconds: float = 0.5, looks: int = 10) -> object:
    """Wait until a value has not changed for a while, and for some looks at it: one alone may be what is held up."""
    seen, since, same = value(), time.monotonic(), 0

    def is_settled() -> bool:
        nonlocal seen, since, same
        if (now := value()) == seen:
            same += 1
        else:
            seen, since, same = now, time.monotonic(), 0
        return same >= looks and time.monotonic() - since > seconds

    eventually(is_settled, "it settles")
    return seen


@dataclass
class Growth:
    """By how much each process of a server grew at most, while it was watched."""

    node: int = 0
    runners: dict[int, int] = field(default_factory=dict)  # by pid

    @property
    def node_mib(self) -> float:
        return self.node / MIB

    @property
    def runner_mib(self) -> float:
        """Of the runner that grew most."""
        return max(self.runners.values(), default=0) / MIB


@contextlib.contextmanager
def watched_memory(server: Server) -> Iterator[Growth]:
    """Watch the resident memory of a server's processes, peaks between two looks included. Linux only.

    The growth is filled in when the block is left, for processes that lived all the while.
    """
    growth = Growth()
    before: dict[int, int] = {}
    for pid in (server.process.pid, *server.runner_pids()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):  # a runner that just leaves
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak begins anew
            before[pid] = resident_bytes(pid)
    yield growth
    after: dict[int, int] = {}
    for pid in before:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            after[pid] = resident_bytes(pid, "VmHWM") - before[pid]
    growth.node = after.pop(server.process.pid)
    growth.runners = after
