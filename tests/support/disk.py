"""A disk that is slow, fails, or remembers: `disk.c`, compiled once and put before the C library of a child process.

environment(folder, sync_ms=4)         every sync of a file in `folder` takes 4 ms longer
environment(folder, fail_at=7)         the 7th change of a file in `folder` fails with EIO
environment(folder, journal=path)      every change is written there; `read_journal` takes it apart
power_cut(journal, at, random)         what a disk may hold when the power goes after so many of them
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

SOURCE = Path(__file__).with_name("disk.c")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

#: Bytes that a disk writes whole or not at all.
SECTOR = 512


@cache
def library() -> Path:
    """The compiled library; it is made once a run."""
    assert COMPILER is not None, "a C compiler is needed (cc, gcc or clang)"
    path = Path(tempfile.mkdtemp(prefix="headrace-disk-")) / f"disk{sysconfig.get_config_var('SHLIB_SUFFIX')}"
    command = [COMPILER, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", path, SOURCE, "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return path


def environment(folder: Path, *, sync_ms: float = 0, journal: Path | None = None) -> dict[str, str]:
    """The environment of a process whose files in `folder` lie on such a disk."""
    chosen = {
        "LD_PRELOAD": str(library()),
        "DISK_FOLDER": str(folder.resolve()),
        "DISK_SYNC_US": str(int(sync_ms * 1000)),
    }
    return os.environ | chosen | ({"DISK_JOURNAL": str(journal)} if journal else {})


def fails(at: int, *, many: int = 1, error: int = errno.EIO) -> None:
    """Let the `at`-th change of this process's files fail, and the next ones until there were `many`; 0: none."""
    ctypes.CDLL(None).disk_fails(ctypes.c_long(at), ctypes.c_long(many), error)


def changes_made() -> int:
    """How many changes there were since `fails` was called."""
    return int(ctypes.CDLL(None).disk_calls())


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was done to a file."""

    kind: str  # W write, T truncate, S sync, U unlink
    path: str
    where: int
    content: bytes


def read_journal(path: Path) -> list[Change]:
    """Everything that was done, in order."""
    content = path.read_bytes()
    changes = []
    at = 0
    while at < len(content):
        kind, name, where, size = struct.unpack_from("<cHQI", content, at)
        at += 15
        changes.append(
            Change(kind.decode(), content[at : at + name].decode(), where, content[at + name : at + name + size])
        )
        at += name + size
    return changes


def power_cut(changes: Sequence[Change], random: Random) -> dict[str, bytes]:
    """What the files may hold when the power goes after these changes.

    What was synced is there. Of the rest each change is there or not, whatever the order, and a write may be there in
    part, a sector at a time.
    """
    synced = {change.path: number for number, change in enumerate(changes) if change.kind == "S"}
    files: dict[str, bytearray] = {}
    for number, change in enumerate(changes):
        # A name is taken out of its folder for good when the folder is synced.
        holder = change.path if change.kind != "U" else change.path.rpartition("/")[0]
        is_safe = number < synced.get(holder, -1)
        if is_safe or random.random() < 0.5:
            _apply(files, change, None if is_safe or random.random() < 0.5 else random)
    return {path: bytes(content) for path, content in files.items()}


def _apply(files: dict[str, bytearray], change: Change, torn: Random | None) -> None:
    if change.kind == "U":
        files.pop(change.path, None)
        return
    file = files.setdefault(change.path, bytearray())
    if change.kind == "T":
        del file[change.where :]
        file.extend(bytes(change.where - len(file)))
    elif change.kind == "W":
        for start in range(0, len(change.content), SECTOR):
            if torn is None or torn.random() < 0.5:
                sector = change.content[start : start + SECTOR]
                end = change.where + start + len(sector)
                file.extend(bytes(max(0, end - len(file))))
                file[change.where + start : end] = sector
