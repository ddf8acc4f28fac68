"""What the kernel says of a process group: who is left in it, what it holds, and when it is gone.

A runner leads a session of its own, so its pid is its group's number, and the group outlives it. A process that
made a session for itself has left the group and is not seen here. This file does not know what a runner is.

The answers come from Linux's /proc (proc(5)). Where there is none, as on macOS, `members`, `state_of`,
`memory_of` and `exact_memory_of` answer None, "unknown"; `is_gone` asks by signal 0, which counts a dead process
until its parent has waited for it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC = Path("/proc")

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

#: States of a process that has ended: a zombie, and one that is about to be forgotten.
_ENDED: Final = frozenset({"Z", "X"})

#: Private pages in memory, and in swap, as /proc/PID/status has them.
_PRIVATE: Final = re.compile(rb"^(?:RssAnon|VmSwap):\s+(\d+) kB$", re.MULTILINE)

#: The same in /proc/PID/smaps_rollup, where a page that n processes share counts 1/n in each.
_PROPORTIONAL: Final = re.compile(rb"^(?:Pss_Anon|SwapPss):\s+(\d+) kB$", re.MULTILINE)

#: Bytes that hold the whole of any of these files, which the kernel then gives in one piece.
_READ_BYTES: Final = 64 * 1024

#: Seconds between two looks at a group that should go: first, and at most (growing by half).
_LOOK_S: Final = 0.02
_LOOK_MAX_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Member:
    """A live process of a group."""

    pid: int
    state: str  # a letter of proc(5): R runs, S sleeps, D waits for a device, T is stopped, …
    resident_bytes: int  # all its pages in memory, those that it shares included


@dataclass(frozen=True, slots=True)
class _Stat:
    """What /proc/PID/stat says."""

    state: str
    group: int
    threads: int

    @property
    def is_alive(self) -> bool:
        """Whether anything of it runs. A main thread that left its process is a zombie among living threads."""
        return self.state not in _ENDED or self.threads > 1


def members(group: int) -> list[Member] | None:
    """Return the live processes of a group, or None where the system does not tell. Zombies are not alive.

    One look at every process; those that come or go meanwhile may be in it or not.
    """
    if not _has_proc():
        return None
    return [
        Member(pid, stat.state, _resident_bytes(pid)) for pid in _pids_of(group) if (stat := _live(pid, group))
    ]


def state_of(pid: int) -> str | None:
    """Return the letter of a process's state (T: stopped by a signal), or None when it is gone or unknown."""
    stat = _stat(pid)
    return None if stat is None else stat.state


def memory_of(group: int) -> int | None:
    """Return the bytes that a group holds for itself, or None where the system does not tell.

    That is the anonymous memory of its members, in RAM and in swap: what they allocated, and what would be free
    again if they ended. Pages of files (libraries, weights read by mmap) do not count: the kernel drops them when
    memory is short, and many processes share one copy. Neither does shared memory, which each would count.

    Some 20 µs a member. It can say too much: what a fork still shares with its parent counts in both
    (`exact_memory_of` divides it), and so does everything in the instant between a vfork and its exec. So look
    again before anybody is ended for it.
    """
    if not _has_proc():
        return None
    return sum(_private_bytes(pid) for pid in _pids_of(group) if _live(pid, group))


def exact_memory_of(group: int) -> int | None:
    """Return what `memory_of` does, with the pages that processes share divided among them.

    The kernel walks every page: about 10 ms for each GiB, so not on the event loop. A process that forbids the
    look (prctl PR_SET_DUMPABLE) counts as in `memory_of`.
    """
    if not _has_proc():
        return None
    return sum(_proportional_bytes(pid) for pid in _pids_of(group) if _live(pid, group))


def is_gone(group: int) -> bool:
    """Whether no live process is left in a group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # there is one, of another user
    # Somebody is there, if only a zombie: in a container without an init, orphans stay zombies for good. The
    # second look sees a child whose parent left it behind during the first.
    return members(group) == [] == members(group)


async def gone(group: int, timeout_s: float) -> bool:
    """Wait until no live process is left in a group; False if one is after `timeout_s` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    pause_s = _LOOK_S
    while not is_gone(group):
        left_s = deadline - loop.time()
        if left_s <= 0:
            return False
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, _LOOK_MAX_S)
    return True


# --- /proc --------------------------------------------------------------------------------------------------


def _has_proc() -> bool:
    return (_PROC / "self" / "stat").exists()


def _pids_of(group: int) -> Iterator[int]:
    for name in os.listdir(_PROC):  # noqa: PTH208 - names alone, for speed
        if name.isdigit():
            try:
                if os.getpgid(int(name)) == group:  # a tenth of the time that reading its stat takes
                    yield int(name)
            except OSError:
                continue  # it left, or we may not ask: none of ours


def _live(pid: int, group: int) -> _Stat | None:
    """Return a process's stat if it is alive, and still of the group: its number may be another's by now."""
    stat = _stat(pid)
    return stat if stat is not None and stat.group == group and stat.is_alive else None


def _stat(pid: int) -> _Stat | None:
    text = _read(pid, "stat")
    if not text:
        return None
    # The name stands second, in parentheses, and may hold spaces and parentheses itself.
    fields = text[text.rindex(b")") + 2 :].split()
    return _Stat(state=fields[0].decode("ascii"), group=int(fields[2]), threads=int(fields[17]))


def _resident_bytes(pid: int) -> int:
    fields = _read(pid, "statm").split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _private_bytes(pid: int) -> int:
    return _sum_of(_PRIVATE, _read(pid, "status"))


def _proportional_bytes(pid: int) -> int:
    rollup = _read(pid, "smaps_rollup")
    return _sum_of(_PROPORTIONAL, rollup) if rollup else _private_bytes(pid)


def _sum_of(amounts: re.Pattern[bytes], text: bytes) -> int:
    return 1024 * sum(map(int, amounts.findall(text)))


def _read(pid: int, name: str) -> bytes:
    # By the system's own calls: this is asked every second, and a file object takes three times as many of them.
    try:
        fd = os.open(_PROC / str(pid) / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _READ_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return b""  # it left (ENOENT, or ESRCH while we read), or we may not look
