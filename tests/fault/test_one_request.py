"""One request, submitted through a network that loses the answer, or read by two at once."""

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace import AsyncClient, Client
from tests.support.bystander import bystander
from tests.support.leaving import MODELS
from tests.support.resuming import cut_wire
from tests.support.server import PATIENCE_S, ZOO, RawStream, running_server
from tests.support.shells import no_credentials  # noqa: F401

#: Submits, or pairs of readers, at once.
AT_ONCE = 8

#: Events of a request that is read by two, and bytes of each: less than the replay keeps, more than sockets hold unread.
EVENTS, EVENT_BYTES = 120, 6_000

names = (f"one-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server():
    with running_server(f"{ZOO}:Zoo", f"{MODELS}:Leaving") as server:
        yield server


# --- submitted again ------------------------------------------------------------------------------------------------


def submit(url: str, name: str) -> object:
    with Client(url) as client:
        return client.submit("test/leaving", {"n": 1, "name": name}).get()


def submit_async(url: str, name: str) -> object:
    async def main() -> object:
        client = AsyncClient(url)
        try:
            handle = await client.submit("test/leaving", {"n": 1, "name": name})
            return await handle.get()
        finally:
            await client.close()

    return asyncio.run(main())


@pytest.mark.promise("Q6")
def test_a_submit_whose_answer_was_cut_is_the_same_request_when_it_is_sent_again(server, count, figures):
    turns = count(smoke=24, full=500)
    with RawStream(server.port) as whole:
        whole.post("/queue/test/leaving", {"n": 1, "name": next(names)}, {"Connection": "close"})
        size = len(whole.read_to_end() or whole.bytes)

    def lose(turn: int) -> tuple[bool, int, object]:
        name, shell = next(names), (submit, submit_async)[turn % 2]
        cuts = [turn * size // turns, size // 2][: 1 + turn % 3 // 2]  # every third is cut twice
        with cut_wire(server.port, cuts, resets=turn % 4 > 1) as wire:
            result = shell(wire.url, name)
        return wire.connections > 1, sum(note.startswith(f"start {name} ") for note in server.notes()), result

    with bystander(server, gap_s=30), ThreadPoolExecutor(AT_ONCE) as callers:
        told = list(callers.map(lose, range(turns)))
    submit(server.url, next(names))  # the last in line: whatever was submitted twice has been started, too

    assert [(starts, result) for _, starts, result in told] == [(1, {"total": 1})] * turns
    begun = [note.split()[1] for note in server.notes() if note.startswith("start one-")]
    assert len(begun) == len(set(begun))
    figures("Q6", cut=sum(was_cut for was_cut, _, _ in told), doubles=len(begun) - len(set(begun)))


# --- read by two ----------------------------------------------------------------------------------------------------


@pytest.mark.promise("P6")
def test_two_readers_of_a_request_each_get_all_of_it_and_the_slower_one_holds_nobody_up(server, count, figures):
    expected = [*({"i": i, "pad": "x" * EVENT_BYTES} for i in range(EVENTS)), {"total": EVENTS}]

    def read_by_two(turn: int) -> list[str]:
        order = {"n": EVENTS, "pad": EVENT_BYTES, "pause": 0.002, "name": next(names)}
        id_is_known, other_is_done = threading.Event(), threading.Event()
        id_ = ""

        def slower() -> list[object]:
            items = []
            assert id_is_known.wait(PATIENCE_S)
            with Client(server.url) as client:
                for item in client.attach("test/leaving", id_):
                    items.append(item)
                    if len(items) == 1 + turn % EVENTS:
                        assert other_is_done.wait(2 * PATIENCE_S)
            return items

        with ThreadPoolExecutor(1) as second, Client(server.url) as client:
            slow = second.submit(slower)
            if turn % 2:
                id_ = client.submit("test/leaving", order).request_id
                stream = client.attach("test/leaving", id_)
            else:  # the first one's pace is the model's
                stream = client.stream("test/leaving", order)
                head = next(stream)
                id_ = stream.request_id
            id_is_known.set()
            fast = [*stream] if turn % 2 else [head, *stream]
            other_is_done.set()
            read = {"faster": fast, "slower": slow.result(2 * PATIENCE_S)}
        starts = sum(note.startswith(f"start {order['name']} ") for note in server.notes())
        return [who for who, items in read.items() if items != expected] + ["started again"] * (starts - 1)

    turns = count(smoke=6, full=100)
    with bystander(server, gap_s=30), ThreadPoolExecutor(AT_ONCE) as pairs:
        differences = [what for wrong in pairs.map(read_by_two, range(turns)) for what in wrong]

    assert differences == []
    figures("P6", pairs=turns, differences=len(differences))
