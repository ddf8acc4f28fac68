"""Who is next in the queue, and how many stand before whom."""

import random

import pytest

from headrace.core.line import Line, Priority

NORMAL, LOW = Priority.NORMAL, Priority.LOW


def line(*entries: tuple[int, Priority]) -> Line[str]:
    made: Line[str] = Line()
    for number, priority in entries:
        made.add(number, priority, f"r{number}")
    return made


def test_the_oldest_is_next():
    assert line((2, NORMAL), (1, NORMAL)).take() == (1, "r1")


def test_everything_normal_goes_before_anything_low():
    waiting = line((1, LOW), (2, NORMAL), (3, LOW), (4, NORMAL))

    assert [waiting.position(number) for number in (2, 4, 1, 3)] == [0, 1, 2, 3]
    assert [waiting.take() for _ in range(5)] == [(2, "r2"), (4, "r4"), (1, "r1"), (3, "r3"), None]


def test_who_comes_back_takes_its_old_place():
    waiting = line((1, NORMAL), (2, NORMAL), (3, NORMAL))
    waiting.take()
    waiting.add(1, NORMAL, "again")

    assert waiting.position(1) == 0
    assert waiting.take() == (1, "again")


def test_who_leaves_makes_room():
    waiting = line((1, NORMAL), (2, NORMAL), (3, NORMAL))

    assert waiting.remove(2) == "r2"
    assert (waiting.position(3), len(waiting), 2 in waiting) == (1, 2, False)
    assert waiting.remove(2) is None


def test_one_that_does_not_wait_has_no_position():
    with pytest.raises(KeyError):
        line().position(1)


def test_over_300_random_histories_it_equals_a_sorted_list():
    for seed in range(300):
        dice = random.Random(seed)
        waiting: Line[int] = Line()
        model: list[tuple[int, int]] = []  # (0 normal | 1 low, number)
        for number in range(60):
            chance = dice.random()
            if chance < 0.6:
                priority = dice.choice([NORMAL, LOW])
                waiting.add(number, priority, number)
                model.append((int(priority is LOW), number))
                model.sort()
            elif chance < 0.8 and model:
                gone = dice.choice(model)
                model.remove(gone)
                assert waiting.remove(gone[1]) == gone[1]
            else:
                expected = model.pop(0)[1] if model else None
                taken = waiting.take()
                assert (taken and taken[0]) == expected
            assert [waiting.position(number) for _, number in model] == list(range(len(model)))
