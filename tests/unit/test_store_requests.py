"""The life of a request in the durable store: every move once, by whom it may, and nobody else's."""

import asyncio
import dataclasses
import itertools

import pytest

from headrace.core.line import Priority
from headrace.core.request import State
from headrace.store.port import Cancelling, IdempotencyConflict, QueueFull, Submitted
from tests.support.stores import CANCELLED, a_request, a_store, an_outcome, started

LEASE = {"node": "here", "lease_until": 1_030.0, "at": 1_001.0}


# --- submit ---------------------------------------------------------------------------------------------------


def test_a_request_comes_back_as_it_was_submitted(tmp_path):
    new = a_request(
        endpoint="/fast", view="stream", body=b"\x00\xff not even JSON", created_at=1234.5, owner="hr_abcdefghijkl",
        headers={"user-agent": "curl/8"}, priority=Priority.LOW, start_deadline=1300.25, may_retry=False,
        runner_hint="warm", webhook="https://example.com/hook",
    )  # fmt: skip

    async def go():
        async with a_store(tmp_path) as store:
            submitted = await store.submit(new)
        async with a_store(tmp_path) as store:
            return submitted, await store.get(new.id), await store.body(new.id)

    submitted, record, body = asyncio.run(go())

    assert submitted == Submitted(new.id, is_duplicate=False)
    assert body == new.body
    kept = ("id", "app", "endpoint", "view", "owner", "headers", "priority", "created_at", "start_deadline",
            "may_retry", "runner_hint", "webhook")  # fmt: skip
    assert {name: getattr(record, name) for name in kept} == {name: getattr(new, name) for name in kept}
    assert (record.state, record.attempt, record.node, record.finished_at) == (State.QUEUED, 0, None, None)


def test_nothing_is_known_of_a_request_that_never_was(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            return [
                await store.get("x"), await store.body("x"), await store.position("x"), await store.result("x"),
                await store.events("x", 0, limit=1), await store.logs("x", 0, limit=1),
                await store.start("x", **LEASE), await store.finish("x", 1, an_outcome()),
                await store.requeue("x", 1, not_before=0, at=0),
            ], [
                await store.append("x", 1, 0, [b"{}"]), await store.append_logs("x", 1, []),
                await store.end_queued("x", an_outcome()), await store.revive_delivery("x", at=1),
            ], await store.cancel("x", CANCELLED)  # fmt: skip

    nothings, refusals, cancelling = asyncio.run(go())

    assert nothings == [None] * 9
    assert refusals == [False] * 4
    assert cancelling is Cancelling.UNKNOWN


def test_a_submit_repeated_with_its_id_is_the_same_request(tmp_path):
    new = a_request(queue_length_max=1, idempotency_key="k")

    async def go():
        async with a_store(tmp_path) as store:
            first = await store.submit(new)
            again = await store.submit(new)
            return first, again, await store.open_requests(limit=10), await store.body(new.id)

    first, again, open_requests, body = asyncio.run(go())

    assert first == again == Submitted(new.id, is_duplicate=False)
    assert [one.id for one in open_requests] == [new.id]
    assert body == b"{}"


@pytest.mark.parametrize("state", ["queued", "running", "ended"])
def test_an_idempotency_key_finds_its_request_whatever_became_of_it(tmp_path, state):
    async def go():
        async with a_store(tmp_path) as store:
            first = a_request(idempotency_key="k", owner="hr_a")
            await store.submit(first)
            if state != "queued":
                await store.start(first.id, **LEASE)
            if state == "ended":
                await store.finish(first.id, 1, an_outcome())
            second = await store.submit(a_request(idempotency_key="k", owner="hr_a", queue_length_max=0))
            return first.id, second

    first, second = asyncio.run(go())

    assert second == Submitted(first, is_duplicate=True)


def test_an_idempotency_key_used_for_another_body_is_refused(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            first = a_request(idempotency_key="k", body=b"1")
            await store.submit(first)
            with pytest.raises(IdempotencyConflict) as caught:
                await store.submit(a_request("second", idempotency_key="k", body=b"2"))
            return first.id, caught.value.first, await store.get("second")

    first, told, second = asyncio.run(go())

    assert told == first
    assert second is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"owner": "hr_b"}, id="owner"),
        pytest.param({"owner": None}, id="no owner"),
        pytest.param({"app": "me/other"}, id="app"),
        pytest.param({"endpoint": "/other"}, id="endpoint"),
        pytest.param({"idempotency_key": "K"}, id="key"),
        pytest.param({"idempotency_key": None}, id="no key"),
    ],
)
def test_an_idempotency_key_belongs_to_one_caller_and_endpoint(tmp_path, other):
    same = {"idempotency_key": "k", "owner": "hr_a", "app": "me/app", "endpoint": "/x"}

    async def go():
        async with a_store(tmp_path) as store:
            await store.submit(a_request(**same))
            return await store.submit(a_request(**(same | other)))

    assert not asyncio.run(go()).is_duplicate


def test_an_idempotency_key_without_an_owner_is_one_callers_too(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            await store.submit(a_request(idempotency_key="k"))
            return await store.submit(a_request(idempotency_key="k"))

    assert asyncio.run(go()).is_duplicate


def test_a_full_queue_takes_no_more_until_somebody_leaves_it(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            one, two = a_request(queue_length_max=2), a_request(queue_length_max=2)
            await store.submit(one)
            await store.submit(two)
            await store.submit(a_request(app="me/other", queue_length_max=2))
            with pytest.raises(QueueFull) as caught:
                await store.submit(a_request("refused", queue_length_max=2))
            await store.start(one.id, **LEASE)
            after_start = await store.submit(a_request("third", queue_length_max=2))
            await store.requeue(one.id, 1, not_before=0, at=0)  # now there are three
            await store.cancel("third", CANCELLED)
            with pytest.raises(QueueFull):
                await store.submit(a_request(queue_length_max=2))
            return caught.value, after_start, await store.get("refused")

    refusal, after_start, refused = asyncio.run(go())

    assert (refusal.app, refusal.length) == ("me/app", 2)
    assert not after_start.is_duplicate
    assert refused is None


def test_of_many_at_once_exactly_as_many_enter_the_queue_as_may(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            submits = [store.submit(a_request(queue_length_max=10)) for _ in range(50)]
            outcomes = await asyncio.gather(*submits, return_exceptions=True)
            return [type(outcome) for outcome in outcomes], await store.open_requests(limit=100)

    outcomes, queued = asyncio.run(go())

    assert outcomes == [Submitted] * 10 + [QueueFull] * 40
    assert len(queued) == 10


@pytest.mark.promise("Q6")
def test_of_many_at_once_with_one_key_one_is_queued(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            return await asyncio.gather(*(store.submit(a_request(idempotency_key="k")) for _ in range(50)))

    submitted = asyncio.run(go())

    assert len({one.id for one in submitted}) == 1
    assert sum(not one.is_duplicate for one in submitted) == 1


# --- the queue ------------------------------------------------------------------------------------------------


def test_positions_follow_priority_then_age(tmp_path):
    priorities = {"a": Priority.LOW, "b": Priority.NORMAL, "c": Priority.LOW, "d": Priority.NORMAL}

    async def go():
        async with a_store(tmp_path) as store:
            for id_, priority in priorities.items():
                await store.submit(a_request(id_, priority=priority))
            await store.submit(a_request("elsewhere", app="me/other"))
            before = {id_: await store.position(id_) for id_ in [*priorities, "elsewhere"]}
            await store.start("b", **LEASE)
            after = {id_: await store.position(id_) for id_ in priorities}
            await store.requeue("b", 1, not_before=0, at=0)
            return before, after, {id_: await store.position(id_) for id_ in priorities}

    before, after, tried_again = asyncio.run(go())

    assert before == {"b": 0, "d": 1, "a": 2, "c": 3, "elsewhere": 0}
    assert after == {"b": None, "d": 0, "a": 1, "c": 2}
    assert tried_again == {"b": 0, "d": 1, "a": 2, "c": 3}  # at its old place


def test_what_has_not_ended_is_found_in_pages_oldest_first(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            for id_ in "abcdef":
                await store.submit(a_request(id_))
            await store.cancel("b", CANCELLED)
            await store.start("c", **LEASE)
            await store.start("d", **LEASE)
            await store.cancel("d", CANCELLED)
            first = await store.open_requests(limit=3)
            second = await store.open_requests(after=first[-1].number, limit=3)
            return [(one.id, one.state) for one in (*first, *second)]

    assert asyncio.run(go()) == [
        ("a", State.QUEUED), ("c", State.RUNNING), ("d", State.CANCELLING), ("e", State.QUEUED), ("f", State.QUEUED),
    ]  # fmt: skip


# --- attempts -------------------------------------------------------------------------------------------------


def test_an_attempt_has_a_lease_and_a_number_that_rises(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            first = await store.get(id_)
            await store.requeue(id_, 1, not_before=1_060.0, at=1_002.0)
            waiting = await store.get(id_)
            second = await store.start(id_, node="there", lease_until=1_100.0, at=1_061.0)
            return first, waiting, second, await store.get(id_)

    first, waiting, second, again = asyncio.run(go())

    assert (first.state, first.node, first.lease_until, first.started_at) == (
        State.RUNNING,
        "here",
        1_030.0,
        1_001.0,
    )
    assert (waiting.state, waiting.node, waiting.lease_until) == (State.QUEUED, None, None)
    assert (waiting.not_before, waiting.attempt) == (1_060.0, 1)
    assert (second, again.attempt, again.node, again.not_before) == (2, 2, "there", None)


def test_only_one_of_many_starts_gets_the_attempt(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            await store.submit(a_request("a"))
            return await asyncio.gather(*(store.start("a", **LEASE) for _ in range(20)))

    assert asyncio.run(go()) == [1] + [None] * 19


def test_leases_are_prolonged_for_those_who_hold_them(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            mine = [await started(store) for _ in range(3)]
            ended, stopping = await started(store), await started(store)
            await store.finish(ended, 1, an_outcome())
            await store.cancel(stopping, CANCELLED)
            queued = a_request()
            await store.submit(queued)
            asked = [*mine, ended, stopping, queued.id, "unknown"]
            theirs = await store.renew(asked, node="there", lease_until=9_999.0)
            ours = await store.renew(asked, node="here", lease_until=1_060.0)
            return {*mine, stopping}, ours, theirs, (await store.get(mine[0])).lease_until

    held, ours, theirs, lease_until = asyncio.run(go())

    assert ours == held
    assert theirs == frozenset()
    assert lease_until == 1_060.0


def test_a_dead_nodes_attempts_are_queued_again_and_their_number_is_kept(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            dead, late, alive, stopping = [await started(store) for _ in range(4)]
            await store.cancel(stopping, CANCELLED)
            for id_, node, until in [(late, "late", 1_010.0), (alive, "alive", 1_090.0)]:
                await store.requeue(id_, 1, not_before=0, at=0)
                await store.start(id_, node=node, lease_until=until, at=1_002.0)
            released = await store.release("here", at=1_020.0)
            records = {name: await store.get(id_) for name, id_ in
                       [("dead", dead), ("late", late), ("alive", alive), ("stopping", stopping)]}  # fmt: skip
            return released, records, await store.result(stopping), await store.start(dead, **LEASE)

    released, records, outcome, attempt = asyncio.run(go())

    assert released == 3
    assert {name: (one.state, one.attempt) for name, one in records.items()} == {
        "dead": (State.QUEUED, 1), "late": (State.QUEUED, 2), "alive": (State.RUNNING, 2),
        "stopping": (State.CANCELLED, 1),
    }  # fmt: skip
    assert outcome == dataclasses.replace(CANCELLED, at=1_020.0)
    assert attempt == 2


# --- the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        an_outcome(headers={"content-type": "image/png"}, body=b"\x89PNG\x00" * 1_000, status=201),
        an_outcome(body=b""),
        an_outcome(State.FAILED, status=422, error="Unprocessable", error_type="validation_error"),
        an_outcome(State.CANCELLED, status=499),
    ],
)
def test_an_outcome_is_kept_as_it_was_and_the_body_is_not(tmp_path, outcome):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            before = await store.result(id_)
            state = await store.finish(id_, 1, outcome)
            return before, state, await store.result(id_), await store.get(id_), await store.body(id_)

    before, state, after, record, body = asyncio.run(go())

    assert before is None
    assert after == outcome
    assert state is outcome.state
    assert (record.state, record.status, record.error, record.error_type, record.finished_at, record.node) == (
        outcome.state, outcome.status, outcome.error, outcome.error_type, outcome.at, None,
    )  # fmt: skip
    assert body is None


def test_an_attempt_ends_its_request_once(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            answers = [await store.finish(id_, 1, an_outcome(body=b"%d" % turn)) for turn in range(3)]
            return answers, await store.result(id_), await store.append(id_, 1, 0, [b"{}"])

    answers, result, appended = asyncio.run(go())

    assert answers == [State.COMPLETED, None, None]
    assert result.body == b"0"
    assert not appended


@pytest.mark.promise("Q2")
def test_an_attempt_that_was_given_up_can_do_nothing_any_more(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            await store.requeue(id_, 1, not_before=0, at=0)
            queued = [await store.finish(id_, 1, an_outcome()), await store.requeue(id_, 1, not_before=9, at=9),
                      await store.append(id_, 1, 0, [b"{}"])]  # fmt: skip
            await store.start(id_, **LEASE)
            running = [await store.finish(id_, attempt, an_outcome()) for attempt in (0, 1, 3)]
            running += [await store.append(id_, 1, 0, [b"{}"]), await store.append_logs(id_, 1, [])]
            return queued, running, await store.result(id_), (await store.get(id_)).state

    queued, running, result, state = asyncio.run(go())

    assert queued == [None, None, False]
    assert running == [None, None, None, False, False]
    assert result is None
    assert state is State.RUNNING


def test_a_queued_request_can_end_without_an_attempt(tmp_path):
    outcome = an_outcome(State.FAILED, status=504, error_type="startup_timeout")

    async def go():
        async with a_store(tmp_path) as store:
            await store.submit(a_request("a", webhook="https://example.com"))
            running = await started(store)
            answers = [await store.end_queued(id_, outcome) for id_ in ("a", "a", running)]
            return answers, await store.result("a"), await store.due_deliveries(9_999, limit=9)

    answers, result, deliveries = asyncio.run(go())

    assert answers == [True, False, False]
    assert result == outcome
    assert [one.request for one in deliveries] == ["a"]


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.CANCELLING])
def test_nothing_ends_in_a_state_that_is_no_end(tmp_path, state):
    async def go():
        async with a_store(tmp_path) as store:
            with pytest.raises(ValueError, match="does not end as"):
                await store.finish("a", 1, an_outcome(state))
            with pytest.raises(ValueError, match="does not end as"):
                await store.end_queued("a", an_outcome(state))
            with pytest.raises(ValueError, match="does not end as"):
                await store.cancel("a", an_outcome(State.COMPLETED))

    asyncio.run(go())


# --- cancelling -----------------------------------------------------------------------------------------------


def test_a_queued_request_is_cancelled_at_once(tmp_path):
    async def go():
        async with a_store(tmp_path) as store:
            await store.submit(a_request("a"))
            met = [await store.cancel("a", CANCELLED), await store.cancel("a", CANCELLED)]
            return met, await store.result("a"), await store.start("a", **LEASE), await store.position("a")

    met, result, attempt, position = asyncio.run(go())

    assert met == [Cancelling.DEQUEUED, Cancelling.TOO_LATE]
    assert result == CANCELLED
    assert (attempt, position) == (None, None)


@pytest.mark.parametrize("ending", ["finish", "requeue", "release"])
def test_a_running_request_that_was_cancelled_ends_so_whatever_its_attempt_says(tmp_path, ending):
    async def go():
        async with a_store(tmp_path) as store:
            id_ = await started(store)
            met = [
                await store.cancel(id_, CANCELLED),
                await store.cancel(id_, an_outcome(State.CANCELLED, body=b"2nd")),
            ]
            meanwhile = await store.result(id_), (await store.get(id_)).state
            if ending == "finish":
                state = await store.finish(id_, 1, an_outcome(body=b"done after all"))
            elif ending == "requeue":
                state = await store.requeue(id_, 1, not_before=0, at=2_000.0)
            else:
                state = State.CANCELLED
                await store.release("here", at=2_000.0)
            return met, meanwhile, state, await store.result(id_), await store.cancel(id_, CANCELLED)

    met, meanwhile, state, result, late = asyncio.run(go())

    assert met == [Cancelling.REQUESTED, Cancelling.REQUESTED]
    assert meanwhile == (None, State.CANCELLING)
    assert state is State.CANCELLED
    assert result == CANCELLED
    assert late is Cancelling.TOO_LATE


@pytest.mark.promise("Q7")
@pytest.mark.parametrize(
    "order", list(itertools.permutations(["start", "finish", "requeue", "cancel"])), ids=" ".join
)
def test_of_start_finish_retry_and_cancel_in_any_order_one_ending_is_seen(tmp_path, order):
    async def go():
        async with a_store(tmp_path) as store:
            await store.submit(a_request("a"))
            moves = {
                "start": lambda: store.start("a", **LEASE),
                "finish": lambda: store.finish("a", 1, an_outcome()),
                "requeue": lambda: store.requeue("a", 1, not_before=0, at=2_000.0),
                "cancel": lambda: store.cancel("a", CANCELLED),
            }
            told = await asyncio.gather(*(moves[move]() for move in order))
            await store.finish("a", 1, an_outcome(body=b"a zombie's"))
            return dict(zip(order, told, strict=True)), await store.get("a"), await store.result("a")

    told, record, result = asyncio.run(go())

    ended = [state for state in (told["finish"], told["requeue"]) if state in {State.COMPLETED, State.CANCELLED}]
    ended += [State.CANCELLED] if told["cancel"] is Cancelling.DEQUEUED else []
    assert len(ended) <= 1
    if ended:
        assert record.state is ended[0]
        assert result == (an_outcome() if ended[0] is State.COMPLETED else CANCELLED)
    elif told["cancel"] is Cancelling.REQUESTED:
        assert (record.state, result) == (State.CANCELLED, CANCELLED)  # by the last finish
    else:
        assert record.state in {State.QUEUED, State.COMPLETED}
