"""A store in a folder of its own, and requests for it with nothing in them that a test does not name."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.core.request import RequestId, State
from headrace.store.port import NewRequest, Outcome
from headrace.store.sqlite import SqliteStore, StoreSettings

_numbers = itertools.count(1)


def a_request(id_: str | None = None, **fields: Any) -> NewRequest:
    """A request nobody has seen before."""
    given = {"app": "me/app", "endpoint": "", "view": "run", "body": b"{}", "created_at": 1_000.0}
    return NewRequest(id=RequestId(id_ or f"request-{next(_numbers)}"), **(given | fields))


def an_outcome(state: State = State.COMPLETED, **fields: Any) -> Outcome:
    """How a request ended."""
    given = {"status": 200 if state is State.COMPLETED else 500, "body": b'{"done": true}', "at": 2_000.0}
    return Outcome(state=state, **(given | fields))


CANCELLED = an_outcome(State.CANCELLED, status=499, body=b'{"detail": "cancelled"}', error_type="client_cancelled")


@asynccontextmanager
async def a_store(folder: Path, **settings: Any) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(folder, StoreSettings(**settings)) as store:
        yield store


async def started(store: SqliteStore, **fields: Any) -> RequestId:
    """A request whose first attempt has begun."""
    new = a_request(**fields)
    await store.submit(new)
    assert await store.start(new.id, node="here", lease_until=1_030.0, at=1_001.0) == 1
    return new.id
