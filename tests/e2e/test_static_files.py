"""The files that come with the server: who may load them, and when they travel again."""

import pytest

from headrace.gateway.static_files import PUBLIC
from tests.support.javascript import SDK
from tests.support.server import ROOT, running_server


@pytest.fixture(scope="module")
def server():
    with running_server(args=()) as server:  # with authentication
        yield server


def test_any_page_loads_the_sdk_without_a_key(server):
    answer = server.request("GET", "/sdk/headrace.js", headers={"Origin": "https://anywhere.example"})

    assert (200, SDK.read_bytes()) == (answer.status, answer.body)
    assert "text/javascript; charset=utf-8" == answer.headers["content-type"]
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert "*" == answer.headers["access-control-allow-origin"]
    assert "cross-origin" == answer.headers["cross-origin-resource-policy"]
    assert "no-cache" == answer.headers["cache-control"]
    assert str(len(answer.body)) == answer.headers["content-length"]
    assert "x-fal-request-id" in answer.headers


def test_its_types_lie_beside_it(server):
    answer = server.request("GET", "/sdk/headrace.d.ts")

    assert (200, SDK.with_name("headrace.d.ts").read_bytes()) == (answer.status, answer.body)
    assert "text/plain; charset=utf-8" == answer.headers["content-type"]


def test_who_has_a_file_is_told_so_and_gets_no_second_copy(server):
    etag = server.request("GET", "/sdk/headrace.js").headers["etag"]
    strong = etag.removeprefix("W/")
    seen = {
        tags: server.request("GET", "/sdk/headrace.js", headers={"If-None-Match": tags})
        for tags in (etag, f'"other", {etag}', strong, "*", '"other"', strong.strip('"'), "")
    }

    assert [304, 304, 304, 304, 200, 200, 200] == [answer.status for answer in seen.values()]
    assert (b"", etag) == (seen[etag].body, seen[etag].headers["etag"])


def test_a_head_has_the_headers_and_a_post_is_refused(server):
    head = server.request("HEAD", "/sdk/headrace.js")
    post = server.request("POST", "/sdk/headrace.js", {})

    assert (200, b"") == (head.status, head.body)
    assert (405, "GET, HEAD") == (post.status, post.headers["allow"])


def test_there_is_no_way_out_of_the_table(server):
    for path in ("/sdk/../app.py", "/sdk/%2e%2e/app.py", "/sdk/headrace.js/x", "/sdk/"):
        assert server.request("GET", path).status in {401, 404, 400}, path


def test_every_public_file_is_documented():
    page = (ROOT / "docs/reference/http.md").read_text()

    assert [] == [path for path in PUBLIC if f"`GET {path}`" not in page]
