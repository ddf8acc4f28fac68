"""What is ended when there is too much in memory, and the budget for large bodies."""

import random

from headrace.core.keys import KeyId
from headrace.core.memory import Budget, to_shed


def test_nothing_is_ended_while_all_of_it_fits():
    assert to_shed([10, 20, 30], 60) == []


def test_the_largest_hoards_go_first_and_no_more_than_must():
    assert to_shed([10, 50, 30, 40], 100) == [1]
    assert to_shed([10, 50, 30, 40], 60) == [1, 3]


def test_equal_hoards_go_in_their_order():
    assert to_shed([20, 20, 20], 45) == [0]


def test_over_1000_random_hoards_what_stays_fits_and_the_last_one_ended_was_needed():
    dice = random.Random(3)
    for _ in range(1_000):
        kept = [dice.randrange(100) for _ in range(dice.randrange(30))]
        bytes_max = dice.randrange(1_500)

        chosen = to_shed(kept, bytes_max)

        stays = sum(kept) - sum(kept[one] for one in chosen)
        assert stays <= bytes_max
        assert len(set(chosen)) == len(chosen)
        if chosen:
            assert stays + kept[chosen[-1]] > bytes_max


def test_a_budget_is_never_overdrawn_and_what_is_given_back_can_be_taken_again():
    budget = Budget(100)

    assert [budget.take(None, count) for count in (60, 50, 40)] == [True, False, True]
    budget.give_back(None, 60)
    assert (budget.take(None, 60), budget.taken) == (True, 100)


def test_one_key_may_have_half_of_a_budget():
    ada, bob = KeyId("hr_ada"), KeyId("hr_bob")
    budget = Budget(100)

    assert [budget.take(ada, 40), budget.take(ada, 20), budget.take(bob, 50), budget.take(ada, 10)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert [budget.take(one, 1) for one in (ada, bob, None)] == [False] * 3
    budget.give_back(bob, 50)
    assert [budget.take(one, 1) for one in (ada, bob, None)] == [False, True, True]
    budget.give_back(ada, 50)
    assert (budget.taken, budget.take(ada, 50)) == (2, True)
