"""An event loop whose time is only a number: where nothing is ready, it jumps to the next timer.

No thread, no socket, no waiting: an hour of the simulated node takes as long as what happens in it. Everything that
could differ between two runs of one seed is taken out: tasks hash by their number, so that a set of them has an order,
and what goes to a thread elsewhere is done on the spot. It knows nothing of what it runs.

It can run several lives beside each other, each in its context (`LIFE`), and end one as `kill -9` does: from that moment
no task, callback or timer of that life runs again, not even to clean up.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

#: What a clock moves by at least, however soon the next timer is due: else one that is set for "now, as nearly as a
#: float can say it" would be due for ever.
_TICK_S = 1e-9

#: Turns of the loop at one instant. A storm needs some hundreds; whoever needs more wakes himself for ever.
_TURNS_AT_ONCE_MAX = 50_000

#: Which life something happens in. 0 is the world around them, which nobody ends.
LIFE: ContextVar[int] = ContextVar("life", default=0)


class Livelock(Exception):
    """Something goes on and on while the time stands still."""


class Deadlock(Exception):
    """Nothing is ready and no timer is set: whoever waits now waits for ever."""


class _NumberedTask(asyncio.Task[Any]):
    """A task that hashes by its number in its world: the order of a set is then the same in every run of it."""

    life = 0

    def __new__(cls, *_: object, loop: VirtualLoop, **__: object) -> _NumberedTask:
        task = super().__new__(cls)
        task._number = next(loop.numbers)
        return task

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """`after_turn` is called behind every turn of the loop, `at_rest` whenever time is about to pass."""

    def __init__(self) -> None:
        super().__init__()
        self._clock_resolution = _TICK_S
        self._selector = self  # of which BaseEventLoop wants `select` alone
        self._now = 0.0
        self._turns_at_once = 0
        self.numbers = itertools.count(1)  # of tasks
        self.after_turn: Callable[[], None] = lambda: None
        self.at_rest: Callable[[], None] = lambda: None
        self.tasks: list[_NumberedTask] = []  # every one that was ever made, but for those of the dead
        self.outside: Context = copy_context()  # of what must go on whoever dies
        self._dead: set[int] = set()
        # Kept until the end: else the collector would run the `finally` of what the dead were at.
        self._left_by_dead: list[_NumberedTask] = []
        self._never: list[asyncio.Handle] = []
        self._nothing = asyncio.Handle(lambda: None, (), self)
        self._nothing.cancel()
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        """Return the seconds since the beginning."""
        return self._now

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """What is still to happen."""
        return [handle for handle in self._scheduled if not handle.cancelled()]

    def kill(self, life: int) -> None:
        """End a life: nothing of it happens any more."""
        self._dead.add(life)
        for at, handle in enumerate(self._ready):  # a turn has counted them, so their number stays
            if handle._context.get(LIFE, 0) == life:
                self._ready[at] = self._nothing
                self._never.append(handle)
        for timer in self._scheduled:
            if timer._context.get(LIFE, 0) == life:
                timer.cancel()
        self._left_by_dead += [task for task in self.tasks if task.life == life]
        self.tasks = [task for task in self.tasks if task.life != life]

    def is_dead(self, life: int) -> bool:
        """Whether a life was ended by `kill`."""
        return life in self._dead

    def run(self, main: Coroutine[Any, Any, T], at_end: Callable[[], None]) -> T:
        """Run `main` to its end, and look `at_end` what is left.

        Whatever either raises, or a hook does, is raised here, and nothing goes on behind it.
        """
        try:
            value = self.run_until_complete(main)
            self.after_turn = self.at_rest = lambda: None
            at_end()
            return value
        finally:
            self.after_turn = self.at_rest = lambda: None
            self._end_what_is_left()
            self.close()

    def _end_what_is_left(self) -> None:
        """Cancel whatever waits, of the dead or after a failure, and again whatever waits while it ends."""
        self.set_exception_handler(lambda *_: None)
        self._dead.clear()
        self._ready.extend(self._never)
        self.tasks += self._left_by_dead
        for _ in range(100):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            self.call_soon(self.stop)
            self.run_forever()
        for task in self.tasks:  # else the collector ends it, within another world
            with contextlib.suppress(RuntimeError):
                task.get_coro().close()

    def _new_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> _NumberedTask:
        task = _NumberedTask(coro, loop=loop, **more)
        context = more.get("context")
        task.life = LIFE.get() if context is None else context.get(LIFE, 0)
        self.tasks.append(task)
        return task

    # --- what others ask of a loop --------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run a callback in the next turn, unless its life is over."""
        handle = asyncio.Handle(callback, args, self, context)
        is_dead = self._dead and handle._context.get(LIFE, 0) in self._dead
        (self._never if is_dead else self._ready).append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback at a time, unless its life is over by then."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if self._dead and timer._context.get(LIFE, 0) in self._dead:
            timer.cancel()
        else:
            heapq.heappush(self._scheduled, timer)
            timer._scheduled = True
        return timer

    # --- what BaseEventLoop asks of a loop -----------------------------------------------------------------

    def _run_once(self) -> None:
        super()._run_once()
        self.after_turn()

    def select(self, timeout: float | None) -> tuple[()]:
        """Let the time pass, as a selector would that nothing comes to."""
        if not self._ready:
            self.at_rest()
            if timeout is None:
                raise Deadlock("nothing is ready, and no timer is set")
            self._now += max(timeout, _TICK_S)
        self._turns_at_once = 0 if timeout and timeout > _TICK_S else self._turns_at_once + 1
        if self._turns_at_once > _TURNS_AT_ONCE_MAX:
            raise Livelock(f"{_TURNS_AT_ONCE_MAX} turns of the loop at {self._now:.6f} s")
        return ()

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is no other thread that could wake this one."""

    def run_in_executor(self, executor: object, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Do on the spot what would go to a thread."""
        future: asyncio.Future[T] = self.create_future()
        future.set_result(func(*args))
        return future
