"""The writer: what waits shares a commit, nobody is answered before it, and only the guilty fail."""

import asyncio
import dataclasses
import itertools
import sqlite3
import threading

import pytest

from headrace.store.port import StoreBusy, StoreRefusal, StoreUnavailable
from headrace.store.sqlite import StoreSettings, file
from headrace.store.sqlite.writer import Writer
from tests.support.stores import a_request, a_store


class Desk:
    """A writer on a table of numbers, whose thread can be held up and whose connections are counted."""

    def __init__(self, folder, **settings):
        self.path = folder / "x.db"
        self.settings = StoreSettings(**settings)
        self.opened = 0
        self.commits = 0
        self.refuses = False
        file.create(self.path)
        self.writer = Writer(self.path, self.settings, self.open)
        self.gate = threading.Event()

    def open(self):
        if self.refuses:
            raise sqlite3.OperationalError("unable to open database file")
        self.opened += 1
        connection = file.open_writer(self.path, self.settings, file.connect)
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY CHECK (n >= 0))")
        connection.set_trace_callback(self.trace)
        return connection

    def trace(self, statement):
        self.commits += statement == "COMMIT"

    def put(self, number, **options):
        return self.writer.write(
            lambda on: on.execute("INSERT INTO numbers VALUES (?)", (number,)).lastrowid, **options
        )

    async def held_up(self):
        """An operation in whose transaction the thread waits for the gate."""
        is_in = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait(on):
            loop.call_soon_threadsafe(is_in.set)
            assert self.gate.wait(30)

        task = asyncio.create_task(self.writer.write(wait))
        await is_in.wait()
        return task

    def numbers(self):
        with sqlite3.connect(self.path) as connection:
            found = [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]
        connection.close()
        return found


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    desk.gate.set()
    assert desk.writer.close(30)


async def waiting(*coroutines):
    tasks = [asyncio.create_task(one) for one in coroutines]
    await asyncio.sleep(0)
    return tasks


def test_what_waits_at_a_moment_shares_one_commit(desk):
    async def go():
        held = await desk.held_up()
        tasks = await waiting(*(desk.put(number) for number in range(100)))
        desk.gate.set()
        await asyncio.gather(held, *tasks)

    asyncio.run(go())

    assert desk.numbers() == list(range(100))
    assert desk.commits == 2


def test_operations_happen_in_the_order_they_were_asked_for(desk):
    async def go():
        seen = []
        await asyncio.gather(*(desk.writer.write(lambda on, i=i: seen.append(i)) for i in range(50)))
        return seen

    assert asyncio.run(go()) == list(range(50))


def test_nobody_is_answered_before_the_commit(desk):
    async def go():
        held = await desk.held_up()
        (task,) = await waiting(desk.put(1))
        await asyncio.sleep(0.05)
        before = task.done(), desk.numbers()
        desk.gate.set()
        await task
        await held
        return before, desk.numbers()

    assert asyncio.run(go()) == ((False, []), [1])


def test_an_operation_that_fails_takes_nobody_with_it(desk):
    async def go():
        held = await desk.held_up()
        tasks = await waiting(*(desk.put(number) for number in [1, 2, -3, 4, 2, 5]))
        desk.gate.set()
        await held
        return [type(told) for told in await asyncio.gather(*tasks, return_exceptions=True)]

    assert asyncio.run(go()) == [int, int, StoreUnavailable, int, StoreUnavailable, int]
    assert desk.numbers() == [1, 2, 4, 5]


def test_a_refusal_costs_the_others_nothing(desk):
    def refuse(on):
        raise StoreRefusal("no")

    async def go():
        held = await desk.held_up()
        tasks = await waiting(desk.put(1), desk.writer.write(refuse), desk.put(2))
        desk.gate.set()
        await held
        return [type(told) for told in await asyncio.gather(*tasks, return_exceptions=True)]

    assert asyncio.run(go()) == [int, StoreRefusal, int]
    assert (desk.numbers(), desk.commits, desk.opened) == ([1, 2], 2, 1)


def test_a_fault_of_ours_in_an_operation_is_told_as_it_is_and_undone(desk):
    def fault(on):
        on.execute("INSERT INTO numbers VALUES (7)")
        raise ZeroDivisionError

    def refuse_too_late(on):
        on.execute("INSERT INTO numbers VALUES (8)")
        raise StoreRefusal("too late")

    async def go():
        held = await desk.held_up()
        tasks = await waiting(
            desk.put(1), desk.writer.write(fault), desk.writer.write(refuse_too_late), desk.put(2)
        )
        desk.gate.set()
        await held
        return [type(told) for told in await asyncio.gather(*tasks, return_exceptions=True)]

    assert asyncio.run(go()) == [int, ZeroDivisionError, AssertionError, int]
    assert desk.numbers() == [1, 2]


def test_a_value_that_the_database_cannot_hold_is_its_callers_fault_alone(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            told = await asyncio.gather(
                store.submit(a_request("good")),
                store.submit(a_request("bad", app="\udcff")),
                store.submit(a_request("huge", created_at=object())),
                return_exceptions=True,
            )
            return [type(one).__name__ for one in told], [one.id for one in await store.open_requests(limit=9)]

    told, stored = asyncio.run(go())

    assert told[:2] == ["Submitted", "UnicodeEncodeError"]
    assert told[2] in {"StoreUnavailable", "InterfaceError", "ProgrammingError"}
    assert stored == ["good"]


def test_too_much_that_waits_is_refused_and_room_is_kept_for_what_ends_work(tmp_path):
    desk = Desk(tmp_path, waiting_max=10, waiting_bytes_max=1_000, submits_share=0.5)

    async def go():
        held = await desk.held_up()
        new = await waiting(*(desk.put(number, is_new=True) for number in range(7)))
        old = await waiting(*(desk.put(number) for number in range(10, 17)))
        desk.gate.set()
        await held
        told = await asyncio.gather(*new, *old, return_exceptions=True)
        desk.gate.clear()
        held = await desk.held_up()
        large = await waiting(
            desk.put(20, size=501, is_new=True),
            desk.put(21, size=900),
            desk.put(22, size=101),
            desk.put(23, size=100),
        )
        desk.gate.set()
        await held
        return [[isinstance(one, StoreBusy) for one in told]
                for told in (told, await asyncio.gather(*large, return_exceptions=True))]  # fmt: skip

    counted, weighed = asyncio.run(go())
    assert desk.writer.close(30)

    assert counted == [False] * 5 + [True] * 2 + [False] * 5 + [True] * 2
    assert weighed == [True, False, True, False]


def test_what_is_large_does_not_hold_up_all_the_others(tmp_path):
    desk = Desk(tmp_path, group_bytes_max=1_000, group_max=5)

    async def go():
        held = await desk.held_up()
        tasks = await waiting(
            *(desk.put(number, size=600) for number in range(3)), *(desk.put(number) for number in range(10, 20))
        )
        desk.gate.set()
        await asyncio.gather(held, *tasks)

    asyncio.run(go())
    assert desk.writer.close(30)

    assert len(desk.numbers()) == 13
    assert desk.commits == 1 + 2 + 3  # one alone, one alone, one with four small ones, five, one


def test_a_caller_who_left_before_the_beginning_is_passed_over(desk):
    async def go():
        held = await desk.held_up()
        left, stays = await waiting(desk.put(1), desk.put(2))
        left.cancel()
        await asyncio.sleep(0)
        desk.gate.set()
        await asyncio.gather(held, stays)
        return left.cancelled()

    assert asyncio.run(go())
    assert desk.numbers() == [2]


def test_when_every_caller_has_left_the_writer_goes_on(desk):
    async def go():
        held = await desk.held_up()
        left = await waiting(desk.put(1), desk.put(2))
        for task in left:
            task.cancel()
        await asyncio.sleep(0)
        desk.gate.set()
        await held
        await desk.put(3)

    asyncio.run(go())

    assert desk.numbers() == [3]


def test_a_disk_that_does_not_answer_is_told_in_time(tmp_path):
    desk = Desk(tmp_path, answer_timeout_s=0.2)

    async def go():
        held = await desk.held_up()
        with pytest.raises(StoreUnavailable, match="did not answer within 0.2 s"):
            await desk.put(1)
        with pytest.raises(StoreUnavailable):
            await held
        desk.writer._settings = dataclasses.replace(desk.settings, answer_timeout_s=30.0)  # and now it may be slow
        desk.gate.set()
        return await desk.put(2)

    assert asyncio.run(go()) == 2
    assert desk.writer.close(30)
    assert desk.numbers() == [2]


def test_it_heals_by_itself_when_the_file_can_be_opened_again(desk, caplog):
    async def go():
        await desk.put(1)
        desk.refuses = True
        with pytest.raises(StoreUnavailable):
            await desk.put(-1)
        with pytest.raises(StoreUnavailable, match="unable to open database file"):
            await desk.put(2)
        desk.refuses = False
        return await desk.put(3)

    asyncio.run(go())

    assert desk.numbers() == [1, 3]
    assert [record.message for record in caplog.records] == [
        "the store fails: CHECK constraint failed: n >= 0; what was acknowledged is safe, new requests are refused",
        "the store works again",
    ]


def test_a_log_that_was_swollen_is_cut_when_commits_go_on(tmp_path):
    desk = Desk(tmp_path, checkpoint_bytes=100_000, wal_bytes_max=500_000)
    log = tmp_path / "x.db-wal"

    async def go():
        await desk.writer.write(lambda on: on.execute("CREATE TABLE large (x)"))
        insert = "INSERT INTO large VALUES (zeroblob(2000000))"
        await desk.writer.write(lambda on: on.execute(insert), size=2_000_000)
        async with asyncio.timeout(30):
            for number in itertools.count():
                await desk.put(number)
                if log.stat().st_size < 500_000:
                    return

    asyncio.run(go())
    assert desk.writer.close(30)

    assert not log.exists()


def test_two_loops_may_share_a_writer(desk):
    async def put(numbers):
        await asyncio.gather(*(desk.put(number) for number in numbers))

    threads = [
        threading.Thread(target=lambda k=k: asyncio.run(put(range(k * 100, k * 100 + 50)))) for k in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert desk.numbers() == [*range(50), *range(100, 150)]
