"""What callers say of their files' lives, as fal's clients write it."""

import pytest

from headrace.core.lifecycle import lifetime_of

NAME = "x-fal-object-lifecycle"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("{}", None),
        ('{"expiration_duration_seconds": null}', None),
        ('{"expiration_duration_seconds": 3600}', 3600.0),
        ('{"expiration_duration_seconds": 0.5, "more": 1}', 0.5),
        ('{"initial_acl": null}', None),
        ('{"initial_acl": {}}', None),
        ('{"initial_acl": {"default": "allow"}}', None),
        ('{"initial_acl": {"rules": [{"user": "ada", "decision": "allow"}]}}', None),
    ],
)
@pytest.mark.parametrize("name", [NAME, "x-fal-object-lifecycle-preference"])
def test_a_lifetime_is_read_under_both_names(name, text, seconds):
    assert lifetime_of({name: text}) == seconds


def test_without_the_header_nothing_is_said_and_the_first_name_counts():
    both = {NAME: '{"expiration_duration_seconds": 1}', f"{NAME}-preference": "nonsense"}

    assert (lifetime_of({}), lifetime_of(both)) == (None, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "7", "[]", '"1h"', "[" * 100_000,
        '{"expiration_duration_seconds": 0}',
        '{"expiration_duration_seconds": -1}',
        '{"expiration_duration_seconds": true}',
        '{"expiration_duration_seconds": "3600"}',
        '{"expiration_duration_seconds": 1e300}',
        '{"expiration_duration_seconds": NaN}',
    ],
)  # fmt: skip
def test_what_is_no_lifetime_is_refused(text):
    with pytest.raises(ValueError, match=NAME):
        lifetime_of({NAME: text})


@pytest.mark.parametrize(
    "acl",
    [
        '{"default": "hide"}',
        '{"default": "forbid"}',
        '{"default": "allow", "rules": [{"user": "ada", "decision": "hide"}]}',
        '{"rules": ["ada"]}',
        '{"rules": [{"user": "ada"}]}',
        '{"rules": 5}',
        '{"rules": true}',
        '{"rules": "allow"}',
        '{"rules": {"ada": "allow"}}',
        '{"default": 7}',
        '"private"',
    ],
)
def test_a_rule_that_keeps_somebody_out_is_refused_and_not_passed_over(acl):
    with pytest.raises(ValueError, match="keeps somebody out"):
        lifetime_of({NAME: f'{{"initial_acl": {acl}}}'})
