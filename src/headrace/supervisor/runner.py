"""One member of a fleet: a process whose app is set up, why it is to leave, and the watch over its health.

A crash needs no watch: EOF on the link is its notice. What is watched for is the rest: a process that is stopped,
one that answers nothing, one that has eaten its memory.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Final

from headrace.core.limits import Limits
from headrace.core.spec import AppSpec
from headrace.supervisor import group
from headrace.supervisor.process import RunnerProcess

#: Seconds of silence after which a PING asks whether a runner still answers; half of `runner_silence_s` if that is
#: less.
PING_AFTER_S: Final = 10.0

#: Seconds until a second look at a memory that seems too large.
_LOOK_AGAIN_S: Final = 0.1


class Leaving(enum.Enum):
    """Why a runner is to leave, or left; the label of the metric."""

    DIED = "died"  # by itself
    RETIRED = "retired"  # it holds a request that does not stop
    IDLE = "idle"  # one too many, for `keep_alive` seconds
    REPLACED = "replaced"  # its app was reloaded
    STOPPED = "stopped"  # SIGSTOP
    SILENT = "silent"  # no answer to a PING for `runner_silence_s`
    MEMORY = "memory"  # over `memory_limit`
    NODE = "node"  # the node is leaving

    @property
    def is_hopeless(self) -> bool:
        """Whether waiting for its requests to end is in vain."""
        return self in {Leaving.STOPPED, Leaving.SILENT, Leaving.MEMORY}


class Runner:
    """A process whose app is set up."""

    def __init__(self, process: RunnerProcess, app: AppSpec, limits: Limits) -> None:
        self.process = process
        self.link = process.link
        self.leaving: Leaving | None = None
        self.is_leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.idle_s = 0.0
        self._app = app
        self._limits = limits
        self._silent_s = 0.0
        self._stopped_s: float | None = None  # None: it is not

    @property
    def takes_work(self) -> bool:
        """Whether it may be given a request: a dead one would never answer, one that leaves should not."""
        return self.leaving is None and not self.link.closed.done()

    @property
    def is_lost(self) -> bool:
        """Whether nothing that it holds can still end well."""
        return self.link.closed.done() or (self.leaving is not None and self.leaving.is_hopeless)

    def leave(self, why: Leaving) -> None:
        """Take no new work from now on; the fleet sees it off, and starts another if one is wanted."""
        if self.leaving is None or why.is_hopeless:
            self.leaving = why
        if not self.is_leaving.done():
            self.is_leaving.set_result(None)

    async def look(self, passed_s: float) -> tuple[Leaving, str] | None:
        """Look at the process's health, `passed_s` seconds after the last time; return what is wrong, if any."""
        was_used = self.link.was_used()
        self.idle_s = 0.0 if was_used or self.link.busy else self.idle_s + passed_s
        return self._is_stopped(passed_s) or self._is_silent(passed_s) or await self._is_too_large()

    def _is_stopped(self, passed_s: float) -> tuple[Leaving, str] | None:
        if group.state_of(self.process.pid) != "T":
            self._stopped_s = None
            return None
        # Counted from the look that finds it so: it may have been stopped a moment ago.
        self._stopped_s = 0.0 if self._stopped_s is None else self._stopped_s + passed_s
        if self._stopped_s < self._limits.runner_stopped_s:
            return None
        return Leaving.STOPPED, "The runner's process was stopped by a signal while it held the request."

    def _is_silent(self, passed_s: float) -> tuple[Leaving, str] | None:
        limit_s = self._limits.runner_silence_s
        ask_after_s = min(PING_AFTER_S, limit_s / 2)
        before = self._silent_s
        self._silent_s = 0.0 if self.link.was_heard() else before + passed_s
        if before < ask_after_s:  # nobody has asked it yet
            if self._silent_s >= ask_after_s:
                self.link.ping()
            return None
        if self._silent_s < limit_s:
            return None
        return Leaving.SILENT, f"The runner gave no sign of life for {limit_s:g} s."

    async def _is_too_large(self) -> tuple[Leaving, str] | None:
        limit = self._app.memory_limit
        if not limit or (group.memory_of(self.process.pid) or 0) <= limit:
            return None
        # The quick look counts twice what forks share, and everything in the instant between a vfork and its exec.
        # The exact one takes 10 ms for each GiB: never on the loop.
        await asyncio.sleep(_LOOK_AGAIN_S)
        held = await asyncio.to_thread(group.exact_memory_of, self.process.pid)
        if held is None or held <= limit:
            return None
        return Leaving.MEMORY, f"The runner held {held} bytes of memory; the app's limit is {limit}."
