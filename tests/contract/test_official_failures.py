"""What each of fal's own clients makes of a failure, before the first event and after it.

Some of it is not pretty, and none of it is ours to change: docs/how-to/official-clients.md tells users what they will
see, and these tests keep that page true.
"""

import dataclasses

import pytest

from tests.support.official import (
    JAVASCRIPT,
    JAVASCRIPT_BARE,
    JAVASCRIPT_LISTENERS,
    PYTHON,
    PYTHON_ASYNC,
    official_server,
)

in_python = pytest.mark.parametrize("client", [PYTHON, PYTHON_ASYNC], ids=lambda client: client.name)
in_javascript = pytest.mark.parametrize(
    "client", [JAVASCRIPT, JAVASCRIPT_LISTENERS], ids=lambda client: client.name
)

#: Calls that fail before the first event: what is called, with what, and how the server answers.
EARLY = {
    "401": ("zoo/zoo", {}, 401, "unauthorized"),
    "404": ("zoo/nobody", {}, 404, "not_found"),
    "422": ("zoo/zoo", {"n": -1}, 422, "validation_error"),
    "500": ("zoo/zoo/raise-first", {}, 500, "runner_server_error"),
}
early = pytest.mark.parametrize("case", EARLY)

WRONG_FIELD = {
    "loc": ["body", "n"],
    "msg": "Input should be greater than or equal to 0",
    "type": "greater_than_equal",
    "input": -1,
    "ctx": {"ge": 0},
}


#: Seconds between the error event and the cut: they leave a busy machine's Node time to read.
CUT_DELAY_S = 1.0
#: How often Node makes its call, until it was not itself held up for as long.
ROUNDS = 5


@pytest.fixture(scope="module")
def served():
    """A server that holds its headers for as long as a failure before the first event may take."""
    with official_server(limits={"cut_delay_s": CUT_DELAY_S}) as served:
        yield served


@pytest.fixture(scope="module")
def impatient():
    """A server whose headers go out at once, and heartbeats behind them."""
    with official_server(limits={"heartbeat_s": 0.2, "headers_hold_s": 0.0, "cut_delay_s": CUT_DELAY_S}) as served:
        yield served


@pytest.fixture(scope="module")
def late_server(served, impatient):
    """What serves a call that fails late, by its case."""
    return dict.fromkeys(LATE, served) | {"raised after heartbeats": impatient}


def failed_late(late_server, client, case):
    """What became of such a call, for a client that had the time to read all of it."""
    endpoint, input, items, _ = LATE[case]
    for _ in range(ROUNDS):
        called = client.stream(late_server[case], endpoint, input)
        if len(called.items) > len(items) or called.stalled_s < CUT_DELAY_S / 2:
            break
        PYTHON.run(late_server[case], "zoo/zoo/def", {"n": 1})  # one is served: no crash loop
    return called


def caller_for(served, case):
    """Return the server as the caller of that case sees it: for a 401, with a key it does not know."""
    if case != "401":
        return served
    return dataclasses.replace(served, environment={**served.environment, "FAL_KEY": "nobodys:key"})


# --- before the first event ---------------------------------------------------------------------------------


@in_python
@early
def test_in_python_a_refused_run_raises_with_status_and_type(served, client, case):
    endpoint, input, status, error_type = EARLY[case]

    error = client.run(caller_for(served, case), endpoint, input).error

    assert error["type"] == "fal_client.client.FalClientHTTPError"
    assert (error["status"], error["error_type"]) == (status, error_type)


@in_python
@early
def test_in_python_a_refused_stream_raises_without_saying_why(served, client, case):
    endpoint, input, *_ = EARLY[case]

    called = client.stream(caller_for(served, case), endpoint, input)

    assert called.items == []
    assert called.error == {
        "type": "httpx_sse._exceptions.SSEError",
        "message": "Expected response header Content-Type to contain 'text/event-stream', got 'application/json'",
        "is_client_error": False,
        "status": None,
        "error_type": None,
    }


@early
def test_in_javascript_a_refused_run_throws_with_status_body_and_request_id(served, case):
    endpoint, input, status, error_type = EARLY[case]

    error = JAVASCRIPT.run(caller_for(served, case), endpoint, input).error

    assert error["type"] == ("ValidationError" if status == 422 else "ApiError")
    assert (error["status"], error["body"]["error_type"]) == (status, error_type)
    assert len(error["request_id"]) == 36


@in_javascript
@early
def test_in_javascript_a_refused_stream_is_told_by_done(served, client, case):
    endpoint, input, status, error_type = EARLY[case]

    called = client.stream(caller_for(served, case), endpoint, input)

    assert called.items == []
    assert called.error["type"] == ("ValidationError" if status == 422 else "ApiError")
    assert (called.error["status"], called.error["body"]["error_type"]) == (status, error_type)
    assert len(called.error["request_id"]) == 36
    assert called.exit_status == 0


def test_in_javascript_a_validation_error_names_its_fields(served):
    called = JAVASCRIPT.stream(served, "zoo/zoo", {"n": -1})

    assert called.error["fields"] == [WRONG_FIELD]


@early
def test_in_javascript_a_refused_stream_ends_a_program_that_has_only_the_loop(served, case):
    endpoint, input, status, error_type = EARLY[case]

    called = JAVASCRIPT_BARE.stream(caller_for(served, case), endpoint, input)

    assert (called.items, called.exit_status) == ([], 1)
    assert f"status: {status}" in called.complaint
    assert error_type in called.complaint


# --- after the first event ----------------------------------------------------------------------------------


#: Calls that fail once the headers are out: what is called, the items before the failure, and its type.
LATE = {
    "raised": ("zoo/zoo/raise-later", {}, [{"i": 0}, {"i": 1}], "runner_server_error"),
    "died": ("zoo/zoo/die", {"n": 1}, [{"i": 0}], "runner_disconnected"),
    "raised after heartbeats": ("zoo/zoo/silent-raise", {"pause": 1.2}, [], "runner_server_error"),
}
late = pytest.mark.parametrize("case", LATE)


@in_python
@late
def test_in_python_a_late_failure_is_an_item_and_then_an_exception(late_server, client, case):
    *_, items, error_type = LATE[case]

    called = failed_late(late_server, client, case)

    assert called.items[:-1] == items
    assert called.items[-1]["error"]["type"] == error_type
    assert called.error["type"] == "httpx.RemoteProtocolError"
    assert not called.error["is_client_error"]


@in_javascript
@late
def test_in_javascript_a_late_failure_is_an_item_and_then_done_rejects(late_server, client, case):
    *_, items, error_type = LATE[case]

    called = failed_late(late_server, client, case)

    assert called.items[:-1] == items
    assert called.items[-1]["error"]["type"] == error_type
    assert (called.error["type"], called.error["message"]) == ("ApiError", "terminated")
    assert called.error["request_id"] == called.items[-1]["error"]["request_id"]
    assert called.exit_status == 0


@late
def test_in_javascript_a_late_failure_ends_a_program_that_has_only_the_loop(late_server, case):
    *_, items, _ = LATE[case]

    called = failed_late(late_server, JAVASCRIPT_BARE, case)

    assert called.items[: len(items)] == items
    assert called.exit_status == 1
    assert "ApiError: terminated" in called.complaint


def test_no_client_is_told_what_the_exception_said(served):
    for client in (PYTHON, JAVASCRIPT_BARE):
        called = client.stream(served, "zoo/zoo/raise-later", {})

        assert "secret" not in str(called)


# --- trying again -------------------------------------------------------------------------------------------


def times_sent(served, client, call) -> int:
    assert PYTHON.run(served, "zoo/zoo/def", {"n": 1}).result == {"total": 1}  # one is served: no crash loop
    before = served.server.notes().count("die")
    getattr(client, call)(served, "zoo/zoo/die", {"n": 0})
    return served.server.notes().count("die") - before


def test_no_client_sends_a_stream_again_that_was_answered(served):
    assert times_sent(served, PYTHON, "stream") == 1
    assert times_sent(served, PYTHON_ASYNC, "stream") == 1
    assert times_sent(served, JAVASCRIPT, "stream") == 1


def test_of_a_run_that_ends_in_503_javascript_makes_four(served):
    assert times_sent(served, PYTHON, "run") == 1
    assert times_sent(served, PYTHON_ASYNC, "run") == 1
    assert times_sent(served, JAVASCRIPT, "run") == 4
