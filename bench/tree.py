"""What a process tree has used: CPU to the nanosecond, memory as the kernel shares it out. Linux only.

A server is charged for all of its processes, so that isolation, brokers and managers are not free for anybody.
"""

import time
from pathlib import Path


class Tree:
    """A process and all its descendants, as they stand when the object is made."""

    def __init__(self, root: int) -> None:
        self.pids = descendants(root)
        self._clocks = [cpu_clock(pid) for pid in self.pids]

    def cpu_ns(self) -> int:
        """Return user and system time of all threads of the tree, living and dead, in nanoseconds."""
        return sum(time.clock_gettime_ns(clock) for clock in self._clocks)

    def memory_bytes(self) -> int:
        """Return the proportional set size of the tree: a shared page counts once, split between its users."""
        return sum(proportional_bytes(pid) for pid in self.pids)


def cpu_clock(pid: int) -> int:
    """Return the CPU clock of a process: clock_getcpuclockid(3), whose encoding is the kernel's own.

    /proc/PID/stat counts the same time in ticks of 10 ms, a per cent of a window.
    """
    return ~pid << 3 | 2


def descendants(root: int) -> list[int]:
    """Return `root` and every process below it, whatever process group or session it made for itself."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    tree = [root]
    for pid in tree:  # grows while we walk it
        tree += children.get(pid, [])
    return tree


def proportional_bytes(pid: int) -> int:
    """Return the PSS of one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the kernel gives no Pss for process {pid}")
