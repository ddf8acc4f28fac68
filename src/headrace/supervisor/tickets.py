"""A queued request that has not ended, as the node has it in memory: its place, its attempt, who follows it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from headrace.core.errors import ERROR_TYPES, RequestError
from headrace.core.limits import Limits
from headrace.core.replay import Replay
from headrace.core.request import State
from headrace.core.retries import retry_in_s
from headrace.core.routes import Route
from headrace.store.port import EventPage, NewRequest, Outcome, Record
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)

#: Bytes of a body that waits in memory; a larger one is read from the store when its turn comes.
_BODY_IN_MEMORY_MAX: Final = 16 * 1024


@dataclass(slots=True)
class Ticket:
    """A request that has not ended, in memory."""

    number: int  # its place in line: the smaller, the older
    new: NewRequest
    attempt: int = 0  # how often it was started
    live: LiveRequest | None = None  # once it was started, or somebody watches it
    retry_in_s: float = 0.0
    attempt_over: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # set and cleared at once: whoever waits wakes
    deadline: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether it waits for its turn; where the node stops, for the next node's."""
        live = self.live
        if live is None or live.state is State.QUEUED:
            return True
        return live.error is not None and live.error.type == "shutting_down"

    def tell(self) -> None:
        """Wake whoever follows its status."""
        self.changed.set()
        self.changed.clear()


def without_large_body(new: NewRequest) -> NewRequest:
    """Return a request as it stands in line: a large body waits in the store alone."""
    return new if len(new.body) <= _BODY_IN_MEMORY_MAX else dataclasses.replace(new, body=b"")


class TicketRetries:
    """What a request asks when an attempt failed."""

    def __init__(self, ticket: Ticket, is_stopping: Callable[[], bool]) -> None:
        self._ticket = ticket
        self._is_stopping = is_stopping

    def wants(self, live: LiveRequest, error: RequestError) -> bool:
        """Whether there will be another attempt."""
        if error.type == "shutting_down" and self._is_stopping():
            return False  # not here: by whoever comes after us
        wait_s = retry_in_s(error, self._ticket.attempt, no_retry=not self._ticket.new.may_retry)
        if wait_s is None:
            return False
        _log.info("request %s is tried again in %g s: %s", live.id, wait_s, error.message)
        self._ticket.retry_in_s = wait_s
        return True

    def over(self, live: LiveRequest) -> None:  # noqa: ARG002 - there is one request to a ticket
        """The attempt is over."""
        self._ticket.attempt_over.set()
        self._ticket.tell()


def outcome_of(state: State, error: RequestError, id_: str, at: float) -> Outcome:
    """Return how a request ends that failed or was cancelled: what its result route answers from then on."""
    headers: Mapping[str, str] = {"X-Fal-Error-Type": error.type, **error.headers}
    return Outcome(
        state=state,
        status=error.status,
        body=orjson.dumps(error.to_body(id_)),
        headers=headers,
        error=error.message,
        error_type=error.type,
        at=at,
    )


def error_of(record: Record) -> RequestError | None:
    """Return the error that a request ended with, None if it completed."""
    if record.state is State.COMPLETED:
        return None
    type_ = record.error_type if record.error_type in ERROR_TYPES else "internal_error"
    return RequestError(type_ or "internal_error", record.error or "", status=record.status)


def settle(live: LiveRequest, error: RequestError | None) -> None:
    """Tell the readers of a request how it has ended, which is kept now."""
    if error is not None and error.type == "client_cancelled":
        live.cancel(error.type, error.message)
    live.settle(error)


def past_of(record: Record, page: EventPage, route: Route, limits: Limits) -> LiveRequest:
    """Return a request that has ended as readers know it, with the events that the store has kept of it."""
    live = LiveRequest(record.id, route, b"", headers={}, limits=limits, owner=record.owner)
    live.attempt = page.attempt
    live.state = record.state
    live.replay = Replay(
        bytes_max=limits.replay_bytes_max,
        events_max=limits.replay_events_max,
        ahead_max=limits.ahead_bytes_max,
        first=page.events[0][0] if page.events else page.end,
    )
    live.replay.extend([text for _, text in page.events])
    live.error = error_of(record)
    return live


def new_of(record: Record) -> NewRequest:
    """Return a request as it was submitted, but for its body, which waits in the store."""
    return NewRequest(
        id=record.id,
        app=record.app,
        endpoint=record.endpoint,
        view=record.view,
        body=b"",
        created_at=record.created_at,
        owner=record.owner,
        headers=record.headers,
        priority=record.priority,
        start_deadline=record.start_deadline,
        may_retry=record.may_retry,
        runner_hint=record.runner_hint,
        webhook=record.webhook,
        base_url=record.base_url,
    )
