"""Submits that are sent again: which is the first one again, and which is another."""

import asyncio

import pytest

from headrace.core.keys import KeyId
from headrace.core.request import RequestId
from headrace.gateway import resends as room
from headrace.gateway.resends import RESEND_S, Resends, Sent

SENT = Sent.of(KeyId("hr_abcdefgh2345"), "/queue/me/app", b"", b"{}")


class Connection:
    """A client's connection, alive until it is not."""

    def __init__(self, *, is_gone: bool = False) -> None:
        self.is_gone = is_gone


class Clients:
    """Callers of one server, whose requests are numbered as they are accepted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.accepted = 0
        self.resends = Resends(clock=lambda: self.now)

    async def accept(self) -> RequestId:
        await asyncio.sleep(0)
        self.accepted += 1
        return RequestId(str(self.accepted))

    def call(self, sent: Sent = SENT, *, dies: bool = False) -> str:
        """Send a call; one that dies has lost its connection before its answer."""
        return asyncio.run(self.resends.once(sent, Connection(is_gone=dies), self.accept))


@pytest.fixture
def clients():
    return Clients()


def test_equal_calls_that_are_answered_are_two(clients):
    assert [clients.call(), clients.call()] == ["1", "2"]


def test_a_call_whose_connection_died_is_not_started_again(clients):
    assert [clients.call(dies=True), clients.call()] == ["1", "1"]
    assert clients.accepted == 1


def test_once_it_was_answered_the_next_one_is_another(clients):
    assert [clients.call(dies=True), clients.call(), clients.call()] == ["1", "1", "2"]


def test_it_may_die_more_than_once(clients):
    assert [clients.call(dies=True), clients.call(dies=True), clients.call(dies=True), clients.call()] == ["1"] * 4


def test_two_that_died_are_two_again(clients):
    async def both() -> list[str]:
        gone = [Connection(), Connection()]
        calls = [asyncio.create_task(clients.resends.once(SENT, one, clients.accept)) for one in gone]
        await asyncio.sleep(0)
        for one in gone:
            one.is_gone = True
        return await asyncio.gather(*calls)

    assert asyncio.run(both()) == ["1", "2"]
    assert sorted([clients.call(), clients.call()]) == ["1", "2"]
    assert clients.call() == "3"


def test_it_is_forgotten_after_ten_seconds(clients):
    clients.call(dies=True)
    clients.now += RESEND_S - 0.1
    clients.call(dies=True)
    clients.now += RESEND_S

    assert clients.call() == "2"


@pytest.mark.parametrize(
    "other",
    [
        Sent.of(KeyId("hr_bbbbbbbb2345"), "/queue/me/app", b"", b"{}"),
        Sent.of(None, "/queue/me/app", b"", b"{}"),
        Sent.of(SENT.owner, "/queue/me/other", b"", b"{}"),
        Sent.of(SENT.owner, "/queue/me/app", b"fal_webhook=x", b"{}"),
        Sent.of(SENT.owner, "/queue/me/app", b"", b"{ }"),
    ],
    ids=["key", "no key", "path", "query", "body"],
)
def test_another_key_path_query_or_body_is_another_call(clients, other):
    clients.call(dies=True)

    assert clients.call(other) == "2"
    assert clients.call() == "1"


def test_a_call_that_comes_while_the_dead_one_is_being_accepted_waits_for_it(clients):
    async def main() -> tuple[str, str]:
        may_accept = asyncio.Event()

        async def slowly() -> RequestId:
            await may_accept.wait()
            return await clients.accept()

        dead = Connection()
        first = asyncio.create_task(clients.resends.once(SENT, dead, slowly))
        await asyncio.sleep(0)
        dead.is_gone = True
        second = asyncio.create_task(clients.resends.once(SENT, Connection(), clients.accept))
        await asyncio.sleep(0)
        may_accept.set()
        return await first, await second

    assert asyncio.run(main()) == ("1", "1")


def test_a_call_that_comes_while_an_equal_one_is_alive_is_another(clients):
    async def main() -> list[str]:
        return await asyncio.gather(
            *(clients.resends.once(SENT, Connection(), clients.accept) for _ in range(3)),
        )

    assert asyncio.run(main()) == ["1", "2", "3"]


def test_what_was_refused_is_tried_again_for_itself(clients):
    async def refuse() -> RequestId:
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        asyncio.run(clients.resends.once(SENT, Connection(is_gone=True), refuse))

    assert clients.call() == "1"


def test_no_more_are_remembered_than_may_be(clients, monkeypatch):
    for n in range(room.REMEMBERED_MAX + 1):
        clients.call(Sent.of(None, str(n), b"", b""), dies=True)

    assert clients.call(Sent.of(None, "0", b"", b"")) == str(room.REMEMBERED_MAX + 2)
    assert clients.call(Sent.of(None, "2", b"", b"")) == "3"
