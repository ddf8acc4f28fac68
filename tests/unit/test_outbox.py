"""The outbox and a store that fails: what a receiver has had is noted, however often the store must be asked."""

import asyncio

import pytest

from headrace.core.request import RequestId
from headrace.core.webhook import Outcome, Verdict
from headrace.store.port import Delivery, StoreUnavailable
from headrace.supervisor import outbox as outboxes
from headrace.supervisor import unanswered
from headrace.supervisor.outbox import Outbox
from tests.support.stores import an_outcome

PATIENCE_S = 30.0
DUE = Delivery(request=RequestId("one"), url="http://a.example", tries=0, next_at=0.0, error=None, buried_at=None)


class Store:
    """A store that holds one webhook, and cannot write the first few times."""

    def __init__(self, fails: int) -> None:
        self.fails = fails
        self.due = (DUE,)
        self.noted: list[str] = []

    async def due_deliveries(self, now, *, limit):
        return self.due

    async def get(self, id_):
        return type("Record", (), {"owner": None})

    async def result(self, id_):
        return an_outcome()

    async def delivered(self, id_):
        self._note("delivered")

    async def retry_delivery(self, id_, *, next_at, error):
        self._note("retry")

    async def bury_delivery(self, id_, *, at, error):
        self._note("buried")

    def _note(self, what):
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("the disk is full")
        self.noted.append(what)
        self.due = ()


@pytest.mark.parametrize(
    ("verdict", "noted"),
    [(Verdict.DELIVERED, "delivered"), (Verdict.RETRY, "retry"), (Verdict.PERMANENT, "buried")],
    ids=lambda value: getattr(value, "value", value),
)
def test_a_store_that_cannot_note_a_delivery_is_asked_again_and_the_receiver_is_not(monkeypatch, verdict, noted):
    received = []

    async def deliver(webhook, *_):
        received.append(webhook.request_id)
        return Outcome(verdict, "as it says")

    monkeypatch.setattr(outboxes, "deliver", deliver)
    monkeypatch.setattr(outboxes, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(unanswered, "ASK_AGAIN_S", 0.01)
    store = Store(fails=5)

    async def scene():
        delivering = asyncio.create_task(Outbox(store, None, lambda _: b"", lambda: 0.0).run())
        async with asyncio.timeout(PATIENCE_S):
            while not store.noted:
                await asyncio.sleep(0.001)
        delivering.cancel()
        await asyncio.wait([delivering])

    asyncio.run(scene())

    assert (received, store.noted) == (["one"], [noted])
