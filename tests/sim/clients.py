"""Simulated clients: each sends one request to the real gateway and reads the bytes of its answer at its own pace.

A client may be quick or slow, stop reading, leave, vanish, ask that the request be stopped, or come back to it. What it
got is parsed here from nothing but the bytes, and told to the checks.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import orjson
from uvicorn.protocols.http.flow_control import FlowControl

from headrace.gateway.answers import Answer
from headrace.gateway.outlet import OUTLET, Outlet
from headrace.supervisor.streams import LiveRequest

if TYPE_CHECKING:
    from tests.sim.world import World


@dataclass(frozen=True, slots=True)
class Habit:
    """What one client asks for, and how it behaves."""

    path: str = "/sim/model/stream"
    body: bytes = b'{"valid":true}'
    headers: dict[str, str] = field(default_factory=dict)
    bytes_per_s: float = math.inf
    stalls_at_bytes: float = math.inf  # from then on it reads nothing
    leaves_s: float = math.inf
    vanishes: bool = False  # it leaves without a word
    stops_s: float = math.inf  # when it asks that the request be stopped
    comes_back_s: float = math.inf  # after it left
    is_followed: bool = False  # somebody else reads along

    @property
    def stays(self) -> bool:
        """Whether it takes all that it can get."""
        return math.inf == self.leaves_s == self.stalls_at_bytes

    @classmethod
    def draw(cls, dice: Random, app: str, rough: float) -> Habit:
        """Return a habit: that of a patient client for a `rough` of 0."""

        def sometime(likely: float, mean_s: float) -> float:
            return dice.expovariate(1 / mean_s) if dice.random() < likely * rough else math.inf

        headers = {"host": "127.0.0.1", "content-type": "application/json"}
        if dice.random() < 0.4:
            headers["x-headrace-on-disconnect"] = dice.choice(("cancel", "finish", "grace:0.5", "grace:5"))
        if dice.random() < 0.2:
            headers["x-fal-request-start-timeout"] = dice.choice(("0.5", "3", "30"))
        body = b'{"valid":%b,"pad":"%b"}' % (
            b"false" if dice.random() < 0.05 else b"true",
            b"x" * dice.choice((0, 0, 0, 0, 100, 3_000, 70_000 if dice.random() < 0.1 else 0)),
        )
        return cls(
            path=f"/{app}" + dice.choice(("/stream", "/stream", "/stream", "", "/plain")),
            body=body,
            headers=headers,
            bytes_per_s=dice.choice((100.0, 1_000.0, 20_000.0)) if dice.random() < 0.4 * rough else math.inf,
            stalls_at_bytes=dice.choice((0, 300, 2_000)) if dice.random() < 0.15 * rough else math.inf,
            leaves_s=sometime(0.5, dice.choice((0.02, 1, 10))),
            vanishes=dice.random() < 0.2,
            stops_s=sometime(0.15, 3),
            comes_back_s=dice.choice((0.0, 0.2, 2.0)) if dice.random() < 0.5 else math.inf,
            is_followed=dice.random() < 0.2,
        )


class _Socket(asyncio.Transport):
    """The gateway's side of one client's connection, and the kernel's buffer behind it."""

    def __init__(self, client: Client, room_bytes: int, high_bytes: int) -> None:
        super().__init__()
        self.flow = FlowControl(self)
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._room_bytes = room_bytes
        self._high_bytes = high_bytes
        self._unsent = bytearray()
        self.sent = bytearray()  # in the kernel; the client may take it
        self.is_closed = False
        self.is_lost = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self._client.world.checks.that(not self.is_lost, "a write to a client that is gone")
        if self.is_closed:
            return
        self._unsent += data
        self.push()
        if len(self._unsent) > self._high_bytes and not self.flow.write_paused:
            self.flow.pause_writing()

    def push(self) -> None:
        """Move to the kernel what it has room for."""
        count = min(len(self._unsent), self._room_bytes - len(self.sent))
        self.sent += self._unsent[:count]
        del self._unsent[:count]
        if self.flow.write_paused and len(self._unsent) <= self._high_bytes // 4:
            self.flow.resume_writing()
            self._client.caught_up()
        if self.is_closed and not self._unsent:
            self._lose()
        if self.sent:
            self._client.look()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.push()

    def abort(self) -> None:
        self.is_closed = True
        self._unsent.clear()
        self._lose()

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._loop.call_soon(self._client.connection_lost)

    def pause_reading(self) -> None:
        """The body is read already."""

    resume_reading = pause_reading


class _Cycle:
    """What an outlet asks of uvicorn's request and response cycle."""

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.scope = scope
        self.response_started = False
        self.response_complete = False
        self.keep_alive = True
        self.default_headers: list[tuple[bytes, bytes]] = []
        self.message_event = asyncio.Event()

    def on_response(self) -> None:
        """The connection is free for another request; there is none."""


class Client:
    """One client, its request and its connection."""

    def __init__(self, world: World, number: int, habit: Habit) -> None:
        self.world = world
        self.number = number
        self.habit = habit
        self.id: str | None = None  # its request's, once there is an answer that says it
        self.status = 0
        self.headers: dict[str, str] = {}
        self.events: list[bytes] = []
        self.error: dict[str, Any] | None = None  # of the error event
        self.body = b""  # of an answer that is no stream
        self.has_left = False
        self.is_cut = False  # the connection ended
        self.is_complete = False  # the answer ended as HTTP ends one
        self.is_answered = False  # the gateway is done with it
        self.transport = _Socket(
            self, world.dice.choice((600, 5_000, 1 << 20)), world.dice.choice((1_000, 64 * 1024))
        )
        self.flow = self.transport.flow
        self._loop = asyncio.get_running_loop()
        self._begun_at = self._loop.time()
        self._taken_bytes = 0
        self._rest = bytearray()
        self._is_reading = False
        self._timers: list[asyncio.TimerHandle] = []
        self._disconnected: asyncio.Future[None] = self._loop.create_future()
        self._is_body_sent = False
        self._over = asyncio.Event()
        self.outlet = Outlet(self, self._cycle("POST", habit.path))  # type: ignore[arg-type]

    # --- the request ------------------------------------------------------------------------------------

    def _cycle(self, method: str, path: str) -> Any:
        self._scope: dict[str, Any] = {
            "type": "http", "method": method, "path": path, "scheme": "http", "http_version": "1.1",
            "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080), "extensions": {},
            "headers": [(name.encode(), value.encode()) for name, value in self.habit.headers.items()],
        }  # fmt: skip
        return _Cycle(self._scope)

    async def run(self) -> None:
        """Make the request, and live up to the habit."""
        self._scope["extensions"][OUTLET] = self.outlet
        habit = self.habit
        self._later(habit.leaves_s, self.leave)
        self._later(habit.stops_s, self._stop)
        if habit.is_followed:
            self._later(0.3, lambda: self._join(paces=False))
        try:
            await self.world.gateway(self._scope, self._receive, self._send)
        finally:
            self.is_answered = True
        if self.habit.stalls_at_bytes < math.inf:
            self._over.set()
        await self._over.wait()
        for timer in self._timers:
            timer.cancel()
        self.world.checks.client_is_done(self)

    def _settle(self) -> None:
        """Note whether there is anything more to come."""
        if self.has_left or self.is_complete or (self.is_cut and not self.transport.sent):
            self._over.set()

    def _later(self, after_s: float, act: Callable[[], None]) -> None:
        if after_s < math.inf:
            self._timers.append(self._loop.call_later(after_s, act))

    async def _receive(self) -> dict[str, Any]:
        if self.has_left:
            return {"type": "http.disconnect"}
        if not self._is_body_sent:
            self._is_body_sent = True
            if self.world.dice.random() < 0.1:
                await asyncio.sleep(0.05)
            return {"type": "http.request", "body": self.habit.body, "more_body": False}
        await self._disconnected
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.world.checks.fail(f"an answer by ASGI's send: {message['type']}")

    # --- the connection ---------------------------------------------------------------------------------

    def answer_and_leave(self, answer: Answer) -> None:
        """As GuardedProtocol's: a refusal before the body was read, and the end of the connection."""
        status, headers, body = answer
        self.status, self.body, self.is_complete = status, body, True
        self.headers = {name.decode(): value.decode() for name, value in headers}

    def caught_up(self) -> None:
        """As GuardedProtocol.resume_writing."""
        if self.outlet.on_ready is not None:
            self.outlet.on_ready()

    def connection_lost(self) -> None:
        """As GuardedProtocol's."""
        self.is_cut = True
        self.flow.resume_writing()
        self.outlet.lost()
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        self._settle()

    def leave(self) -> None:
        """Go away: the gateway is told soon, or, of a client that vanished, by the kernel's timeout."""
        if self.has_left or self.is_cut:
            return
        self.world.note(f"client {self.number} leaves")
        self.has_left = True
        self.world.checks.left(self)
        limits = self.world.limits
        after_s = limits.stall_timeout_s + 5 + limits.heartbeat_s if self.habit.vanishes else 0.001
        self._loop.call_later(after_s, self.transport.abort)
        self.world.later(self.habit.comes_back_s, lambda: self._join(paces=True))
        self._settle()

    def _join(self, *, paces: bool) -> None:
        live = self.world.checks.request_of(self)
        if live is not None and not live.is_over:
            Follower(self.world, live, paces=paces)

    def _stop(self) -> None:
        """Ask by HTTP that the request be stopped; who asks does not wait for the answer."""
        live = self.world.checks.request_of(self)
        if live is None:
            return
        path = f"/{live.route.app.name}/requests/{live.id}/cancel"
        habit = Habit(path=path, headers=self.habit.headers)
        self.world.note(f"client {self.number} asks to stop {live.id}")
        self.world.checks.stopped(live.id)
        self.world.spawn(Stopper(self.world, self.number, habit).run())

    # --- reading ----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Something may be there to read."""
        if self.habit.bytes_per_s == self.habit.stalls_at_bytes == math.inf:
            self._take(len(self.transport.sent))
            if self.transport.get_write_buffer_size():
                self.transport.push()
        elif not self._is_reading:
            self._is_reading = True
            self._later(0.1, self._read)

    def _read(self) -> None:
        self._is_reading = False
        count = min(len(self.transport.sent), int(min(self.habit.bytes_per_s, 1e9) * 0.1))
        if self._taken_bytes + count > self.habit.stalls_at_bytes:
            count = int(self.habit.stalls_at_bytes) - self._taken_bytes
        if count:
            self._take(count)
            self.transport.push()

    def _take(self, count: int) -> None:
        if self.has_left or not count:
            return
        taken = self.transport.sent[:count]
        del self.transport.sent[:count]
        self._taken_bytes += count
        self._rest += taken
        self._parse()
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
        elif len(self._rest) >= int(self.headers["content-length"]):
            self.body, self.is_complete = bytes(self._rest), True

    def _next_chunk(self) -> bytes | None:
        size, found, _ = self._rest.partition(b"\r\n")
        if not found:
            return None
        start, length = len(size) + 2, int(size, 16)
        if len(self._rest) < start + length + 2:
            return None
        chunk = bytes(self._rest[start : start + length])
        del self._rest[: start + length + 2]
        return chunk

    def _take_chunk(self, chunk: bytes) -> None:
        checks = self.world.checks
        if not chunk:
            self.is_complete = True
        elif chunk != b": ping\n":
            for block in chunk.removesuffix(b"\n\n").split(b"\n\n"):
                checks.that(self.error is None, "an event behind the error event")
                if block.startswith(b"event: error\ndata: "):
                    self.error = orjson.loads(block[len(b"event: error\ndata: ") :])["error"]
                else:
                    checks.that(block.startswith(b"data: "), f"a block of {block[:40]!r}")
                    self.events.append(block[6:])
                    checks.received(self, block[6:])


class Stopper(Client):
    """A second connection, which asks that a request be stopped."""

    def _cycle(self, method: str, path: str) -> Any:
        return super()._cycle("PUT", path)


class Follower:
    """A reader that reads along, or comes back, at its own pace; it may set the pace itself if nobody does."""

    def __init__(self, world: World, live: LiveRequest, *, paces: bool) -> None:
        self.world = world
        self.live = live
        self.position = live.replay.first
        self.is_done = False
        self._loop = asyncio.get_running_loop()
        self._every_s = world.dice.choice((0.0, 0.0, 0.05, 2.0))
        self._due: asyncio.Handle | None = None
        live.attach(self, paces=paces)
        self.wake()

    def wake(self) -> None:
        """Look at the log, now or later."""
        if self._due is None and not self.is_done:
            self._due = self._loop.call_later(self._every_s, self._read)

    def _read(self) -> None:
        self._due = None
        replay = self.live.replay
        if self.position < replay.first:
            self.world.checks.that(self.live._pacer is not self, "the pacing reader lost events")
            self.position = replay.first  # a gap, and it knows
        texts = replay.since(self.position)
        self.world.checks.followed(self.live, self.position, texts)
        self.position += len(texts)
        if self.live._pacer is self:
            self.live.took(self.position, replay.cost)
        if self.live.is_over:
            self.is_done = True
            self.live.detach(self)
