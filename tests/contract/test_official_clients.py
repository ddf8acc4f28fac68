"""What works with every one of fal's own clients: the same promises for each way to call us."""

import contextlib

import pytest

from tests.support.official import (
    CLIENTS_OF_FAL,
    JAVASCRIPT,
    JAVASCRIPT_BARE,
    JAVASCRIPT_LISTENERS,
    PYTHON,
    PYTHON_ASYNC,
    official_server,
    outcome,
)
from tests.support.scripted import STRETCHES
from tests.support.server import eventually

every_client = pytest.mark.parametrize("client", CLIENTS_OF_FAL, ids=lambda client: client.name)


@pytest.fixture(scope="module")
def served():
    """A server whose holds and heartbeats are short."""
    with official_server(limits={"heartbeat_s": 0.2, "headers_hold_s": 0.2}) as served:
        yield served


@pytest.mark.parametrize("client", [PYTHON, PYTHON_ASYNC, JAVASCRIPT], ids=lambda client: client.name)
@pytest.mark.parametrize("endpoint", ["zoo/zoo", "zoo/zoo/def"])
def test_run_returns_the_result(served, client, endpoint):
    called = client.run(served, endpoint, {"n": 2})

    assert (called.result, called.error) == ({"total": 2}, None)


@every_client
@pytest.mark.parametrize("endpoint", ["zoo/zoo", "zoo/zoo/async", "zoo/zoo/steps"])
def test_stream_hands_over_every_item_in_order_and_ends(served, client, endpoint):
    called = client.stream(served, endpoint, {"n": 3})

    assert called.items == [{"i": 0}, {"i": 1}, {"i": 2}, {"total": 3}]
    assert (called.error, called.exit_status) == (None, 0)


@pytest.mark.parametrize("client", [JAVASCRIPT, JAVASCRIPT_LISTENERS], ids=lambda client: client.name)
def test_in_javascript_done_is_the_last_item_and_the_request_id_is_known(served, client):
    called = client.stream(served, "zoo/zoo", {"n": 1})

    assert called.result == {"total": 1}
    assert len(called.request_id) == 36


@pytest.mark.parametrize("client", [PYTHON, PYTHON_ASYNC], ids=lambda client: client.name)
def test_in_python_the_path_argument_names_another_stream(served, client):
    called = client.stream(served, "zoo/zoo", {"n": 2}, options={"path": "talk"})

    assert called.items == [{"i": 0}, {"i": 1}]


def test_an_id_that_ends_in_stream_is_the_stream_itself(served):
    python = PYTHON.stream(served, "zoo/zoo/own/stream", {"n": 1}, options={"path": ""})
    javascript = JAVASCRIPT.stream(served, "zoo/zoo/own/stream", {"n": 1})

    assert (python.items, javascript.items) == ([{"i": 0}], [{"i": 0}])


@every_client
def test_silence_with_heartbeats_disturbs_nobody(served, client):
    called = client.stream(served, "zoo/zoo/silent", {"pause": 1.5})

    assert (called.items, called.error) == ([{"i": 0}], None)


@pytest.mark.parametrize(
    ("client", "timeout"),
    [(PYTHON, 1), (PYTHON_ASYNC, 1), (JAVASCRIPT, 1_000)],
    ids=lambda value: getattr(value, "name", None),
)
def test_heartbeats_keep_a_clients_own_timeout_from_passing(served, client, timeout):
    for stretch in STRETCHES:
        options = {"timeout": timeout * stretch}
        called = client.stream(served, "zoo/zoo/silent", {"pause": 2 * stretch}, options=options)
        if called.error is None:
            break  # else the connection, or a heartbeat, may have been held up for longer than that

    assert (called.items, called.error) == ([{"i": 0}], None)


@every_client
def test_heartbeats_between_items_disturb_nobody(served, client):
    called = client.stream(served, "zoo/zoo/async", {"n": 2, "pause": 0.5})

    assert (called.items, called.error) == ([{"i": 0}, {"i": 1}, {"total": 2}], None)


@pytest.mark.slow
def test_twenty_seconds_of_silence_at_the_default_limits_disturb_nobody():
    with official_server() as served, contextlib.ExitStack() as stack:
        calls = [
            stack.enter_context(client.streaming(served, "zoo/zoo/silent", {"pause": 20}))
            for client in CLIENTS_OF_FAL
        ]
        called = [outcome(call) for call in calls]

    assert [one.items for one in called] == [[{"i": 0}]] * len(called)
    assert [one.error for one in called] == [None] * len(called)


@every_client
def test_multi_byte_text_arrives_whole(served, client):
    called = client.stream(served, "zoo/zoo/text", {})

    assert called.items == [{"text": "é 🌅 \u2028 日本"}]


@every_client
def test_an_item_of_a_megabyte_arrives_whole(served, client):
    called = client.stream(served, "zoo/zoo/big", {"n": 1_000_000})

    assert called.items == [{"text": "x" * 1_000_000}, {"length": 1_000_000}]


# `for await` of the JavaScript client waits 16 ms after every item, however fast they come: see the how-to.
@pytest.mark.parametrize("client", [PYTHON, PYTHON_ASYNC, JAVASCRIPT_LISTENERS], ids=lambda client: client.name)
def test_a_burst_of_2000_items_arrives_whole_and_in_order(served, client):
    called = client.stream(served, "zoo/zoo/burst", {"n": 2_000})

    assert [item["i"] for item in called.items] == list(range(2_000))
    assert called.error is None


def test_a_burst_comes_out_of_for_await_too_in_its_own_time(served):
    called = JAVASCRIPT.stream(served, "zoo/zoo/burst", {"n": 300})

    assert [item["i"] for item in called.items] == list(range(300))


@every_client
@pytest.mark.parametrize("endpoint", ["zoo/zoo", "zoo/zoo/async"])
def test_leaving_a_stream_early_stops_the_model(served, client, endpoint):
    name = f"{client.name} left {endpoint}"
    order = {"n": 10_000, "pause": 0.02, "name": name}
    with client.streaming(served, endpoint, order, leave_after=2) as call:
        eventually(served.server.saw(f"finally {name}"), "the generator is closed")
        assert call.poll() is None  # it left the stream; its process is still there
        called = outcome(call)

    assert called.items[:2] == [{"i": 0}, {"i": 1}]
    assert called.error is None


def test_in_javascript_break_alone_does_not_leave(served):
    called = JAVASCRIPT_BARE.stream(served, "zoo/zoo", {"n": 20, "pause": 0.02}, leave_after=1)

    assert called.items == [{"i": 0}]
    assert called.result == {"total": 20}
