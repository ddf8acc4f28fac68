"""What an answer means: bounds, whether to try again, and how long to wait. Values in, values out."""

from __future__ import annotations

import pytest

from headrace.client import _answer, errors
from headrace.client._answer import Head, Items, api_error
from headrace.client._request import Patience, Request, Target
from headrace.core.errors import ERROR_TYPES

REQUEST = Request("POST", "http://gpu.test/me/app/stream", {}, b"{}")
TARGET = Target("http://gpu.test", None, None)
CHUNKED = {"transfer-encoding": "chunked"}


def error(status: int, body: bytes = b"{}", **headers: str) -> errors.APIError:
    return api_error(
        TARGET, REQUEST, Head(status, {name.replace("_", "-"): text for name, text in headers.items()}), body
    )


# --- bounds ----------------------------------------------------------------------------------------------


def test_an_event_without_end_is_refused_before_it_fills_the_memory(monkeypatch) -> None:
    monkeypatch.setattr(_answer, "EVENT_BYTES_MAX", 1_000)
    items = Items(REQUEST, Head(200, CHUNKED))

    assert [{"i": 1}] == items.feed(b'data: {"i": 1}\n\ndata: ' + b"x" * 900)
    assert None is items.failure
    items.feed(b"x" * 200)
    assert errors.ProtocolError is type(items.failure)


def test_a_stranger_text_is_quoted_in_part() -> None:
    assert len(str(error(502, b"<p>" * 10_000))) < 1_000


# --- trying again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ERROR_TYPES)
def test_a_type_of_ours_says_whether_to_try_again(type: str) -> None:
    row = ERROR_TYPES[type]

    assert row.retryable == error(row.status, b'{"detail": "x", "error_type": "%b"}' % type.encode()).retryable
    assert (row.retryable, type) == (
        error(row.status, x_fal_error_type=type).retryable,
        error(row.status, x_fal_error_type=type).error_type,
    )


@pytest.mark.parametrize(
    ("status", "headers", "retryable"),
    [
        (400, {}, False),
        (404, {}, False),
        (408, {}, True),
        (429, {}, True),
        (500, {}, False),
        (502, {}, True),
        (503, {}, True),
        (504, {}, True),
        (500, {"x_fal_needs_retry": "1"}, True),
        (503, {"x_fal_needs_retry": "0"}, False),
        (503, {"x_fal_retryable": "false"}, False),
    ],
)
def test_else_a_header_of_fals_or_the_status_says_it(
    status: int, headers: dict[str, str], retryable: bool
) -> None:
    assert retryable == error(status, **headers).retryable


# --- the text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail": "no room"}', "no room"),
        (b'{"detail": [{"loc": ["body", "a", 0], "msg": "bad", "type": "t"}]}', "a.0: bad"),
        (b'{"detail": [{"loc": ["body"], "type": "t"}, {"msg": "worse"}]}', "body: t; body: worse"),
        (b'{"detail": [7]}', '{"detail": [7]}'),
        (b'{"message": "other"}', '{"message": "other"}'),
        (b"[1]", "[1]"),
        (b"plain", "plain"),
        (b"\xff", "\ufffd"),
        (b"", "HTTP 500"),
    ],
)
def test_the_message_is_one_text_whatever_the_body_is(body: bytes, message: str) -> None:
    assert message == error(500, body).message


def test_errors_of_invalid_input_is_a_list_even_for_a_text() -> None:
    assert [{"loc": ["body"], "msg": "bad", "type": "value_error"}] == error(422, b'{"detail": "bad"}').errors


# --- time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patience", "waited_s", "to_connect", "to_read"),
    [
        (Patience(30.0, None), 0.0, 30.0, None),
        (Patience(30.0, 5.0), 0.0, 5.0, 5.0),
        (Patience(3.0, 5.0), 0.0, 3.0, 5.0),
        (Patience(30.0, None, 8.0), 0.0, 8.0, 8.0),
        (Patience(30.0, 5.0, 8.0), 2.0, 5.0, 5.0),
        (Patience(30.0, 5.0, 8.0), 6.0, 2.0, 2.0),
        (Patience(30.0, 5.0, 8.0), 9.0, 0.001, 0.001),
    ],
)
def test_the_nearest_limit_counts(
    patience: Patience, waited_s: float, to_connect: float, to_read: float | None
) -> None:
    assert (to_connect, to_read) == (patience.to_connect(waited_s), patience.to_read(waited_s))


@pytest.mark.parametrize(
    ("patience", "waited_s", "connecting", "reading"),
    [
        (Patience(3.0, 5.0), 0.0, errors.ConnectTimeout, errors.ReadTimeout),
        (Patience(30.0, 5.0), 0.0, errors.ConnectTimeout, errors.ReadTimeout),
        (Patience(30.0, 5.0, 8.0), 1.0, errors.ConnectTimeout, errors.ReadTimeout),
        (Patience(30.0, 5.0, 8.0), 4.0, errors.EventTimeout, errors.EventTimeout),
        (Patience(30.0, None, 8.0), 0.0, errors.EventTimeout, errors.EventTimeout),
        (Patience(3.0, None, 8.0), 0.0, errors.ConnectTimeout, errors.EventTimeout),
    ],
)
def test_the_error_names_the_limit_that_passed(
    patience: Patience, waited_s: float, connecting: type, reading: type
) -> None:
    assert (connecting, reading) == (
        type(patience.connect_expired(REQUEST, waited_s)),
        type(patience.read_expired(REQUEST, waited_s)),
    )
