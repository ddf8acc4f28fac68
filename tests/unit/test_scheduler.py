"""Which runner gets the next request, and when the next one is started."""

import random

from headrace.core.scheduler import Restarts, backoff_s, emptiest, runners_wanted


def test_the_runner_with_the_most_room_is_taken():
    assert emptiest([1, 4, 2]) == 1


def test_ties_go_to_the_lower_number():
    assert emptiest([0, 2, 2]) == 1


def test_a_runner_without_room_gets_nothing():
    assert emptiest([0, -1]) is None


def test_where_there_is_no_runner_nobody_is_taken():
    assert emptiest([]) is None


def test_over_1000_random_situations_slots_are_respected_and_load_spreads():
    dice = random.Random(7)
    for _ in range(1_000):
        before = [dice.randrange(-1, 5) for _ in range(dice.randrange(5))]
        free = before.copy()

        while (runner := emptiest(free)) is not None:
            free[runner] -= 1

            assert free[runner] >= 0
            assert free[runner] >= max(free) - 1
        assert free == [min(slots, 0) for slots in before]


def test_the_wait_after_failed_starts_doubles_up_to_its_bound():
    assert [backoff_s(failures, 1.0, 60.0) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


# --- how many runners -------------------------------------------------------------------------------------------


def test_runners_are_wanted_for_what_waits_and_runs_within_their_bounds():
    wanted = [runners_wanted(requests, slots=4, least=1, most=3) for requests in (0, 1, 4, 5, 8, 9, 100)]

    assert wanted == [1, 1, 1, 2, 2, 3, 3]


def test_an_app_that_keeps_none_up_wants_none_until_somebody_asks():
    assert [runners_wanted(requests, slots=2, least=0, most=2) for requests in (0, 1, 3)] == [0, 1, 2]


# --- when the next one is started -------------------------------------------------------------------------------


def restarts() -> Restarts:
    return Restarts(first_s=1.0, max_s=60.0, crashes_max=5, window_s=60.0)


def test_a_death_after_ready_is_replaced_at_once():
    assert restarts().died(0.0) == 0.0


def test_failed_starts_wait_longer_each_time_and_a_ready_runner_ends_that():
    log = restarts()

    assert [log.failed() for _ in range(3)] == [1, 2, 4]
    log.started()
    assert log.failed() == 1


def test_five_deaths_within_a_minute_and_nothing_served_are_a_crash_loop():
    log = restarts()

    assert [log.died(now) for now in (0, 10, 20, 30, 40, 50, 70)] == [0, 0, 0, 0, 1, 2, 4]


def test_in_a_crash_loop_a_ready_runner_proves_nothing_but_a_served_request_does():
    log = restarts()
    for now in range(5):
        log.died(now)

    log.started()
    assert log.died(6) == 2
    log.served()
    assert log.died(7) == 0


def test_deaths_that_lie_apart_are_no_crash_loop():
    log = restarts()

    assert [log.died(now) for now in range(0, 600, 15)] == [0] * 40
