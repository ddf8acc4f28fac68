"""Faults to plant in the queue, its store and its readers, each as somebody could write it. See `faults`."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from headrace.core.line import Line
from headrace.core.request import Move, RequestId, State
from headrace.core.retries import retry_in_s
from headrace.gateway.events import EventWriter
from headrace.gateway.resends import Resends
from headrace.store.port import Cancelling, NewRequest
from headrace.store.sqlite import requests, trail
from headrace.supervisor import tickets
from headrace.supervisor.catalog import Catalog
from headrace.supervisor.pool import Pool
from headrace.supervisor.queue import Queue
from headrace.supervisor.steady import SteadyClock
from headrace.supervisor.streams import Ending, LiveRequest
from tests.sim.faults import Plant, every, nothing


def _unfenced(connection: Any, id_: RequestId, _: int) -> requests.Standing | None:
    standing = requests.look(connection, id_)
    return standing if standing is not None and standing.state in requests.HELD else None


def _late_endings_taken() -> Plant:
    return requests, "look_held", _unfenced


def _late_events_taken() -> Plant:
    return trail, "look_held", _unfenced


def _leases_forgotten() -> Plant:
    async def renew(_: Queue) -> None:
        await asyncio.Event().wait()

    return Queue, "_renew", renew


def _taken_twice() -> Plant:
    take = Line.take

    def leave_it_there(line: Line[Any]) -> Any:
        taken = take(line)
        if taken is not None:
            number, ticket = taken
            line.add(number, ticket.new.priority, ticket)
        return taken

    return Line, "take", every(5, take, leave_it_there)


def _youngest_first() -> Plant:
    take = Line.take

    def take_last(line: Line[Any]) -> Any:
        number = max(line._entries)
        return number, line.remove(number)

    return Line, "take", every(3, take, take_last)


def _silent_rollback() -> Plant:
    def begin_anew(writer: EventWriter) -> None:
        writer._replay, writer._position, writer._taken = writer._live.replay, 0, 0

    return EventWriter, "_on_new_attempt", begin_anew


def _told_before_kept() -> Plant:
    def end(live: LiveRequest, move: Move, error: Any) -> None:
        if live.state not in (State.COMPLETED, State.FAILED, State.CANCELLED):
            live._be_final(move, error)
            live.ending = Ending(error, live.replay.last)

    return LiveRequest, "_end", end


def _acknowledged_before_kept() -> Plant:
    async def accept(queue: Queue, new: NewRequest) -> RequestId:
        asyncio.get_running_loop().call_later(0.5, lambda: asyncio.ensure_future(right(queue, new)))
        return new.id

    right = Queue._accept
    return Queue, "_accept", accept


def _forgotten_over_a_restart() -> Plant:
    async def open_(queue: Queue) -> None:
        await queue.store.release("local", at=queue.now())

    return Queue, "open", open_


def _retried_against_the_wish() -> Plant:
    return tickets, "retry_in_s", lambda error, attempt, **_: retry_in_s(error, attempt, no_retry=False)


def _given_up_too_soon() -> Plant:
    return tickets, "retry_in_s", lambda *_, **__: None


def _by_the_wall_clock() -> Plant:
    # The world's, where it has put its own.
    return SteadyClock, "__call__", lambda _: tickets_time()


def tickets_time() -> float:
    """Return the time of the wall clock that the node sees."""
    from headrace.supervisor import steady

    clock: Any = getattr(steady, "time", time)
    return float(clock.time())


def _empty_promise_to_cancel() -> Plant:
    cancel = requests.cancel

    def promise(connection: Any, id_: RequestId, *more: Any) -> Cancelling:
        standing = requests.look(connection, id_)
        if standing is not None and standing.state is State.RUNNING:
            return Cancelling.REQUESTED
        return cancel(connection, id_, *more)

    return requests, "cancel", promise


def _resent_is_new() -> Plant:
    return Resends, "take", lambda *_: None


def _submitted(**changes: Any) -> Plant:
    submit = requests.submit
    return requests, "submit", lambda on, new: submit(on, dataclasses.replace(new, **changes))


def _start_deadline_missed() -> Plant:
    return Queue, "_watch_deadline", nothing


def _slot_kept_for_nobody() -> Plant:
    start = Pool.start_reserved

    def keep(pool: Pool, live: LiveRequest) -> bool:
        has_started = start(pool, live)
        pool._reserved += 1
        return has_started

    return Pool, "start_reserved", every(3, start, keep)


def _queue_not_fed() -> Plant:
    return Catalog, "_feed", every(3, Catalog._feed, nothing)


#: Fences that are down. What they keep out comes by only in the worlds of `test_zombies`.
FENCES: Mapping[str, tuple[Callable[[], Plant], str]] = {
    "finish": (_late_endings_taken, "is stored with"),
    "append": (_late_events_taken, "keeps other events"),
}

#: Each fault by its name: how to plant it, and words of the promises that it breaks.
QUEUE_FAULTS: Mapping[str, tuple[Callable[[], Plant], str]] = {
    "leases are not renewed": (_leases_forgotten, "the lease of"),
    "a request is taken from the line and left there": (_taken_twice, "is at two runners|tried again|runs as"),
    "the youngest goes first": (_youngest_first, "is before it"),
    "a rollback marker is left out": (_silent_rollback, "got the event|got event|for event"),
    "an ending is told before it is kept": (_told_before_kept, "it ended as|goes on"),
    "a submit is acknowledged before it is kept": (_acknowledged_before_kept, "which is not stored"),
    "a restart forgets who waits": (_forgotten_over_a_restart, "nobody knows of it"),
    "a request is retried against its caller's wish": (_retried_against_the_wish, "must not be"),
    "a lost attempt is not tried again": (_given_up_too_soon, "is worth another try"),
    "deadlines go by the wall clock": (_by_the_wall_clock, "early|forgotten after|lease of|should have started"),
    "a cancelling is promised and forgotten": (_empty_promise_to_cancel, "it is running|was promised|it ended as"),
    "a submit sent again is another one": (_resent_is_new, "is two requests"),
    "an idempotency key is ignored": (lambda: _submitted(idempotency_key=None), "has the key of"),
    "the length of a queue is unbounded": (lambda: _submitted(queue_length_max=None), "its caller allows"),
    "nobody looks at start deadlines": (_start_deadline_missed, "should have started"),
    "a slot is kept for a request that has one": (_slot_kept_for_nobody, "kept for nobody|do not end|waits"),
    "a free slot does not reach the queue": (_queue_not_fed, "which has a slot to spare"),
}
