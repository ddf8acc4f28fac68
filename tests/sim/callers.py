"""Simulated callers of the queue: each submits one request, follows it in many ways, and fetches what became of it.

A caller does what fal's clients do: it submits again when nobody answered or the server was busy, asks for the status
until the request has ended, watches it, comes back to a stream that was cut, cancels. What it is told is compared with
what the disk holds (`records`).
"""

from __future__ import annotations

import asyncio
import functools
import math
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

from headrace.gateway.resends import RESEND_S
from tests.sim.clients import Client, Habit
from tests.sim.records import Ending

if TYPE_CHECKING:
    from tests.sim.records import Record
    from tests.sim.world import World

#: What a caller can do with a request that it has.
_VISITS = ("status", "status/stream", "stream", "stream", "result", "cancel")

#: Endings of a stream that say nothing of its request: that goes on, or nobody watched it well enough.
_NO_ENDINGS = ("shutting_down", "replay_gone", "reader_stalled", "overloaded", "store_unavailable")


@dataclass(frozen=True, slots=True)
class Wish:
    """What one caller wants, and how it goes about it."""

    app: str
    path: str = ""
    body: bytes = field(default=b'{"valid":true}', repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    queue_max: int = 1_000_000
    start_timeout_s: float | None = None
    tries: int = 4
    leaves_s: float = math.inf  # while it submits
    visits: tuple[tuple[float, str], ...] = ()

    @property
    def key(self) -> str | None:
        """Its idempotency key."""
        return self.headers.get("idempotency-key")

    @classmethod
    def draw(cls, dice: Random, app: str, number: int, rough: float) -> Wish:
        """Return a wish: a simple one for a `rough` of 0."""
        headers = {"host": "127.0.0.1", "content-type": "application/json"}
        start_timeout_s = None
        if dice.random() < 0.3:
            headers["x-fal-queue-priority"] = dice.choice(("normal", "low", "low"))
        if dice.random() < 0.15:
            start_timeout_s = dice.choice((0.5, 5.0, 40.0))
            headers["x-fal-request-start-timeout"] = str(start_timeout_s)
        if dice.random() < 0.2:
            headers["x-fal-no-retry"] = "1"
        if dice.random() < 0.3:
            headers["x-fal-runner-hint"] = dice.choice(("tea", "coffee"))
        if dice.random() < 0.3:
            headers["idempotency-key"] = f"key-{dice.randrange(12)}"
        of = dice.randrange(2) if "idempotency-key" in headers else number  # so that keys meet another body, too
        pad = b"x" * dice.choice((0, 0, 0, 20_000))
        visits = dice.choice((0, 1, 3, 6))
        return cls(
            app=app,
            path=dice.choice(("", "", "/plain")),
            body=b'{"valid":%b,"of":%d,"pad":"%b"}' % (b"false" if dice.random() < 0.03 else b"true", of, pad),
            headers=headers,
            queue_max=dice.choice((0, 2, 5)) if dice.random() < 0.1 else 1_000_000,
            start_timeout_s=start_timeout_s,
            tries=dice.choice((1, 4, 8)),
            leaves_s=dice.choice((0.0, 0.002, 0.05)) if dice.random() < 0.4 * rough else math.inf,
            visits=tuple(
                (dice.expovariate(1 / dice.choice((0.1, 3.0, 20.0))), dice.choice(_VISITS)) for _ in range(visits)
            ),
        )


class Caller:
    """One caller and its request."""

    def __init__(self, world: World, number: int, wish: Wish) -> None:
        self.world = world
        self.number = number
        self.wish = wish
        self.agent = f"caller {number}"
        self.id: str | None = None
        self.began_at = world.loop.time()
        self.has_stopped = False  # it asked that its request be cancelled
        self._posts: list[tuple[QueueCall, float]] = []  # each with the time when it was over
        self._stored: list[Record] = []

    @property
    def _base(self) -> str:
        return f"/queue/{self.wish.app}/requests/{self.id}"

    async def run(self) -> None:
        """Do all of it."""
        self.id = await self._submit()
        if self.id is None:
            return
        for after_s, visit in self.wish.visits:
            self.world.later(after_s, functools.partial(self._begin, visit))
        await self._follow()

    def is_stored(self, record: Record) -> None:
        """The disk has a request of this caller's: its first, or there is a reason."""
        before, self._stored = self._stored, [*self._stored, record]
        if not before or self.wish.key is not None:
            return
        *earlier, (last, _) = self._posts
        first, over_at = earlier[-1] if earlier else (last, math.inf)
        is_excused = (
            first.has_answer  # which was written, and may not have arrived
            or self.world.loop.time() - over_at > RESEND_S - 1
            or before[-1].life != record.life
            or any(call.node.life != record.life for call, _ in self._posts[-2:])
            or self.world.disk.answers_within_s == math.inf
        )
        self.world.checks.note(is_excused, f"caller {self.number} is two requests: {before[-1].id}, {record.id}")

    # --- what it does -----------------------------------------------------------------------------------

    async def _submit(self) -> str | None:
        wish, dice = self.wish, self.world.dice
        query = f"fal_max_queue_length={wish.queue_max}".encode() if wish.queue_max < 1_000_000 else b""
        for turn in range(wish.tries):
            leaves_s = wish.leaves_s if turn == 0 else math.inf
            habit = Habit(f"/queue/{wish.app}{wish.path}", "POST", wish.body, wish.headers, leaves_s=leaves_s)
            call = QueueCall(self, habit, "submit", query)
            self._posts.append((call, math.inf))
            await call.go()
            self._posts[-1] = call, self.world.loop.time()
            if call.status == 200 and not call.has_left:
                id_: str = orjson.loads(call.body)["request_id"]
                self.world.records.acknowledged(self, id_)
                return id_
            if call.status not in {0, 429, 503} or self.world.is_ending:
                return None
            await asyncio.sleep(dice.choice((0.1, 0.5, 3.0)))
        return None

    def _begin(self, visit: str) -> None:
        if self.world.is_storm and not self.world.is_ending:
            self.world.spawn(self._visit(visit))

    async def _visit(self, visit: str) -> None:
        if visit == "stream":
            await self._watch(0, 0)
        elif visit == "cancel":
            self.has_stopped = True
            assert self.id is not None
            self.world.records.all[self.id].caller.has_stopped = True
            self.world.checks.stopped(self.id)
            await self._ask("PUT", "cancel")
        else:
            await self._ask("GET", visit)

    async def _watch(self, position: int, attempt: int) -> None:
        """Watch the stream, and come back to it when it was left or cut."""
        world, dice = self.world, self.world.dice
        headers = {"host": "127.0.0.1"}
        if position:
            headers["last-event-id"] = f"{self.id}.{attempt}.{position - 1}"
        drawn = Habit.draw(dice, "", world.plan.rough_clients)
        habit = replace(
            drawn, path=dice.choice((f"{self._base}/stream", f"/{self.wish.app}/requests/{self.id}/stream")),
            method="GET", body=b"", headers=headers, position=position, attempt=attempt, stops_s=math.inf,
            is_followed_s=math.inf, comes_back_s=math.inf,
        )  # fmt: skip
        call = QueueCall(self, habit, "stream")
        await call.go()
        if (call.has_left or not call.is_complete) and dice.random() < 0.8 and world.is_storm:
            await asyncio.sleep(dice.choice((0.0, 0.5, 5.0)))
            await self._watch(call.position, call.attempt if call.position else 0)

    async def _follow(self) -> None:
        """Ask until it has ended, and then how, more than once."""
        wait_s = self.world.dice.choice((0.2, 1.0))
        while not self.world.is_ending:
            await asyncio.sleep(wait_s)
            wait_s = min(20.0, wait_s * 1.7)
            call = await self._ask("GET", "status")
            if call.status == 404 or not (self.world.is_storm or self.world.is_served(self.wish.app)):
                return  # it is forgotten, or nothing will ever come
            if call.status == 200:
                break
        for _ in range(2):
            await self._ask("GET", self.world.dice.choice(("result", "response")))

    async def _ask(self, method: str, action: str) -> QueueCall:
        path = self._base if action == "result" else f"{self._base}/{action}"
        query = b"logs=1" if action.startswith("status") and self.world.dice.random() < 0.3 else b""
        call = QueueCall(self, Habit(path, method, b"", {"host": "127.0.0.1"}), action, query)
        await call.go()
        return call


class QueueCall(Client):
    """One call of a caller's."""

    def __init__(self, caller: Caller, habit: Habit, action: str, query: bytes = b"") -> None:
        world = caller.world
        super().__init__(world, len(world.clients) + 1, habit, caller.agent)
        self._scope["query_string"] = query
        self._caller = caller
        self._action = action
        self._asked_at = world.loop.time()
        self._statuses: list[dict[str, Any]] = []

    @property
    def waits_for(self) -> str | None:
        """The app whose queue its request is in."""
        return self._caller.wish.app

    @property
    def has_answer(self) -> bool:
        """Whether the node wrote anything."""
        return self._transport.has_answer

    async def go(self) -> None:
        """Make the call."""
        world = self.world
        world.clients.append(self)
        world.active_clients[self] = None
        world.note(f"caller {self._caller.number}, client {self.number}: {self._action} {self.habit}")
        await self.run()

    def tell(self) -> None:
        """Compare what came of it with what the disk holds."""
        checks = self.world.checks
        checks.clients_done += 1
        if self.has_left or self._action == "submit":
            return
        who = f"client {self.number} ({self._action})"
        if not self.status:
            checks.that(self.may_be_cut, f"{who} got no answer")
        elif self.headers.get("content-type", "").startswith("text/event-stream"):
            self._tell_stream(who)
        elif not self.is_complete:
            checks.that(self.may_be_cut, f"{who} got half an answer")
        elif self.status != 204:
            self._tell_answer(who, orjson.loads(self.body))

    @property
    def _of(self) -> str:
        assert self._caller.id is not None
        return self._caller.id

    def _tell_answer(self, who: str, told: dict[str, Any]) -> None:
        records, id_ = self.world.records, self._of
        type_ = told.get("error_type")
        if type_ == "store_unavailable":
            has_cause = self.world.disk.has_failed or self.node.is_stopping
            self.world.checks.that(has_cause, f"{who} was told that the store fails")
        elif self.status == 404 and not self._is_answered_by_model(told):
            is_served = records.all[id_].app in self.node.catalog.routes.apps
            if is_served:
                records.told_unknown(id_, who)
        elif self._action == "cancel":
            if self.status == 202:
                records.told_cancelling(id_, who)
            else:
                self.world.checks.that(records.all[id_].ending is not None, f"{who} was told that it has ended")
        elif self._action == "status":
            self._tell_status(told, who)
        elif type_ == "still_in_progress":
            records.told_unended(id_, who, self._asked_at)
        elif type_ not in _NO_ENDINGS:
            body = self.body if self._action != "stream" else None
            records.told_ending(id_, _ending(type_ if self.status >= 400 else None, body), who)

    def _is_answered_by_model(self, told: dict[str, Any]) -> bool:
        return told.get("error_type") not in {"request_not_found", "not_found", None}

    def _tell_status(self, told: dict[str, Any], who: str) -> None:
        records, id_ = self.world.records, self._of
        is_over = told["status"] == "COMPLETED"
        self.world.checks.that(told["request_id"] == id_, f"{who} was told of {told['request_id']}")
        self.world.checks.that(told.get("queue_position", 0) >= 0, f"{who} was told {told}")
        if is_over:
            records.told_ending(id_, _ending(told.get("error_type"), None), who)
        else:
            records.told_unended(id_, who, self._asked_at)

    def _tell_stream(self, who: str) -> None:
        checks, records, id_ = self.world.checks, self.world.records, self._of
        if self._action == "status/stream":
            checks.that(self.may_be_cut or self.is_complete, f"{who} was cut off")
            return
        if self.error is not None:
            type_ = self.error["type"]
            if type_ == "attempt_restarted":
                checks.fail(f"{who} has ids, and was told {type_}")
            elif type_ not in _NO_ENDINGS:
                records.told_ending(id_, _ending(type_, None), who)
        elif self.is_complete:
            made = checks.made_by((id_, self.attempt))
            checks.that(
                self.position == len(made), f"{who} saw success after {self.position} of {len(made)} events"
            )
            records.told_ending(id_, Ending("completed", None, None), who)
        else:
            checks.that(self.may_be_cut, f"{who} was cut off without a word")

    def _take_event(self, block: bytes) -> None:
        if self._action != "status/stream":
            super()._take_event(block)
            return
        self.world.checks.that(block.startswith(b"data: "), f"a status that is no event: {block[:80]!r}")
        self._asked_at = self.world.loop.time()
        self._tell_status(orjson.loads(block[6:]), f"client {self.number} (status/stream)")


def _ending(error_type: str | None, body: bytes | None) -> Ending:
    """Return how a request ended, by what somebody was told."""
    state = "completed" if error_type is None else "cancelled" if error_type == "client_cancelled" else "failed"
    return Ending(state, error_type, body)
