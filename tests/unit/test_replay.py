"""The bounded log of events."""

import pytest

from headrace.core.limits import EVENT_OVERHEAD_BYTES
from headrace.core.replay import Overrun, Replay


def log_of(*texts: bytes, bytes_max: int = 10_000, events_max: int = 1_000, ahead_max: int = 10_000) -> Replay:
    replay = Replay(bytes_max=bytes_max, events_max=events_max, ahead_max=ahead_max)
    for text in texts:
        replay.extend([text])
    return replay


def test_a_reader_takes_what_lies_behind_its_position():
    replay = log_of(b"a", b"b", b"c")

    assert replay.since(0) == [b"a", b"b", b"c"]
    assert replay.since(2) == [b"c"]
    assert replay.since(3) == []
    assert (replay.first, replay.end, replay.last) == (0, 3, b"c")


def test_an_empty_log_has_no_last_event():
    replay = log_of()

    assert (replay.last, replay.end, replay.since(0)) == (None, 0, [])


def test_the_log_keeps_at_most_its_events_and_the_newest_ones():
    replay = log_of(*(b"%d" % number for number in range(100)), events_max=16)

    kept = replay.since(replay.first)
    assert len(kept) <= 16
    assert kept == [b"%d" % number for number in range(replay.first, 100)]


def test_the_log_keeps_at_most_its_bytes():
    replay = log_of(*(b"x" * 100 for _ in range(1_000)), bytes_max=5_000)

    assert replay.kept <= 5_000
    assert replay.kept == sum(len(text) + EVENT_OVERHEAD_BYTES for text in replay.since(replay.first))


def test_the_last_event_is_kept_even_when_it_alone_is_over_the_bound():
    replay = log_of(b"small", b"x" * 50_000, bytes_max=1_000)

    assert replay.last == b"x" * 50_000
    assert replay.end - replay.first == 1


def test_what_the_pacing_reader_has_not_taken_is_never_dropped():
    replay = Replay(bytes_max=1_000, events_max=8, ahead_max=10_000)
    replay.pace = 0
    for number in range(50):
        replay.extend([b"%d" % number])
    before = replay.since(0)
    replay.pace = 40
    replay.extend([b"50"])

    assert before == [b"%d" % number for number in range(50)]
    assert replay.first >= 40 - 8
    assert replay.since(40) == [b"%d" % number for number in range(40, 51)]


def test_more_than_any_window_allows_is_told_as_an_overrun():
    replay = Replay(bytes_max=1_000, events_max=1_000, ahead_max=500)
    replay.pace = 0
    replay.extend([b"x" * 1_400])

    with pytest.raises(Overrun, match="bytes of events wait"):
        replay.extend([b"x" * 100])


def test_a_log_that_nobody_paces_is_never_overrun():
    replay = Replay(bytes_max=1_000, events_max=1_000, ahead_max=500)

    for _ in range(10):
        replay.extend([b"x" * 5_000])

    assert replay.since(replay.end - 1) == [b"x" * 5_000]


def test_a_log_gives_up_what_was_taken_and_keeps_the_rest():
    log = log_of(b"a", b"b", b"c", b"d")
    log.pace = 2

    assert log.drop_taken() == 2 * (1 + EVENT_OVERHEAD_BYTES)
    assert (log.first, log.since(2)) == (2, [b"c", b"d"])
    assert log.drop_taken() == 0


def test_a_log_without_a_pacing_reader_gives_up_all_but_the_last():
    log = log_of(b"a", b"b", b"c")

    log.drop_taken()

    assert (log.first, log.last, log.kept) == (2, b"c", 1 + EVENT_OVERHEAD_BYTES)
    assert log_of().drop_taken() == 0


def test_a_log_that_forgot_holds_nothing_and_goes_on_counting():
    replay = log_of(b"a", b"b")

    replay.forget()
    replay.extend([b"c"])

    assert (replay.first, replay.end, replay.since(2)) == (2, 3, [b"c"])
    assert replay.kept == 1 + EVENT_OVERHEAD_BYTES


def test_a_position_the_log_has_passed_is_told():
    replay = log_of(*(b"x" for _ in range(50)), events_max=8)

    with pytest.raises(LookupError, match="no longer here"):
        replay.since(0)


def test_the_cost_counts_every_event_ever_made():
    replay = log_of(*(b"x" * 10 for _ in range(100)), events_max=8)

    assert replay.cost == 100 * (10 + EVENT_OVERHEAD_BYTES)


def test_a_batch_is_the_same_as_its_events_one_by_one():
    texts = [b"%d" % number for number in range(500)]
    batch = Replay(bytes_max=2_000, events_max=40, ahead_max=10_000)
    batch.extend(texts)
    single = log_of(*texts, bytes_max=2_000, events_max=40)

    assert (batch.end, batch.cost, batch.last) == (single.end, single.cost, single.last)
    assert batch.since(batch.first) == texts[batch.first :]
    assert len(batch.since(batch.first)) <= 40
