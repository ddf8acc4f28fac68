"""The node is killed between a cut and the resuming. What was queued goes on from the store; a direct stream is told."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

import pytest

from headrace import Client
from headrace.client import errors
from tests.support.server import PATIENCE_S, ZOO, Server, data_events, eventually, running_server

pytestmark = pytest.mark.timeout(300)


def items_of(n: int) -> list[dict[str, object]]:
    return [*({"i": i} for i in range(n)), {"total": n}]


@dataclass
class Stream:
    """A stream that was read up to a cut: its request, and what its reader has."""

    n: int
    id: str
    numbers: list[tuple[int, int]] = field(default_factory=list)  # of each event: attempt, number
    items: list[dict[str, object]] = field(default_factory=list)

    @property
    def last_id(self) -> str:
        attempt, number = self.numbers[-1]
        return f"{self.id}.{attempt}.{number}"

    def take(self, body: bytes) -> None:
        """Add what came, as far as it is whole events; behind a rollback, what was there does not count."""
        blocks = [block for block in body.rpartition(b"\n\n")[0].split(b"\n\n") if b"data: " in block]
        for block in blocks:
            id_ = re.search(rb"^id: \S+\.(\d+)\.(\d+)$", block, re.MULTILINE)
            assert id_ is not None, block
            (item,) = data_events(block)
            if item.get("type") == "rollback":
                self.numbers, self.items = [], []
            else:
                self.numbers.append((int(id_[1]), int(id_[2])))
                self.items.append(item)

    @property
    def is_whole(self) -> bool:
        """Whether its reader has each event of one attempt, once and in order."""
        attempts = {attempt for attempt, _ in self.numbers}
        return (len(attempts), [number for _, number in self.numbers], self.items) == (
            1, list(range(self.n + 1)), items_of(self.n),
        )  # fmt: skip


def submitted(server: Server, n: int, pause: float) -> Stream:
    answer = server.post("/queue/zoo/zoo/async", {"n": n, "pause": pause})
    assert answer.status == 200, answer.body
    return Stream(n, answer.json["request_id"])


def read_some(server: Server, stream: Stream, events: int) -> None:
    """Read at least so many events of a queued request, and cut."""
    with server.open(f"/zoo/zoo/requests/{stream.id}/stream") as reader:
        reader.read_until(b"\r\n\r\n")
        while reader.body.count(b"data: ") < events and not reader.is_whole:
            reader.bytes += reader.socket.recv(65_536)
        stream.take(reader.body)


def read_on(server: Server, stream: Stream) -> None:
    """Resume a queued request behind the last event that its reader has, to the end."""
    headers = {"Last-Event-ID": stream.last_id} if stream.numbers else {}
    answer = server.request("GET", f"/zoo/zoo/requests/{stream.id}/stream", None, headers)
    assert answer.status in {200, 204}, (answer, stream.last_id)
    stream.take(answer.body)


def has_ended(server: Server, stream: Stream) -> bool:
    return server.request("GET", f"/queue/zoo/zoo/requests/{stream.id}").status == 200


def begun_directly(server: Server) -> Stream:
    """A direct stream, of which some events were read."""
    with server.open(
        "/zoo/zoo/async/stream", {"n": 1_000, "pause": 0.02}, {"X-Headrace-Event-Ids": "1"}
    ) as reader:
        reader.read_until(b".1.2\n")
        id_ = re.search(rb"x-fal-request-id: (\S+)", reader.head)[1].decode()
        stream = Stream(1_000, id_)
        stream.take(reader.body)
        server.process.kill()
        server.process.wait(PATIENCE_S)
    return stream


@pytest.mark.promise("P5")
def test_after_a_kill_queued_requests_resume_and_a_direct_stream_is_told_that_it_is_gone(count, figures, tmp_path):
    dice = random.Random(5)
    streams = again = 0
    for _ in range(count(smoke=3, full=50)):
        with running_server(f"{ZOO}:Zoo", data_dir=tmp_path) as server:
            ended = submitted(server, n=17, pause=0.0)
            read_some(server, ended, dice.randint(1, 18))
            eventually(lambda: has_ended(server, ended), "it ends")  # noqa: B023
            running = submitted(server, n=50, pause=0.1)
            waiting = [submitted(server, n=5, pause=0.1) for _ in range(10)]  # more than there are slots
            read_some(server, running, dice.randint(1, 10))
            direct = begun_directly(server)

        # Resumed at once, or when there is a runner again: before the next attempt has begun, or later.
        with running_server(f"{ZOO}:Zoo", data_dir=tmp_path, until_ready=dice.random() < 0.5) as server:
            had = list(running.numbers)
            for stream in (running, ended, *waiting):
                read_on(server, stream)
                assert stream.is_whole, stream
                streams += 1
            again += running.numbers[0] != had[0]
            told = server.post("/zoo/zoo/async/stream", {"n": 1_000}, {"Last-Event-ID": direct.last_id})
            assert (told.status, told.json["error_type"]) == (412, "replay_gone")
            with Client(server.url) as client, pytest.raises(errors.NotFound):
                list(client.attach("zoo/zoo", direct.id, after=direct.last_id))

    figures("P5", streams=streams, begun_again=again, differences=0)
    assert again > 0
