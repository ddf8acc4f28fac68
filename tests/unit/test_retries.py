"""What is tried again, and what is not."""

import pytest

from headrace.core.errors import RequestError
from headrace.core.retries import retry_in_s


@pytest.mark.parametrize(
    ("type_", "again"),
    [
        ("runner_disconnected", True),
        ("runner_scheduling_failure", True),
        ("request_timeout", True),
        ("event_gap_timeout", True),
        ("shutting_down", True),
        ("startup_timeout", False),
        ("client_cancelled", False),
        ("runner_server_error", False),
        ("validation_error", False),
        ("no_result", False),
    ],
)
def test_what_may_work_another_time_is_tried_again(type_, again):
    assert (retry_in_s(RequestError(type_, "x"), 1, no_retry=False) is not None) is again


@pytest.mark.parametrize(("status", "retryable", "again"), [(503, False, None), (500, True, 1), (409, True, 1)])
def test_an_app_says_for_itself_whether_its_failure_needs_a_retry(status, retryable, again):
    error = RequestError("app_error", "the GPU is hot", status=status, retryable=retryable)

    assert retry_in_s(error, 1, no_retry=False) == again


def test_a_caller_who_wants_no_retry_gets_none_whatever_the_app_says():
    error = RequestError("app_error", "x", status=503, retryable=True)

    assert retry_in_s(error, 1, no_retry=True) is None


def test_there_are_ten_retries_each_later_than_the_last_up_to_a_minute():
    lost = RequestError("runner_disconnected", "x")

    waits = [retry_in_s(lost, attempt, no_retry=False) for attempt in range(1, 12)]

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, None]
