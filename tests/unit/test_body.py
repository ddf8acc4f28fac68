"""The shape of a body, before any app sees it."""

import time

import pytest

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.gateway.body import check_media_type, check_object, is_too_deep

LIMITS = Limits()


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return ('{"a":' + opening * (depth - 1) + closing * (depth - 1) + "}").encode()


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}", b'{"a": [1, 2.5, null, "\\u00e9"]}'])
def test_an_object_or_nothing_is_good(body):
    assert check_object(body, LIMITS) == (body if body.strip() else b"{}")


@pytest.mark.parametrize(
    ("body", "type_", "words"),
    [
        (b"{", "json_invalid", "JSON decode error"),
        (b"prompt=hi", "json_invalid", "JSON decode error"),
        (b'{"a": NaN}', "json_invalid", "JSON decode error"),
        (b'{"a": 1} trailing', "json_invalid", "JSON decode error"),
        (b'{"a": "\xff"}', "json_invalid", "JSON decode error"),
        (b"\xef\xbb\xbf{}", "json_invalid", "JSON decode error"),
        (b'{"a": "\\ud800"}', "json_invalid", "JSON decode error"),
        (b"[]", "dict_type", "not an array"),
        (b'"text"', "dict_type", "not a string"),
        (b"12", "dict_type", "not a number"),
        (b"true", "dict_type", "not a boolean"),
        (b"null", "dict_type", "not null"),
        (nested(101), "json_too_deep", "deeper than 100"),
        (b"[" * 100_000, "json_too_deep", "deeper than 100"),
        (b'{"a":' * 100_000, "json_too_deep", "deeper than 100"),
    ],
)
def test_anything_else_is_a_422_in_fals_shape(body, type_, words):
    with pytest.raises(RequestError) as refused:
        check_object(body, LIMITS)

    error = refused.value
    assert error.status == 422
    assert [entry["type"] for entry in error.detail] == [type_]
    assert error.detail[0]["loc"][0] == "body"
    assert words in error.detail[0]["msg"]


def test_the_depth_limit_is_exact():
    assert not is_too_deep(nested(100), 100)
    assert is_too_deep(nested(101), 100)


def test_brackets_inside_strings_do_not_count():
    body = b'{"a": "' + b"[" * 500 + b'\\"' + b"{" * 500 + b'"}'

    assert not is_too_deep(body, 100)


def test_many_flat_brackets_are_cheap_and_not_deep():
    body = b'{"a": [' + b",".join([b"[]"] * 500_000) + b"]}"
    started = time.process_time()

    assert not is_too_deep(body, 100)
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/ld+json"],
)
def test_json_media_types_are_taken(media_type):
    check_media_type({"content-type": media_type}, b"{}")


def test_no_body_needs_no_media_type():
    check_media_type({}, b"")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "br, gzip"},
    ],
)
def test_other_bodies_are_a_415_that_says_what_to_send(headers):
    with pytest.raises(RequestError) as refused:
        check_media_type(headers, b"{}")

    assert refused.value.status == 415
