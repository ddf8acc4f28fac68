"""The life of a request, in the database. Each function is an operation of the writer: it refuses before writing.

There is one writer, and an operation is alone in its place of a transaction: what it has read still holds when it
writes.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.core.request import FINAL, RequestId, State
from headrace.store.port import (
    Cancelling,
    IdempotencyConflict,
    NewRequest,
    Outcome,
    QueueFull,
    Submitted,
)
from headrace.store.sqlite.sql import SQL

#: States in which an attempt may write: it runs, or was told to stop and has not yet.
HELD: Final = frozenset({State.RUNNING, State.CANCELLING})


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about a request."""

    number: int
    state: State
    attempt: int
    webhook: str | None
    events_end: int
    events_bytes: int
    logs_end: int
    logs_bytes: int


def look(connection: sqlite3.Connection, id_: RequestId) -> Standing | None:
    """Return where a request stands; None when it is unknown."""
    row = connection.execute(SQL["look"], (id_,)).fetchone()
    return None if row is None else Standing(row[0], State(row[1]), *row[2:])


def look_held(connection: sqlite3.Connection, id_: RequestId, attempt: int) -> Standing | None:
    """Return where a request stands, if this attempt is the one that holds it: the fence."""
    standing = look(connection, id_)
    if standing is None or standing.state not in HELD or standing.attempt != attempt:
        return None
    return standing


def submit(connection: sqlite3.Connection, new: NewRequest) -> Submitted:
    """Queue a request. Raises `QueueFull` and `IdempotencyConflict`."""
    body_hash = None
    if new.idempotency_key is not None:
        body_hash = hashlib.sha256(new.body).digest()
        scope = {"key": new.idempotency_key, "app": new.app, "endpoint": new.endpoint, "owner": new.owner}
        first = connection.execute(SQL["find_idempotent"], scope).fetchone()
        if first is not None and first[0] != new.id:
            if first[1] != body_hash:
                raise IdempotencyConflict(RequestId(first[0]))
            return Submitted(RequestId(first[0]), is_duplicate=True)
    if new.queue_length_max is not None and look(connection, new.id) is None:
        row = connection.execute(SQL["queue_length"], (new.app,)).fetchone()
        length = row[0] if row is not None else 0
        if length >= new.queue_length_max:
            raise QueueFull(new.app, length)
    values = {
        "id": new.id,
        "app": new.app,
        "endpoint": new.endpoint,
        "view": new.view,
        "owner": new.owner,
        "headers": json.dumps(dict(new.headers)),
        "priority": int(new.priority),
        "may_retry": new.may_retry,
        "runner_hint": new.runner_hint,
        "webhook": new.webhook,
        "idempotency_key": new.idempotency_key,
        "body_hash": body_hash,
        "created_at": new.created_at,
        "start_deadline": new.start_deadline,
        "base_url": new.base_url,
    }
    queued = connection.execute(SQL["submit"], values)
    if queued.rowcount > 0:  # or else it is repeated, since an answer was lost
        connection.execute(SQL["keep_body"], (queued.lastrowid, new.body))
    return Submitted(new.id, is_duplicate=False)


def start(connection: sqlite3.Connection, id_: RequestId, node: str, lease_until: float, at: float) -> int | None:
    """Begin the next attempt of a queued request."""
    standing = look(connection, id_)
    if standing is None or standing.state is not State.QUEUED:
        return None
    lease = {"number": standing.number, "node": node, "lease_until": lease_until, "at": at}
    connection.execute(SQL["start"], lease)
    if standing.events_end:
        connection.execute(SQL["forget_events"], (standing.number,))
    return standing.attempt + 1


def renew(
    connection: sqlite3.Connection, ids: Sequence[RequestId], node: str, lease_until: float
) -> frozenset[RequestId]:
    """Prolong the leases that `node` holds, and return which those are."""
    held = {"ids": json.dumps(list(ids)), "node": node}
    connection.execute(SQL["renew"], {**held, "lease_until": lease_until})
    return frozenset(RequestId(row[0]) for row in connection.execute(SQL["held"], held))


def finish(
    connection: sqlite3.Connection, id_: RequestId, attempt: int, outcome: Outcome, large_bytes: int
) -> State | None:
    """End a request by the attempt that holds it. A wish to cancel that came first has decided how."""
    standing = look_held(connection, id_, attempt)
    if standing is None:
        return None
    if standing.state is State.CANCELLING:
        _end(connection, standing.number, standing.webhook, State.CANCELLED, outcome.at)
        return State.CANCELLED
    _keep(connection, standing.number, outcome, large_bytes)
    _end(connection, standing.number, standing.webhook, outcome.state, outcome.at)
    return outcome.state


def requeue(
    connection: sqlite3.Connection, id_: RequestId, attempt: int, not_before: float, at: float
) -> State | None:
    """Put a request back to its old place, unless somebody has cancelled it meanwhile."""
    standing = look_held(connection, id_, attempt)
    return (
        None
        if standing is None
        else _give_up(connection, standing.number, standing.state, standing.webhook, not_before, at)
    )


def end_queued(connection: sqlite3.Connection, id_: RequestId, outcome: Outcome, large_bytes: int) -> bool:
    """End a request that has not started."""
    standing = look(connection, id_)
    if standing is None or standing.state is not State.QUEUED:
        return False
    _keep(connection, standing.number, outcome, large_bytes)
    _end(connection, standing.number, standing.webhook, outcome.state, outcome.at)
    return True


def cancel(connection: sqlite3.Connection, id_: RequestId, outcome: Outcome, large_bytes: int) -> Cancelling:
    """End a queued request; of a running one, decide how it will end."""
    standing = look(connection, id_)
    if standing is None:
        return Cancelling.UNKNOWN
    if standing.state in FINAL:
        return Cancelling.TOO_LATE
    if standing.state is State.CANCELLING:
        return Cancelling.REQUESTED
    _keep(connection, standing.number, outcome, large_bytes)
    if standing.state is State.QUEUED:
        _end(connection, standing.number, standing.webhook, State.CANCELLED, outcome.at)
        return Cancelling.DEQUEUED
    connection.execute(SQL["ask_to_stop"], (standing.number,))
    return Cancelling.REQUESTED


def release(connection: sqlite3.Connection, node: str, at: float) -> int:
    """Give up every attempt of a dead node, and those whose lease has ended."""
    abandoned = connection.execute(SQL["abandoned"], {"node": node, "at": at}).fetchall()
    for number, state, webhook in abandoned:
        _give_up(connection, number, State(state), webhook, None, at)
    return len(abandoned)


def _give_up(
    connection: sqlite3.Connection,
    number: int,
    state: State,
    webhook: str | None,
    not_before: float | None,
    at: float,
) -> State:
    if state is State.CANCELLING:
        _end(connection, number, webhook, State.CANCELLED, at)
        return State.CANCELLED
    connection.execute(SQL["requeue"], {"number": number, "not_before": not_before})
    return State.QUEUED


def _keep(connection: sqlite3.Connection, number: int, outcome: Outcome, large_bytes: int) -> None:
    """Keep how a request ends. Nobody is shown it before its last move."""
    connection.execute(SQL["keep_result"], (number, json.dumps(dict(outcome.headers)), outcome.body))
    values = {
        "number": number,
        "status": outcome.status,
        "error": outcome.error,
        "error_type": outcome.error_type,
        "bytes": len(outcome.body),
        "is_large": len(outcome.body) >= large_bytes,
    }
    connection.execute(SQL["note_outcome"], values)


def _end(connection: sqlite3.Connection, number: int, webhook: str | None, state: State, at: float) -> None:
    """The last move of a request, and the webhook it owes."""
    connection.execute(SQL["end"], {"number": number, "state": state.value, "at": at})
    connection.execute(SQL["drop_body"], (number,))
    if webhook is not None:
        connection.execute(SQL["put_in_outbox"], (number, at))
