"""Delivers the webhooks of requests that have ended: takes them from the store's outbox until each has arrived.

A webhook is put there together with its request's ending, so none is forgotten; it is taken out when its receiver
has said yes, so it may be told twice and never of two requests. One that cannot be delivered is buried, and kept
for whoever looks after the server.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from headrace.core.request import RequestId
from headrace.core.webhook import Outcome, Sign, Verdict, Webhook, body_of, next_try_s
from headrace.outbound.exchange import Outbound
from headrace.outbound.webhooks import deliver
from headrace.store.port import Delivery, RequestStore, StoreBusy, StoreUnavailable
from headrace.supervisor.unanswered import ask

_log = logging.getLogger(__name__)

#: Seconds between two looks for webhooks whose next try is due. New ones do not wait for it.
LOOK_EVERY_S: Final = 2.0

#: Webhooks that are tried at once. A receiver that hangs takes its 15 s; the others go on.
AT_ONCE_MAX: Final = 32


class Outbox:
    """The webhooks of one node."""

    def __init__(self, store: RequestStore, outbound: Outbound, sign: Sign, now: Callable[[], float]) -> None:
        """`now` is the clock by which the store keeps when a webhook is due."""
        self._store = store
        self.now = now
        self._outbound = outbound
        self._sign = sign
        self._news = asyncio.Event()
        self._under_way: set[RequestId] = set()

    def look(self) -> None:
        """There may be a new webhook."""
        self._news.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    due = await self._store.due_deliveries(self.now(), limit=AT_ONCE_MAX)
                except (StoreUnavailable, StoreBusy) as fault:
                    _log.warning("webhooks wait for the store: %s", fault)
                    due = ()
                for delivery in due:
                    if delivery.request not in self._under_way and len(self._under_way) < AT_ONCE_MAX:
                        self._under_way.add(delivery.request)
                        tasks.create_task(self._deliver(delivery), name=f"webhook of {delivery.request}")
                await self._until_news()

    async def _until_news(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def _deliver(self, delivery: Delivery) -> None:
        """Try once, and note what became of it, however often the store must be told: the receiver is not."""
        id_ = delivery.request
        try:
            webhook = await self._webhook(delivery)
            if webhook is None:
                await self._store.delivered(id_)  # its request is not kept any more: nothing can be told
                return
            outcome = await deliver(webhook, self._outbound, self._sign, time.time())
            await ask(lambda: self._note(delivery, outcome), f"the webhook of {id_}")
        except (StoreUnavailable, StoreBusy) as fault:
            _log.warning("the webhook of %s waits for the store: %s", id_, fault)
        finally:
            self._under_way.discard(id_)

    async def _webhook(self, delivery: Delivery) -> Webhook | None:
        record, result = await self._store.get(delivery.request), await self._store.result(delivery.request)
        if record is None or result is None:
            return None
        body = body_of(delivery.request, delivery.request, result.status, result.body)
        return Webhook(delivery.url, delivery.request, record.owner or "local", body)

    async def _note(self, delivery: Delivery, outcome: Outcome) -> None:
        id_, now = delivery.request, self.now()
        if outcome.verdict is Verdict.DELIVERED:
            await self._store.delivered(id_)
            return
        wait_s = None
        if outcome.verdict is Verdict.RETRY:
            wait_s = next_try_s(delivery.tries + 1, outcome, random.random())  # noqa: S311 - no secret
        if wait_s is None:
            _log.warning("the webhook of %s is given up: %s", id_, outcome.reason)
            await self._store.bury_delivery(id_, at=now, error=outcome.reason)
        else:
            await self._store.retry_delivery(id_, next_at=now + wait_s, error=outcome.reason)
