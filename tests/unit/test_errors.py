"""The table of error types: what the wire may say, who says it, and what callers of the SDK catch for it."""

import ast
import json
import re
from pathlib import Path

import pytest

from headrace.client import errors
from headrace.client._answer import Head, Items, api_error
from headrace.client._request import Request, Target
from headrace.core.errors import ERROR_TYPES, Fault, RequestError
from headrace.gateway.answers import error_answer
from headrace.gateway.events import error_event
from headrace.gateway.outlet import head

SOURCES = sorted((Path(__file__).parents[2] / "src" / "headrace").rglob("*.py"))

# What is promised to whoever wrote a program against it: no row changes, and none goes.
#   type, status, whose fault, whether the same request may work later, and what our SDK raises for its status
TABLE = [
    ("bad_request", 400, Fault.CALLER, False, errors.APIError),
    ("unauthorized", 401, Fault.CALLER, False, errors.AuthenticationError),
    ("forbidden", 403, Fault.CALLER, False, errors.PermissionDenied),
    ("not_found", 404, Fault.CALLER, False, errors.NotFound),
    ("request_not_found", 404, Fault.CALLER, False, errors.NotFound),
    ("upload_not_found", 404, Fault.CALLER, False, errors.NotFound),
    ("still_in_progress", 400, Fault.CALLER, True, errors.APIError),
    ("method_not_allowed", 405, Fault.CALLER, False, errors.APIError),
    ("payload_too_large", 413, Fault.CALLER, False, errors.APIError),
    ("unsupported_media_type", 415, Fault.CALLER, False, errors.APIError),
    ("range_not_satisfiable", 416, Fault.CALLER, False, errors.APIError),
    ("validation_error", 422, Fault.CALLER, False, errors.InvalidInput),
    ("idempotency_conflict", 422, Fault.CALLER, False, errors.InvalidInput),
    ("request_header_fields_too_large", 431, Fault.CALLER, False, errors.APIError),
    ("uri_too_long", 414, Fault.CALLER, False, errors.APIError),
    ("replay_gone", 412, Fault.CALLER, False, errors.APIError),
    ("client_disconnected", 499, Fault.CALLER, False, errors.APIError),
    ("client_cancelled", 499, Fault.CALLER, False, errors.APIError),
    ("runner_server_error", 500, Fault.APP, False, errors.APIError),
    ("app_error", 500, Fault.APP, False, errors.APIError),
    ("no_result", 500, Fault.APP, False, errors.APIError),
    ("unserializable_item", 500, Fault.APP, False, errors.APIError),
    ("event_too_large", 500, Fault.APP, False, errors.APIError),
    ("result_too_large", 500, Fault.APP, False, errors.APIError),
    ("file_too_large", 500, Fault.APP, False, errors.APIError),
    ("first_event_timeout", 504, Fault.APP, True, errors.DeadlinePassed),
    ("event_gap_timeout", 504, Fault.APP, True, errors.DeadlinePassed),
    ("request_timeout", 504, Fault.APP, True, errors.DeadlinePassed),
    ("runner_disconnected", 503, Fault.RUNNER, True, errors.Overloaded),
    ("attempt_restarted", 503, Fault.RUNNER, True, errors.Overloaded),
    ("runner_scheduling_failure", 503, Fault.RUNNER, True, errors.Overloaded),
    ("overloaded", 429, Fault.LOAD, True, errors.Overloaded),
    ("startup_timeout", 504, Fault.LOAD, True, errors.DeadlinePassed),
    ("reader_stalled", 499, Fault.CALLER, False, errors.APIError),
    ("store_unavailable", 503, Fault.LOAD, True, errors.Overloaded),
    ("files_unavailable", 503, Fault.LOAD, True, errors.Overloaded),
    ("shutting_down", 503, Fault.LOAD, True, errors.Overloaded),
    ("internal_error", 500, Fault.US, True, errors.APIError),
]
each = pytest.mark.parametrize(
    ("type_", "status", "fault", "is_retryable", "raised"), TABLE, ids=[row[0] for row in TABLE]
)

#: What a program may send that its type alone does not say: methods whose first argument is an error type.
SAYING = {"RequestError", "cancel"}


def strings_of(path: Path) -> set[str]:
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def said_in(path: Path) -> set[str]:
    """The types that a source says by `RequestError("…")` and `live.cancel("…")`."""
    said = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SAYING and isinstance(node.args[0].value, str):
                said.add(node.args[0].value)
    return said


# --- the table ------------------------------------------------------------------------------------------------


def test_the_table_is_as_promised():
    told = [(name, row.status, row.fault, row.retryable) for name, row in ERROR_TYPES.items()]

    assert sorted(told, key=lambda row: row[0]) == sorted((row[:4] for row in TABLE), key=lambda row: row[0])


@pytest.mark.parametrize("type_", ERROR_TYPES)
def test_a_type_is_in_snake_case_and_an_error_with_a_meaning(type_):
    row = ERROR_TYPES[type_]

    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", type_)
    assert 400 <= row.status <= 599
    assert row.meaning.endswith(".")
    assert "\n" not in row.meaning and "|" not in row.meaning


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(path.parents[2])))
def test_no_source_says_a_type_that_the_table_does_not_have(path):
    assert said_in(path) <= set(ERROR_TYPES)


def test_every_type_of_the_table_is_said_somewhere():
    used = set[str]().union(*(strings_of(path) for path in SOURCES if path.name != "errors.py"))

    assert set(ERROR_TYPES) - used == set()


def test_a_type_is_never_made_up_on_the_spot():
    with pytest.raises(KeyError):
        RequestError("out_of_luck", "No.")


# --- on the wire ----------------------------------------------------------------------------------------------


@each
def test_a_type_is_the_same_in_the_status_in_the_event_and_in_the_sdk(type_, status, fault, is_retryable, raised):
    error = RequestError(type_, "It failed.")
    request = Request("POST", "/me/app/stream", {}, b"{}")

    answered, headers, body = error_answer(error, "request-1")
    sdk_head = Head(answered, {name.decode(): value.decode() for name, value in headers})
    by_status = api_error(Target("http://localhost", None, None), request, sdk_head, body)
    items = Items(request, Head(200, {"x-fal-request-id": "request-1"}))
    assert items.feed(error_event(error, "request-1")) == []
    by_event = items.failure

    assert type(by_status) is raised
    assert (by_status.error_type, by_status.status_code, by_status.retryable) == (type_, status, is_retryable)
    assert (by_status.message, by_status.request_id) == ("It failed.", "request-1")
    assert type(by_event) is errors.StreamError
    assert (by_event.type, by_event.status, by_event.retryable) == (type_, status, is_retryable)
    assert (by_event.message, by_event.request_id) == ("It failed.", "request-1")


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (404, b"HTTP/1.1 404 Not Found\r\n"),
        (499, b"HTTP/1.1 499 Client Closed Request\r\n"),
        (599, b"HTTP/1.1 599 Error\r\n"),
    ],
)
def test_every_status_of_an_error_can_be_written(status, line):
    assert head(status, []).startswith(line)


# --- from a runner --------------------------------------------------------------------------------------------


@each
def test_a_runners_error_arrives_as_it_was(type_, status, fault, is_retryable, raised):
    sent = RequestError(type_, "It failed.", status=418, retryable=not is_retryable, detail=[{"loc": ["body"]}])

    got = RequestError.from_wire(json.loads(json.dumps(sent.to_wire())))

    assert (got.type, got.message, got.status, got.retryable) == (type_, "It failed.", 418, not is_retryable)
    assert got.detail == [{"loc": ["body"]}]


@pytest.mark.parametrize("status", [None, 0, 200, 399, 600, "500", 500.0, True, [], {}])
def test_a_status_that_is_no_errors_is_not_believed(status):
    got = RequestError.from_wire({"type": "app_error", "message": "no", "status": status})

    assert got.status == 500


@pytest.mark.parametrize(
    "fields", [{}, {"type": None}, {"type": ["app_error"]}, {"type": "made_up"}, {"type": "", "message": {"a": 1}}]
)
def test_an_error_of_no_known_type_is_an_internal_one(fields):
    got = RequestError.from_wire(fields)

    assert (got.type, got.status, got.retryable) == ("internal_error", 500, True)
    assert isinstance(got.message, str)


@pytest.mark.parametrize(
    ("field", "value"), [("retryable", "yes"), ("retryable", 1), ("detail", "x"), ("detail", {})]
)
def test_what_has_the_wrong_form_is_the_tables(field, value):
    got = RequestError.from_wire({"type": "overloaded", "message": "later", field: value})

    assert (got.retryable, got.detail) == (True, "later")
