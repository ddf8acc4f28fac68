"""What happens to requests that have ended: their webhooks, and how they are forgotten, a bounded step at once."""

from __future__ import annotations

import json
import sqlite3
from itertools import accumulate

from headrace.core.request import RequestId
from headrace.store.port import Expired
from headrace.store.sqlite.requests import look
from headrace.store.sqlite.settings import StoreSettings
from headrace.store.sqlite.sql import SQL


def delivered(connection: sqlite3.Connection, id_: RequestId) -> None:
    """Take a webhook out of the outbox; its request need not be kept for it any more."""
    standing = look(connection, id_)
    if standing is not None and connection.execute(SQL["take_from_outbox"], (standing.number,)).rowcount:
        connection.execute(SQL["release_delivered"], (standing.number,))


def retry_delivery(connection: sqlite3.Connection, id_: RequestId, next_at: float, error: str) -> None:
    """Note a failed try."""
    standing = look(connection, id_)
    if standing is not None:
        connection.execute(SQL["retry_delivery"], {"number": standing.number, "next_at": next_at, "error": error})


def bury_delivery(connection: sqlite3.Connection, id_: RequestId, at: float, error: str) -> None:
    """Give a webhook up."""
    standing = look(connection, id_)
    if standing is not None:
        connection.execute(SQL["bury_delivery"], {"number": standing.number, "at": at, "error": error})


def revive_delivery(connection: sqlite3.Connection, id_: RequestId, at: float) -> bool:
    """Make a dead letter due."""
    standing = look(connection, id_)
    if standing is None:
        return False
    return connection.execute(SQL["revive_delivery"], {"number": standing.number, "at": at}).rowcount > 0


def expire(connection: sqlite3.Connection, now: float, limit: int, settings: StoreSettings) -> Expired:
    """Forget what is too old or, while the file holds too much, what is oldest: at most `limit` requests."""
    _drop_old_letters(connection, now - settings.dead_letter_age_s, limit)
    ages = {"large_before": now - settings.large_result_age_s, "before": now - settings.result_age_s}
    chosen = connection.execute(SQL["aged"], {**ages, "limit": limit}).fetchall()
    excess = 0 if chosen else _bytes_in_use(connection) - settings.bytes_max
    if excess > 0:
        chosen = connection.execute(SQL["oldest"], {"limit": limit}).fetchall()
    totals = list(accumulate(size for _, size in chosen))
    within = sum(total <= settings.expire_bytes_max for total in totals)
    if excess > 0:  # no more of those whose time has not come than it takes
        within = min(within, 1 + sum(total < excess for total in totals))
    numbers = [number for number, _ in chosen[: max(1, within)]]
    if numbers:
        gone = (json.dumps(numbers),)
        for query in ("expire_results", "expire_events", "expire_logs", "expire_requests"):
            connection.execute(SQL[query], gone)
    has_more = excess <= 0 and (len(chosen) == limit or len(numbers) < len(chosen))
    return Expired(
        len(numbers), has_more=has_more or (bool(numbers) and _bytes_in_use(connection) > settings.bytes_max)
    )


def _drop_old_letters(connection: sqlite3.Connection, before: float, limit: int) -> None:
    """Drop dead letters nobody came for, so that their requests can expire."""
    old = [row[0] for row in connection.execute(SQL["old_letters"], {"before": before, "limit": limit})]
    if old:
        connection.execute(SQL["release_letters"], (json.dumps(old),))
        connection.execute(SQL["drop_letters"], (json.dumps(old),))


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    """What the file holds, without the pages that are free for reuse: two numbers from its header."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
