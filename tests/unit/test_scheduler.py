"""Which waiting request gets which runner's slot."""

import random

from headrace.core.scheduler import Room, assign, backoff_s


def test_nobody_waits_while_there_is_room_and_load_spreads():
    assert assign(3, [Room(1, 2), Room(2, 2)]) == [1, 2, 1]


def test_the_runner_with_the_most_room_is_taken_first():
    assert assign(1, [Room(1, 1), Room(2, 4)]) == [2]


def test_no_slot_is_given_twice():
    assert assign(10, [Room(1, 1), Room(2, 2)]) == [2, 1, 2]


def test_a_runner_without_room_gets_nothing():
    assert assign(5, [Room(1, 0), Room(2, -1)]) == []


def test_nothing_waits_nothing_is_assigned():
    assert assign(0, [Room(1, 4)]) == []


def test_over_1000_random_situations_slots_are_respected_and_none_is_left_while_somebody_waits():
    dice = random.Random(7)
    for _ in range(1_000):
        rooms = [Room(number, dice.randrange(-1, 5)) for number in range(dice.randrange(5))]
        waiting = dice.randrange(12)

        chosen = assign(waiting, rooms)

        free = {room.runner: max(0, room.free) for room in rooms}
        assert all(chosen.count(runner) <= free[runner] for runner in free)
        assert len(chosen) == min(waiting, sum(free.values()))


def test_the_wait_after_failed_starts_doubles_up_to_its_bound():
    assert [backoff_s(failures, 1.0, 60.0) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
