"""What the disk holds of queued requests, as its own triggers tell it, and what callers were told of them.

Each commit is checked here by rules that are written down a second time, on purpose. What a caller was told once must
hold for good: an id, an ending, a cancelling.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.core.errors import RequestError

if TYPE_CHECKING:
    from tests.sim.callers import Caller
    from tests.sim.checks import WatchedRequest
    from tests.sim.world import World

_LEGAL = {
    ("queued", "running"), ("queued", "failed"), ("queued", "cancelled"),
    ("running", "queued"), ("running", "completed"), ("running", "failed"), ("running", "cancelling"),
    ("cancelling", "cancelled"),
}  # fmt: skip
_HELD = ("running", "cancelling")
_FINAL = ("completed", "failed", "cancelled")

#: fal's: what may work another time, and how often that is tried.
_RETRIED_STATUSES = (503, 504)
_RETRIES = 10


class Ending(NamedTuple):
    """How a request ended, as somebody was told."""

    state: str
    error_type: str | None
    body: bytes | None  # None: that was not told


@dataclass
class Record:
    """A request on the disk."""

    id: str
    number: int  # by age
    app: str
    priority: int
    key: str | None
    may_retry: bool
    caller: Caller
    life: int  # of the node that took it
    born_at: float
    state: str = "queued"
    attempt: int = 0
    lease_until: float = 0.0
    due: float = math.inf  # it must have started by then
    result: bytes | None = None
    ending: Ending | None = None
    ended_at: float = 0.0
    ended_in_trouble: bool = False
    is_acknowledged: bool = False
    is_to_stop: bool = False  # somebody was told that it will be cancelled
    runs: list[tuple[int, int]] = field(default_factory=list)  # of each attempt at a runner: its number, and life


class Records:
    """Every request that the disk ever held."""

    def __init__(self, world: World) -> None:
        self.all: dict[str, Record] = {}
        self.gone: set[str] = set()  # forgotten, at their time
        self.met: set[str] = set()  # what happened to some, for whoever asks what storms reach
        self._world = world
        self._that = world.checks.note

    @property
    def open(self) -> list[Record]:
        """Those that have not ended."""
        return [record for record in self.all.values() if record.ending is None]

    # --- told by the disk -------------------------------------------------------------------------------

    def apply(self, notes: list[tuple[Any, ...]]) -> None:
        """A transaction is on the disk."""
        for what, *fields in notes:
            match what:
                case "new":
                    self._born(*fields)
                case "moved":
                    self._moved(*fields)
                case "result":
                    self._has_result(*fields)
                case "gone":
                    self._forgotten(*fields)

    def _born(self, id_: str, number: int, app: str, priority: int, headers: str, deadline: float | None) -> None:
        world = self._world
        caller = world.callers[json.loads(headers)["user-agent"]]
        queued = sum(other.app == app and other.state == "queued" for other in self.all.values())
        bound = min(caller.wish.queue_max, world.limits.queue_max)
        self._that(id_ not in self.all, f"{id_} is stored twice")
        self._that(queued < bound, f"{id_} is queued behind {queued}, its caller allows {bound}")
        kept = (one.number for one in self.all.values() if one.id not in self.gone)  # another's is free again
        self._that(number > max(kept, default=0), f"{id_} is no younger")
        path, their_key = caller.wish.path, caller.wish.key
        twins = [
            one.id for one in self.all.values()
            if their_key is not None and (one.key, one.app, one.caller.wish.path) == (their_key, app, path)
        ]  # fmt: skip
        self._that(not set(twins) - self.gone, f"{id_} has the key of {twins}")
        self._that(
            (deadline is None) == (caller.wish.start_timeout_s is None), f"{id_} has the deadline {deadline}"
        )
        record = Record(
            id_,
            number,
            app,
            priority,
            caller.wish.key,
            "x-fal-no-retry" not in caller.wish.headers,
            caller,
            world.node.life,
            world.loop.time(),
        )
        if deadline is not None and caller.wish.start_timeout_s is not None:
            record.due = deadline - world.wall_s(world.node) + world.loop.time()
            asked_at = record.due - caller.wish.start_timeout_s
            self._that(
                caller.began_at - 1e-3 <= asked_at <= record.born_at + 1e-3,
                f"{id_} must start by {record.due:.3f} s",
            )
        self.all[id_] = record
        world.note(f"{id_} is stored, for caller {caller.number}")
        caller.is_stored(record)

    def _moved(
        self, id_: str, old: str, new: str, before: int, attempt: int, lease_until: float | None,
        status: int | None, error_type: str | None,
    ) -> None:  # fmt: skip
        record, now = self.all[id_], self._world.loop.time()
        self._that((old, before) == (record.state, record.attempt), f"{id_}: the file says {old} {before}")
        if old == new:  # a lease is prolonged
            self._that(new in _HELD and attempt == before, f"a lease of {id_}, which is {new}")
            record.lease_until = lease_until or 0.0
            return
        self._world.note(f"{id_} is stored as {new}, attempt {attempt}")
        self._that((old, new) in _LEGAL, f"{id_} is stored as {new}, and was {old}")
        begins = (old, new) == ("queued", "running")
        self._that(attempt == before + begins, f"{id_} goes from attempt {before} to {attempt} as it is {new}")
        self._that((lease_until is not None) == (new in _HELD), f"{id_} is {new} with the lease {lease_until}")
        record.state, record.attempt, record.lease_until = new, attempt, lease_until or 0.0
        if new == "queued":
            self._given_up(record)
        if new in _FINAL:
            record.ended_at, record.ended_in_trouble = now, self._world.disk.calm_s < 60
            body = record.result
            self._that(body is not None, f"{id_} is {new} without a result")
            record.ending = Ending(new, error_type if new != "completed" else None, body)
            self._ended(record, old, status or 0)

    def _has_result(self, id_: str, body: bytes) -> None:
        record = self.all[id_]
        self._that(record.result is None, f"{id_} has a second result")
        record.result = body

    def _forgotten(self, id_: str, is_large: int) -> None:
        record = self.all[id_]
        age_s = self._world.plan.result_age_s / (2 if is_large else 1)
        old_s = self._world.loop.time() - record.ended_at
        self._that(record.ending is not None, f"{id_} is forgotten and was {record.state}")
        if self._is_by_same_clock(record) and not record.ended_in_trouble:  # else it counts from when it was asked
            self._that(old_s >= age_s - 1.5, f"{id_} is forgotten after {old_s:.3f} s, not {age_s:g}")
        self.gone.add(id_)
        self.met.add("forgotten")

    # --- why ----------------------------------------------------------------------------------------------

    def _given_up(self, record: Record) -> None:
        """An attempt is over that did not end its request."""
        world = self._world
        if not world.node.is_up:
            self.met.add("released")
            return  # the attempt was of a node that is gone
        if record.runs[-1:] != [(record.attempt, world.node.life)]:
            return  # it never came to a runner
        attempt = record.id, record.attempt
        heard = world.checks.heard.get(attempt)
        if world.node.is_stopping or (heard is not None and heard.type == "shutting_down"):
            return
        self.met.add("retried")
        self._that(record.may_retry, f"{record.id} is tried again, and must not be")
        if attempt not in world.checks.given_up:  # else some deadline of its own has passed
            is_worth_it = heard is not None and _is_worth_a_retry(heard)
            self._that(is_worth_it, f"{record.id} is tried again after {heard!r}")

    def _ended(self, record: Record, old: str, status: int) -> None:
        """A request has ended: there must be a reason for it."""
        world, ending = self._world, record.ending
        assert ending is not None
        self.met.add(f"stored {ending.error_type or ending.state}")
        heard = world.checks.heard.get((record.id, record.attempt))
        if ending.state == "completed":
            made = world.checks.made_by((record.id, record.attempt))
            self._that(made[-1:] == [ending.body], f"{record.id} is stored with {ending.body!r}, made {made[-1:]}")
            self._that(not record.is_to_stop, f"{record.id} completed, and its cancelling was promised")
        elif ending.state == "cancelled":
            self._that(record.caller.has_stopped, f"{record.id} is cancelled, and nobody asked for that")
        elif ending.error_type == "startup_timeout":
            self._that(record.attempt == 0, f"{record.id} is too late to start, and was started")
            self._that(self.is_too_late(record.id), f"{record.id} is told early that it is too late")
        elif ending.error_type == "not_found":
            self._that(
                not world.is_served(record.app), f"{record.id} is told that its app is not served, and it is"
            )
        else:
            if status in _RETRIED_STATUSES and (heard is None or _is_worth_a_retry(heard)):
                tried_out = record.attempt > _RETRIES or not record.may_retry
                self._that(tried_out, f"{record.id} ended with {ending.error_type}, and is worth another try")
            self._that(old == "running", f"{record.id} failed with {ending.error_type} and was {old}")

    def is_too_late(self, id_: str) -> bool:
        """Whether a request has waited as long as its caller would."""
        record = self.all[id_]
        is_over = self._world.loop.time() >= record.due - 1e-3
        return is_over or not self._is_by_same_clock(record)

    def _is_by_same_clock(self, record: Record) -> bool:
        """Whether the node of today has the wall clock of the node that took a request.

        Where it jumped between two lives, nobody can know.
        """
        lives = self._world.lives[record.life - 1 : self._world.node.life]
        return len({life.offset_s for life in lives}) == 1

    # --- told by the node ---------------------------------------------------------------------------------

    def must_run(self, live: WatchedRequest) -> None:
        """An attempt is given to a runner: the disk must know of it, and hold nobody else's."""
        record = self.all[live.id]
        record.runs.append((live.attempt, live.life))
        held = record.state in _HELD and record.attempt == live.attempt
        self._that(
            held, f"{live.id} runs as attempt {live.attempt}; it is stored as {record.state} {record.attempt}"
        )

    # --- told by callers ----------------------------------------------------------------------------------

    def acknowledged(self, caller: Caller, id_: str) -> None:
        """A caller has its id."""
        record = self.all.get(id_)
        if record is None:
            self._that(False, f"caller {caller.number} was told {id_}, which is not stored")
            return
        record.is_acknowledged = True
        is_theirs = record.caller is caller or (record.key is not None and record.key == caller.wish.key)
        self._that(is_theirs, f"caller {caller.number} was told {id_}, which is caller {record.caller.number}'s")

    def told_unknown(self, id_: str, who: str) -> None:
        """Somebody was told that there is no such request."""
        self._that(id_ in self.gone, f"{who} was told that {id_} is unknown")

    def told_ending(self, id_: str, told: Ending, who: str) -> None:
        """Somebody was told how a request ended. All are told the same, and it has ended so."""
        ending = self.all[id_].ending
        if told.state == "cancelled" and self.all[id_].state == "cancelling":
            return  # that is decided
        is_same = ending is not None and ending[:2] == told[:2] and told.body in {None, ending.body}
        self._that(is_same, f"{who} was told of {id_}: {_short(told)}; it ended as {_short(ending)}")

    def told_unended(self, id_: str, who: str, asked_at: float) -> None:
        """Somebody was told that a request goes on."""
        record = self.all[id_]
        has_ended = record.ending is not None and record.ended_at < asked_at - self._world.disk.answers_within_s
        self._that(not has_ended, f"{who} was told that {id_} goes on; it ended at {record.ended_at:.3f} s")

    def told_cancelling(self, id_: str, who: str) -> None:
        """Somebody was told that a request will be cancelled."""
        record = self.all[id_]
        record.is_to_stop = True
        wins = record.state in {"cancelling", "cancelled"}
        self._that(wins, f"{who} was told that {id_} is cancelled; it is {record.state}")


def _is_worth_a_retry(error: RequestError) -> bool:
    """By fal's words: 503 and 504, and of what the app says of itself, what it says."""
    return error.retryable if error.type == "app_error" else error.status in _RETRIED_STATUSES


def _short(ending: Ending | None) -> str:
    if ending is None:
        return "not at all"
    return f"{ending.state} {ending.error_type} {(ending.body or b'')[:60]!r}"
