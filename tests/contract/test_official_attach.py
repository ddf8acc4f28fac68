"""A request is watched by clients that know nothing of us: fal's own, and EventSource as browsers have it."""

import contextlib
import dataclasses
import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.official import (
    CLIENTS,
    PROGRAM_S,
    PYTHON,
    PYTHON_ASYNC,
    OfficialServer,
    key_of,
    module,
    need_node,
    official_server,
)
from tests.support.server import ROOT, ZOO, eventually
from tests.support.toxic import Toxic

TELLER = ROOT / "tests" / "contract" / "models" / "teller.py"
#: Seconds between an error event and the cut, for Node loses what it has not read by then; and how often it is asked
#: again if it was itself held up for as long.
CUT_DELAY_S = 1.0
ROUNDS = 5

COUNTED = [{"i": 0}, {"i": 1}, {"i": 2}, {"total": 3}]

in_python = pytest.mark.parametrize("client", [PYTHON, PYTHON_ASYNC], ids=lambda client: client.name)


@pytest.fixture(scope="module")
def served():
    limits = {"heartbeat_s": 0.2, "headers_hold_s": 0.2, "cut_delay_s": CUT_DELAY_S}
    with official_server(ZOO, TELLER, limits=limits) as served:
        yield served


def own_key(served: OfficialServer) -> dict[str, str]:
    return {"Authorization": f"Key {key_of(served.server)}"}


def submitted(served: OfficialServer, **input: object) -> str:
    """The id of a queued request, which may not have started."""
    return served.server.post("/queue/zoo/zoo/async", {"n": 3, **input}, own_key(served)).json["request_id"]


def failed(served: OfficialServer) -> str:
    """The id of a stream that failed behind its second event."""
    with served.server.open("/zoo/zoo/raise-later/stream", {}, own_key(served)) as stream:
        stream.read_to_end()
        found = re.search(rb"x-fal-request-id: (\S+)", stream.head)
    assert found
    return found[1].decode()


def token_for(served: OfficialServer, id_: str, *, app: str = "zoo/zoo") -> str:
    return served.server.post(f"/{app}/requests/{id_}/token", {}, own_key(served)).json["token"]


# --- fal's client for Python ------------------------------------------------------------------------------------


@pytest.mark.promise("P6")
@in_python
def test_python_watches_a_queued_request_from_the_start_to_its_end(served, client):
    id_ = submitted(served, pause=0.3)  # longer than a heartbeat, which must not hurt a client that was given ids

    watched = [client.stream(served, "zoo/zoo", {}, options={"path": f"/requests/{id_}/stream"}) for _ in range(2)]

    assert [one.items for one in watched] == [COUNTED, COUNTED]  # while it runs, and when it is over
    assert [one.error for one in watched] == [None, None]


@in_python
def test_python_sees_a_failed_request_fail_again(served, client):
    watched = client.stream(served, "zoo/zoo", {}, options={"path": f"/requests/{failed(served)}/stream"})

    assert watched.items[:2] == [{"i": 0}, {"i": 1}]
    assert watched.items[2]["error"]["type"] == "runner_server_error"
    assert watched.error["type"] == "httpx.RemoteProtocolError"


@in_python
def test_python_watches_nothing_with_another_key(served, client):
    stranger = dataclasses.replace(served, environment={**served.environment, "FAL_KEY": "nobodys:key"})
    path = f"/requests/{submitted(served)}/stream"

    watched = client.stream(stranger, "zoo/zoo", {}, options={"path": path})

    assert (watched.items, watched.error["type"]) == ([], "httpx_sse._exceptions.SSEError")


# --- fal's client for JavaScript --------------------------------------------------------------------------------


def watched_in_javascript(served: OfficialServer, calls: list[dict]) -> dict[str, dict]:
    source = (CLIENTS / "attach.mjs").read_text()
    process = subprocess.run(
        ["node", "--input-type=module", "--eval", source, "--", json.dumps(calls)],
        cwd=need_node(), env=served.environment, capture_output=True, text=True, timeout=PROGRAM_S,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-4_000:]
    told = [json.loads(line) for line in process.stdout.splitlines()]
    return {one.pop("name"): one for one in told}


@pytest.mark.promise("P6")
def test_javascript_watches_a_queued_request_by_key_by_proxy_and_by_token(served):
    id_ = submitted(served, pause=0.3)
    path = f"/zoo/zoo/requests/{id_}/stream"
    ways = [
        {"name": "by key", "url": f"https://fal.run{path}"},  # as `headrace env --node` leads it here
        {"name": "by proxy", "url": f"https://fal.run{path}", "proxy": served.proxy_url},
        {"name": "by token", "url": f"https://localhost:{served.tls_port}{path}", "token": token_for(served, id_)},
    ]

    watched = watched_in_javascript(served, [{"app": "zoo/zoo", **way} for way in ways])

    assert watched == {
        way["name"]: {"items": COUNTED, "request_id": id_, "result": {"total": 3}} for way in ways
    }  # fmt: skip


def test_javascript_is_told_what_it_may_not_watch(served):
    id_, other, unknown = submitted(served), submitted(served), "0f8fad5b-d9cb-469f-a165-70867728950e"
    here = f"https://localhost:{served.tls_port}/zoo/zoo/requests"
    calls = [
        {"name": "another's token", "url": f"{here}/{id_}/stream", "token": token_for(served, other)},
        {"name": "no token", "url": f"{here}/{id_}/stream", "token": "nonsense"},
        {
            "name": "unknown",
            "url": f"https://fal.run/zoo/zoo/requests/{unknown}/stream",
            "proxy": served.proxy_url,
        },
    ]

    watched = watched_in_javascript(served, [{"app": "zoo/zoo", **call} for call in calls])

    assert {name: (one["items"], one["error"]["status"]) for name, one in watched.items()} == {
        "another's token": ([], 401),
        "no token": ([], 401),
        "unknown": ([], 404),
    }


# --- EventSource ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def event_source(served: OfficialServer, url: str) -> Iterator[subprocess.Popen[str]]:
    need_node()
    if "function" not in node("--experimental-eventsource", "--eval", "console.log(typeof EventSource)"):
        pytest.skip("this Node has no EventSource: it came with 20.18")
    source = module("eventsource.mjs")
    process = subprocess.Popen(
        ["node", "--no-warnings", "--experimental-eventsource", "--input-type=module", "--eval", source, "--", url],
        env=served.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def node(*args: str) -> str:
    return subprocess.run(["node", *args], capture_output=True, text=True, timeout=PROGRAM_S).stdout


def told_to_its_end(process: subprocess.Popen[str]) -> tuple[list[dict], float]:
    """What it told, and the seconds that it was held up itself. That it ends means that it does not connect for ever."""
    told, complaint = process.communicate(timeout=PROGRAM_S)
    assert (process.returncode, complaint) == (0, "")
    *told, stalled = [json.loads(line) for line in told.splitlines()]
    return told, stalled["stalled_s"]


@pytest.mark.promise("P6")
def test_event_source_watches_a_request_and_stops_at_its_end(served):
    id_ = submitted(served, pause=0.3)
    url = (
        f"https://localhost:{served.tls_port}/zoo/zoo/requests/{id_}/stream?fal_jwt_token={token_for(served, id_)}"
    )

    with event_source(served, url) as process:
        told, _ = told_to_its_end(process)

    assert told == [
        {"open": True},
        *({"item": item, "id": f"{id_}.1.{number}"} for number, item in enumerate(COUNTED)),
        {"lost": "for now"},  # the stream's end: it asks again, with the last id,
        {"lost": "for good"},  # and the 204 tells it that there is no more
    ]


def test_event_source_is_told_of_a_failure_and_stops(served):
    id_ = failed(served)
    url = (
        f"https://localhost:{served.tls_port}/zoo/zoo/requests/{id_}/stream?fal_jwt_token={token_for(served, id_)}"
    )

    for _ in range(ROUNDS):
        with event_source(served, url) as process:
            told, stalled_s = told_to_its_end(process)
        if len(told) == 6 or stalled_s < CUT_DELAY_S / 2:
            break

    opened, *items, failure, for_now, for_good = told
    assert [opened, *items] == [
        {"open": True},
        {"item": {"i": 0}, "id": f"{id_}.1.0"},
        {"item": {"i": 1}, "id": f"{id_}.1.1"},
    ]
    assert (failure["failure"]["type"], failure["id"]) == ("runner_server_error", f"{id_}.1.2")
    assert [for_now, for_good] == [{"lost": "for now"}, {"lost": "for good"}]


def test_event_source_goes_on_behind_a_cut_with_nothing_lost_and_nothing_repeated(served, tmp_path):
    seen_half = tmp_path / "seen"
    input = {"n": 40, "seen": str(seen_half)}  # at a half of them the model waits until the cut has been seen
    id_ = served.server.post("/queue/line/teller/watched", input, own_key(served)).json["request_id"]
    path = f"/line/teller/requests/{id_}/stream?fal_jwt_token={token_for(served, id_, app='line/teller')}"
    with (
        Toxic(served.server.port) as network,
        event_source(served, f"http://127.0.0.1:{network.port}{path}") as process,
    ):
        assert process.stdout
        seen = [json.loads(process.stdout.readline()) for _ in range(4)]
        network.add("reset_peer")
        eventually(lambda: network.connections == 0, "it is cut")
        network.clear()
        seen_half.touch()
        *told, _ = seen + [json.loads(line) for line in process.stdout]

    assert [one["item"] for one in told if "item" in one] == [*({"i": i} for i in range(40)), {"total": 40}]
    assert [one["id"] for one in told if "item" in one] == [f"{id_}.1.{number}" for number in range(41)]
    opened, *between, ended, gone = [one for one in told if "item" not in one]
    assert (opened, ended, gone) == ({"open": True}, {"lost": "for now"}, {"lost": "for good"})
    # More than once, if it was quicker to come back than the network to be well again.
    assert between[:1] == [{"lost": "for now"}]
    assert between[-1:] == [{"open": True}]
    assert {"lost": "for good"} not in between


@pytest.mark.promise("P4")
@pytest.mark.parametrize("fault", ["another's", "revoked", "no token"])
def test_event_source_gives_up_at_once_where_the_token_is_wrong(served, fault):
    id_, other = submitted(served), submitted(served)
    token = {"another's": token_for(served, other), "revoked": token_for(served, id_), "no token": "x"}[fault]
    if fault == "revoked":
        served.server.request("DELETE", f"/zoo/zoo/requests/{id_}/token", None, own_key(served))
    url = f"https://localhost:{served.tls_port}/zoo/zoo/requests/{id_}/stream?fal_jwt_token={token}"

    with event_source(served, url) as process:
        told, _ = told_to_its_end(process)

    assert told == [{"lost": "for good"}]
