"""What must hold in every simulated world, whatever happens in it.

This file is told of each move of a request, and of each event as it is made and as it is received. A broken promise is
kept and raised at the end of the turn, since whoever caused it may well swallow it. What must hold of the whole world at
once is in `looks`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from headrace.core.errors import ERROR_TYPES, RequestError
from headrace.core.request import State
from headrace.supervisor.streams import LiveRequest, Reader
from tests.sim.clock import LIFE

#: One try at a request: its id, and the number of the try.
Attempt = tuple[str, int]

if TYPE_CHECKING:
    from tests.sim.clients import Client
    from tests.sim.runners import Call, Runner
    from tests.sim.world import World

#: Written down a second time, on purpose: `core.request` is among what is checked.
_LEGAL = {
    (None, State.QUEUED),
    (State.QUEUED, State.RUNNING),
    (State.QUEUED, State.FAILED),
    (State.QUEUED, State.CANCELLED),
    (State.RUNNING, State.COMPLETED),
    (State.RUNNING, State.FAILED),
    (State.RUNNING, State.CANCELLING),
    (State.CANCELLING, State.CANCELLED),
}
#: Of a queued one, too: it is given up, to be tried again.
_LEGAL_QUEUED = _LEGAL | {
    (State.RUNNING, State.QUEUED),
    (State.CANCELLING, State.QUEUED),
    (State.CANCELLING, State.CANCELLING),  # and while it is given up, somebody cancels it
}

_FINAL = (State.COMPLETED, State.FAILED, State.CANCELLED)


class Violation(AssertionError):
    """A promise was broken."""


_state = LiveRequest.__dict__["state"]


class WatchedRequest(LiveRequest):
    """A live request that tells of each of its moves."""

    checks: Checks

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.was_unpaced = False  # if ever nobody set its pace while it ran
        self.told_cost = 0  # by the pacing reader
        self.over_since = self.quiet_since = self.checks.now
        self.seen_end = self.rested_cost = 0
        self.rested_unpaced = False
        self.life = LIFE.get()
        super().__init__(*args, **kwargs)
        self.is_valid = b'"valid":true' in self.body
        self.checks.opened(self)

    @property
    def state(self) -> State:
        return _state.__get__(self)

    @state.setter
    def state(self, new: State) -> None:
        old = getattr(self, "_old", None)
        self._old = new
        _state.__set__(self, new)
        self.checks.moved(self, old, new)

    @property
    def is_queued(self) -> bool:
        """Whether it is one of the queue's."""
        return self.retries is not None

    def fail(self, error: RequestError) -> None:
        self.checks.heard[self.id, self.attempt] = error
        super().fail(error)

    def begin_again(self, attempt: int) -> None:
        self.told_cost = self.seen_end = self.rested_cost = 0
        self.was_unpaced = self.rested_unpaced = False
        super().begin_again(attempt)

    def took(self, reader: Reader, position: int, cost: int) -> None:
        if reader is self._pacer:
            self.told_cost = max(self.told_cost, cost)
        super().took(reader, position, cost)

    def _go_on_unpaced(self) -> None:
        self.was_unpaced = True
        super()._go_on_unpaced()

    def _tell_final(self) -> None:
        super()._tell_final()
        self.checks.final(self)


class Checks:
    """All that is known of one world, and what must be true of it."""

    def __init__(self, world: World) -> None:
        self.violation: Violation | None = None
        self.is_over = False  # whatever is said from now on, the dead say it
        self.requests: dict[str, WatchedRequest] = {}
        self.clients_done = 0
        self._world = world
        self._made: dict[Attempt, list[bytes]] = {}
        self._runner_of: dict[Attempt, Runner] = {}
        self._told: dict[Attempt, RequestError | None] = {}  # how its runner says it ended
        self.heard: dict[Attempt, RequestError] = {}  # how the node heard that it failed
        self.given_up: set[Attempt] = set()  # stopped by the node, to be tried again
        self._by_agent: dict[str, str] = {}
        self._stopped: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.ended_in: Counter[int] = Counter()  # by life
        self.watched = type("Watched", (WatchedRequest,), {"checks": self})

    @property
    def now(self) -> float:
        return self._world.loop.time()

    def that(self, holds: bool, promise: str) -> None:
        """Note a violation unless it `holds`."""
        if not holds:
            self.fail(promise)

    def note(self, holds: bool, promise: str, cause: BaseException | None = None) -> None:
        """Note a violation unless it `holds`, where nothing may be raised."""
        if not holds and self.violation is None and not self.is_over:
            self.violation = Violation(f"at {self.now:.6f} s: {promise}")
            self.violation.__cause__ = cause

    def made_by(self, attempt: Attempt) -> list[bytes]:
        """Return the events that a runner made in an attempt."""
        return self._made.get(attempt, [])

    def fail(self, what: str) -> None:
        """Note a violation; it is raised here, and in any case at the end of this turn."""
        self.note(False, what)
        raise self.violation or Violation(what)

    # --- told by the node's requests --------------------------------------------------------------------

    def opened(self, live: WatchedRequest) -> None:
        before = self.requests.get(live.id)
        self.that(before is None or before.life < live.life, f"two requests with the id {live.id}")
        self.requests[live.id] = live
        self._by_agent.setdefault(live.headers.get("user-agent", ""), live.id)

    def moved(self, live: WatchedRequest, old: State | None, new: State) -> None:
        """A request changed its state."""
        self._world.note(f"{live.id} {'is' if old is None else f'was {old.value}, is'} {new.value}")
        legal = _LEGAL_QUEUED if old is not None and live.is_queued else _LEGAL
        self.that((old, new) in legal, f"{live.id} went from {old} to {new}")
        if new is State.RUNNING and live.is_queued:
            self._world.records.must_run(live)
        if new is State.RUNNING:
            wanted = live.left_at is None or live.grace_s > 0
            self.that(wanted, f"{live.id} starts, and nobody wants it")
            live.quiet_since = self.now
        if new is State.CANCELLING or new in _FINAL:
            live.over_since = self.now if old is not State.CANCELLING else live.over_since
        if new is State.CANCELLING and live.error is None:
            self.given_up.add((live.id, live.attempt))
        elif new is State.CANCELLING:
            self._check_cause(live)

    def final(self, live: WatchedRequest) -> None:
        """A request ended. There must be a reason for what it says of it."""
        ending = "completed" if live.error is None else live.error.type
        self.outcomes[ending] += 1
        self.ended_in[live.life] += 1
        if live.state is State.COMPLETED:
            made = self._made[live.id, live.attempt]
            self.that(live.error is None, f"{live.id} completed with an error")
            self.that(
                self._told.get((live.id, live.attempt), ending) is None,
                f"{live.id} completed; its runner did not say so",
            )
            self.that(
                live.replay.end == len(made), f"{live.id} completed with {live.replay.end} of {len(made)} events"
            )
            has_result = live.is_queued or live.replay.last == made[-1]  # a queued one's is in the store
            self.that(has_result, f"{live.id} completed with another result")
            return
        if live.over_since == self.now:  # else that was seen when it was cancelled
            self._check_cause(live)

    def _check_cause(self, live: WatchedRequest) -> None:
        error = live.error
        if error is None:
            self.fail(f"{live.id} is {live.state.value} without an error")
        elif not self._has_cause(live, error.type):
            self.fail(f"{live.id} ended with {error.type} for no reason: {error.message}")

    def _has_cause(self, live: WatchedRequest, type_: str) -> bool:
        app, now = live.route.app, self.now + 1e-6
        told = self._told.get((live.id, live.attempt))
        if told is not None and told.type == type_:
            return True
        running_s = now - live.started_at if live.started_at is not None else 0.0
        match type_:
            case "client_disconnected":
                agent = live.headers.get("user-agent")
                return any(one.has_left for one in self._world.clients if live.id == one.id or agent == one.agent)
            case "validation_error":
                return not live.is_valid
            case "client_cancelled":
                return live.id in self._stopped
            case "reader_stalled":
                return any(client.may_stall for client in self._world.clients)
            case "startup_timeout" if live.is_queued:
                return self._world.records.is_too_late(live.id)
            case "startup_timeout":
                return live.started_at is None and now - live.opened_at >= min(self.wait_s(live), 0.5)
            case "request_timeout":
                return running_s >= app.request_timeout
            case "first_event_timeout":
                return not live.replay.end and 0 < app.first_event_timeout <= running_s
            case "event_gap_timeout":
                return 0 < app.event_gap_timeout <= now - live.quiet_since
            case "runner_disconnected":
                held_by = self._runner_of.get((live.id, live.attempt))
                runners = [child.inside for child in self._world.kernel.children.values()]
                return any(self._may_be_lost(one) for one in ([held_by] if held_by else runners))
            case "no_result":
                attempt = live.id, live.attempt
                return attempt in self._told and told is None and not self._made[attempt]
            case "shutting_down":
                return self._world.lives[live.life - 1].is_stopping
            case "runner_scheduling_failure":
                return live.started_at is None and self._world.has_failed
            case "not_found":
                return self._world.versions > 1
            case "overloaded":
                return self._world.limits.events_bytes_max < 1 << 30
        return False

    def _may_be_lost(self, runner: Runner) -> bool:
        """Whether a runner's requests may be ended with it: it is dead, broke the rules, or was told to leave."""
        if runner.child.is_dead or runner.has_misbehaved:
            return True
        return any(
            one.leaving is not None
            for pool in self._world.pools
            for one in pool.fleet.runners
            if one.process.pid == runner.child.pid
        )

    def is_from_rogue(self, live: WatchedRequest) -> bool:
        """Whether a request's runner breaks the rules."""
        runner = self._runner_of.get((live.id, live.attempt))
        return runner is not None and runner.has_misbehaved

    def wait_s(self, live: LiveRequest) -> float:
        """The longest that a request may wait for its slot."""
        return self._world.start_timeouts.get(live.headers.get("user-agent", ""), self._world.limits.slot_wait_s)

    # --- told by runners --------------------------------------------------------------------------------

    def started(self, runner: Runner, call: Call) -> None:
        """A runner was given a request."""
        self._world.note(f"runner {runner.child.pid} starts {call.id}: {call.course}")
        self.that(call.id in self.requests, f"{call.id} was never opened")
        attempt = call.id, call.attempt
        self.that(attempt not in self._runner_of, f"attempt {call.attempt} at {call.id} is started a second time")
        self.that(self.requests[call.id].started_at is not None, f"{call.id} is at a runner and not started")
        if not self._world.loop.is_dead(runner.child.life):
            has_room = len(runner.calls) < self._slots_of(runner)
            self.that(has_room, f"runner {runner.child.pid} is given more than its slots")
        self.that(call.granted == self._world.limits.window_bytes, f"{call.id} begins with credit {call.granted}")
        self._runner_of[attempt] = runner
        self._made[attempt] = []

    def _slots_of(self, runner: Runner) -> int:
        self._world.look_for_pools()
        for pool in self._world.pools:
            if any(one.process.pid == runner.child.pid for one in pool.fleet.runners):
                return pool.app.max_multiplexing
        return 0

    def made(self, call: Call, text: bytes) -> None:
        """A runner makes an event."""
        self._made[call.id, call.attempt].append(text)
        live = self.requests[call.id]
        if live.life != call.life or live.attempt != call.attempt:
            return  # nobody hears of it
        if call.course.is_greedy or live.was_unpaced or live.replay.pace is None or live.is_over:
            live.was_unpaced |= live.replay.pace is None
            return
        ahead = call.spent - live.told_cost
        window = self._world.limits.window_bytes
        self.that(ahead < window, f"{call.id} makes an event with {ahead} bytes not taken, the window is {window}")

    def ended(self, call: Call, error: RequestError | None) -> None:
        """A runner says how a request ended."""
        self._world.note(f"{call.id} ends at its runner: {'done' if error is None else error.type}")
        self._told[call.id, call.attempt] = error

    # --- told by clients --------------------------------------------------------------------------------

    def request_of(self, client: Client) -> WatchedRequest | None:
        """Return a client's request, as soon as it has one."""
        return self.requests.get(client.id or self._by_agent.get(client.agent, ""))

    def stopped(self, id_: str) -> None:
        """Somebody asks that a request be stopped."""
        self._stopped.add(id_)

    def received(self, client: Client, text: bytes) -> None:
        """A client got its next event."""
        made = self._made.get((client.id or "", client.attempt), [])
        at = client.position
        self.that(at < len(made), f"client {client.number} got event {at}; {len(made)} were made")
        self.that(text == made[at], f"client {client.number} got {text[:80]!r} for event {at}, {made[at][:80]!r}")

    def client_is_done(self, client: Client) -> None:
        """A client has its answer, or what there is of one. It must know which."""
        self.clients_done += 1
        who = f"client {client.number} ({client.habit.path})"
        if client.has_left:
            return
        if not client.status:
            self.that(client.may_be_cut, f"{who} got no answer")
        elif client.headers.get("content-type", "").startswith("text/event-stream"):
            self._check_stream(client, who)
        elif client.is_complete:
            self._check_answer(client, who)
        else:
            self.that(client.may_be_cut, f"{who} got half an answer")

    def _check_stream(self, client: Client, who: str) -> None:
        live = self.requests[client.id or ""]
        if client.error is not None:
            type_ = client.error["type"]
            # Of one that is over, a reader who is behind may lose the rest when the node is short of memory.
            is_short = client.may_stall and self._world.limits.events_bytes_max < 1 << 30
            known = {"replay_gone"} if client.resumes or is_short else set()
            known.add(live.error.type if live.error is not None else "")
            self.that(type_ in known, f"{who} was told {type_}; the request ended with {live.error!r}")
            is_clean = live.route.app.stream_error_end == "clean"
            self.that(client.is_complete == is_clean, f"{who}: the connection ends wrongly behind its error event")
        elif client.is_complete:
            made = self._made[live.id, live.attempt]
            self.that(live.state is State.COMPLETED, f"{who} saw success of a request that is {live.state.value}")
            self.that(
                client.position == len(made), f"{who} saw success after {client.position} of {len(made)} events"
            )
        else:
            self.that(client.may_be_cut, f"{who} was cut off without a word")

    def _check_answer(self, client: Client, who: str) -> None:
        if client.status == 204:
            return
        told = orjson.loads(client.body)
        if client.method == "PUT":
            # To look for one that is not known, the store is asked.
            has_no_store = client.status == 503 and told["error_type"] == "store_unavailable"
            is_known = client.status in {202, 400, 404}
            self.that(
                is_known or (has_no_store and self._world.disk.has_failed), f"{who} got {client.status} {told}"
            )
        elif client.status == 200:
            live = self.requests[client.id or ""]
            self.that(live.state is State.COMPLETED, f"{who} got a result of a request that is {live.state.value}")
            self.that(client.body == self._made[live.id, 1][-1], f"{who} got {client.body[:80]!r} as its result")
        else:
            type_ = told["error_type"]
            self.that(type_ in ERROR_TYPES, f"{who} was told {type_}")
            self.that(type_ != "internal_error", f"{who}: a fault of Headrace's own")
            self.that(client.headers["x-fal-error-type"] == type_, f"{who} was told two types")
