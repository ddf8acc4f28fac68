"""A browser's own EventSource watches a request by a token: it comes back after a cut, and stops when told to."""

from __future__ import annotations

import re

import pytest

from tests.support.browser import site
from tests.support.official import key_of
from tests.support.resuming import cut_wire
from tests.support.server import running_server

WATCH = """(url) => new Promise((resolve) => {
    const seen = { items: [], ids: [], lost: 0, failure: null };
    const source = new EventSource(url);
    source.onmessage = ({ data, lastEventId }) => {
        seen.items.push(JSON.parse(data));
        seen.ids.push(lastEventId);
    };
    source.addEventListener("error", ({ data }) => {
        if (data !== undefined) seen.failure = JSON.parse(data).error.type;
        else if (source.readyState !== EventSource.CLOSED) seen.lost += 1;
        else resolve(seen);
    });
})"""


@pytest.fixture(scope="module")
def server():
    with running_server(args=(), limits={"heartbeat_s": 0.2}) as server:  # with authentication
        yield server


def begun(server, path: str, **input: object) -> tuple[str, str]:
    """Queue a request; return its id and a token for it."""
    key = {"Authorization": f"Key {key_of(server)}"}
    id_ = server.post(f"/queue/zoo/zoo/{path}", input, key).json["request_id"]
    return id_, server.post(f"/zoo/zoo/requests/{id_}/token", {}, key).json["token"]


@pytest.fixture
def watch(page):
    with site({}) as pages:
        page.goto(pages.url)
        yield lambda url: page.evaluate(WATCH, url)


# The whole answer, to a browser that comes when all events are there, has some 890 bytes.
@pytest.mark.parametrize("cuts", [[], [800], [500, 500]])
def test_it_sees_every_event_once_and_is_told_when_there_are_no_more(watch, server, complaints, cuts):
    complaints.allow("ERR_")
    id_, token = begun(server, "async", n=5, pause=0.1)
    with cut_wire(server.port, cuts) as wire:
        seen = watch(f"{wire.url}/zoo/zoo/requests/{id_}/stream?fal_jwt_token={token}")

    assert [*({"i": i} for i in range(5)), {"total": 5}] == seen["items"]
    assert [f"{id_}.1.{number}" for number in range(6)] == seen["ids"]
    assert len(cuts) + 1 == seen["lost"]  # a clean end is a loss, too, until 204 says that it was the last


def test_it_is_told_what_a_request_failed_with(watch, server, complaints):
    complaints.allow("ERR_")
    id_, token = begun(server, "raise-later")

    seen = watch(f"{server.url}/zoo/zoo/requests/{id_}/stream?fal_jwt_token={token}")

    assert ([{"i": 0}, {"i": 1}], "runner_server_error") == (seen["items"], seen["failure"])


def test_without_the_right_token_it_sees_nothing(watch, server, complaints):
    complaints.expect("401")
    id_, token = begun(server, "async")
    _, other = begun(server, "async")

    for wrong in ("", f"?fal_jwt_token={other}", f"?fal_jwt_token={re.sub('.$', '', token)}"):
        seen = watch(f"{server.url}/zoo/zoo/requests/{id_}/stream{wrong}")

        assert ([], 0) == (seen["items"], seen["lost"])
