"""One runner's process: start it, relay what it prints, end it for good.

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
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from headrace.core.file_room import FileRoom
from headrace.core.limits import Limits
from headrace.supervisor import group
from headrace.supervisor.devices import Devices
from headrace.supervisor.guardian import Guardian
from headrace.supervisor.link import RunnerLink
from headrace.supervisor.output import Output

_log = logging.getLogger(__name__)

#: Ours, not the model's.
_WITHHELD_PREFIXES = ("HEADRACE_", "FAL_KEY")

#: What a process cannot well do without, kept by `--clean-env`.
_BASIC = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
          "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Launcher:
    """How runners are started on this machine."""

    limits: Limits
    runner_env: tuple[str, ...] = ()  # variables that a runner gets in any case
    clean_env: bool = False
    devices: Devices = field(default_factory=lambda: Devices(()))
    guardian: Guardian | None = None  # ends what the runners started, if this process is killed
    files: FileRoom | None = None  # where runners keep files, and whence they may take some

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Return what of the node's environment a runner may see: all but our settings and keys, or little."""
        if self.clean_env:
            given = {name for name in ours if name in _BASIC}
        else:
            given = {name for name in ours if not name.startswith(_WITHHELD_PREFIXES)}
        return {name: ours[name] for name in (*given, *self.runner_env) if name in ours}

    async def start(self, target: str, further: Mapping[str, str] | None = None) -> RunnerProcess:
        """Start a runner for `target` (`FILE`, `FILE:Class` or `module:Class`). Raises `OSError`.

        `further` variables are added to its environment: those that show it its devices.
        """
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
                env={**self.environment(os.environ), **(further or {})},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        link = RunnerLink(self.limits, secrets.token_hex(8), self.files)
        ours.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        if self.guardian is not None:
            self.guardian.watch(process.pid)
        return RunnerProcess(process, link, self.limits, self.guardian)


def _told(limits: Limits) -> str:
    defaults = asdict(Limits())
    return json.dumps({name: value for name, value in asdict(limits).items() if value != defaults[name]})


class RunnerProcess:
    """A child process that holds a user's app, and the link to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        link: RunnerLink,
        limits: Limits,
        guardian: Guardian | None = None,
    ) -> None:
        self.link = link
        self._guardian = guardian
        self.pid = process.pid
        self.output = Output(limits, link.output_token, link.logs)
        self._process = process
        self._limits = limits
        for stream, level in ((process.stdout, "STDOUT"), (process.stderr, "STDERR")):
            if stream is not None:
                self.output.relay(stream, f"output of runner {process.pid}", level)
        # Its end is the link's, even where a process that it forked still holds the socket open.
        self._watch = asyncio.create_task(self._hang_up_when_gone(), name=f"watch of runner {process.pid}")

    async def _hang_up_when_gone(self) -> None:
        await self._process.wait()
        # What it wrote before it died is still in the socket, and is read first.
        await asyncio.sleep(self._limits.cut_delay_s)
        self.link.abort()

    @property
    def ending(self) -> str:
        """How the process ended, in words."""
        code = self._process.returncode
        if code is None:
            return "it still runs"
        if code >= 0:
            return f"it left with status {code}"
        with contextlib.suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it was ended by signal {-code}"

    async def stop(self) -> None:
        """End the process and everything in its group: EOF, then TERM, then KILL, each with its grace."""
        self.link.close()
        grace_s = self._limits.kill_grace_s
        if not await self._is_gone_within(grace_s):
            self._signal(signal.SIGTERM)
            await self._is_gone_within(grace_s)
        await self.kill()

    async def kill(self) -> None:
        """End the process and its group at once, and wait until all of it is gone, cancelled or not."""
        try:
            await self._kill()
        except asyncio.CancelledError:  # the node leaves, but not before that
            await self._kill()
            raise

    async def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.link.abort()
        await self._process.wait()
        # The leader is gone; what it started while it was killed may not be.
        self._signal(signal.SIGKILL)
        if not await group.gone(self.pid, self._limits.kill_grace_s):
            _log.error("processes of runner %d do not end: %s", self.pid, group.members(self.pid))
        elif self._guardian is not None:
            self._guardian.forget(self.pid)
        self._watch.cancel()
        await self.output.end()

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
