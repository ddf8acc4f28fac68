"""The machine's side of simulated runners: processes, their groups, signals and memory, without any of them.

The real `RunnerProcess` gets a `Child` where it expects a child process, and `Kernel` answers for the modules `os` and
`headrace.supervisor.group`.
"""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.supervisor.devices import Devices
from headrace.supervisor.link import RunnerLink
from headrace.supervisor.process import Launcher, RunnerProcess
from tests.sim.clock import LIFE
from tests.sim.runners import Runner
from tests.sim.wire import End, wire

if TYPE_CHECKING:
    from tests.sim.world import World

_CALM_BYTES, _SWOLLEN_BYTES = 1_000, 1_000_000_000


class Child:
    """A child process, as `asyncio.subprocess.Process` shows one."""

    def __init__(self, world: World, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self.memory_bytes = _CALM_BYTES
        self.strays_until = 0.0  # for so long its group has a member after it
        self.is_dead = False
        self.life = LIFE.get()  # of the node that started it
        self.inside: Runner
        self.link: RunnerLink
        self.ours: End  # of its wire
        self.world = world
        self._loop = asyncio.get_running_loop()
        self._reaped: asyncio.Future[None] = self._loop.create_future()

    async def wait(self) -> int:
        """Wait for its end."""
        await asyncio.shield(self._reaped)
        assert self.returncode is not None
        return self.returncode

    def swell(self) -> None:
        """Take more memory than it may."""
        self.memory_bytes = _SWOLLEN_BYTES

    def end(self, code: int) -> None:
        """Die. The node hears of it by its link, and a little later from the kernel."""
        if self.is_dead:
            return
        self.world.note(f"runner {self.pid} ends with {code}")
        self.is_dead = True
        nature = self.inside.nature
        self.strays_until = self._loop.time() + nature.stray_s
        self.stdout.feed_data(b"the last words\n")
        self.inside.die()
        if not nature.orphan_keeps_pipes:
            self.stdout.feed_eof()
            self.stderr.feed_eof()
        reaped_s = self.world.dice.choice((0.0, 0.001, 0.01))
        self._loop.call_later(reaped_s, self._reap, code, context=self.world.loop.outside)

    def _reap(self, code: int) -> None:
        self.returncode = code
        self._reaped.set_result(None)

    def is_group_gone(self) -> bool:
        """Whether nothing of it is left."""
        return self.is_dead and self._loop.time() >= self.strays_until


@dataclass(frozen=True, slots=True)
class _Member:
    pid: int
    state: str
    resident_bytes: int


class Kernel:
    """Every process there ever was."""

    def __init__(self) -> None:
        self.children: dict[int, Child] = {}
        self.environ: dict[str, str] = {}

    @property
    def alive(self) -> list[Child]:
        """The children of whom something is left."""
        return [child for child in self.children.values() if not child.is_group_gone()]

    def killpg(self, pid: int, number: int) -> None:
        """As `os.killpg`."""
        child = self.children[pid]
        if child.is_group_gone():
            raise ProcessLookupError
        if number == signal.SIGKILL:
            child.end(-signal.SIGKILL)
            child.strays_until = min(child.strays_until, child._loop.time() + 0.05)
        elif number == signal.SIGTERM and not child.is_dead and not child.inside.is_frozen:
            child.inside.terminate()

    def node_died(self, life: int) -> None:
        """Hang up for a node that was killed. Its guardian ends, a little later, what does not leave of itself."""
        for child in self.alive:
            if child.life == life:
                child.ours.die()
                child.world.later(1.0, functools.partial(self._end_orphan, child))

    def _end_orphan(self, child: Child) -> None:
        if not child.is_group_gone():
            self.killpg(child.pid, signal.SIGKILL)

    def bury_orphans(self) -> None:
        """End what still holds the link of a process that is gone."""
        for child in self.children.values():
            child.inside.end.die()

    # --- as headrace.supervisor.group -------------------------------------------------------------------

    def is_gone(self, group: int) -> bool:
        return self.children[group].is_group_gone()

    def members(self, group: int) -> list[_Member]:
        return [] if self.is_gone(group) else [_Member(group, "S", _CALM_BYTES)]

    def state_of(self, pid: int) -> str | None:
        child = self.children[pid]
        if child.is_dead:
            return None
        return "T" if child.inside.is_stopped else "S"

    def memory_of(self, group: int) -> int | None:
        return self.children[group].memory_bytes

    exact_memory_of = memory_of


class SimLauncher(Launcher):
    """Starts simulated runners."""

    def __init__(self, world: World) -> None:
        super().__init__(world.limits, devices=Devices(world.plan.devices))
        object.__setattr__(self, "_world", world)  # the class is frozen

    async def start(self, target: str, further: Mapping[str, str] | None = None) -> RunnerProcess:
        """Start a runner, as `Launcher.start`."""
        world: World = self._world
        await asyncio.sleep(world.dice.choice((0.0, 0.002)))
        if world.is_storm and world.dice.random() < 0.02 * world.plan.rough_births:
            raise OSError("the system has no process left")
        child = Child(world, 1_000 + len(world.kernel.children))
        world.kernel.children[child.pid] = child
        ours, theirs = wire(world.dice, world.plan.pace, world.loop.outside)
        child.ours = ours
        nature = world.nature()
        world.note(f"runner {child.pid} starts: {nature}")
        child.inside = Runner(world, child, world.specs(), nature, theirs)
        child.link = ours.protocol = RunnerLink(self.limits)
        child.link.connection_made(ours)
        child.stdout.feed_data(b"the first words\n")
        return RunnerProcess(child, child.link, self.limits)
