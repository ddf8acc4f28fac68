"""A failure after the first byte is a failure for every client, in its own way; a clean end is success and nothing else.

The table of endings is tests/support/endings.py. What fal's clients make of failures before the first byte is in
test_official_failures.py.
"""

import asyncio
import dataclasses
import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace import AsyncClient, Client
from headrace.client import errors
from tests.support import endings
from tests.support.endings import NO_SLOT, Ending, cancelling
from tests.support.official import OfficialServer, key_of, official_server
from tests.support.server import ROOT, RawStream, Server, data_events, running_server
from tests.support.shells import Outcome

#: What sets the clients up makes scores of calls, and each of many kills a runner.
pytestmark = pytest.mark.timeout(400)

MODELS = ROOT / "tests" / "contract" / "models" / "unhurried.py"
#: Seconds between the error event and the cut, for a client that loses what it has not read by then.
CUT_DELAY_S = 0.5
#: The headers go out at once, so that no failure is quicker than they are.
LIMITS = endings.LIMITS | {"headers_hold_s": 0.0, "cut_delay_s": CUT_DELAY_S}
#: The deadlines, each in an app that has it alone. The last one leaves no time for an event before it.
DEADLINES = {
    "no first event": {"endpoint": "mortal/first"},
    "a gap": {"endpoint": "mortal/gap"},
    "too long": {"endpoint": "mortal/total", "input": {"how": "silent", "events": 0}, "items": []},
}
ENDINGS = {name: dataclasses.replace(one, **DEADLINES.get(name, {})) for name, one in endings.ENDINGS.items()}
ALL = {**ENDINGS, "no slot": NO_SLOT}
each = pytest.mark.parametrize("name", ALL)


@pytest.fixture(scope="module")
def served():
    """A server with keys and TLS, where whoever asks to be cancelled is."""
    with official_server(MODELS, limits=LIMITS) as served, cancelling(served.server, key_of(served.server)):
        yield served


@pytest.fixture(scope="module")
def full():
    """A server whose one slot is taken."""
    with official_server(f"{MODELS}:Single", limits=LIMITS | {"slot_wait_s": 0.5}) as full:
        headers = {"Authorization": f"Key {key_of(full.server)}"}
        with full.server.open("/mortal/single/stream", {"how": "endless"}, headers) as holder:
            holder.read_until(b"data: {}")
            yield full


#: How often Node makes its calls, until it was not itself held up for as long as the server leaves it to read.
ROUNDS = 5


def told(to: OfficialServer, program: str, kinds: Sequence[str], calls: dict[str, Ending]):
    for _ in range(ROUNDS):
        outcomes = endings.told(to, program, kinds, calls, seconds=150)
        late = [outcome for outcome in outcomes.values() if outcome.stalled_s > CUT_DELAY_S / 2]
        if all("error" in (outcome.items or [{}])[-1] for outcome in late):
            break
    return outcomes


def told_by(served, full, program, *kinds):
    return told(served, program, kinds, ENDINGS) | told(full, program, kinds, {"no slot": NO_SLOT})


@pytest.fixture(scope="module")
def python(served, full):
    return told_by(served, full, "endings.py", "stream", "stream_async", "run", "run_async")


@pytest.fixture(scope="module")
def javascript(served, full):
    return told_by(served, full, "endings.mjs", "loop", "listeners")


def is_error_item(item: object, ending: Ending) -> bool:
    error = item["error"]
    return list(item) == ["error"] and error == {
        "type": ending.type,
        "message": error["message"],
        "request_id": error["request_id"],
        "retryable": ending.is_retryable,
        "status": ending.status,
    }


# --- fal's clients --------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("kind", ["stream", "stream_async"])
def test_fals_python_stream_has_the_error_as_its_last_item_and_raises(python, name, kind):
    outcome = python[name, kind]

    assert outcome.items[:-1] == ALL[name].items
    assert is_error_item(outcome.items[-1], ALL[name])
    assert outcome.error["type"] == "httpx.RemoteProtocolError"


@each
@pytest.mark.parametrize("kind", ["run", "run_async"])
def test_fals_python_run_raises_with_status_and_type(python, name, kind):
    outcome = python[name, kind]

    assert (outcome.result, outcome.error["type"]) == (None, "fal_client.client.FalClientHTTPError")
    assert (outcome.error["status"], outcome.error["error_type"]) == (ALL[name].status, ALL[name].type)


@each
@pytest.mark.parametrize("kind", ["loop", "listeners"])
def test_fals_javascript_client_has_the_error_as_its_last_item_and_done_rejects(javascript, name, kind):
    outcome = javascript[name, kind]

    assert outcome.items[:-1] == ALL[name].items
    assert is_error_item(outcome.items[-1], ALL[name])
    assert (outcome.error["type"], outcome.error["message"], outcome.error["threw"]) == (
        "ApiError",
        "terminated",
        False,
    )
    assert outcome.error["request_id"] == outcome.items[-1]["error"]["request_id"]


# --- our SDK --------------------------------------------------------------------------------------------------

#: The class of the exception that a status raises.
CLASSES = {
    418: errors.APIError,
    422: errors.InvalidInput,
    499: errors.APIError,
    500: errors.APIError,
    503: errors.Overloaded,
    504: errors.DeadlinePassed,
}


def sync_call(client: Client, kind: str, ending: Ending) -> Outcome:
    items, result = [], None
    try:
        if kind == "stream":
            for item in client.stream(ending.endpoint, ending.input):
                items.append(item)
        else:
            result = client.run(ending.endpoint, ending.input)
    except Exception as error:
        return Outcome(items, error=error)
    return Outcome(items, result)


async def async_call(client: AsyncClient, kind: str, ending: Ending) -> Outcome:
    items, result = [], None
    try:
        if kind == "stream_async":
            async for item in client.stream(ending.endpoint, ending.input):
                items.append(item)
        else:
            result = await client.run(ending.endpoint, ending.input)
    except Exception as error:
        return Outcome(items, error=error)
    return Outcome(items, result)


async def async_calls(url: str, key: str, calls: list[tuple[str, str]]) -> list[Outcome]:
    client = AsyncClient(url, key=key)
    return await asyncio.gather(*(async_call(client, kind, ALL[name]) for name, kind in calls))


def told_by_ours(server: Server, names: Iterable[str]) -> dict[tuple[str, str], Outcome]:
    key = key_of(server)
    calls = [(name, kind) for name in names for kind in ("stream", "run")]
    with Client(server.url, key=key) as client, ThreadPoolExecutor(len(calls)) as threads:
        outcomes = dict(
            zip(calls, threads.map(lambda call: sync_call(client, call[1], ALL[call[0]]), calls), strict=True)
        )
    calls = [(name, f"{kind}_async") for name, kind in calls]
    return outcomes | dict(zip(calls, asyncio.run(async_calls(server.url, key, calls)), strict=True))


@pytest.fixture(scope="module")
def ours(served, full):
    return told_by_ours(served.server, ENDINGS) | told_by_ours(full.server, ["no slot"])


@each
@pytest.mark.parametrize("kind", ["stream", "stream_async"])
def test_our_stream_raises_stream_error_with_all_its_facts(ours, name, kind):
    ending, outcome = ALL[name], ours[name, kind]

    error = outcome.error
    assert (type(error), outcome.items) == (errors.StreamError, ending.items)
    assert (error.type, error.status, error.retryable) == (ending.type, ending.status, ending.is_retryable)
    assert re.fullmatch(r"[0-9a-f-]{36}", error.request_id)
    assert error.request_id in str(error)


@each
@pytest.mark.parametrize("kind", ["run", "run_async"])
def test_our_run_raises_by_status_with_type_and_request_id(ours, name, kind):
    ending, error = ALL[name], ours[name, kind].error

    assert type(error) is CLASSES[ending.status]
    assert (error.error_type, error.status_code, error.retryable) == (
        ending.type,
        ending.status,
        ending.is_retryable,
    )
    assert re.fullmatch(r"[0-9a-f-]{36}", error.request_id)


# --- on the wire ----------------------------------------------------------------------------------------------


def opened(served: OfficialServer, path: str, input: object) -> RawStream:
    return served.server.open(path, input, {"Authorization": f"Key {key_of(served.server)}"})


@pytest.fixture(scope="module")
def on_the_wire(served):
    """The stream of each, read to its end: all at once, for the cut of each takes its time."""

    def read(ending: Ending) -> RawStream:
        with opened(served, f"/{ending.endpoint}/stream", ending.input) as stream:
            stream.read_until(b"event: error")
            stream.read_until(b"\n\n\r\n")
            stream.read_to_end()  # a reset would raise
        return stream

    with ThreadPoolExecutor(len(ENDINGS)) as threads:
        return dict(zip(ENDINGS, threads.map(read, ENDINGS.values()), strict=True))


@pytest.mark.parametrize("name", ENDINGS)
def test_a_failure_is_one_error_event_and_a_fin_without_the_final_chunk(on_the_wire, name):
    ending, stream = ENDINGS[name], on_the_wire[name]

    blocks = stream.body.replace(b": ping\n", b"").split(b"\n\n")
    assert [block.startswith(b"event: error\ndata: {") for block in blocks] == [False] * len(ending.items) + [
        True,
        False,
    ]
    assert [*data_events(stream.body)][:-1] == ending.items
    assert is_error_item(data_events(stream.body)[-1], ending)
    assert not stream.is_whole


def test_the_cut_leaves_a_client_the_time_to_read_the_error_event():
    with running_server(MODELS, limits={"cut_delay_s": 5.0}) as server:
        with server.open(f"/{ENDINGS['raised'].endpoint}/stream", ENDINGS["raised"].input) as stream:
            stream.read_until(b"event: error")
            told_at = time.monotonic()
            stream.read_to_end()
            delay_s = time.monotonic() - told_at

    assert delay_s >= 0.5  # of five seconds, what a reader that is late itself sees at least
    assert b"connection:" not in stream.head.lower()


@pytest.mark.parametrize(
    "input", [{"how": "well", "events": 2}, {"how": "well", "pause": 0.35}, {"how": "well", "events": 300}]
)
@pytest.mark.parametrize("path", ["any", "clean", "any/sync"])
def test_success_is_the_final_chunk_and_no_error_event(served, path, input):
    with opened(served, f"/mortal/{path}/stream", input) as stream:
        stream.read_until(b"\r\n0\r\n\r\n")

    assert stream.is_whole
    assert b"error" not in stream.body
    assert len(data_events(stream.body)) == input.get("events", 1)


# --- an app that asks for clean ends --------------------------------------------------------------------------

AT_CLEAN = {name: ENDINGS[name] for name in ENDINGS if name not in {"cancelled", "yielded nothing"}}
#: The apps of the deadlines; all else fails in `mortal/clean`.
CLEAN_APPS = {"no first event": "clean-first", "a gap": "clean-gap", "too long": "clean-total"}


@pytest.mark.parametrize("name", AT_CLEAN)
def test_with_stream_error_end_clean_the_connection_goes_on_behind_the_error(served, name):
    ending = AT_CLEAN[name]
    input = ending.input | ({"how": "endless", "events": 0} if name == "too long" else {})

    with opened(served, f"/mortal/{CLEAN_APPS.get(name, 'clean')}/stream", input) as stream:
        stream.read_until(b"\r\n0\r\n\r\n")
        first = stream.body
        stream.bytes = b""
        stream.post(
            "/mortal/clean/stream", {"how": "well", "events": 2}, {"Authorization": f"Key {key_of(served.server)}"}
        )
        stream.read_until(b"\r\n0\r\n\r\n")

    assert first.count(b"event: error") == 1
    assert is_error_item(data_events(first)[-1], ending)
    assert data_events(stream.body) == [{"i": 0}, {"i": 1}]


def test_with_stream_error_end_clean_our_sdk_raises_all_the_same(served):
    ending = Ending("mortal/clean", {"how": "raised"}, [{"i": 0}], "runner_server_error", 500)

    with Client(served.server.url, key=key_of(served.server)) as client:
        outcome = sync_call(client, "stream", ending)

    assert (type(outcome.error), outcome.error.type, outcome.items) == (
        errors.StreamError,
        ending.type,
        ending.items,
    )


def test_with_stream_error_end_clean_fals_clients_see_an_item_and_an_end(served):
    clean = {"clean": Ending("mortal/clean", {"how": "raised"}, [{"i": 0}], "runner_server_error", 500)}

    outcomes = told(served, "endings.py", ["stream", "stream_async"], clean) | told(
        served, "endings.mjs", ["loop"], clean
    )

    for outcome in outcomes.values():
        assert outcome.items[:-1] == [{"i": 0}]
        assert is_error_item(outcome.items[-1], clean["clean"])
        assert outcome.error is None
