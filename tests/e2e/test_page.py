"""The page as HTTP has it: which documents there are, what they may load, and how a tab gets its key."""

import gzip
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from tests.support.official import key_of, users_environment
from tests.support.server import PATIENCE_S, ROOT, STARTING_S, running_server

STATIC = ROOT / "src/headrace/gateway/static"

#: The SDK has a room and a size of its own.
SDK = {"headrace.js", "headrace.d.ts"}
BYTES_MAX = 60 * 1024

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def server():
    with running_server(args=("--alias", "other/name=zoo/zoo")) as server:
        yield server


def own_key(server) -> dict[str, str]:
    return {"Authorization": f"Key {key_of(server)}"}


def policy_of(answer) -> dict[str, set[str]]:
    directives = (directive.split() for directive in answer.headers["content-security-policy"].split(";"))
    return {name: set(sources) for name, *sources in directives}


@pytest.mark.parametrize("path", ["/", "/zoo/zoo", "/zoo/zoo/", "/other/name", "/workflows/zoo/flow"])
def test_a_browser_gets_the_page_without_a_key(server, path):
    answer = server.request("GET", path, None, HTML)

    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.body == (STATIC / "page.html").read_bytes()


@pytest.mark.promise("A8")
def test_the_page_loads_from_here_alone_and_nothing_in_it_runs(server):
    answer = server.request("GET", "/", None, HTML)
    policy = policy_of(answer)

    for directive in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert policy[directive] == {"'none'"}
    for directive in ("script-src", "style-src", "connect-src"):
        assert policy[directive] == {"'self'"}
    for directive in ("img-src", "media-src"):
        assert policy[directive] == {"'self'", "data:", "blob:", "https:"}
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == (
        "nosniff",
        "no-referrer",
    )
    assert not re.search(rb"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", answer.body)


def test_whoever_does_not_name_html_is_answered_as_ever(server):
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = server.request("GET", "/zoo/zoo", None, {**own_key(server), **headers})
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
    for path in ("/zoo/nobody", "/zoo/zoo/chat", "/zoo"):
        assert server.request("GET", path, None, {**own_key(server), **HTML}).status in {404, 405}


def test_every_file_that_the_page_loads_is_served_with_its_type_and_a_tag(server):
    loaded = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', (STATIC / "page.html").read_text()))
    for script in STATIC.glob("*.js"):
        loaded |= {f"/static/{name}" for name in re.findall(r'["(]\./([a-z]+\.js)"', script.read_text())}
    types = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}

    assert len(loaded) >= 15
    for path in sorted(loaded):
        answer = server.request("GET", path)
        assert (path, answer.status, answer.headers["content-type"]) == (path, 200, types[path.rpartition(".")[2]])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert server.request("GET", path, None, {"If-None-Match": answer.headers["etag"]}).status == 304


def test_no_other_file_is_below_static(server):
    for path in (
        "/static/",
        "/static/page.html",
        "/static/headrace.js",
        "/static/../auth.py",
        "/static/%2e%2e/auth.py",
    ):
        assert server.request("GET", path, None, own_key(server)).status == 404


def test_the_whole_page_is_under_60_kib():
    sizes = {path.name: path.stat().st_size for path in STATIC.iterdir() if path.name not in SDK}
    print(sorted(sizes.items(), key=lambda item: -item[1]), sum(sizes.values()))

    assert sum(sizes.values()) < BYTES_MAX


def test_with_its_sdk_the_page_is_well_under_that_on_the_way(server):
    paths = [f"/static/{path.name}" for path in STATIC.iterdir() if path.name not in {*SDK, "page.html"}]
    answers = {
        path: server.request("GET", path, None, {"Accept-Encoding": "gzip, deflate, br"})
        for path in [*paths, "/sdk/headrace.js"]
    }

    assert sum(len(answer.body) for answer in answers.values()) < BYTES_MAX * 2 / 3
    for path, answer in answers.items():
        assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "accept-encoding")
        assert gzip.decompress(answer.body) == (STATIC / path.rpartition("/")[2]).read_bytes()


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, None), ("", None), ("identity", None), ("br, deflate", None), ("gzip;q=0, br", None), ("gzip;q=0.000", None),
        ("xgzip", None), ("GZIP", "gzip"), ("br;q=1, gzip;q=0.5", "gzip"), ("*", "gzip"), ("br , gzip ; q=0.001", "gzip"),
    ],
)  # fmt: skip
def test_a_file_is_packed_for_who_takes_it_so(server, accepted, encoding):
    answer = server.request(
        "GET", "/sdk/headrace.js", None, {"Accept-Encoding": accepted} if accepted is not None else {}
    )

    assert answer.headers.get("content-encoding") == encoding
    again = {"If-None-Match": answer.headers["etag"]}
    assert server.request("GET", "/sdk/headrace.js", None, again).status == 304


# --- the way in ---------------------------------------------------------------------------------------------


def made_link(server, **headers) -> str:
    answer = server.post("/v1/page-link", {}, headers or own_key(server))
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    return answer.json["url"]


def code_in(link: str) -> str:
    return re.fullmatch(r"http://[^/]+/#code=([A-Za-z0-9_-]{43})", link)[1]


def test_a_link_brings_a_key_once_and_the_second_use_says_what_to_do(server):
    code = code_in(made_link(server))

    first, second = (server.post("/v1/page-session", {"code": code}) for _ in range(2))

    assert (first.status, first.headers["cache-control"]) == (200, "no-store")
    assert server.request("GET", "/v1/apps", None, {"Authorization": f"Key {first.json['key']}"}).status == 200
    assert (second.status, second.json["error_type"]) == (401, "unauthorized")
    assert "used before, or is older than ten minutes" in second.json["detail"]
    assert "headrace page" in second.json["detail"]
    assert code not in second.body.decode()


def test_a_tab_sees_the_requests_of_the_key_that_its_link_was_made_with(server):
    id_ = server.post("/zoo/zoo", {"n": 2}, own_key(server)).headers["x-fal-request-id"]
    session = server.post("/v1/page-session", {"code": code_in(made_link(server))}).json["key"]

    watched = server.request("GET", f"/zoo/zoo/requests/{id_}/stream", None, {"Authorization": f"Key {session}"})

    assert watched.status == 200


def test_what_a_link_brings_makes_no_further_link(server):
    session = server.post("/v1/page-session", {"code": code_in(made_link(server))}).json["key"]

    again = server.post("/v1/page-link", {}, {"Authorization": f"Key {session}"})

    assert (again.status, again.json["error_type"]) == (403, "forbidden")


@pytest.mark.parametrize("body", [{}, {"code": None}, {"code": 7}, {"code": ["x"]}])
def test_what_is_no_code_is_a_422(server, body):
    answer = server.post("/v1/page-session", body)

    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["body", "code"])


def test_a_stranger_may_send_no_more_than_a_code(server):
    answer = server.post("/v1/page-session", {"code": "x" * 70_000})

    assert (answer.status, answer.json["error_type"]) == (413, "payload_too_large")
    assert "65536 bytes" in answer.json["detail"]


def test_a_link_takes_a_key(server):
    assert server.post("/v1/page-link", {}).status == 401
    assert server.request("GET", "/v1/page-link", None, own_key(server)).status == 405
    assert server.request("GET", "/v1/page-session", None, own_key(server)).status == 405


def test_headrace_page_prints_a_link_that_works(server):
    printed = subprocess.run(
        [sys.executable, "-m", "headrace", "page", "--url", server.url],
        env=users_environment(server), capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    ).stdout.strip()  # fmt: skip

    assert printed.startswith(f"{server.url}/#code=")
    assert server.post("/v1/page-session", {"code": code_in(printed)}).status == 200


def test_a_log_does_not_hold_a_link(server):
    made_link(server)

    assert f"Its page is {server.url}/\n" in server.log
    assert "#code" not in server.log


def test_without_authentication_nothing_is_asked():
    with running_server() as server:
        assert server.post("/v1/page-link", {}).json == {"url": f"{server.url}/", "expires_at": None}
        assert server.post("/v1/page-session", {"code": "old"}).json == {"key": None, "expires_at": None}


def test_on_a_terminal_the_start_prints_a_link(tmp_path):
    """The server sees a terminal, and so the one who started it, who reads the code off it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "FAL_"))}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "serve", str(ROOT / "examples/hello_stream.py"), "--port", "0",
         "--data-dir", str(tmp_path / "data")],
        env={**environment, "XDG_CONFIG_HOME": str(tmp_path / "config")},
        cwd=tmp_path, stdout=follower, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(follower)
    try:
        said = _read_until(leader, b"demo/hello")
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        os.close(leader)

    assert re.search(rb"Its page is http://127\.0\.0\.1:\d+/#code=[\w-]{43}  \(once, within ten minutes\)", said)


def _read_until(terminal: int, text: bytes) -> bytes:
    said = b""
    deadline = time.monotonic() + STARTING_S
    while text not in said:
        readable, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert readable, f"no {text!r} in {said!r}"
        said += os.read(terminal, 65_536)
    return said
