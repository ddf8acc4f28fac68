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
from collections.abc import Callable, Coroutine, Sequence
from math import inf
from typing import Any, Final, TypeVar

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.line import Line
from headrace.core.request import FINAL, RequestId, State
from headrace.core.routes import Route, View
from headrace.store.port import (
    Cancelling,
    NewRequest,
    RequestStore,
    StoreBusy,
    StoreUnavailable,
)
from headrace.supervisor.attempt import NODE, Attempt
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.pool import Pool
from headrace.supervisor.steady import SteadyClock
from headrace.supervisor.streams import LiveRequest
from headrace.supervisor.tickets import (
    Ticket,
    TicketRetries,
    error_of,
    new_of,
    outcome_of,
    settle,
    without_large_body,
)
from headrace.supervisor.unanswered import ASK_AGAIN_S, Unanswered, ask

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Ended requests that are forgotten in one step, and seconds between two steps while there are more: a submit in
#: between waits for one of them at most.
EXPIRE_AT_ONCE: Final = 100
EXPIRE_PAUSE_S: Final = 0.05

#: Submits that may be undecided at once, because the store failed; while there are so many, none is tried. When it
#: is back, each costs it a read.
UNANSWERED_MAX: Final = 1_000


class Queue:
    """The queued requests of all apps of a node."""

    def __init__(self, store: RequestStore, dispatcher: Dispatcher, limits: Limits) -> None:
        self.store = store
        self._dispatcher = dispatcher
        self._catalog = dispatcher.catalog
        self.limits = limits
        self._tickets: dict[RequestId, Ticket] = {}
        self._lines: dict[str, Line[Ticket]] = {}
        self.now = SteadyClock()  # of all that is kept in the store
        self._numbers = itertools.count(1)
        self._undecided = Unanswered(self._fence, self.take_up)  # submits that may have taken effect
        self._unstopped = Unanswered(self._fence, self._cancel)  # wishes to cancel that may have been noted
        self._accepting: set[asyncio.Task[RequestId]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._is_open = False
        self._unserved: dict[str, float] = {}  # apps that are queued for and not served: since when
        self._rest: asyncio.TimerHandle | None = None  # while it runs, nothing is begun
        self.on_webhook: Callable[[], None] = lambda: None  # a request has ended that has one

    # --- its life ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take over what a node before us left. Raises `StoreUnavailable`."""
        await self.store.release(NODE, at=self.now())
        after = 0
        while records := await self.store.open_requests(after=after, limit=1_000):
            for record in records:
                self._stand_in_line(Ticket(next(self._numbers), new_of(record), record.attempt))
            after = records[-1].number
        if self._tickets:
            _log.info("%d queued requests go on", len(self._tickets))

    async def run(self) -> None:
        """Feed the pools, keep leases and forget what is old, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self._is_open = True
            self._catalog.feeder = self
            for ticket in tuple(self._tickets.values()):
                self._watch_deadline(ticket)
            self._feed_all()
            for app in tuple(self._lines):
                self._want_runners(app)
            self._tasks.create_task(self._renew(), name="leases")
            self._tasks.create_task(self._undecided.run(), name="unanswered submits")
            self._tasks.create_task(self._unstopped.run(), name="unanswered cancels")
            try:
                await self._expire()
            finally:
                self._is_open = False  # what is begun while a group of tasks is cancelled would hold it up

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.limits.lease_s / 3)
            running = [ticket.new.id for ticket in self._tickets.values() if ticket.live is not None]
            try:
                await self.store.renew(running, node=NODE, lease_until=self.now() + self.limits.lease_s)
            except (StoreUnavailable, StoreBusy) as fault:
                _log.warning("leases were not renewed: %s", fault)

    async def _expire(self) -> None:
        while True:
            self._look_for_unserved()
            await asyncio.sleep(self.limits.expire_every_s)
            try:
                while (await self.store.expire(self.now(), limit=EXPIRE_AT_ONCE)).has_more:
                    await asyncio.sleep(EXPIRE_PAUSE_S)
            except (StoreUnavailable, StoreBusy) as fault:
                _log.warning("old requests were not forgotten: %s", fault)

    def _look_for_unserved(self) -> None:
        """Say whom nobody here serves, and end those who have waited for that too long."""
        for app, line in self._lines.items():
            if not line or app in self._catalog.routes.apps:
                self._unserved.pop(app, None)
                continue
            now = self.now()
            if app not in self._unserved:
                _log.warning("%d queued requests wait for %s, which is not served here", len(line), app)
            elif now - self._unserved[app] < self.limits.unserved_wait_s:
                continue
            else:
                waiting = [ticket for ticket in self._tickets.values() if ticket.new.app == app]
                self.begin_task(self._end_unserved(waiting), f"end of what waits for {app}")
            self._unserved[app] = now

    async def _end_unserved(self, waiting: Sequence[Ticket]) -> None:
        for ticket in waiting:
            if ticket.new.app not in self._catalog.routes.apps:
                await self._end_queued(ticket, RequestError("not_found", "The app is not served any more."))

    # --- callers ----------------------------------------------------------------------------------------

    async def submit(self, new: NewRequest) -> RequestId:
        """Queue a request for good; return its id, which is an earlier one's for an idempotency key that is known.

        Raises `QueueFull`, `IdempotencyConflict`, `StoreUnavailable` and `StoreBusy`.
        """
        if len(self._undecided) >= UNANSWERED_MAX:
            raise StoreBusy(f"{UNANSWERED_MAX} submits wait for the store to say what became of them")
        # A caller that leaves meanwhile must not leave a request in the store that nobody here knows of.
        accepting = asyncio.get_running_loop().create_task(self._accept(new), name=f"submit of {new.id}")
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepted)
        return await asyncio.shield(accepting)

    async def _accept(self, new: NewRequest) -> RequestId:
        try:
            submitted = await self.store.submit(new)
        except StoreUnavailable:
            self._undecided.add(new.id)
            raise
        if submitted.is_duplicate:
            await self.take_up(submitted.id)  # it may be one whose own submit was not answered
        elif new.id not in self._tickets:  # else somebody has come to watch it before this was answered
            self._join(Ticket(next(self._numbers), without_large_body(new)))
        return submitted.id

    async def _fence(self) -> None:
        """Return when all that was to be written before this is decided."""
        await self.store.renew((), node=NODE, lease_until=0.0)

    async def take_up(self, id_: RequestId) -> None:
        """Take care of a request that the store has, if nobody here does. Raises as the store does."""
        if id_ in self._tickets:
            return
        record = await self.store.get(id_)
        if record is not None and record.state not in FINAL and id_ not in self._tickets:
            self._join(Ticket(next(self._numbers), new_of(record), record.attempt))

    def _accepted(self, accepting: asyncio.Task[RequestId]) -> None:
        self._accepting.discard(accepting)
        if not accepting.cancelled():
            accepting.exception()  # its caller was told, unless it has left

    async def cancel(self, id_: RequestId) -> Cancelling:
        """Stop a request, whether it waits or runs. Raises `StoreUnavailable` and `StoreBusy`."""
        try:
            return await self._cancel(id_)
        except StoreUnavailable:
            self._unstopped.add(id_)  # it may have been noted: so it shall be, whatever the caller does now
            raise

    async def _cancel(self, id_: RequestId) -> Cancelling:
        error = RequestError("client_cancelled", "The request was cancelled.")
        met = await self.store.cancel(id_, outcome_of(State.CANCELLED, error, id_, self.now()))
        ticket = self._tickets.get(id_)
        if ticket is None:
            return met
        if met is Cancelling.TOO_LATE and self.position(ticket) is not None:
            await self.let_go(ticket)  # by an earlier wish, whose answer was lost
        elif met in {Cancelling.DEQUEUED, Cancelling.REQUESTED}:
            if met is Cancelling.DEQUEUED:
                self.leave(ticket)
            # One that has begun may still fetch its body, and be known to nobody: its attempt finds it cancelled.
            live = self.live_of(ticket) if met is Cancelling.REQUESTED else ticket.live
            if live is not None:
                live.cancel(error.type, error.message)
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
                limits=self.limits,
                grace_s=inf,
                owner=ticket.new.owner,
                base_url=ticket.new.base_url,
            )
            # The log is the next attempt's: what an earlier one made, before a restart, is not here any more.
            ticket.live.attempt = ticket.attempt + 1
            ticket.live.retries = TicketRetries(ticket, lambda: self.is_stopping)
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
        if line is None or pool is None or not self._is_open or self.is_stopping or self._rest is not None:
            return
        while line and pool.reserve():
            _, ticket = line.take() or (0, None)
            assert ticket is not None  # the line is not empty
            self.begin_task(self.attempt(ticket, pool), f"attempt of {ticket.new.id}")

    def _feed_all(self) -> None:
        self._rest = None
        for app in tuple(self._lines):
            self.feed(app)

    def rest(self) -> None:
        """Begin nothing for a while: the store fails, and would fail whoever is next as well."""
        if self._rest is None:
            self._rest = asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._feed_all)

    def _want_runners(self, app: str) -> None:
        pool = self._catalog.pools.get(app)
        if pool is not None:
            pool.fleet.match()

    def _stand_in_line(self, ticket: Ticket) -> None:
        new = ticket.new
        self._tickets[new.id] = ticket
        self._lines.setdefault(new.app, Line()).add(ticket.number, new.priority, ticket)
        if self._is_open:  # else `run` does it for all
            self._watch_deadline(ticket)

    def _watch_deadline(self, ticket: Ticket) -> None:
        start_by = ticket.new.start_deadline
        if start_by is not None and ticket.attempt == 0 and ticket.deadline is None:
            left_s = max(0.0, start_by - self.now())
            ticket.deadline = asyncio.get_running_loop().call_later(left_s, self._is_too_late, ticket)

    def _join(self, ticket: Ticket) -> None:
        self._stand_in_line(ticket)
        self.feed(ticket.new.app)
        self._want_runners(ticket.new.app)

    def leave(self, ticket: Ticket) -> None:
        """Let go of a request that has ended, or will not be started here."""
        self._lines[ticket.new.app].remove(ticket.number)
        self._tickets.pop(ticket.new.id, None)
        if ticket.deadline is not None:
            ticket.deadline.cancel()
        ticket.tell()

    async def let_go(self, ticket: Ticket) -> None:
        """Let go of a request that has ended in the store by other hands, and tell how. Raises as the store."""
        record = await self.store.get(ticket.new.id)
        if record is not None and record.state not in FINAL:
            return
        self.leave(ticket)
        if ticket.live is not None:
            gone = RequestError("request_not_found", "The request is not kept any more.")
            settle(ticket.live, error_of(record) if record is not None else gone)

    @property
    def is_stopping(self) -> bool:
        """Whether the node drains: nothing is begun any more."""
        return self._dispatcher.is_draining

    def begin_task(self, act: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Do something beside what is done, for as long as the queue runs."""
        assert self._tasks is not None  # it is open, or we are one of them
        return self._tasks.create_task(act, name=name)

    def _is_too_late(self, ticket: Ticket) -> None:
        if ticket.attempt == 0 and self._is_open:
            self.begin_task(self._end_unstarted(ticket), f"start timeout of {ticket.new.id}")

    async def _end_unstarted(self, ticket: Ticket) -> None:
        error = RequestError(
            "startup_timeout",
            "The request did not start within the time its caller gave it.",
            headers={"X-Fal-Request-Timeout-Type": "user"},
        )
        await self._end_queued(ticket, error)

    async def _end_queued(self, ticket: Ticket, error: RequestError) -> None:
        """Let a request fail that waits, unless it begins before the store can tell."""
        outcome, begun = outcome_of(State.FAILED, error, ticket.new.id, self.now()), ticket.attempt

        async def end() -> None:
            if ticket.attempt == begun:  # else it has begun while the store failed, and waits to be tried again
                await self.store.end_queued(ticket.new.id, outcome)

        await ask(end)
        await ask(lambda: self.let_go(ticket))

    def attempt(self, ticket: Ticket, pool: Pool) -> Coroutine[Any, Any, None]:
        """Have an attempt at a request whose turn it is."""
        return Attempt(self, ticket, pool).run()

    def come_back(self, ticket: Ticket, in_s: float) -> None:
        """Let a request stand in line again after a while, unless it has ended."""
        asyncio.get_running_loop().call_later(in_s, self._stand_again, ticket)

    def _stand_again(self, ticket: Ticket) -> None:
        if self._is_open and ticket.new.id in self._tickets:
            self._join(ticket)
