"""What is kept of requests that have ended, and which of them goes first."""

from types import SimpleNamespace

from headrace.core.replay import Replay
from headrace.supervisor.past import Past


def ended(id_: str, at: float = 0.0, text: bytes = b"x", *, is_read: bool = False) -> SimpleNamespace:
    replay = Replay(bytes_max=1_000, events_max=10, ahead_max=0)
    replay.extend([text])
    return SimpleNamespace(id=id_, ended_at=at, is_read=is_read, replay=replay)


def ids(past: Past) -> list[str]:
    return [one.id for one in past]


def past_of(*requests: SimpleNamespace, count_max: int = 100) -> tuple[Past, list[str]]:
    forgotten: list[str] = []
    past = Past(count_max, lambda one: forgotten.append(one.id))
    for one in requests:
        past.add(one)
    return past, forgotten


def test_of_too_many_the_oldest_goes_and_is_told():
    past, forgotten = past_of(ended("a"), ended("b"), ended("c"), count_max=2)

    assert (ids(past), forgotten, past.get("a")) == (["b", "c"], ["a"], None)


def test_one_that_is_read_stays_and_the_next_goes():
    past, forgotten = past_of(ended("a", is_read=True), ended("b"), ended("c"), count_max=2)

    assert (ids(past), forgotten) == (["a", "c"], ["b"])


def test_where_all_are_read_none_goes():
    past, _ = past_of(*(ended(name, is_read=True) for name in "abc"), count_max=2)

    assert ids(past) == ["a", "b", "c"]


def test_the_old_go_and_the_recent_stay():
    past, forgotten = past_of(ended("a", 1.0), ended("b", 2.0, is_read=True), ended("c", 3.0), ended("d", 4.0))

    past.forget_old(3.0)

    assert (ids(past), forgotten) == (["b", "d"], ["a", "c"])


def test_readers_that_left_make_room_at_the_next_look():
    readers = [ended(name, 9.0, is_read=True) for name in "abc"]
    past, _ = past_of(*readers, count_max=2)
    for one in readers:
        one.is_read = False

    past.forget_old(0.0)

    assert ids(past) == ["b", "c"]


def test_what_all_logs_keep_is_known_at_any_time():
    one, other = ended("a", text=b"x" * 100), ended("b", text=b"x" * 10)
    past, _ = past_of(one, other)
    kept = [past.kept]

    past.empty_log(one)
    kept.append(past.kept)
    past.forget(other)
    kept.append(past.kept)

    assert kept == [100 + 10 + 2 * 64, 10 + 64, 0]
    assert one.replay.since(1) == []
