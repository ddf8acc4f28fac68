"""What becomes of ended requests: webhooks are owed exactly when they ended, and forgetting is bounded work."""

import asyncio

import pytest

from headrace.core.request import State
from headrace.store.port import Delivery, Expired
from tests.support.stores import CANCELLED, a_request, a_store, an_outcome, started

HOUR = 3_600.0
URL = "https://example.com/hook"


async def ended(store, **fields):
    outcome = fields.pop("outcome", None) or an_outcome()
    id_ = await started(store, **fields)
    await store.finish(id_, 1, outcome)
    return id_


# --- webhooks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled queued", "cancelled running", "released"])
def test_a_webhook_is_owed_once_its_request_has_ended_and_not_before(tmp_path, ending):
    async def go():
        async with a_store(tmp_path) as store:
            await store.submit(a_request("a", webhook=URL))
            if ending != "cancelled queued":
                await store.start("a", node="here", lease_until=0, at=0)
            before = await store.due_deliveries(1e9, limit=10)
            if ending in {"cancelled queued", "cancelled running", "released"}:
                await store.cancel("a", CANCELLED)
            if ending == "released":
                await store.release("here", at=2_000.0)
            elif ending != "cancelled queued":
                await store.finish("a", 1, an_outcome(State.FAILED if ending == "failed" else State.COMPLETED))
                await store.finish("a", 1, an_outcome())
        async with a_store(tmp_path) as store:
            return (
                before,
                await store.due_deliveries(1_999.0, limit=10),
                await store.due_deliveries(2_000.0, limit=10),
            )

    before, early, due = asyncio.run(go())

    assert (before, early) == ([], [])
    assert due == [Delivery(request="a", url=URL, tries=0, next_at=2_000.0, error=None, buried_at=None)]


def test_a_request_without_a_webhook_owes_nothing(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await ended(store)
            await store.delivered(id_)
            await store.retry_delivery(id_, next_at=0, error="?")
            await store.bury_delivery(id_, at=0, error="?")
            return await store.due_deliveries(1e9, limit=10), await store.dead_deliveries(limit=10)

    assert asyncio.run(go()) == ([], [])


def test_a_webhook_is_tried_again_buried_and_revived(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await ended(store, webhook=URL)
            seen = []

            async def look():
                seen.append((await store.due_deliveries(1e9, limit=9), await store.dead_deliveries(limit=9)))

            await store.retry_delivery(id_, next_at=2_060.0, error="HTTP 500")
            await look()
            await store.bury_delivery(id_, at=2_100.0, error="HTTP 502")
            await look()
            await store.retry_delivery(id_, next_at=1, error="a late answer")
            await look()
            revived = [await store.revive_delivery(id_, at=3_000.0), await store.revive_delivery(id_, at=4_000.0)]
            await look()
            await store.delivered(id_)
            await look()
            return id_, seen, revived

    id_, seen, revived = asyncio.run(go())

    dead = Delivery(request=id_, url=URL, tries=2, next_at=2_060.0, error="HTTP 502", buried_at=2_100.0)
    assert seen == [
        ([Delivery(request=id_, url=URL, tries=1, next_at=2_060.0, error="HTTP 500", buried_at=None)], []),
        ([], [dead]),
        ([], [dead]),
        ([Delivery(request=id_, url=URL, tries=0, next_at=3_000.0, error="HTTP 502", buried_at=None)], []),
        ([], []),
    ]
    assert revived == [True, False]


def test_webhooks_come_longest_due_first_and_as_many_as_asked_for(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            ids = [await ended(store, webhook=URL) for _ in range(4)]
            for number, id_ in enumerate(ids):
                await store.retry_delivery(id_, next_at=3_000.0 - number, error="?")
            return ids, await store.due_deliveries(2_999.0, limit=2)

    ids, due = asyncio.run(go())

    assert [one.request for one in due] == [ids[3], ids[2]]


# --- retention ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body_bytes", "age_s", "is_kept"),
    [
        (9_999, HOUR - 1, True),
        (9_999, HOUR, False),
        (10_000, 359, True),
        (10_000, 360, False),
    ],
)
def test_small_results_are_kept_an_hour_and_large_ones_six_minutes(tmp_path, body_bytes, age_s, is_kept):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await ended(store, outcome=an_outcome(body=b"x" * body_bytes, at=2_000.0))
            expired = await store.expire(2_000.0 + age_s, limit=10)
            return expired, await store.get(id_), await store.result(id_)

    expired, record, result = asyncio.run(go())

    assert expired == Expired(0 if is_kept else 1, has_more=False)
    assert (record is not None, result is not None) == (is_kept, is_kept)


def test_nothing_is_left_of_an_expired_request_and_its_key_is_free(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            new = a_request("a", idempotency_key="k")
            await store.submit(new)
            await store.start("a", node="here", lease_until=0, at=0)
            await store.append("a", 1, 0, [b"{}"])
            await store.finish("a", 1, an_outcome())
            await store.expire(2_000.0 + HOUR, limit=10)
            rows = {}
            for table in ("requests", "bodies", "results", "events", "logs", "outbox"):
                count = f"SELECT count(*) FROM {table}"
                rows[table] = await store._readers.read(lambda on, sql=count: on.execute(sql).fetchone()[0])
            return rows, await store.submit(a_request("b", idempotency_key="k", body=b"another"))

    rows, submitted = asyncio.run(go())

    assert set(rows.values()) == {0}
    assert not submitted.is_duplicate


def test_what_has_not_ended_never_expires(tmp_path):
    async def go():
        async with a_store(tmp_path, bytes_max=0) as store:
            await store.submit(a_request("queued"))
            await started(store)
            stopping = await started(store)
            await store.cancel(stopping, CANCELLED)
            return await store.expire(1e12, limit=10), len(await store.open_requests(limit=10))

    assert asyncio.run(go()) == (Expired(0, has_more=False), 3)


def test_expiry_goes_in_steps_no_larger_than_asked_for(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            await asyncio.gather(*(ended(store) for _ in range(25)))
            return [await store.expire(1e9, limit=10) for _ in range(4)]

    assert asyncio.run(go()) == [
        Expired(10, has_more=True), Expired(10, has_more=True), Expired(5, has_more=False),
        Expired(0, has_more=False),
    ]  # fmt: skip


def test_a_step_of_expiry_is_bounded_in_bytes_too(tmp_path):
    async def go():
        async with a_store(tmp_path, expire_bytes_max=250_000) as store:
            for _ in range(5):
                await ended(store, outcome=an_outcome(body=b"x" * 100_000))
            await ended(store, outcome=an_outcome(body=b"x" * 1_000_000))
            return [await store.expire(1e9, limit=10) for _ in range(4)]

    assert [(step.requests, step.has_more) for step in asyncio.run(go())] == [
        (2, True), (2, True), (1, True), (1, False),
    ]  # fmt: skip


def test_when_all_is_too_much_the_oldest_go_before_their_time(tmp_path):
    async def go():
        async with a_store(tmp_path, bytes_max=2_000_000) as store:
            ids = []
            for at in range(30):
                body = b"x" * (100_000 if at % 2 else 9_000)
                ids.append(await ended(store, outcome=an_outcome(body=body, at=2_000.0 + at)))
            newest = await store.expire(2_030.0, limit=100)
            while (await store.expire(2_030.0, limit=1)).has_more:
                pass
            return newest, [await store.get(id_) is not None for id_ in ids]

    _, kept = asyncio.run(go())

    assert kept == sorted(kept)  # the forgotten ones first
    assert any(kept)


def test_a_step_forgets_no_more_before_its_time_than_it_takes(tmp_path):
    async def go():
        async with a_store(tmp_path, bytes_max=2_000_000) as store:
            ids = [
                await ended(store, outcome=an_outcome(body=b"x" * 100_000, at=2_000.0 + at)) for at in range(21)
            ]
            while (await store.expire(2_030.0, limit=100)).has_more:
                pass
            return [await store.get(id_) is not None for id_ in ids]

    kept = asyncio.run(go())

    assert kept == sorted(kept)
    assert 1 <= kept.count(False) <= 4


def test_a_request_is_kept_until_its_webhook_is_delivered(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await ended(store, webhook=URL)
            pending = await store.expire(1e9, limit=10)
            await store.delivered(id_)
            return pending, await store.expire(1e9, limit=10)

    pending, delivered = asyncio.run(go())

    assert (pending.requests, delivered.requests) == (0, 1)


def test_a_dead_letter_is_kept_for_a_week_with_its_request(tmp_path):
    week = 7 * 86_400.0

    async def go():
        async with a_store(tmp_path) as store:
            id_ = await ended(store, webhook=URL)
            await store.bury_delivery(id_, at=10_000.0, error="?")
            early = await store.expire(10_000.0 + week - 1, limit=10), await store.dead_deliveries(limit=10)
            late = await store.expire(10_000.0 + week, limit=10), await store.dead_deliveries(limit=10)
            return early, late, await store.get(id_)

    (early, letters), (late, none), record = asyncio.run(go())

    assert (early.requests, len(letters)) == (0, 1)
    assert (late.requests, none, record) == (1, [], None)
