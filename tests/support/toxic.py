"""A TCP proxy that does to connections what networks do: the eight toxics that Toxiproxy has names for.

    with Toxic(server.port) as proxy:
        proxy.add("latency", direction="down", ms=200)
        …a client of 127.0.0.1:proxy.port…
        proxy.clear()

A toxic works on one direction, "up" (client to server) or "down" (server to client), of every connection, the ones that
are open already too. Several may work at once. `reset_peer`, `down` and a `timeout` with `ms` end the whole connection,
whichever direction they stand on. Without a toxic the proxy is a wire: bytes, half-closes and resets pass as they come.

It knows nothing of HTTP, and holds at most `HELD_BYTES_MAX` of each direction, so that a stalled client is felt upstream.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Literal, Self

from tests.support.toxics import TOXICS, Down, Effect, Plan, Timeout

Direction = Literal["up", "down"]

#: Bytes of one direction of a connection that wait in the proxy; beyond it, it stops reading.
HELD_BYTES_MAX = 64 * 1024
#: Each of the kernel's buffers. Left alone they swallow megabytes, and no server would feel a slow client.
SOCKET_BYTES = 64 * 1024
PIECE_BYTES = 4 * 1024
#: Of Linux; the socket module has no names for them.
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
#: Seconds the proxy's own thread may take for anything.
DEADLINE_S = 20.0


class Toxic:
    """The proxy, in a thread of its own. Everything of it is closed when the `with` block is left."""

    def __init__(self, upstream_port: int, *, seed: int = 0) -> None:
        self.upstream_port = upstream_port
        self.dice = random.Random(seed)
        self.opened = 0  # connections ever
        self.effects: dict[Direction, dict[Effect, float]] = {"up": {}, "down": {}}  # and when each was added
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._is_down = False
        self._links: set[_Link] = set()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def add(self, toxic: str, *, direction: Direction = "down", **settings: Any) -> None:
        """Add one of `TOXICS`, with the fields of its class. In force when this returns."""
        self._call(self._add(TOXICS[toxic](**settings), direction))

    def clear(self) -> None:
        """Take all toxics away. What was held goes on at once; what was thrown away is gone."""
        self._call(self._clear())

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._change, self._stop = asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"toxic proxy {self.port}")
        self._thread.start()
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._serving.result(DEADLINE_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(DEADLINE_S)
            assert not self._thread.is_alive(), "the proxy's thread does not end"
            self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    # --- in the thread ----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._loop.add_reader(self._listener, self._welcome)
                await self._stop.wait()
                for link in self._links:
                    link.task.cancel()
        finally:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _welcome(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # it left before it was accepted
            client, _ = self._listener.accept()
            self.opened += 1
            link = _Link(self, client)
            self._links.add(link)
            link.task = self._tasks.create_task(link.run())
            link.task.add_done_callback(lambda _: self._see_off(link))

    def _see_off(self, link: _Link) -> None:
        link.close()
        self._links.discard(link)

    async def _add(self, effect: Effect, direction: Direction) -> None:
        self.effects[direction][effect] = self._loop.time()
        self._changed()

    async def _clear(self) -> None:
        self.effects = {"up": {}, "down": {}}
        self._changed()

    def _changed(self) -> None:
        is_down = any(isinstance(effect, Down) for effects in self.effects.values() for effect in effects)
        if is_down != self._is_down:
            self._is_down = is_down
            self._go_down() if is_down else self._come_back()
        for link in self._links:
            link.plug()
        self._change.set()
        self._change = asyncio.Event()

    def _go_down(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        # Bound and not listening, it refuses, and keeps the port ours.
        self._listener = socket.socket()
        self._listener.setblocking(False)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))

    def _come_back(self) -> None:
        self._listener.listen(1024)
        self._loop.add_reader(self._listener, self._welcome)

    async def stays(self, seconds: float) -> bool:
        """Wait so long; False as soon as the toxics have changed."""
        if seconds <= 0:
            return True
        change = self._change
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await change.wait()
                return False
        return True


class _Closed(Exception):
    """A toxic closes the connection."""


class _Reset(Exception):
    """A toxic resets the connection."""


class _Link:
    """One connection: two sockets, and a flow from each to the other."""

    task: asyncio.Task[None]

    def __init__(self, proxy: Toxic, client: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._upstream = client, socket.socket()
        self._resets = False
        self._flows: dict[Direction, _Flow] = {
            "up": _Flow(proxy, "up", self._client, self._upstream),
            "down": _Flow(proxy, "down", self._upstream, self._client),
        }
        for end in (self._client, self._upstream):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)

    async def run(self) -> None:
        """Carry bytes until both sides have ended, one side is gone, or a toxic ends it."""
        try:
            await asyncio.get_running_loop().sock_connect(self._upstream, ("127.0.0.1", self._proxy.upstream_port))
            self.plug()
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch())
                await asyncio.wait([tasks.create_task(flow.run()) for flow in self._flows.values()])
                watch.cancel()
        except* (_Reset, OSError):  # OSError: one end reset it, or was never there; the other is told the same
            self._resets = True
        except* _Closed:
            pass

    def close(self) -> None:
        """Close both ends."""
        # From whom no packet arrives, no answer to a FIN arrives either: the kernel would try for minutes.
        is_vanished = any(flow.is_vanished for flow in self._flows.values())
        for end in (self._client, self._upstream):
            if self._resets or is_vanished:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    def plug(self) -> None:
        """Cut or mend the cable of each flow, as the toxics say now."""
        for flow in self._flows.values():
            flow.plug()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        while True:
            ends = [
                (max(opened_at, added_at) + after_s, effect.resets)
                for effects in self._proxy.effects.values()
                for effect, added_at in effects.items()
                if (after_s := effect.ends_after_s()) is not None
            ]
            ends_at, resets = min(ends, default=(math.inf, False))
            if await self._proxy.stays(ends_at - loop.time()):
                raise _Reset if resets else _Closed


class _Flow:
    """One direction of a connection: what arrives is stamped and held, then goes on as the toxics allow."""

    def __init__(self, proxy: Toxic, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        self._proxy, self._direction = proxy, direction
        self._source, self._target = source, target
        self._held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()  # bounded by `_held_bytes`
        self._held_bytes = 0
        self._has_room = asyncio.Event()
        self._passed: Counter[Effect] = Counter()
        self.is_vanished = False

    @property
    def _effects(self) -> list[Effect]:
        return list(self._proxy.effects[self._direction])

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_in())
            tasks.create_task(self._pass_on())

    async def _take_in(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._source, PIECE_BYTES):
            self._held_bytes += len(data)
            self._held.put_nowait((loop.time(), data))
            while self._held_bytes >= HELD_BYTES_MAX:
                self._has_room.clear()
                await self._has_room.wait()
        self._held.put_nowait((loop.time(), b""))

    async def _pass_on(self) -> None:
        while True:
            arrived_at, data = await self._held.get()
            if not data:
                return await self._pass_on_the_end(arrived_at)
            rest = data
            while rest:
                rest = rest[await self._pass_on_some(rest, arrived_at) :]
            self._held_bytes -= len(data)
            self._has_room.set()

    async def _pass_on_some(self, data: bytes, arrived_at: float) -> int:
        """Return how many bytes are done with: sent or thrown away."""
        effects = self._effects
        plan = self._plan(effects, len(data), arrived_at)
        if plan.is_dropped:
            return len(data)
        size = int(min(plan.size, plan.bytes_left))
        if not await self._proxy.stays(plan.wait_s + size / plan.bytes_per_s):
            return 0
        await asyncio.get_running_loop().sock_sendall(self._target, data[:size])
        self._passed.update(dict.fromkeys(effects, size))
        if size == plan.bytes_left:
            raise _Closed
        return size

    async def _pass_on_the_end(self, arrived_at: float) -> None:
        while True:
            plan = self._plan(self._effects, 0, arrived_at)
            if await self._proxy.stays(math.inf if plan.is_dropped else plan.wait_s):
                return self._target.shutdown(socket.SHUT_WR)

    def _plan(self, effects: list[Effect], size: int, arrived_at: float) -> Plan:
        plan = Plan(is_end=size == 0, size=size, age_s=asyncio.get_running_loop().time() - arrived_at)
        for effect in effects:
            effect.shape(plan, self._passed[effect], self._proxy.dice)
        return plan

    def plug(self) -> None:
        """Drop what comes from the source before TCP sees it, or no longer, as the toxics say."""
        vanishes = any(isinstance(effect, Timeout) and effect.vanished for effect in self._effects)
        if vanishes and not self.is_vanished:
            nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes
            program = struct.pack("HL", 1, ctypes.addressof(nothing))
            self._source.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        elif self.is_vanished and not vanishes:
            self._source.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        self.is_vanished = vanishes
