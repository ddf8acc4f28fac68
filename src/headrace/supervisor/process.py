"""One runner's process: start it, relay what it prints, watch it, end it for good.

A runner gets a session (and so a process group) of its own, so that whatever its model starts ends with it, and
the parent's environment less what is ours: `HEADRACE_*` and `FAL_KEY*`. It does not know what the runner says
on its link.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from headrace.core.limits import Limits
from headrace.supervisor.link import RunnerLink

_log = logging.getLogger(__name__)
_output = logging.getLogger("headrace.output")

#: Ours, not the model's.
_WITHHELD_PREFIXES = ("HEADRACE_", "FAL_KEY")

#: What a process cannot well do without, kept by `--clean-env`.
_BASIC = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Launcher:
    """How runners are started on this machine."""

    limits: Limits
    runner_env: tuple[str, ...] = ()  # variables that a runner gets in any case
    clean_env: bool = False

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Return what of the node's environment a runner may see: all but our settings and keys, or little."""
        if self.clean_env:
            given = {name for name in ours if name in _BASIC}
        else:
            given = {name for name in ours if not name.startswith(_WITHHELD_PREFIXES)}
        return {name: ours[name] for name in (*given, *self.runner_env) if name in ours}

    async def start(self, target: str) -> RunnerProcess:
        """Start a runner for `target` (`FILE`, `FILE:Class` or `module:Class`). Raises `OSError`."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: a file in the current folder must not shadow a library of the runner's.
                *(sys.executable, "-P", "-m", "headrace.runner"),
                *("--fd", str(theirs.fileno()), "--target", target, "--limits", _told(self.limits)),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=self.limits.output_line_bytes_max,
                start_new_session=True,
                env=self.environment(os.environ),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        link = RunnerLink(self.limits)
        ours.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        return RunnerProcess(process, link, target, self.limits)


def _told(limits: Limits) -> str:
    defaults = asdict(Limits())
    return json.dumps({name: value for name, value in asdict(limits).items() if value != defaults[name]})


class RunnerProcess:
    """A child process that holds a user's app, and the link to it."""

    def __init__(self, process: asyncio.subprocess.Process, link: RunnerLink, label: str, limits: Limits) -> None:
        self.link = link
        self.pid = process.pid
        self.label = label
        self._process = process
        self._limits = limits
        self._relays = [
            asyncio.create_task(self._relay(stream), name=f"output of runner {process.pid}")
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]

    async def stop(self) -> None:
        """End the process and everything in its group: EOF, then TERM, then KILL, each with its grace."""
        self.link.close()
        grace_s = self._limits.kill_grace_s
        if not await self._is_gone_within(grace_s):
            self._signal(signal.SIGTERM)
            if not await self._is_gone_within(grace_s):
                self._signal(signal.SIGKILL)
                await self._process.wait()
        # The leader is gone; what it started may not be.
        self._signal(signal.SIGKILL)
        await self._end_relays()

    async def kill(self) -> None:
        """End the process and its group at once."""
        self._signal(signal.SIGKILL)
        self.link.close()
        await self._process.wait()
        self._signal(signal.SIGKILL)
        await self._end_relays()

    async def _is_gone_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        # start_new_session made the child's pid its group's id. A group outlives its leader.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def _end_relays(self) -> None:
        _, late = await asyncio.wait(self._relays, timeout=1.0)
        for relay in late:  # a grandchild that left the group still holds the pipe
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _relay(self, stream: asyncio.StreamReader) -> None:
        """Log each line the runner prints. A line over the limit is cut there, and the rest dropped."""
        while True:
            try:
                line = await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    self._log_line(end.partial)
                return
            except asyncio.LimitOverrunError:
                line = await stream.readexactly(self._limits.output_line_bytes_max)
                dropped = await self._skip_line(stream)
                line += b" ... (%d bytes more)" % dropped
            self._log_line(line)

    async def _skip_line(self, stream: asyncio.StreamReader) -> int:
        dropped = 0
        while True:
            try:
                return dropped + len(await stream.readuntil(b"\n"))
            except asyncio.IncompleteReadError as end:
                return dropped + len(end.partial)
            except asyncio.LimitOverrunError as overrun:
                dropped += len(await stream.readexactly(overrun.consumed))

    def _log_line(self, line: bytes) -> None:
        _output.info("[%s] %s", self.label, line.decode("utf-8", "replace").rstrip())
