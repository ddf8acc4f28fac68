"""The durable queue: requests that are accepted for good, wait for a slot, and are tried until they end.

    submit ─> in the store ─> in line ─> an attempt with a slot ─> its ending in the store
                                 └──────── tried again <────────┘

What the store has said yes to is never lost: whatever a request does is in the store before anybody is told. In
memory there is only what stands in line and what runs; what has ended is read from the store.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from math import inf
from typing import Final

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.line import Line
from headrace.core.request import RequestId, State
from headrace.core.routes import Route, View
from headrace.store.port import (
    Cancelling,
    NewRequest,
    Outcome,
    RequestStore,
    StoreBusy,
    StoreUnavailable,
)
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.pool import Pool
from headrace.supervisor.recorder import ASK_AGAIN_S, Recorder
from headrace.supervisor.request_log import RequestLog
from headrace.supervisor.streams import LiveRequest
from headrace.supervisor.tickets import Ticket, TicketRetries, new_of, outcome_of, without_large_body

_log = logging.getLogger(__name__)

#: Who holds the leases. One node has the store to itself, so whatever was held when it opens is nobody's.
NODE: Final = "local"

#: Ended requests that are forgotten in one step, and seconds between two steps while there are more: a submit in
#: between waits for one of them at most.
EXPIRE_AT_ONCE: Final = 100
EXPIRE_PAUSE_S: Final = 0.05


class Queue:
    """The queued requests of all apps of a node."""

    def __init__(self, store: RequestStore, dispatcher: Dispatcher, limits: Limits) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._catalog = dispatcher.catalog
        self._limits = limits
        self._tickets: dict[RequestId, Ticket] = {}
        self._lines: dict[str, Line[Ticket]] = {}
        self._numbers = itertools.count(1)
        self._accepting: set[asyncio.Task[RequestId]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self.on_webhook: Callable[[], None] = lambda: None  # a request has ended that has one

    # --- its life ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take over what a node before us left. Raises `StoreUnavailable`."""
        await self._store.release(NODE, at=time.time())
        after = 0
        while records := await self._store.open_requests(after=after, limit=1_000):
            for record in records:
                self._stand_in_line(Ticket(next(self._numbers), new_of(record), record.attempt))
            after = records[-1].number
        if self._tickets:
            _log.info("%d queued requests go on", len(self._tickets))

    async def run(self) -> None:
        """Feed the pools, keep leases and forget what is old, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self._catalog.feeder = self
            for app in tuple(self._lines):
                self.feed(app)
                self._want_runners(app)
            self._tasks.create_task(self._renew(), name="leases")
            self._tasks.create_task(self._expire(), name="expiry")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._limits.lease_s / 3)
            running = [ticket.new.id for ticket in self._tickets.values() if ticket.live is not None]
            try:
                await self._store.renew(running, node=NODE, lease_until=time.time() + self._limits.lease_s)
            except (StoreUnavailable, StoreBusy) as fault:
                _log.warning("leases were not renewed: %s", fault)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(self._limits.expire_every_s)
            try:
                while (await self._store.expire(time.time(), limit=EXPIRE_AT_ONCE)).has_more:
                    await asyncio.sleep(EXPIRE_PAUSE_S)
            except (StoreUnavailable, StoreBusy) as fault:
                _log.warning("old requests were not forgotten: %s", fault)

    # --- callers ----------------------------------------------------------------------------------------

    async def submit(self, new: NewRequest) -> RequestId:
        """Queue a request for good; return its id, which is an earlier one's for an idempotency key that is known.

        Raises `QueueFull`, `IdempotencyConflict`, `StoreUnavailable` and `StoreBusy`.
        """
        # A caller that leaves meanwhile must not leave a request in the store that nobody here knows of.
        accepting = asyncio.get_running_loop().create_task(self._accept(new), name=f"submit of {new.id}")
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepted)
        return await asyncio.shield(accepting)

    async def _accept(self, new: NewRequest) -> RequestId:
        submitted = await self._store.submit(new)
        if not submitted.is_duplicate:
            self._stand_in_line(Ticket(next(self._numbers), without_large_body(new)))
            self.feed(new.app)
            self._want_runners(new.app)
        return submitted.id

    def _accepted(self, accepting: asyncio.Task[RequestId]) -> None:
        self._accepting.discard(accepting)
        if not accepting.cancelled():
            accepting.exception()  # its caller was told, unless it has left

    async def cancel(self, id_: RequestId) -> Cancelling:
        """Stop a request, whether it waits or runs. Raises `StoreUnavailable` and `StoreBusy`."""
        error = RequestError("client_cancelled", "The request was cancelled.")
        met = await self._store.cancel(id_, outcome_of(State.CANCELLED, error, id_))
        ticket = self._tickets.get(id_)
        if ticket is not None and met in {Cancelling.DEQUEUED, Cancelling.REQUESTED}:
            if met is Cancelling.DEQUEUED:
                self._leave(ticket)
            if ticket.live is not None:
                ticket.live.cancel(error.type, error.message)
            ticket.tell()
        return met

    def ticket(self, id_: str) -> Ticket | None:
        """Return a request that has not ended."""
        return self._tickets.get(RequestId(id_))

    def position(self, ticket: Ticket) -> int | None:
        """Return how many stand before a request in line, None when it is not in line."""
        line = self._lines.get(ticket.new.app)
        return line.position(ticket.number) if line is not None and ticket.number in line else None

    def live_of(self, ticket: Ticket) -> LiveRequest | None:
        """Return the request as readers know it, made for the first of them; None when its app is not served."""
        if ticket.live is None:
            route = self.route_of(ticket.new.app, ticket.new.endpoint, ticket.new.view)
            if route is None:
                return None
            ticket.live = LiveRequest(
                ticket.new.id,
                route,
                b"",
                headers=ticket.new.headers,
                limits=self._limits,
                grace_s=inf,
                owner=ticket.new.owner,
                base_url=ticket.new.base_url,
            )
            # The log is the next attempt's: what an earlier one made, before a restart, is not here any more.
            ticket.live.attempt = ticket.attempt + 1
            ticket.live.retries = TicketRetries(ticket)
            ticket.live.on_final.append(lambda _: ticket.attempt_over.set())
            self._dispatcher.adopt(ticket.live)
        return ticket.live

    def route_of(self, app_name: str, endpoint_path: str, view: str) -> Route | None:
        """Return the route that a queued request was sent to, None when it is not served any more."""
        app = self._catalog.routes.apps.get(app_name)
        if app is None:
            return None
        found = (endpoint for endpoint in app.endpoints if endpoint.path == endpoint_path)
        endpoint = next(found, None)
        return Route(app, endpoint, View(view)) if endpoint is not None else None

    # --- the line ---------------------------------------------------------------------------------------

    def queued(self, app: str) -> int:
        """How many requests of an app stand in line."""
        line = self._lines.get(app)
        return len(line) if line is not None else 0

    def feed(self, app: str) -> None:
        """Start the next requests of an app, while its pool has slots to spare."""
        line, pool = self._lines.get(app), self._catalog.pools.get(app)
        if line is None or pool is None or self._tasks is None or self._dispatcher.is_draining:
            return
        while line and pool.reserve():
            _, ticket = line.take() or (0, None)
            assert ticket is not None  # the line is not empty
            self._tasks.create_task(self._attempt(ticket, pool), name=f"attempt of {ticket.new.id}")

    def _want_runners(self, app: str) -> None:
        pool = self._catalog.pools.get(app)
        if pool is not None:
            pool.fleet.match()

    def _stand_in_line(self, ticket: Ticket) -> None:
        new = ticket.new
        self._tickets[new.id] = ticket
        self._lines.setdefault(new.app, Line()).add(ticket.number, new.priority, ticket)
        if new.start_deadline is not None and ticket.attempt == 0 and ticket.deadline is None:
            left_s = max(0.0, new.start_deadline - time.time())
            ticket.deadline = asyncio.get_running_loop().call_later(left_s, self._is_too_late, ticket)

    def _leave(self, ticket: Ticket) -> None:
        """Let go of a request that has ended, or will not be started here."""
        self._lines[ticket.new.app].remove(ticket.number)
        self._tickets.pop(ticket.new.id, None)
        if ticket.deadline is not None:
            ticket.deadline.cancel()
        ticket.tell()

    def _is_too_late(self, ticket: Ticket) -> None:
        if ticket.attempt == 0 and self._tasks is not None:
            self._tasks.create_task(self._end_unstarted(ticket), name=f"start timeout of {ticket.new.id}")

    async def _end_unstarted(self, ticket: Ticket) -> None:
        error = RequestError(
            "startup_timeout",
            "The request did not start within the time its caller gave it.",
            headers={"X-Fal-Request-Timeout-Type": "user"},
        )
        outcome = outcome_of(State.FAILED, error, ticket.new.id)
        while True:
            try:
                has_ended = await self._store.end_queued(ticket.new.id, outcome)
                break
            except (StoreUnavailable, StoreBusy):
                await asyncio.sleep(ASK_AGAIN_S)
        if has_ended:
            self._leave(ticket)
            if ticket.live is not None:
                ticket.live.fail(error)

    # --- an attempt -------------------------------------------------------------------------------------

    async def _attempt(self, ticket: Ticket, pool: Pool) -> None:
        """Have one attempt at a request, in the slot that `pool` keeps for it, up to its ending in the store."""
        id_ = ticket.new.id
        try:
            attempt = await self._begin(id_)
            body = ticket.new.body or await self._store.body(id_)
        except (StoreUnavailable, StoreBusy) as fault:
            _log.warning("request %s waits for the store: %s", id_, fault)
            pool.unreserve()
            self._come_back(ticket, ASK_AGAIN_S)
            return
        live = self.live_of(ticket)
        if attempt is None or body is None:  # it has ended meanwhile: somebody cancelled it
            pool.unreserve()
            self._leave(ticket)
            if live is not None:
                live.cancel("client_cancelled", "The request was cancelled.")
            return
        ticket.attempt = attempt
        ticket.attempt_over.clear()
        if live is None:
            pool.unreserve()
            await self._end(ticket, attempt, RequestError("not_found", "The app is not served any more."))
            return
        await self._run(ticket, live, body, pool)

    async def _begin(self, id_: RequestId) -> int | None:
        """Begin an attempt in the store and return its number; None for a request that has ended."""
        now = time.time()
        lease_until = now + self._limits.lease_s
        attempt = await self._store.start(id_, node=NODE, lease_until=lease_until, at=now)
        if attempt is not None:
            return attempt
        record = await self._store.get(id_)
        if record is None or record.state is not State.RUNNING:
            return None
        # An earlier start of ours took effect, and its answer was lost: nobody works on that attempt.
        await self._store.requeue(id_, record.attempt, not_before=now, at=now)
        return await self._store.start(id_, node=NODE, lease_until=lease_until, at=now)

    async def _run(self, ticket: Ticket, live: LiveRequest, body: bytes, pool: Pool) -> None:
        if live.is_final:
            pool.unreserve()
            await self._end(ticket, ticket.attempt, live.error)
            return
        live.body = body
        live.begin_again(ticket.attempt)
        live.log = RequestLog(self._limits)
        recorder = Recorder(live, live.log, self._store, ticket.tell)
        live.attach(recorder, paces=True)
        if not pool.start_reserved(live):
            live.detach(recorder)
            await self._try_again(ticket, 0.0)
            return
        ticket.tell()
        assert self._tasks is not None  # we are one of them
        writing = self._tasks.create_task(recorder.run(), name=f"events of {ticket.new.id}")
        await ticket.attempt_over.wait()
        recorder.end()
        await writing
        live.detach(recorder)
        if not live.is_final:
            await self._try_again(ticket, ticket.retry_in_s)
        elif live.error is not None and live.error.type == "shutting_down":
            await self._try_again(ticket, 0.0)
        else:
            await self._end(ticket, ticket.attempt, live.error)

    async def _end(self, ticket: Ticket, attempt: int, error: RequestError | None) -> None:
        """Put a request's ending into the store, however often it takes, and let go of it."""
        id_ = ticket.new.id
        if error is None:
            assert ticket.live is not None  # it completed, so it ran
            outcome = Outcome(
                state=State.COMPLETED, status=200, body=ticket.live.replay.last or b"{}", at=time.time()
            )
        else:
            state = State.CANCELLED if error.type == "client_cancelled" else State.FAILED
            outcome = outcome_of(state, error, id_)
        while True:
            try:
                await self._store.finish(id_, attempt, outcome)
                break
            except (StoreUnavailable, StoreBusy) as fault:
                _log.warning("the ending of %s waits for the store: %s", id_, fault)
                await asyncio.sleep(ASK_AGAIN_S)
        self._leave(ticket)
        if ticket.new.webhook is not None:
            self.on_webhook()

    async def _try_again(self, ticket: Ticket, in_s: float) -> None:
        """Give up an attempt and let the request stand in line again, after a while."""
        now = time.time()
        while True:
            try:
                state = await self._store.requeue(ticket.new.id, ticket.attempt, not_before=now + in_s, at=now)
                break
            except (StoreUnavailable, StoreBusy):
                await asyncio.sleep(ASK_AGAIN_S)
        if state is State.QUEUED:
            self._come_back(ticket, in_s)
            return
        self._leave(ticket)
        if ticket.live is not None:
            ticket.live.cancel("client_cancelled", "The request was cancelled.")

    def _come_back(self, ticket: Ticket, in_s: float) -> None:
        asyncio.get_running_loop().call_later(in_s, self._stand_again, ticket)

    def _stand_again(self, ticket: Ticket) -> None:
        if ticket.new.id in self._tickets and (ticket.live is None or not ticket.live.is_final):
            self._stand_in_line(ticket)
            self.feed(ticket.new.app)
            self._want_runners(ticket.new.app)
