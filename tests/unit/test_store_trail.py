"""Events and log lines in the durable store: numbered, in order, bounded, and of the attempt that holds the request."""

import asyncio
import random

import pytest

from headrace.core.limits import EVENT_OVERHEAD_BYTES
from headrace.store.port import EventPage, LogLine, LogPage
from headrace.store.sqlite.trail import pack, unpack
from tests.support.stores import CANCELLED, a_store, an_outcome, started


@pytest.mark.parametrize(
    "texts", [[], [b""], [b"", b"a", b""], [b"{}", b"a\nb\x00c"], [bytes([i]) * i for i in range(256)]]
)
def test_texts_come_apart_as_they_were_put_together(texts):
    assert unpack(pack(texts), len(texts)) == texts


# --- events ---------------------------------------------------------------------------------------------------


def test_events_are_read_from_any_number_on(tmp_path):
    texts = [b'{"i": %d}' % i for i in range(10)]

    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            for first, last in [(0, 4), (4, 5), (5, 10)]:
                assert await store.append(id_, 1, first, texts[first:last])
            pages = {first: await store.events(id_, first, limit=3) for first in range(12)}
        async with a_store(tmp_path) as store:
            return pages, await store.events(id_, 0, limit=100)

    pages, after_restart = asyncio.run(go())

    for first, page in pages.items():
        expected = tuple((i, texts[i]) for i in range(first, min(10, first + 3)))
        assert page == EventPage(1, 10, expected)
    assert after_restart == EventPage(1, 10, tuple(enumerate(texts)))


def test_events_told_twice_are_kept_once(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            await store.append(id_, 1, 0, [b"0", b"1"])
            answers = [
                await store.append(id_, 1, 0, [b"0", b"1"]),
                await store.append(id_, 1, 1, [b"1", b"2", b"3"]),
                await store.append(id_, 1, 4, []),
            ]
            return answers, await store.events(id_, 0, limit=10)

    answers, page = asyncio.run(go())

    assert answers == [True, True, True]
    assert page == EventPage(1, 4, ((0, b"0"), (1, b"1"), (2, b"2"), (3, b"3")))


def test_a_gap_in_what_was_told_shows_in_the_numbers(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            await store.append(id_, 1, 0, [b"0"])
            await store.append(id_, 1, 5, [b"5"])
            return await store.events(id_, 0, limit=10), await store.events(id_, 1, limit=10)

    whole, behind = asyncio.run(go())

    assert whole == EventPage(1, 6, ((0, b"0"), (5, b"5")))
    assert behind == EventPage(1, 6, ((5, b"5"),))


def test_a_new_attempt_begins_its_events_anew(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            await store.append(id_, 1, 0, [b"old 0", b"old 1"])
            await store.requeue(id_, 1, not_before=0, at=0)
            waiting = await store.events(id_, 0, limit=10)
            await store.start(id_, node="here", lease_until=0, at=0)
            begun = await store.events(id_, 0, limit=10)
            late = await store.append(id_, 1, 2, [b"old 2"])
            await store.append(id_, 2, 0, [b"new 0"])
            return waiting, begun, late, await store.events(id_, 0, limit=10)

    waiting, begun, late, page = asyncio.run(go())

    assert waiting == EventPage(1, 2, ((0, b"old 0"), (1, b"old 1")))
    assert begun == EventPage(2, 0, ())
    assert not late
    assert page == EventPage(2, 1, ((0, b"new 0"),))


def test_events_stay_when_the_request_has_ended_and_no_more_come(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_, stopped = await started(store), await started(store)
            await store.append(id_, 1, 0, [b"0"])
            await store.finish(id_, 1, an_outcome())
            await store.cancel(stopped, CANCELLED)
            while_stopping = await store.append(stopped, 1, 0, [b"0"])
            return await store.append(id_, 1, 1, [b"1"]), await store.events(id_, 0, limit=10), while_stopping

    late, page, while_stopping = asyncio.run(go())

    assert not late
    assert page == EventPage(1, 1, ((0, b"0"),))
    assert while_stopping


def test_the_oldest_events_go_when_a_request_has_too_many_and_the_last_never(tmp_path):
    async def go():
        async with a_store(tmp_path, events_bytes_max=10_000) as store:
            id_ = await started(store)
            for number in range(100):
                await store.append(id_, 1, number, [b"x" * (1_000 - EVENT_OVERHEAD_BYTES)])
            many = await store.events(id_, 0, limit=1_000)
            await store.append(id_, 1, 100, [b"y" * 50_000])
            return many, await store.events(id_, 0, limit=1_000)

    many, large = asyncio.run(go())

    numbers = [number for number, _ in many.events]
    assert 8 <= len(numbers) <= 10
    assert numbers == list(range(100 - len(numbers), 100))
    assert large == EventPage(1, 101, ((100, b"y" * 50_000),))


def test_events_of_many_requests_at_once_are_each_their_own(tmp_path):
    seed = random.Random(7)
    wanted = {name: [b"%s %d" % (name.encode(), i) for i in range(seed.randrange(1, 60))] for name in "abcdefgh"}

    async def go():
        async with a_store(tmp_path) as store:
            ids = {name: await started(store) for name in wanted}

            async def tell(name):
                at = 0
                while at < len(wanted[name]):
                    group = wanted[name][at : at + seed.randrange(1, 5)]
                    assert await store.append(ids[name], 1, at, group)
                    at += len(group)

            await asyncio.gather(*map(tell, wanted))
            return {name: await store.events(ids[name], 0, limit=100) for name in wanted}

    pages = asyncio.run(go())

    assert {name: [text for _, text in page.events] for name, page in pages.items()} == wanted


# --- logs -----------------------------------------------------------------------------------------------------


def line(message: str, **fields: object) -> LogLine:
    return LogLine(**({"message": message, "level": "STDOUT", "source": "USER", "at": 1_000.5} | fields))


def test_log_lines_are_read_from_any_number_on_over_all_attempts(tmp_path):
    lines = [line("one"), line("zwei ✓", level="ERROR"), line("\udcff broken\n\x00", source="MODEL"), line("")]

    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            assert await store.append_logs(id_, 1, lines[:2])
            assert await store.append_logs(id_, 1, [])
            await store.requeue(id_, 1, not_before=0, at=0)
            await store.start(id_, node="here", lease_until=0, at=0)
            late = await store.append_logs(id_, 1, [line("late")])
            assert await store.append_logs(id_, 2, lines[2:])
            return late, [await store.logs(id_, first, limit=3) for first in range(5)]

    late, pages = asyncio.run(go())

    assert not late
    for first, page in enumerate(pages):
        assert page == LogPage(4, tuple((i, lines[i]) for i in range(first, min(4, first + 3))))


def test_the_oldest_log_lines_go_when_a_request_has_too_many(tmp_path):
    async def go():
        async with a_store(tmp_path, logs_bytes_max=5_000) as store:
            id_ = await started(store)
            for number in range(200):
                await store.append_logs(id_, 1, [line(f"line {number}")])
            return await store.logs(id_, 0, limit=1_000)

    page = asyncio.run(go())

    numbers = [number for number, _ in page.lines]
    assert page.end == 200
    assert 20 < len(numbers) < 50
    assert [one.message for _, one in page.lines] == [f"line {number}" for number in range(numbers[0], 200)]
