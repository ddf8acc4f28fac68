"""Ranges as RFC 9110 has them: which part is asked for, and when there is none."""

import pytest

from headrace.core.ranges import NotSatisfiable, Part, is_known, part_of

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (None, None),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=0-9", Part(0, 10)),
        ("bytes=0-99", Part(0, 10)),
        ("bytes=5-", Part(5, 10)),
        ("bytes=9-", Part(9, 10)),
        ("bytes=-1", Part(9, 10)),
        ("bytes=-10", Part(0, 10)),
        ("bytes=-11", Part(0, 10)),
        ("BYTES=2-3", Part(2, 4)),
        ("bytes = 2-3 ", Part(2, 4)),
        # not one range of bytes: the whole
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=3-2", None),
        ("bytes=0-1,4-5", None),
        ("bytes=a-b", None),
        ("bytes=0x1-2", None),
        ("bytes=+1-2", None),
        ("bytes=1 - 2", None),
        ("bytes=٣-", None),
        ("lines=1-2", None),
        ("0-1", None),
        ("", None),
        ("bytes=99999999999999999999-", None),
    ],
)
def test_a_range_of_ten_bytes(asked, part):
    assert part_of(asked, None, ETAG, 10) == part


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=9999999999999999999-"])
def test_a_range_behind_the_end_is_refused(asked):
    with pytest.raises(NotSatisfiable):
        part_of(asked, None, ETAG, 10)


def test_an_empty_content_has_no_first_byte_and_its_last_ones_are_the_whole():
    with pytest.raises(NotSatisfiable):
        part_of("bytes=0-", None, ETAG, 0)
    assert part_of("bytes=-5", None, ETAG, 0) is None


@pytest.mark.parametrize(
    ("if_range", "part"),
    [
        (ETAG, Part(1, 3)),
        (f" {ETAG} ", Part(1, 3)),
        ('"other"', None),
        (f"W/{ETAG}", None),
        ("Sun, 29 Nov 2026 16:00:00 GMT", None),
        ("", None),
    ],
)
def test_a_range_counts_only_for_the_content_it_was_meant_for(if_range, part):
    assert part_of("bytes=1-2", if_range, ETAG, 10) == part


@pytest.mark.parametrize(
    ("if_none_match", "known"),
    [
        (None, False), (ETAG, True), (f"W/{ETAG}", True), (f'"x", {ETAG}', True), ("*", True), ('"x"', False),
        ("abc", False), ("", False),
    ],
)  # fmt: skip
def test_who_has_the_content_is_told_so(if_none_match, known):
    assert is_known(if_none_match, ETAG) is known
    assert is_known(if_none_match, f"W/{ETAG}") is known
