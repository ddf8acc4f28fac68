"""From a route and a body to a live request: the one door into the runners, whatever view a call came in by."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Final

from headrace.core import disconnect
from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.memory import Budget, to_shed
from headrace.core.request import RequestId, State, new_request_id
from headrace.core.routes import Route
from headrace.supervisor.catalog import Catalog
from headrace.supervisor.idempotency import IdempotencyKey, Known, hash_of, idempotency_key_of
from headrace.supervisor.meters import AppMeters, Meters, Reading
from headrace.supervisor.past import Past
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)

#: Request headers an app may see (`current_request.headers`). Never Authorization, never cookies.
HEADERS_FOR_APPS: Final = frozenset({
    "accept-language", "traceparent", "tracestate", "user-agent", "x-fal-object-lifecycle-preference",
    "x-fal-queue-priority", "x-fal-runner-hint",
})  # fmt: skip

#: Seconds between two looks at what all requests hold in memory. Windows bound how fast that can grow.
LOOK_AT_MEMORY_EVERY_S: Final = 0.5


class Dispatcher:
    """Starts requests in the pools of a catalog, and knows which are alive."""

    def __init__(self, catalog: Catalog, meters: Meters, *, node: int, limits: Limits) -> None:
        self.catalog = catalog
        self.bodies = Budget(limits.bodies_bytes_max)
        self._meters = meters
        self._node = node
        self._limits = limits
        self._live: dict[RequestId, LiveRequest] = {}
        self._known: dict[object, Known] = {}  # requests with a key of their caller's, alive or past
        self._past = Past(limits.replays_max, self._forgotten)  # have ended, and can be watched for a while
        self._held_bytes = 0  # of events, at the last look
        self.is_draining = False
        meters.watch(self._readings)

    @property
    def live(self) -> int:
        """How many requests are not over yet."""
        return len(self._live)

    def new_id(self) -> RequestId:
        """Make the id of one more request."""
        return new_request_id(os.urandom(16), self._node, time.time())

    def open(
        self,
        id_: RequestId,
        route: Route,
        body: bytes,
        headers: Mapping[str, str],
        *,
        owner: KeyId | None = None,
        base_url: str = "",
        start_timeout_s: float | None = None,
    ) -> LiveRequest:
        """Start a request, or let it wait for its slot; what becomes of it is told to its readers.

        With an `Idempotency-Key` that this owner has used for this endpoint, it is the request of then, alive or
        ended a while ago: nothing is started, and its id is not `id_`. What this call says of its leaving counts.

        `headers` have lower-case names; the app sees only `HEADERS_FOR_APPS` of them. `owner` is the key that
        may stop it. `base_url` is the server as the caller knows it. `start_timeout_s` is the longest wait for a
        slot (`X-Fal-Request-Timeout`); the default is `limits.slot_wait_s`.

        Raises `RequestError` when the node is stopping or full, the app cannot start, its waiting room is full,
        or the header `X-Headrace-On-Disconnect` cannot be read.
        """
        try:
            if (text := idempotency_key_of(headers)) is None:
                return self._open(id_, route, body, headers, owner, base_url, start_timeout_s)
            key = IdempotencyKey.of(text, route, owner)
            if (known := self._known.get(key)) is not None:
                live = known.same_as(body)
                if disconnect.HEADER in headers:
                    live.grace_s = _grace_of(route, headers)
                return live
            live = self._open(id_, route, body, headers, owner, base_url, start_timeout_s)
            live.key = key
            self._known[key] = Known(live, hash_of(body))
            return live  # noqa: TRY300 - what is raised above is a refusal, whichever way
        except RequestError as refusal:
            meters = self._meters.app(route.app.name)
            meters.request_ended(route.view.value, refusal.type, 0.0, 0)
            raise

    def _open(
        self,
        id_: RequestId,
        route: Route,
        body: bytes,
        headers: Mapping[str, str],
        owner: KeyId | None,
        base_url: str,
        start_timeout_s: float | None,
    ) -> LiveRequest:
        if self.is_draining:
            raise RequestError("shutting_down", "The server is stopping.", headers={"Retry-After": "5"})
        if self._held_bytes > self._limits.events_bytes_max:
            self._meters.shed(1)
            message = "Running requests hold all the memory there is for events; try again."
            raise RequestError("overloaded", message, headers={"Retry-After": "1"})
        pool = self.catalog.pool_of(route.app.name)  # the file may have been reloaded while the body came
        seen = {name: value for name, value in headers.items() if name in HEADERS_FOR_APPS}
        grace_s = _grace_of(route, headers)
        live = LiveRequest(id_, route, body, headers=seen, limits=self._limits, grace_s=grace_s, owner=owner)
        live.base_url = base_url
        live.on_final.append(self._ended)
        # Before it can end: what cannot wait is refused, and was never alive.
        pool.submit(live, start_timeout_s=start_timeout_s)
        if not live.is_final:
            self._live[id_] = live
        return live

    def adopt(self, live: LiveRequest) -> None:
        """Take care of a request that the queue made: it can be found, and is counted when it ends."""
        self._live[live.id] = live
        live.on_final.append(self._ended)

    def find(self, id_: str, owner: KeyId | None) -> LiveRequest | None:
        """Return a request of this owner, alive or ended a while ago.

        Another key's is as unknown as one that never was.
        """
        live = self._live.get(RequestId(id_)) or self._past.get(RequestId(id_))
        return live if live is not None and live.owner == owner else None

    def meters_of(self, live: LiveRequest) -> AppMeters:
        """Return the meters of a request's app."""
        return self._meters.app(live.route.app.name)

    def _ended(self, live: LiveRequest) -> None:
        if self._live.pop(live.id, None) is not None:
            self._past.add(live)
        now = monotonic()
        meters = self.meters_of(live)
        ending = "completed" if live.error is None else live.error.type
        meters.request_ended(live.route.view.value, ending, now - live.opened_at, live.replay.end)
        if live.started_at is not None:
            meters.waited(live.started_at - live.opened_at)
            if live.left_at is not None:
                meters.worked_after_leave(now - max(live.left_at, live.started_at))

    def _forgotten(self, live: LiveRequest) -> None:
        if live.key is not None:
            self._known.pop(live.key, None)

    # --- memory -----------------------------------------------------------------------------------------

    async def hold_within_bounds(self) -> None:
        """See to it, until cancelled, that all requests together hold no more events than the node may."""
        while True:
            await asyncio.sleep(LOOK_AT_MEMORY_EVERY_S)
            self._past.forget_old(monotonic() - self._limits.replay_s)
            excess = self._kept_bytes - self._limits.replays_bytes_max
            if excess > 0:
                self._free_taken(excess)
            self._held_bytes = self._kept_bytes
            if self._held_bytes > self._limits.events_bytes_max:
                self._shed()

    @property
    def _kept_bytes(self) -> int:
        return self._past.kept + sum(live.replay.kept for live in self._live.values())

    def _free_taken(self, excess: int) -> None:
        """Forget past requests, and then what readers of live ones have taken; the oldest go first."""
        for one in self._past:
            if excess <= 0:
                return
            if not one.is_read:
                excess -= one.replay.kept
                self._past.forget(one)
        for one in self._live.values():
            if excess <= 0:
                return
            excess -= one.replay.drop_taken()

    def _shed(self) -> None:
        """End the largest hoards, while readers who do not read hold more than there is memory."""
        live = (*self._live.values(), *(one for one in self._past if one.is_read))
        kept = [one.replay.kept for one in live]
        self._held_bytes = sum(kept)
        chosen = to_shed(kept, self._limits.events_bytes_max)
        if not chosen:
            return
        _log.warning("%d requests hold %d bytes of events; %d are ended", len(live), self._held_bytes, len(chosen))
        self._meters.shed(len(chosen))
        for position in chosen:
            one = live[position]
            if one.retries is not None and not one.is_final:
                # A queued one goes on: what is dropped is in the store, or its last event.
                one.replay.drop_taken()
                one.wake_readers()
                continue
            if one.is_final:
                self._past.empty_log(one)
            else:
                one.replay.forget()
            message = "The server had to free memory, and this stream was among the furthest behind."
            one.cancel("overloaded", message)
            one.wake_readers()  # those of a request that is over too, which cannot be cancelled

    def _readings(self) -> Iterable[Reading]:
        yield Reading("headrace_held_bytes", {"kind": "events"}, self._kept_bytes)
        yield Reading("headrace_held_bytes", {"kind": "bodies"}, self.bodies.taken)
        for name, pool in self.catalog.pools.items():
            running = sum(
                one.state is not State.QUEUED for one in self._live.values() if one.route.app.name == name
            )
            yield Reading("headrace_requests", {"app": name, "state": "waiting"}, pool.waiting)
            yield Reading("headrace_requests", {"app": name, "state": "running"}, running)
            yield Reading("headrace_runners", {"app": name, "state": "working"}, pool.fleet.working)
            leaving = len(pool.fleet.runners) - pool.fleet.working
            yield Reading("headrace_runners", {"app": name, "state": "leaving"}, leaving)

    # --- stopping ---------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take nothing new, and begin nothing that is queued; what runs may finish."""
        self.is_draining = True
        self._end_queued()

    async def finished(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Wait until no request is alive, until told to hurry, or for `timeout_s` at most."""
        deadline = monotonic() + timeout_s
        while self._live and not hurry.is_set() and monotonic() < deadline:
            await asyncio.sleep(0.05)
            self._end_queued()  # somebody came to watch one, or an attempt failed and is to be tried again

    def end_all(self) -> None:
        """End every request that is still alive, with `shutting_down`."""
        _end(self._live.values())

    def _end_queued(self) -> None:
        """Let go of the queued requests that wait: they are the next node's, and no reason to stay."""
        _end(one for one in self._live.values() if one.retries is not None and one.state is State.QUEUED)


def _end(lives: Iterable[LiveRequest]) -> None:
    for live in tuple(lives):
        live.cancel("shutting_down", "The server is stopping.")


def _grace_of(route: Route, headers: Mapping[str, str]) -> float:
    asked = headers.get(disconnect.HEADER)
    if asked is None:
        return disconnect.grace_of(route.app.on_disconnect)
    try:
        return disconnect.grace_of(asked)
    except ValueError as error:
        raise RequestError("bad_request", f"The header {disconnect.HEADER} is wrong: {error}.") from None
