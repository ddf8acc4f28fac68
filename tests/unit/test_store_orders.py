"""Whatever order cancel, start, finish, retry and expiry come in, and wherever a request is: one wins, told to all."""

import asyncio
import itertools

import pytest

from headrace.core.request import FINAL, MOVES, State
from headrace.store.port import Cancelling
from headrace.store.sqlite import Durability
from tests.support.stores import CANCELLED, a_request, a_store, an_outcome

LEASE = {"node": "here", "lease_until": 1_030.0, "at": 1_001.0}
FINISHED = an_outcome(body=b'{"by": "its attempt"}')
EXPIRED = an_outcome(State.FAILED, status=504, body=b'{"by": "its deadline"}', error_type="startup_timeout")

#: How a request comes to be where it is.
WAYS = {
    State.QUEUED: [],
    State.RUNNING: ["start"],
    State.CANCELLING: ["start", "cancel"],
    State.COMPLETED: ["start", "finish"],
    State.CANCELLED: ["cancel"],
}

EVENTS = ("cancel", "start", "finish", "retry", "expiry")

LEGAL = {(old, new) for (old, _), new in MOVES.items()} | {(state, state) for state in State}


async def happens(event, store, id_):
    match event:
        case "cancel":
            return await store.cancel(id_, CANCELLED)
        case "start":
            return await store.start(id_, **LEASE)
        case "finish":
            return await store.finish(id_, 1, FINISHED)
        case "retry":
            return await store.requeue(id_, 1, not_before=0, at=2_000.0)
        case "expiry":
            return await store.end_queued(id_, EXPIRED)


def ending_told(event, told):
    """The state that somebody was told it ended in, if it was told to have ended by this."""
    match event, told:
        case "cancel", Cancelling.DEQUEUED:
            return State.CANCELLED
        case (("finish" | "retry"), State()) if told in FINAL:
            return told
        case "expiry", True:
            return State.FAILED
    return None


@pytest.mark.promise("Q7")
@pytest.mark.parametrize("begins", WAYS, ids=lambda state: state.value)
def test_in_every_order_of_the_five_one_ending_wins_and_is_told_to_all(tmp_path, begins):
    async def go():
        async with a_store(tmp_path, durability=Durability.FAST) as store:
            for number, order in enumerate(itertools.permutations(EVENTS)):
                await one(store, f"r{number}", order)
        return number + 1

    async def one(store, id_, order):
        await store.submit(a_request(id_))
        for event in WAYS[begins]:
            await happens(event, store, id_)
        state, ended, is_to_stop = begins, [begins] if begins in FINAL else [], begins is State.CANCELLING
        for event in order:
            told = await happens(event, store, id_)
            before, state = state, (await store.get(id_)).state
            assert (before, state) in LEGAL, (order, event)
            assert before not in FINAL or state is before, (order, event)
            ended += [it for it in [ending_told(event, told)] if it is not None]
            is_to_stop |= told is Cancelling.REQUESTED
            assert (told is Cancelling.TOO_LATE) == (event == "cancel" and before in FINAL), (order, event)
        attempt = (await store.get(id_)).attempt
        await store.finish(id_, attempt - 1, an_outcome(body=b'{"by": "a zombie"}'))
        await store.requeue(id_, attempt, not_before=0, at=2_000.0)  # which ends what is still to stop
        state, result = (await store.get(id_)).state, await store.result(id_)
        assert len(ended) <= 1, order
        assert state is (ended[0] if ended else state), order
        assert not is_to_stop or state is State.CANCELLED, order
        if ended or is_to_stop:
            expected = {State.COMPLETED: FINISHED, State.CANCELLED: CANCELLED, State.FAILED: EXPIRED}[state]
            assert (result.body, result.error_type) == (expected.body, expected.error_type), order

    assert asyncio.run(go()) == 120
