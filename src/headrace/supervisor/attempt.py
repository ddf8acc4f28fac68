"""One attempt at a queued request: begun in the store, run in a slot, and ended in the store before it is told.

The store may fail at any of these steps, after it has done what it was asked as well as before. So each is asked
again until it is answered, and where the answer says that nothing was done, the record tells what had been.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from headrace.core.errors import RequestError
from headrace.core.request import FINAL, RequestId, State
from headrace.store.port import Outcome, StoreBusy, StoreUnavailable
from headrace.supervisor.recorder import Recorder
from headrace.supervisor.request_log import RequestLog
from headrace.supervisor.tickets import outcome_of, settle
from headrace.supervisor.unanswered import ASK_AGAIN_S, ask

if TYPE_CHECKING:
    from headrace.supervisor.pool import Pool
    from headrace.supervisor.queue import Queue
    from headrace.supervisor.streams import LiveRequest
    from headrace.supervisor.tickets import Ticket

_log = logging.getLogger(__name__)

#: Who holds the leases. One node has the store to itself, so whatever was held when it opens is nobody's.
NODE: Final = "local"


class Attempt:
    """An attempt at the request of `ticket`, in the slot that `pool` keeps for it."""

    def __init__(self, queue: Queue, ticket: Ticket, pool: Pool) -> None:
        self._queue = queue
        self._store = queue.store
        self._ticket = ticket
        self._pool = pool

    async def run(self) -> None:
        """Have it, up to the request's ending in the store or its return to the line."""
        ticket, id_ = self._ticket, self._ticket.new.id
        try:
            attempt = await self._begin(id_)
            body = ticket.new.body or await self._store.body(id_)
        except (StoreUnavailable, StoreBusy) as fault:
            _log.warning("request %s waits for the store: %s", id_, fault)
            self._queue.rest()  # first: a slot that is given back is the next one's at once
            self._pool.unreserve()
            # Not to the head of the line: one that cannot be read must not keep the others from their turn.
            self._queue.come_back(ticket, ASK_AGAIN_S)
            return
        if attempt is None or body is None:  # it has ended meanwhile: somebody cancelled it
            self._pool.unreserve()
            await ask(lambda: self._queue.let_go(ticket))
            return
        ticket.attempt = attempt
        ticket.attempt_over.clear()
        live = self._queue.live_of(ticket)
        if live is None:
            self._pool.unreserve()
            await self._end(RequestError("not_found", "The app is not served any more."))
        elif live.is_final:  # we are stopping, or somebody has just cancelled it
            self._pool.unreserve()
            await self._try_again(0.0)
        else:
            await self._run(live, body)

    async def _begin(self, id_: RequestId) -> int | None:
        """Begin in the store, and return the attempt's number; None for a request that has ended."""
        now = self._queue.now()
        lease_until = now + self._queue.limits.lease_s
        attempt = await self._store.start(id_, node=NODE, lease_until=lease_until, at=now)
        if attempt is not None:
            return attempt
        record = await self._store.get(id_)
        if record is None or record.state in FINAL:
            return None
        # An earlier start of ours took effect, and its answer was lost: nobody works on that attempt. If somebody
        # has cancelled it meanwhile, this is its end.
        await self._store.requeue(id_, record.attempt, not_before=now, at=now)
        return await self._store.start(id_, node=NODE, lease_until=lease_until, at=now)

    async def _run(self, live: LiveRequest, body: bytes) -> None:
        ticket = self._ticket
        live.body = body
        live.begin_again(ticket.attempt)
        live.log = RequestLog(self._queue.limits)
        recorder = Recorder(live, live.log, self._store, ticket.tell)
        live.attach(recorder, paces=True)
        if not self._pool.start_reserved(live):
            live.detach(recorder)
            await self._try_again(0.0)
            return
        ticket.tell()
        writing = self._queue.begin_task(recorder.run(), f"events of {live.id}")
        await ticket.attempt_over.wait()
        recorder.end()
        await writing
        live.detach(recorder)
        if live.ending is None:
            await self._try_again(ticket.retry_in_s)
            return
        # What its readers were told already, when it was stopped, is how it ended.
        error = live.error if live.is_over else live.ending.error
        if error is not None and error.type == "shutting_down" and self._queue.is_stopping:
            await self._try_again(0.0)
            live.settle(error)
        else:
            await self._end(error, live.ending.result)

    async def _end(self, error: RequestError | None, result: bytes | None = None) -> None:
        """Put the request's ending into the store, however often it takes; then tell it, and let go of it."""
        queue, ticket, id_ = self._queue, self._ticket, self._ticket.new.id
        if error is None:
            outcome = Outcome(state=State.COMPLETED, status=200, body=result or b"{}", at=queue.now())
        else:
            state = State.CANCELLED if error.type == "client_cancelled" else State.FAILED
            outcome = outcome_of(state, error, id_, queue.now())
        if await ask(lambda: self._store.finish(id_, ticket.attempt, outcome)) is outcome.state:
            queue.leave(ticket)
            if ticket.live is not None:
                settle(ticket.live, error)
        else:  # a wish to cancel came first, or the answer of an earlier try was lost
            await ask(lambda: queue.let_go(ticket))
        if ticket.new.webhook is not None:
            queue.on_webhook()

    async def _try_again(self, in_s: float) -> None:
        """Give up the attempt and let the request stand in line again, after a while."""
        queue, ticket, now = self._queue, self._ticket, self._queue.now()
        state = await ask(
            lambda: self._store.requeue(ticket.new.id, ticket.attempt, not_before=now + in_s, at=now)
        )
        if state is not State.QUEUED:  # somebody has cancelled it, or the answer of an earlier try was lost
            await ask(lambda: queue.let_go(ticket))
        queue.come_back(ticket, in_s)
