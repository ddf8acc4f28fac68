"""A small process that outlives the node by a moment, to end what its runners had started.

A node that is killed takes its runners along (see `headrace.runner.__main__`), but nobody is left to end their
process groups: workers that hold a GPU would go on for ever. So the node tells this process of each group. When
its standard input ends, and that is the node's end however it came, it kills the groups that are left.

It has a session of its own, so that a signal to the node's group spares it, and needs the standard library alone.
What it is told: `+GROUP` for one that is there, `-GROUP` for one that is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Final, Self

#: Seconds that the node waits for it to end, which it does at once unless somebody stopped it.
END_S: Final = 5.0


class Guardian:
    """The node's end: `with Guardian() as guardian:` for as long as there may be runners."""

    def __init__(self) -> None:
        """Start the process. Raises `OSError`."""
        # It inherits the mask, and so is deaf to them from its first instruction: its end is the node's.
        ours = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            self._process = self._start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ours)
        assert self._process.stdin is not None
        self._pipe = self._process.stdin
        os.set_blocking(self._pipe.fileno(), False)

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        )

    def watch(self, group: int) -> None:
        """Have a process group killed if this process ends."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Leave a group alone, because it is gone: its number may be another's soon."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        # Somebody killed it, or stopped it: no reason to serve worse, or to wait.
        with contextlib.suppress(OSError):
            os.write(self._pipe.fileno(), line.encode("ascii"))

    def __enter__(self) -> Self:
        """Return itself; it runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it do its work, if any is left, and end. One that is held up does it without the node."""
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)


def main() -> None:
    """Keep the list of groups, and kill what is on it at the end."""
    groups: set[int] = set()
    for line in sys.stdin:
        if line.startswith("+"):
            groups.add(int(line[1:]))
        else:
            groups.discard(int(line[1:]))
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
