"""What happens inside a simulated runner: it speaks the real frames, and does whatever its nature is.

A runner of good nature answers as `headrace.runner` does: HELLO, READY, CHECKED, events within credit, DONE or ERROR. Of
others anything must be expected. It hears of the node by its link alone; what it makes and is given is told to the
checks.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from headrace.core.errors import ERROR_TYPES, RequestError
from headrace.core.frames import VERSION, Kind, encode
from headrace.core.limits import EVENT_OVERHEAD_BYTES
from headrace.core.spec import AppSpec
from headrace.runner.link import Link
from tests.sim.natures import Course, Nature
from tests.sim.wire import End

if TYPE_CHECKING:
    from tests.sim.processes import Child
    from tests.sim.world import World

#: What an app can say of a request, by its own doing: type, status, whether it is worth another try.
_APP_ERRORS = (
    ("runner_server_error", None, None), ("unserializable_item", None, None), ("event_too_large", None, None),
    ("app_error", None, None), ("app_error", 503, True), ("app_error", 503, False), ("app_error", 400, True),
)  # fmt: skip


class Call:
    """One request as its runner has it."""

    def __init__(self, runner: Runner, stream: int, head: dict[str, Any], course: Course) -> None:
        self.id: str = head["request_id"]
        self.attempt: int = head["attempt"]
        self.course = course
        self.life = runner.child.life
        self.granted: int = head["window"]
        self.spent = 0
        self.made = 0
        self.is_over = False
        self.reason: str | None = None
        self._runner = runner
        self._stream = stream
        self.waits_for_credit = False
        self._is_stuck = False
        self._left = course.events

    def proceed(self) -> None:
        """Make the next events for which there is credit."""
        for _ in range(self.course.burst):
            if self.is_over or self._is_stuck:
                return
            if not self._left:
                self._come_to_end()
                return
            if self.spent >= self.granted and not self.course.is_greedy:
                self.waits_for_credit = True
                return
            self._make()
        self._runner.later(self.course.gap_s, self.proceed)

    def _make(self) -> None:
        runner = self._runner
        pad = runner.dice.randrange(max(1, self.course.text_bytes_max - 80))
        text = b'{"of":"%b","attempt":%d,"n":%d,"pad":"%b"}' % (
            self.id.encode(), self.attempt, self.made, b"x" * pad,
        )  # fmt: skip
        runner.world.checks.made(self, text)
        self.spent += len(text) + EVENT_OVERHEAD_BYTES
        self.made += 1
        self._left -= 1
        runner.link.post(Kind.EVENT, self._stream, text)

    def _come_to_end(self) -> None:
        match self.course.end:
            case "never":
                return
            case "dies":
                self._runner.child.end(-11)
            case "error" if self.reason is None:
                type_, status, retryable = self._runner.dice.choice(_APP_ERRORS)
                self.end(RequestError(type_, "The model is out of order.", status=status, retryable=retryable))
            case _:
                self.end(None)

    def grant(self, cost: int) -> None:
        """Go on, if credit was what was missing."""
        self.granted += cost
        if self.waits_for_credit:
            self.waits_for_credit = False
            self.proceed()

    def cancel(self, reason: str) -> None:
        """Nobody wants the rest."""
        self.reason = reason
        match self.course.on_cancel:
            case "prompt":
                self._stop()
            case "late":
                self._runner.later(self._runner.dice.random() * 3, self._stop)
            case "stuck":
                self._is_stuck = True
            case "deaf":  # it goes on as if nothing had been said
                self.course = replace(self.course, end="done")

    def _stop(self) -> None:
        type_ = self.reason if self.reason in ERROR_TYPES else "client_cancelled"
        assert type_ is not None
        self.end(RequestError(type_, ERROR_TYPES[type_].meaning))

    def end(self, error: RequestError | None) -> None:
        """Say how it ended, once."""
        if self.is_over:
            return
        self.is_over = True
        runner = self._runner
        del runner.calls[self._stream]
        runner.world.checks.ended(self, error)
        if error is None:
            runner.link.post(Kind.DONE, self._stream)
        else:
            runner.link.post(Kind.ERROR, self._stream, orjson.dumps(error.to_wire()))


class Runner:
    """The inside of one process."""

    def __init__(self, world: World, child: Child, apps: Sequence[AppSpec], nature: Nature, end: End) -> None:
        self.world = world
        self.dice = world.dice
        self.child = child
        self.nature = nature
        self.app: AppSpec | None = None
        self.calls: dict[int, Call] = {}
        self.end = end  # of the wire
        self.link = Link(self._receive, self.leave, world.limits)
        self.is_frozen = self.is_stopped = False
        self._apps = apps
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._held: list[Callable[[], None]] = []  # what comes due while it is frozen
        self._thawing: asyncio.TimerHandle | None = None
        self._last_stream = 0
        self._is_leaving = False
        self.has_misbehaved = False  # so that the node may hang up on it
        end.protocol = self.link
        self.link.connection_made(end)
        self.later(nature.hello_s, self._greet)

    # --- time -------------------------------------------------------------------------------------------

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something, unless this process is dead by then, and not while it is frozen."""
        number = next(self._numbers)
        self._timers[number] = self._loop.call_later(
            delay_s, self._due, number, act, context=self.world.loop.outside
        )

    def _due(self, number: int, act: Callable[[], None]) -> None:
        del self._timers[number]
        if self.is_frozen:
            self._held.append(act)
        else:
            act()

    def die(self) -> None:
        """Nothing happens in here any more."""
        if self._thawing is not None:
            self._thawing.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._held.clear()
        self.calls.clear()
        self.is_frozen = True
        if self.nature.orphan_keeps_link:
            self.end.freeze()  # whoever has it does not read
        else:
            self.end.die()

    # --- its life ---------------------------------------------------------------------------------------

    def _greet(self) -> None:
        birth = self.nature.birth
        if birth == "mute":
            return
        if birth == "dies":
            self.child.end(1)
        elif birth == "faulty file" or (birth == "other app" and not self._may_be_another):
            self._fail("invalid syntax")
        else:
            if birth == "other app":
                self._apps = [replace(self._apps[0], name="sim/stray")]
            apps = [app.to_wire() for app in self._apps]
            version = VERSION + (birth == "foreign")
            self.link.post(Kind.HELLO, 0, orjson.dumps({"version": version, "pid": self.child.pid, "apps": apps}))

    @property
    def _may_be_another(self) -> bool:
        """Whether the file may be another one for a while: not when a node starts, who would serve nothing else."""
        return bool(self.world.plan.reloads) and self.world.node.is_up

    def _fail(self, message: str) -> None:
        fault = {"file": "model.py", "line": 1, "message": message, "traceback": "Traceback: …"}
        self.link.post(Kind.FAULT, 0, orjson.dumps(fault))
        self.later(0.01, self.leave)

    def _ready(self) -> None:
        if self.nature.birth == "faulty setup":
            self._fail("no weights")
            return
        self.link.post(Kind.READY, 0)
        self.world.note(f"runner {self.child.pid} is ready")
        nature = self.nature
        self._in_storm(nature.dies_s, lambda: self.child.end(-9))
        self._in_storm(nature.babbles_s, self._babble)
        self._in_storm(nature.swells_s, self.child.swell)
        for after_s, for_s, is_stopped in nature.freezes:
            self._in_storm(after_s, functools.partial(self._stand_still, for_s, is_stopped))

    def _in_storm(self, after_s: float, act: Callable[[], None]) -> None:
        if after_s < math.inf:
            self.later(after_s, lambda: act() if self.world.is_storm else None)

    def _stand_still(self, seconds: float, is_stopped: bool) -> None:
        """Stand still: by SIGSTOP, or in a call that holds the interpreter."""
        self.world.note(f"runner {self.child.pid} stands still for {seconds} s")
        self.is_frozen, self.is_stopped = True, is_stopped
        self.end.freeze()
        self._thawing = self._loop.call_later(seconds, self._go_on, context=self.world.loop.outside)

    def _go_on(self) -> None:
        self._thawing = None
        self.is_frozen = self.is_stopped = False
        self.end.thaw()
        held, self._held = self._held, []
        for act in held:
            self.later(0, act)

    def _babble(self) -> None:
        self.has_misbehaved = True
        garbage = self.dice.choice((
            encode(200, 1, b""), encode(Kind.DONE, 0xFFFF, b""), b"\xff" * 40,
            encode(Kind.ERROR, self._last_stream, b"no JSON"), encode(Kind.HELLO, 0, b"{}"),
            encode(Kind.CHECKED, 3, b"[]"), encode(Kind.EVENT, 0xFFFF, b"{}"),
        ))  # fmt: skip
        self.end.write(garbage)

    def leave(self) -> None:
        """The word to leave: EOF, or TERM. Every call is told, and the process ends a little later."""
        if self._is_leaving or not self.nature.heeds_eof:
            return
        self._leave()

    def terminate(self) -> None:
        """SIGTERM."""
        if self.nature.heeds_term and not self._is_leaving:
            self._leave()

    def _leave(self) -> None:
        self._is_leaving = True
        for call in tuple(self.calls.values()):
            if call.reason is None:
                call.cancel("shutting_down")
        self.later(self.nature.leave_s, lambda: self.child.end(0))

    # --- frames -----------------------------------------------------------------------------------------

    def _receive(self, kind: int, stream: int, payload: bytes) -> None:
        match kind:
            case Kind.SETUP:
                name = orjson.loads(payload)["app"]
                self.app = next(app for app in self._apps if app.name == name)
                self.later(self.nature.ready_s, self._ready)
            case Kind.CHECK:
                self._check(stream, payload)
            case Kind.START:
                self._start(stream, payload)
            case Kind.WINDOW | Kind.CANCEL:
                self.world.checks.that(stream <= self._last_stream, "a frame for a stream that was never started")
                if call := self.calls.get(stream):
                    self._tell(call, kind, payload)
            case Kind.PING:
                self.link.post(Kind.PONG, stream, payload)
            case _:
                self.world.checks.fail(f"a frame of kind {kind}")

    def _tell(self, call: Call, kind: int, payload: bytes) -> None:
        if kind == Kind.WINDOW:
            call.grant(int.from_bytes(payload, "big"))
            return
        self.world.checks.that(call.reason is None or self._is_leaving, f"{call.id} was cancelled twice")
        call.cancel(payload.decode())

    def _check(self, stream: int, payload: bytes) -> None:
        _, body = _read(payload)
        answer = b"" if body["valid"] else orjson.dumps(_invalid().to_wire())
        self.later(self.dice.choice((0.0, 0.01, 1.0)), lambda: self.link.post(Kind.CHECKED, stream, answer))

    def _start(self, stream: int, payload: bytes) -> None:
        head, body = _read(payload)
        checks = self.world.checks
        checks.that(stream not in self.calls, f"stream {stream} is started twice")
        checks.that(self.app is not None, "START before SETUP")
        assert self.app is not None
        self._last_stream = max(self._last_stream, stream)
        course = self.world.course()
        call = Call(self, stream, head, course)
        checks.started(self, call)
        self.has_misbehaved |= course.is_greedy
        self.calls[stream] = call
        if self._is_leaving:
            call.end(RequestError("shutting_down", "The runner is leaving."))
        elif not body["valid"]:
            call.end(_invalid())
        else:
            self.later(course.first_s, call.proceed)


def _read(payload: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    head, _, body = payload.partition(b"\n")
    return orjson.loads(head), orjson.loads(body)


def _invalid() -> RequestError:
    detail = [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]
    return RequestError("validation_error", "Field required", detail=detail)
