"""What can be asked of the database without changing it. Each function runs in one snapshot."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import Any, Final

from headrace.core.line import Priority
from headrace.core.request import RequestId, State
from headrace.store.port import Delivery, Outcome, Record
from headrace.store.sqlite.sql import SQL

#: The columns of `get` and `open_requests` have the names of a record's fields, and their order.
_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Record))


def get(connection: sqlite3.Connection, id_: RequestId) -> Record | None:
    """Return one record."""
    row = connection.execute(SQL["get"], (id_,)).fetchone()
    return None if row is None else _record(row)


def open_requests(connection: sqlite3.Connection, after: int, limit: int) -> list[Record]:
    """Return a page of the requests that have not ended."""
    return [_record(row) for row in connection.execute(SQL["open_requests"], {"after": after, "limit": limit})]


def body(connection: sqlite3.Connection, id_: RequestId) -> bytes | None:
    """Return what came with a request that has not ended."""
    row = connection.execute(SQL["body"], (id_,)).fetchone()
    return None if row is None else bytes(row[0])


def position(connection: sqlite3.Connection, id_: RequestId) -> int | None:
    """Return how many are before a queued request."""
    row = connection.execute(SQL["position"], (id_,)).fetchone()
    return None if row is None else int(row[0])


def result(connection: sqlite3.Connection, id_: RequestId) -> Outcome | None:
    """Return how a request ended."""
    row = connection.execute(SQL["result"], (id_,)).fetchone()
    if row is None:
        return None
    state, status, headers, content, at, error, error_type = row
    return Outcome(
        state=State(state), status=status, headers=json.loads(headers), body=content, at=at, error=error,
        error_type=error_type,
    )  # fmt: skip


def due_deliveries(connection: sqlite3.Connection, now: float, limit: int) -> list[Delivery]:
    """Return webhooks whose time has come."""
    return [_delivery(row) for row in connection.execute(SQL["due_deliveries"], {"now": now, "limit": limit})]


def dead_deliveries(connection: sqlite3.Connection, limit: int) -> list[Delivery]:
    """Return webhooks that were given up."""
    return [_delivery(row) for row in connection.execute(SQL["dead_deliveries"], (limit,))]


def _record(row: tuple[Any, ...]) -> Record:
    fields = dict(zip(_FIELDS, row, strict=True))
    fields["headers"] = json.loads(fields["headers"])
    fields["priority"] = Priority(fields["priority"])
    fields["may_retry"] = bool(fields["may_retry"])
    fields["state"] = State(fields["state"])
    return Record(**fields)


def _delivery(row: tuple[Any, ...]) -> Delivery:
    request, url, tries, next_at, error, buried_at = row
    return Delivery(request=request, url=url, tries=tries, next_at=next_at, error=error, buried_at=buried_at)
