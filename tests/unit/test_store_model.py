"""The store against a model of itself in memory: after any operations, in any order, both say the same.

The operations are chosen by a seed; a failure names it. The model is what the protocol says, in the plainest words.
"""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from headrace.core.line import Priority
from headrace.core.request import FINAL, State
from headrace.store.port import Cancelling, EventPage, IdempotencyConflict, QueueFull
from headrace.store.sqlite import SqliteStore
from tests.support.stores import a_request, an_outcome

STEPS = 300


@dataclass
class One:
    new: object
    state: State = State.QUEUED
    attempt: int = 0
    lease: tuple = (None, None)
    outcome: object = None
    events: list = field(default_factory=list)
    owes: bool = False


class Model:
    """The queue, as the protocol has it."""

    def __init__(self):
        self.all: dict[str, One] = {}

    def held(self, id_, attempt):
        one = self.all.get(id_)
        return one if one and one.state in {State.RUNNING, State.CANCELLING} and one.attempt == attempt else None

    def end(self, one, state, outcome, at):
        one.state, one.lease, one.owes = state, (None, None), one.new.webhook is not None
        one.outcome = an_outcome(state, status=outcome.status, body=outcome.body, at=at)
        return state

    def give_up(self, one, at):
        if one.state is State.CANCELLING:
            return self.end(one, State.CANCELLED, one.outcome, at)
        one.state, one.lease = State.QUEUED, (None, None)
        return State.QUEUED

    def submit(self, new):
        for id_, one in self.all.items():
            if new.idempotency_key and one.new.idempotency_key == new.idempotency_key and id_ != new.id:
                return (id_, True) if one.new.body == new.body else IdempotencyConflict
        if new.id in self.all:
            return new.id, False
        if len([one for one in self.all.values() if one.state is State.QUEUED]) >= (new.queue_length_max or 1_000):
            return QueueFull
        self.all[new.id] = One(new)
        return new.id, False

    def start(self, id_, node, until):
        one = self.all.get(id_)
        if one is None or one.state is not State.QUEUED:
            return None
        one.state, one.lease, one.events = State.RUNNING, (node, until), []
        one.attempt += 1
        return one.attempt

    def append(self, id_, attempt, first, texts):
        one = self.held(id_, attempt)
        if one:
            one.events += texts[len(one.events) - first :]
        return one is not None

    def finish(self, id_, attempt, outcome):
        one = self.held(id_, attempt)
        if one is None:
            return None
        is_cancelled = one.state is State.CANCELLING
        state = State.CANCELLED if is_cancelled else outcome.state
        return self.end(one, state, one.outcome if is_cancelled else outcome, outcome.at)

    def requeue(self, id_, attempt, at):
        one = self.held(id_, attempt)
        return one and self.give_up(one, at)

    def end_queued(self, id_, outcome):
        one = self.all.get(id_)
        return bool(one and one.state is State.QUEUED and self.end(one, outcome.state, outcome, outcome.at))

    def cancel(self, id_, outcome):
        one = self.all.get(id_)
        if one is None:
            return Cancelling.UNKNOWN
        if one.state is State.QUEUED:
            self.end(one, State.CANCELLED, outcome, outcome.at)
            return Cancelling.DEQUEUED
        if one.state is State.RUNNING:
            one.state, one.outcome = State.CANCELLING, outcome
        return Cancelling.TOO_LATE if one.state in FINAL else Cancelling.REQUESTED

    def release(self, node, at):
        lost = [one for one in self.all.values() if one.lease[0] is not None]
        lost = [one for one in lost if one.lease[0] == node or one.lease[1] <= at]
        for one in lost:
            self.give_up(one, at)
        return len(lost)

    def position(self, id_):
        waiting = [(one.new.priority, number, name) for number, (name, one) in enumerate(self.all.items())
                   if one.state is State.QUEUED]  # fmt: skip
        return next((place for place, (*_, name) in enumerate(sorted(waiting)) if name == id_), None)


async def told(awaitable):
    """What the store says, in the model's words."""
    try:
        return await awaitable
    except (IdempotencyConflict, QueueFull) as refusal:
        return type(refusal)


async def step(store, model, chosen):
    """One operation, said to both. Returns what each answered."""
    id_ = f"r{chosen.randrange(12)}"
    attempt = chosen.randrange(3) if chosen.random() < 0.3 else getattr(model.all.get(id_), "attempt", 1)
    at = 1_000.0 + chosen.randrange(100)
    node = chosen.choice(["here", "there"])
    outcome = an_outcome(chosen.choice([State.COMPLETED, State.FAILED]), body=b"%d" % chosen.randrange(99), at=at)
    cancelled = an_outcome(State.CANCELLED, status=499, body=b"%d" % chosen.randrange(99), at=at)
    match chosen.choice(
        ["submit", "start", "start", "append", "append", "finish", "requeue", "end", "cancel", "release"]
    ):
        case "submit":
            new = a_request(
                id_, body=b"%d" % chosen.randrange(2), priority=chosen.choice(list(Priority)),
                idempotency_key=chosen.choice([None, None, "k1", "k2"]), queue_length_max=chosen.choice([None, 5]),
                webhook=chosen.choice([None, "https://example.com"]),
            )  # fmt: skip
            answer = await told(store.submit(new))
            return (answer if isinstance(answer, type) else (answer.id, answer.is_duplicate)), model.submit(new)
        case "start":
            until = at + 30
            return await store.start(id_, node=node, lease_until=until, at=at), model.start(id_, node, until)
        case "append":
            have = len(model.all[id_].events) if id_ in model.all else 0
            first = chosen.randrange(have + 1)
            texts = [b"%d" % number for number in range(first, first + chosen.randrange(4))]
            return await store.append(id_, attempt, first, texts), model.append(id_, attempt, first, texts)
        case "finish":
            return await store.finish(id_, attempt, outcome), model.finish(id_, attempt, outcome)
        case "requeue":
            return await store.requeue(id_, attempt, not_before=at, at=at), model.requeue(id_, attempt, at)
        case "end":
            return await store.end_queued(id_, outcome), model.end_queued(id_, outcome)
        case "cancel":
            return await store.cancel(id_, cancelled), model.cancel(id_, cancelled)
        case "release":
            at -= 100 if chosen.random() < 0.5 else 0
            node = chosen.choice(["here", "nobody"])
            return await store.release(node, at=at), model.release(node, at)


async def compare(store, model):
    for id_, one in model.all.items():
        record = await store.get(id_)
        assert (record.state, record.attempt, record.node) == (one.state, one.attempt, one.lease[0]), id_
        assert await store.result(id_) == (one.outcome if one.state in FINAL else None)
        assert await store.body(id_) == (None if one.state in FINAL else one.new.body)
        assert await store.position(id_) == model.position(id_)
        assert await store.events(id_, 0, limit=99) == EventPage(
            one.attempt, len(one.events), tuple(enumerate(one.events))
        )
    assert [one.id for one in await store.open_requests(limit=99)] == [
        id_ for id_, one in model.all.items() if one.state not in FINAL
    ]
    owed = {id_ for id_, one in model.all.items() if one.owes}
    assert {one.request for one in await store.due_deliveries(1e9, limit=99)} == owed


@pytest.mark.parametrize("seed", range(6))
def test_the_store_does_as_its_model_does(tmp_path, seed):
    async def go():
        chosen, model = random.Random(seed), Model()
        store = SqliteStore(tmp_path)
        try:
            for number in range(STEPS):
                answer, expected = await step(store, model, chosen)
                assert answer == expected, f"step {number} of seed {seed}"
                if chosen.random() < 0.03:
                    await store.close()
                    store = SqliteStore(tmp_path)
                if number % 10 == 0:
                    await compare(store, model)
            await compare(store, model)
        finally:
            await store.close()
        return model

    model = asyncio.run(go())

    assert any(one.state in FINAL for one in model.all.values())
