"""What the rest of the node may ask of the store: protocols, the values they speak of, and how they fail.

Nothing here knows a file or a database. Times are seconds since 1970 (UTC) and are always passed in: no store has
a clock of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headrace.core.keys import KeyId
from headrace.core.line import Priority
from headrace.core.request import RequestId, State


class KeyStore(Protocol):
    """The gateway's only view of keys."""

    def verify(self, text: str) -> KeyId | None:
        """Return whose key `text` is, or None if it opens nothing. Never blocks for long, never raises."""
        ...

    def knows(self, id_: KeyId) -> bool:
        """Whether there is such a key, and it was not revoked. Never blocks for long, never raises."""
        ...


class TokenStore(Protocol):
    """What makes and ends the tokens for reading one request."""

    @property
    def secret(self) -> bytes:
        """What their macs are made with."""
        ...

    def revoked(self, request: str) -> int:
        """Return the serial of a request's last revocation, 0 when there was none."""
        ...

    def revoke(self, request: str, serial: int, *, oldest: int) -> None:
        """Keep a revocation for good, and forget those before `oldest`. Blocks on the disk: not for an event loop.

        Raises `StoreBusy` when there are too many, `StoreUnavailable` when it cannot be kept.
        """
        ...


# --- how it fails ---------------------------------------------------------------------------------------------


class StoreFault(Exception):
    """The store cannot be opened. The message is for the operator and ends with what to do."""


class StoreLocked(StoreFault):
    """Another node holds the data directory. `holder` is its process id, where it is known."""

    def __init__(self, message: str, holder: int | None) -> None:
        super().__init__(message)
        self.holder = holder


class StoreTooNew(StoreFault):
    """The file was written by a later Headrace, whose tables this one does not know."""


class StoreUnavailable(Exception):
    """The store cannot do it now: disk full, read-only, an I/O error, no answer in time. Nothing was promised.

    What was asked for may have happened or not; to ask for it again is always safe. It heals by itself.
    """


class StoreBusy(Exception):
    """More operations wait for the store than may. Nothing was done; try again later."""


class StoreRefusal(Exception):
    """An operation was understood and refused. Nothing was done, and the same one will be refused again."""


class QueueFull(StoreRefusal):
    """As many requests of the app are queued as the caller, or the node, allows."""

    def __init__(self, app: str, length: int) -> None:
        super().__init__(f"{length} requests of {app!r} are queued already")
        self.app = app
        self.length = length


class IdempotencyConflict(StoreRefusal):
    """The caller has used the idempotency key for another body. `first` is the request it belongs to."""

    def __init__(self, first: RequestId) -> None:
        super().__init__(f"the idempotency key belongs to the request {first}, whose body is another")
        self.first = first


# --- values ---------------------------------------------------------------------------------------------------


class Cancelling(enum.Enum):
    """What a wish to cancel met."""

    UNKNOWN = "unknown"  # there is no such request
    DEQUEUED = "dequeued"  # it was queued, and is CANCELLED now
    REQUESTED = "requested"  # it runs; it will end as CANCELLED, whatever its attempt says
    TOO_LATE = "too_late"  # it had ended already


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """A request to be queued."""

    id: RequestId
    app: str  # owner/alias
    endpoint: str  # the endpoint's path below the app: "" or "/…"
    view: str  # which view of it was asked for
    body: bytes = field(repr=False)  # as it came
    created_at: float
    owner: KeyId | None = None  # None: the node asks for no key
    headers: Mapping[str, str] = field(default_factory=dict)  # those the app may see
    priority: Priority = Priority.NORMAL
    start_deadline: float | None = None  # it must have started by then
    may_retry: bool = True  # False: `X-Fal-No-Retry`
    runner_hint: str | None = None
    webhook: str | None = None  # the URL that is told how it ended
    #: The same key, owner, app and endpoint with the same body is the same request, for as long as that is kept.
    idempotency_key: str | None = None
    #: Refuse it when as many of the app are queued.
    queue_length_max: int | None = None
    base_url: str = ""  # the server as the caller knows it: for the URLs in what the request makes


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submit."""

    id: RequestId
    is_duplicate: bool  # the id is that of an earlier request with the same key; nothing was queued


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended, and what `GET …/requests/{id}` answers from then on."""

    state: State  # COMPLETED, FAILED or CANCELLED
    status: int  # the model's HTTP status
    body: bytes = field(repr=False)
    at: float
    headers: Mapping[str, str] = field(default_factory=dict)  # the model's, those worth keeping
    error: str | None = None  # in words, when it did not complete
    error_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that is kept of a request, but for its body, its events, its logs and its result."""

    number: int  # rises with age: a cursor for `open_requests`
    id: RequestId
    app: str
    endpoint: str
    view: str
    owner: KeyId | None
    headers: Mapping[str, str]
    priority: Priority
    may_retry: bool
    runner_hint: str | None
    webhook: str | None
    state: State
    attempt: int  # how often it was started
    node: str | None  # who holds the lease of a running one
    lease_until: float | None
    created_at: float
    start_deadline: float | None
    not_before: float | None  # of a queued one that is tried again
    started_at: float | None  # its last attempt
    finished_at: float | None
    status: int | None  # of its outcome, as `error` and `error_type`
    error: str | None
    error_type: str | None
    events_end: int  # the number the next event will get
    logs_end: int
    base_url: str


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events of a request's current attempt, in order."""

    attempt: int
    end: int  # the number the next event will get
    events: tuple[tuple[int, bytes], ...]  # numbered; a first number beyond the one asked for is a gap


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a request's log."""

    message: str
    level: str  # fal's: STDERR, STDOUT, ERROR, INFO, WARN, DEBUG
    source: str
    at: float


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some lines of a request's log, in order, over all its attempts."""

    end: int
    lines: tuple[tuple[int, LogLine], ...]  # numbered; older ones may be gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook still to be delivered, or given up. What it says is the request's record and result."""

    request: RequestId
    url: str
    tries: int  # how many there were
    next_at: float
    error: str | None  # how the last try failed
    buried_at: float | None  # when it was given up


@dataclass(frozen=True, slots=True)
class Expired:
    """What one bounded step of retention did."""

    requests: int  # how many are gone
    has_more: bool  # whether there is more to do now


# --- the protocol ---------------------------------------------------------------------------------------------


class RequestStore(Protocol):
    """The durable queue, with all that is kept of its requests. Safe for many callers on one event loop.

    Whatever returns has happened for good: it survives the death of the process and, at full durability, of the
    machine. Every method raises `StoreUnavailable` when the store cannot do it now and `StoreBusy` when too much
    waits for it. A caller that is cancelled while it waits does not know whether it happened.

    An attempt may write only while it is the current one of a request that has not ended: a late one is refused.
    """

    # --- the life of a request ---

    async def submit(self, new: NewRequest) -> Submitted:
        """Queue a request; to repeat it with the same id is harmless.

        Raises `QueueFull` and `IdempotencyConflict`.
        """
        ...

    async def start(self, id_: RequestId, *, node: str, lease_until: float, at: float) -> int | None:
        """Begin an attempt at a queued request and return its number, from 1; None when it is not queued.

        Events of earlier attempts are forgotten.
        """
        ...

    async def renew(self, ids: Sequence[RequestId], *, node: str, lease_until: float) -> frozenset[RequestId]:
        """Prolong leases; return the ids that `node` still holds."""
        ...

    async def finish(self, id_: RequestId, attempt: int, outcome: Outcome) -> State | None:
        """End a request, and put its webhook into the outbox with it; None when the attempt may not.

        Returns the state it has now: CANCELLED, with the outcome told to `cancel`, if that came first.
        """
        ...

    async def requeue(self, id_: RequestId, attempt: int, *, not_before: float, at: float) -> State | None:
        """Give up an attempt that may be tried again; None when the attempt may not.

        Returns the state it has now: QUEUED at its old place, or CANCELLED if that came first.
        """
        ...

    async def end_queued(self, id_: RequestId, outcome: Outcome) -> bool:
        """End a request that has not started (too late, bad input); False when it is not queued."""
        ...

    async def cancel(self, id_: RequestId, outcome: Outcome) -> Cancelling:
        """Cancel a request; `outcome` is what its callers are told then. Told twice, the first outcome stays."""
        ...

    async def release(self, node: str, *, at: float) -> int:
        """Give up every attempt that `node` holds, or whose lease ended by `at`: its node is dead.

        They are queued again at their old place, with their attempt kept, or CANCELLED if that was asked for.
        Returns how many there were.
        """
        ...

    # --- what it leaves behind on its way ---

    async def append(self, id_: RequestId, attempt: int, first: int, texts: Sequence[bytes]) -> bool:
        """Keep the events `first`, `first` + 1, …; False when the attempt may not.

        Those that are there already are skipped, so a repeat is harmless. When a request has too many, the oldest
        go.
        """
        ...

    async def append_logs(self, id_: RequestId, attempt: int, lines: Sequence[LogLine]) -> bool:
        """Keep log lines behind those there are; False when the attempt may not. The oldest go.

        Lines that are told twice are there twice.
        """
        ...

    # --- reads ---

    async def get(self, id_: RequestId) -> Record | None:
        """Return what is kept of a request; None when it is unknown, or expired."""
        ...

    async def body(self, id_: RequestId) -> bytes | None:
        """Return the body of a request that has not ended."""
        ...

    async def position(self, id_: RequestId) -> int | None:
        """Return how many of its app are before it in the queue; None when it is not queued."""
        ...

    async def result(self, id_: RequestId) -> Outcome | None:
        """Return how a request ended, whole; None when it is unknown or has not."""
        ...

    async def events(self, id_: RequestId, first: int, *, limit: int) -> EventPage | None:
        """Return up to `limit` events of the current attempt from number `first` on; None when it is unknown."""
        ...

    async def logs(self, id_: RequestId, first: int, *, limit: int) -> LogPage | None:
        """Return up to `limit` log lines from number `first` on; None when it is unknown."""
        ...

    async def open_requests(self, *, after: int = 0, limit: int) -> Sequence[Record]:
        """Return up to `limit` requests that have not ended, oldest first, behind `Record.number` `after`."""
        ...

    # --- webhooks ---

    async def due_deliveries(self, now: float, *, limit: int) -> Sequence[Delivery]:
        """Return up to `limit` webhooks whose time has come, the longest due first."""
        ...

    async def delivered(self, id_: RequestId) -> None:
        """Take a request's webhook out of the outbox. Nothing happens when it is not there."""
        ...

    async def retry_delivery(self, id_: RequestId, *, next_at: float, error: str) -> None:
        """Note that a try failed, and when the next one is due."""
        ...

    async def bury_delivery(self, id_: RequestId, *, at: float, error: str) -> None:
        """Give a webhook up: it moves to the dead letters, which are kept for days."""
        ...

    async def dead_deliveries(self, *, limit: int) -> Sequence[Delivery]:
        """Return up to `limit` dead letters, the latest first."""
        ...

    async def revive_delivery(self, id_: RequestId, *, at: float) -> bool:
        """Make a dead letter due again, with its tries forgotten; False when there is none."""
        ...

    # --- its own life ---

    async def expire(self, now: float, *, limit: int) -> Expired:
        """Forget up to `limit` ended requests that are too old, or the oldest while all of them are too much.

        A request whose webhook is not delivered yet is kept.
        """
        ...

    async def close(self) -> None:
        """Do what waits, take nothing new, and let go of the data directory."""
        ...
