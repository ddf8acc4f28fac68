"""What a request leaves behind on its way: events and log lines, in groups of many, bounded.

Both are texts with rising numbers. One row holds what came together: a model that makes 100 tokens a second costs
a few rows a second, not 100.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise

from headrace.core.limits import cost_of
from headrace.core.request import RequestId
from headrace.store.port import EventPage, LogLine, LogPage
from headrace.store.sqlite.requests import look, look_held
from headrace.store.sqlite.sql import SQL


def pack(texts: Sequence[bytes]) -> bytes:
    """Join texts into one blob that `unpack` takes apart, whatever is in them."""
    return struct.pack(f"<{len(texts)}I", *map(len, texts)) + b"".join(texts)


def unpack(blob: bytes, length: int) -> list[bytes]:
    """Return the `length` texts of a blob."""
    ends = accumulate(struct.unpack_from(f"<{length}I", blob), initial=4 * length)
    return [blob[start:end] for start, end in pairwise(ends)]


def append_events(
    connection: sqlite3.Connection,
    id_: RequestId,
    attempt: int,
    first: int,
    texts: Sequence[bytes],
    bytes_max: int,
) -> bool:
    """Keep the events of the attempt that holds a request; those that are there already are skipped."""
    standing = look_held(connection, id_, attempt)
    if standing is None:
        return False
    texts = texts[max(0, standing.events_end - first) :]
    if not texts:
        return True
    first = max(first, standing.events_end)
    cost = cost_of(texts)
    held = standing.events_bytes + cost
    connection.execute(SQL["append_events"], (standing.number, first, len(texts), cost, pack(texts)))
    if held > bytes_max:
        held -= _drop_oldest(connection, "event_groups", "drop_event_groups", standing.number, held, bytes_max)
    end = first + len(texts)
    connection.execute(SQL["count_events"], {"number": standing.number, "end": end, "bytes": held})
    return True


def append_logs(
    connection: sqlite3.Connection, id_: RequestId, attempt: int, lines: Sequence[LogLine], bytes_max: int
) -> bool:
    """Keep log lines of the attempt that holds a request."""
    standing = look_held(connection, id_, attempt)
    if standing is None:
        return False
    if not lines:
        return True
    texts = [json.dumps([line.message, line.level, line.source, line.at]).encode("ascii") for line in lines]
    cost = cost_of(texts)
    held = standing.logs_bytes + cost
    connection.execute(SQL["append_logs"], (standing.number, standing.logs_end, len(texts), cost, pack(texts)))
    if held > bytes_max:
        held -= _drop_oldest(connection, "log_groups", "drop_log_groups", standing.number, held, bytes_max)
    end = standing.logs_end + len(texts)
    connection.execute(SQL["count_logs"], {"number": standing.number, "end": end, "bytes": held})
    return True


def _drop_oldest(
    connection: sqlite3.Connection, groups: str, drop: str, request: int, held: int, bytes_max: int
) -> int:
    """Drop the oldest groups, never the last, down to seven eighths of the bound; return the bytes that frees."""
    goal = bytes_max * 7 // 8
    dropped = []
    freed = 0
    for number, cost in connection.execute(SQL[groups], (request,)).fetchall()[:-1]:
        if held - freed <= goal:
            break
        dropped.append(number)
        freed += cost
    connection.execute(SQL[drop], (json.dumps(dropped),))
    return freed


def events(connection: sqlite3.Connection, id_: RequestId, first: int, limit: int) -> EventPage | None:
    """Return a page of a request's events."""
    standing = look(connection, id_)
    if standing is None:
        return None
    found = _read(connection, "read_events", standing.number, first, limit)
    return EventPage(standing.attempt, standing.events_end, tuple(found))


def logs(connection: sqlite3.Connection, id_: RequestId, first: int, limit: int) -> LogPage | None:
    """Return a page of a request's log."""
    standing = look(connection, id_)
    if standing is None:
        return None
    found = _read(connection, "read_logs", standing.number, first, limit)
    return LogPage(standing.logs_end, tuple((number, LogLine(*json.loads(text))) for number, text in found))


def _read(
    connection: sqlite3.Connection, query: str, request: int, first: int, limit: int
) -> list[tuple[int, bytes]]:
    groups = connection.execute(SQL[query], {"request": request, "first": first, "limit": limit}).fetchall()
    found = [
        numbered
        for start, blob, length in groups
        for numbered in enumerate(unpack(blob, length), start)
        if numbered[0] >= first
    ]
    return found[:limit]
