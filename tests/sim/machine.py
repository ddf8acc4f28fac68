"""Where the node looks for the machine it runs on, it finds the simulated one: clocks, kernel, disk, and the log."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from headrace.store import threads as disk_threads
from headrace.store.sqlite import checkpoints, writer
from headrace.store.sqlite import store as sqlite_store
from headrace.supervisor import catalog, dispatch, group, process, queue
from tests.sim.checks import Violation
from tests.sim.disk import NoThread, SimExecutor, SimWriter

if TYPE_CHECKING:
    from tests.sim.world import World

_log = logging.getLogger("headrace")


class _Log(logging.Handler):
    """What the node logs is part of the story; a traceback in it is a fault of ours."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        world = self._world
        world.has_failed |= record.levelno >= logging.ERROR
        if world.is_told:
            world.note(f"log: {record.getMessage()}")
        if record.exc_info:
            world.checks.violation = world.checks.violation or _told(record)


def _told(record: logging.LogRecord) -> Any:
    violation = Violation(f"a fault was logged: {record.getMessage()}")
    violation.__cause__ = record.exc_info[1] if record.exc_info else None
    return violation


def _with(name: str, value: object) -> list[ModuleType]:
    """Return the modules of the node in which a name means a thing of the real machine's."""
    ours = [module for path, module in sys.modules.items() if path.startswith("headrace.")]
    return [module for module in ours if vars(module).get(name) is value]


def _places(world: World) -> list[tuple[Any, str, Any]]:
    kernel, disk = world.kernel, world.disk
    clock = SimpleNamespace(time=world.wall_s, monotonic=world.loop.time)
    threads = SimpleNamespace(Thread=NoThread, Condition=threading.Condition, Lock=threading.Lock)
    return [
        *((module, "monotonic", world.loop.time) for module in _with("monotonic", time.monotonic)),
        *((module, "time", clock) for module in _with("time", time)),
        *((group, name, getattr(kernel, name)) for name in ("is_gone", "members", "state_of", "memory_of")),
        (group, "exact_memory_of", kernel.memory_of),
        (process, "os", kernel),
        (dispatch, "LiveRequest", world.checks.watched),
        (queue, "LiveRequest", world.checks.watched),
        (catalog, "_stamps", world.stamps),
        (sqlite_store, "Writer", functools.partial(SimWriter, disk)),
        (disk_threads, "ThreadPoolExecutor", lambda *_, **__: SimExecutor(disk)),
        (writer, "threading", threads),
        (checkpoints, "threading", threads),
    ]


@contextlib.contextmanager
def instead_of_the_machine(world: World) -> Iterator[None]:
    """Put the clocks, the processes, the kernel and the disk of `world` where the node looks for the machine's."""
    places = _places(world)
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    handler, level, propagates = _Log(world), _log.level, _log.propagate
    for place, name, stand_in in places:
        setattr(place, name, stand_in)
    _log.addHandler(handler)
    _log.setLevel(logging.INFO if world.is_told else logging.ERROR)
    _log.propagate = False
    world.loop.set_exception_handler(lambda _, context: _note_exception(world, context))
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        _log.propagate = propagates
        for place, name, real in before:
            setattr(place, name, real)
        world.disk.remove()


def _note_exception(world: World, context: dict[str, Any]) -> None:
    if world.checks.violation is None:
        world.checks.violation = Violation(f"nobody caught this: {context}")
        world.checks.violation.__cause__ = context.get("exception")
