"""A node that works with another one's store, as if nobody had stopped it: `python -m tests.support.zombie FOLDER`.

It keeps to a lock file of its own, as on a file system without locks. Of each line `ID` on its standard input it
starts that request and tells `[ATTEMPT, LEASE_UNTIL]`; at the next line it goes on with its attempt, to the end, and
tells what it was answered: whether its events and its log lines were kept, and the state that its finish led to.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from headrace.core.request import RequestId
from headrace.store.port import LogLine
from headrace.store.sqlite import SqliteStore, file
from tests.support.stores import an_outcome

#: Seconds of its leases.
LEASE_S = 0.1

EVENTS = [b'{"by": "the zombie"}'] * 3
RESULT = b'{"by": "the zombie"}'


async def have_an_attempt(store: SqliteStore, id_: RequestId) -> None:
    lease_until = time.time() + LEASE_S
    attempt = await store.start(id_, node="zombie", lease_until=lease_until, at=time.time())
    assert attempt is not None, id_
    assert await store.append(id_, attempt, 0, EVENTS)
    print(json.dumps([attempt, lease_until]), flush=True)
    sys.stdin.readline()
    kept = await store.append(id_, attempt, len(EVENTS), EVENTS)
    logged = await store.append_logs(id_, attempt, [LogLine("from the grave", "INFO", "USER", time.time())])
    state = await store.finish(id_, attempt, an_outcome(body=RESULT))
    print(json.dumps([kept, logged, state and state.value]), flush=True)


async def main(folder: Path) -> None:
    file.LOCK_NAME = "zombie.lock"  # type: ignore[misc]
    async with SqliteStore(folder) as store:
        while id_ := sys.stdin.readline().strip():
            await have_an_attempt(store, RequestId(id_))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
