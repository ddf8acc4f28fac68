"""Simulated clients: each sends one request to the real gateway and takes the bytes of its answer at its own pace.

A client may be quick or slow, stop reading, leave, vanish, come back for the rest, or ask that the request be stopped.
What it got is read here from nothing but the bytes, and told to the checks.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

from headrace.core.event_ids import EventId, parse_event_id
from headrace.gateway.outlet import OUTLET
from tests.sim.connection import Connection, Transport

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

_ROLLBACK = b'{"type":"rollback"'


@dataclass(frozen=True, slots=True)
class Habit:
    """What one client asks for, and how it behaves."""

    path: str
    method: str = "POST"
    body: bytes = field(default=b'{"valid":true}', repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    position: int = 0  # of the first event it wants
    attempt: int = 0  # which that is of; 0: whatever there is
    bytes_per_s: float = math.inf
    stalls_at_bytes: float = math.inf  # from then on it takes nothing
    leaves_s: float = math.inf
    vanishes: bool = False  # it leaves without a word
    comes_back_s: float = math.inf  # after it left, or had everything
    is_followed_s: float = math.inf  # when somebody else begins to watch the same request
    stops_s: float = math.inf  # when it asks that the request be stopped

    @classmethod
    def draw(cls, dice: Random, app: str, rough: float) -> Habit:
        """Return a habit: a patient client's for a `rough` of 0."""

        def sometime(likely: float, mean_s: float) -> float:
            return dice.expovariate(1 / mean_s) if dice.random() < likely * rough else math.inf

        headers = {"host": "127.0.0.1", "content-type": "application/json"}
        if dice.random() < 0.4:
            headers["x-headrace-on-disconnect"] = dice.choice(("cancel", "finish", "grace:0.5", "grace:5"))
        if dice.random() < 0.2:
            headers["x-fal-request-start-timeout"] = dice.choice(("0.5", "3", "30"))
        if dice.random() < 0.1:
            headers["idempotency-key"] = f"key-{dice.randrange(8)}"
        pad = b"x" * dice.choice((0, 0, 0, 0, 100, 3_000, 70_000 if dice.random() < 0.1 else 0))
        # Nobody sends what another sends, but for the holders of one key: unanswered, it would be the other's.
        of = 0 if "idempotency-key" in headers else dice.getrandbits(32)
        return cls(
            path=f"/{app}" + dice.choice(("/stream", "/stream", "/stream", "", "/plain")),
            body=b'{"valid":%b,"of":%d,"pad":"%b"}' % (b"false" if dice.random() < 0.05 else b"true", of, pad),
            headers=headers,
            bytes_per_s=dice.choice((1_000, 5_000, 50_000)) if dice.random() < 0.3 * rough else math.inf,
            stalls_at_bytes=dice.choice((0, 300, 2_000)) if dice.random() < 0.3 * rough else math.inf,
            leaves_s=sometime(0.5, dice.choice((0.02, 1, 10))),
            vanishes=dice.random() < 0.2,
            comes_back_s=dice.choice((0.0, 0.2, 2.0)) if dice.random() < 0.5 else math.inf,
            is_followed_s=sometime(0.2, 0.5),
            stops_s=sometime(0.15, 3),
        )


class Client:
    """One client, its request and what it has of the answer."""

    def __init__(self, world: World, number: int, habit: Habit, agent: str | None = None) -> None:
        self.world = world
        self.number = number
        self.habit = habit
        self.method = habit.method
        self.agent = agent or f"client {number}"  # by which its request is found
        self.id: str | None = None  # its request's, once the answer has said it
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""  # of an answer that is no stream
        self.position = habit.position  # of the event that should come next
        self.attempt = habit.attempt  # of the events it gets; 0: none so far
        self.error: dict[str, Any] | None = None  # of the error event
        self.has_left = False
        self.is_complete = False  # the answer ended as HTTP ends one
        self.is_refused = False  # nobody listened
        self.node: Node = world.node  # that answers
        self.moved_at = world.loop.time()
        self._loop = asyncio.get_running_loop()
        self._rest = bytearray()
        self._taken_bytes = self._seen_bytes = 0
        self._is_body_sent = False
        self._reading: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._is_served = asyncio.Event()
        dice = world.dice
        self._transport = Transport(
            dice.choice((300, 5_000, 1 << 20)), dice.choice((200, 2_000, 64 * 1024)), self.node.context, self._look
        )
        self._scope: dict[str, Any] = {
            "type": "http", "method": habit.method, "path": habit.path, "query_string": b"", "scheme": "http",
            "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
            "headers": [(name.encode(), value.encode()) for name, value in habit.headers.items()]
            + [(b"user-agent", self.agent.encode())],
        }  # fmt: skip
        self._connection = Connection(self._scope, self._transport)
        self._scope["extensions"] = {OUTLET: self._connection.outlet}

    @property
    def may_stall(self) -> bool:
        """Whether the node may take it for a reader that does not read."""
        return min(self.habit.bytes_per_s, self.habit.stalls_at_bytes) < math.inf or self.has_left

    @property
    def is_moving(self) -> bool:
        """Whether it took something since this was asked last, or there is nothing that it should take."""
        seen, self._seen_bytes = self._seen_bytes, self._taken_bytes
        return seen != self._taken_bytes or not self._transport.is_held_up or self._connection.outlet.is_done

    @property
    def resumes(self) -> bool:
        """Whether it watches a request that was begun by another call."""
        return self.habit.method == "GET" or "idempotency-key" in self.habit.headers

    @property
    def may_be_cut(self) -> bool:
        """Whether the node may hang up without a word: it was killed, it stops, or it is not read."""
        return self.may_stall or self.node.is_stopping or self.node.is_killed

    async def run(self) -> None:
        """Make the request, and live up to the habit."""
        world, habit = self.world, self.habit
        if not self.node.is_up or self.node.is_stopping:  # which has closed its listeners
            self.is_refused = True
            del world.active_clients[self]
            return
        self.node.clients[self] = None
        for after_s, act in (
            (habit.leaves_s, self.leave), (habit.stops_s, self._stop), (habit.is_followed_s, self._be_followed),
        ):  # fmt: skip
            world.later(after_s, act)
        serving = self.node.do(self.node.views(self._scope, self._receive))
        serving.add_done_callback(lambda task: self._served(task), context=world.loop.outside)
        await self._is_served.wait()
        watch = asyncio.ensure_future(self._connection.is_lost.wait())
        watch.add_done_callback(lambda _: self._settle())
        if habit.stalls_at_bytes < math.inf:
            self._over.set()
        self._settle()
        await self._over.wait()
        watch.cancel()
        if self._reading is not None:
            self._reading.cancel()
        if self.is_complete and self.position and self.method == "POST":
            world.later(habit.comes_back_s, self._come_back)  # as a browser's EventSource does
        del world.active_clients[self]
        self.node.clients.pop(self, None)
        self.tell()

    def tell(self) -> None:
        """Tell the checks what came of it."""
        self.world.checks.client_is_done(self)

    def _served(self, task: asyncio.Task[None]) -> None:
        self.world.must_be_well(task)
        self._is_served.set()

    def _settle(self) -> None:
        """Note whether anything can still come."""
        is_dry = self._connection.is_lost.is_set() and not self._transport.sent
        if self.has_left or self.is_complete or is_dry:
            self._over.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._is_body_sent:
            self._is_body_sent = True
            if self.world.dice.random() < 0.1:
                await asyncio.sleep(0.05)
            if not self._connection.is_lost.is_set():
                return {"type": "http.request", "body": self.habit.body, "more_body": False}
        await self._connection.is_lost.wait()
        return {"type": "http.disconnect"}

    def hang_up(self) -> None:
        """The node leaves, and with it the connection."""
        self._transport.abort()

    @property
    def waits_for(self) -> str | None:
        """The app whose queue its request is in."""
        return None

    def cut(self) -> None:
        """The node was killed. What its kernel has of the answer still comes."""
        self._transport.die()
        self._connection.is_lost.set()
        self._is_served.set()

    # --- what else it does ------------------------------------------------------------------------------

    def leave(self) -> None:
        """Go away. The gateway is told soon; of a client that vanished, by the kernel's timeout."""
        if self._over.is_set():
            return
        world, limits = self.world, self.world.limits
        world.note(f"client {self.number} leaves")
        self.has_left = True
        # TCP_USER_TIMEOUT, counted from the first heartbeat that nobody acknowledges.
        gone_s = limits.heartbeat_s + limits.stall_timeout_s + 5 if self.habit.vanishes else 0.001
        world.later(gone_s, self._transport.abort)
        world.later(gone_s + self.habit.comes_back_s, self._come_back)
        self._settle()

    def _come_back(self) -> None:
        self._send_another("GET", "stream", last_event_id=self.position)

    def _be_followed(self) -> None:
        self._send_another("GET", "stream", last_event_id=0)

    def _stop(self) -> None:
        if live := self.world.checks.request_of(self):
            self.world.checks.stopped(live.id)
            self._send_another("PUT", "cancel", last_event_id=0)

    def _send_another(self, method: str, action: str, *, last_event_id: int) -> None:
        """Ask something of this request by its id, on a connection of its own."""
        live = self.world.checks.request_of(self)
        if live is None or not self.world.is_storm:
            return
        headers = {"host": "127.0.0.1"}
        if last_event_id:
            headers["last-event-id"] = f"{live.id}.{self.attempt}.{last_event_id - 1}"
        habit = replace(
            Habit.draw(self.world.dice, "", self.world.plan.rough_clients),
            path=f"/{live.route.app.name}/requests/{live.id}/{action}", method=method, body=b"", headers=headers,
            position=last_event_id, attempt=self.attempt if last_event_id else 0, stops_s=math.inf, is_followed_s=math.inf, comes_back_s=math.inf,
        )  # fmt: skip
        self.world.note(f"client {self.number}: {method} {action} of {live.id} from {last_event_id}")
        self.world.add_client(habit, self.agent)

    # --- reading ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """There are bytes to take: now, or in a while."""
        if self.habit.bytes_per_s == self.habit.stalls_at_bytes == math.inf:
            self._take(len(self._transport.sent))
        elif self._reading is None:
            self._reading = self._loop.call_later(0.25, self._take_some, context=self.world.loop.outside)

    def _take_some(self) -> None:
        self._reading = None
        count = min(len(self._transport.sent), math.ceil(min(self.habit.bytes_per_s, 1e9) / 4))
        self._take(int(min(count, self.habit.stalls_at_bytes - self._taken_bytes)))
        if self._transport.sent and self._taken_bytes < self.habit.stalls_at_bytes:
            self._look()

    def _take(self, count: int) -> None:
        if self.has_left or count <= 0:
            return
        self._taken_bytes += count
        self._rest += self._transport.take(count)
        self._parse()
        self._transport.push()
        self._settle()

    def _parse(self) -> None:
        if not self.status:
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return
            self._rest = rest
            lines = bytes(head).decode("latin-1").split("\r\n")
            self.status = int(lines[0].split(" ")[1])
            self.headers = dict(line.split(": ", 1) for line in lines[1:])
            self.id = self.headers["x-fal-request-id"]
        if "transfer-encoding" in self.headers:
            while not self.is_complete and (chunk := self._next_chunk()) is not None:
                self._take_chunk(chunk)
        elif len(self._rest) >= int(self.headers.get("content-length", "0")):
            self.body, self.is_complete = bytes(self._rest), True

    def _next_chunk(self) -> bytes | None:
        end = self._rest.find(b"\r\n")
        if end < 0:
            return None
        start, length = end + 2, int(self._rest[:end], 16)
        if len(self._rest) < start + length + 2:
            return None
        chunk = bytes(self._rest[start : start + length])
        del self._rest[: start + length + 2]
        return chunk

    def _take_chunk(self, chunk: bytes) -> None:
        if not chunk:
            self.is_complete = True
        elif chunk != b": ping\n":
            self.world.checks.that(chunk.endswith(b"\n\n"), f"a chunk that ends within an event: {chunk[-40:]!r}")
            for block in chunk[:-2].split(b"\n\n"):
                self._take_event(block)

    def _take_event(self, block: bytes) -> None:
        checks = self.world.checks
        checks.that(self.error is None, "an event behind the error event")
        *before, last = block.split(b"\n")
        checks.that(last.startswith(b"data: "), f"an event without data: {block[:80]!r}")
        text = last[6:]
        id_ = parse_event_id(before.pop(0)[4:].decode()) if before and before[0].startswith(b"id: ") else None
        if before == [b"event: error"]:
            self.error = orjson.loads(text)["error"]
            return
        checks.that(not before, f"an unknown field: {block[:80]!r}")
        if id_ is not None and text.startswith(_ROLLBACK):
            self._roll_back(id_, orjson.loads(text)["attempt"])
            return
        if not self.position:  # nothing of an attempt came yet: it may have been passed over
            self.attempt = max(self.attempt, id_.attempt if id_ is not None else 1)
        is_next = id_ is None or id_ == EventId(self.id or "", self.attempt, self.position)
        checks.that(is_next, f"client {self.number} got the event {id_} at {self.attempt}.{self.position}")
        checks.received(self, text)
        self.position += 1

    def _roll_back(self, id_: EventId, attempt: int) -> None:
        """What came so far does not count: another attempt begins."""
        at = EventId(self.id or "", self.attempt, self.position - 1)
        self.world.checks.that(id_ == at, f"client {self.number} got a rollback marker {id_} at {at}")
        self.world.checks.that(attempt > self.attempt, f"a rollback from {self.attempt} to {attempt}")
        self.attempt, self.position = attempt, 0
        self.world.records.met.add("rolled back")
