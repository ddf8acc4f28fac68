"""What is meant by a policy for readers that leave."""

from math import inf

import pytest

from headrace.core.disconnect import grace_of


@pytest.mark.parametrize(
    ("policy", "grace_s"),
    [
        ("cancel", 0),
        ("finish", inf),
        ("grace:0", 0),
        ("grace:30", 30),
        ("grace:0.5", 0.5),
        ("grace:86400", 86_400),
    ],
)
def test_a_policy_is_a_number_of_seconds(policy, grace_s):
    assert grace_of(policy) == grace_s


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "Cancel",
        "stop",
        "grace",
        "grace:",
        "grace:-1",
        "grace:nan",
        "grace:inf",
        "grace:86401",
        "grace:3s",
        "finish:3",
    ],
)
def test_anything_else_is_refused_with_what_there_is(policy):
    with pytest.raises(ValueError, match="expected 'cancel', 'finish' or 'grace:SECONDS'"):
        grace_of(policy)
