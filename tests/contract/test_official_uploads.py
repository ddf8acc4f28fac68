"""Files that fal's own clients send: by each of their routes, whole and in parts."""

import base64
import hashlib
import json
import re
import subprocess
import sys

import pytest

from tests.support.official import CLIENTS, OfficialServer, need_node, official_server
from tests.support.server import ROOT, Answer

#: One program makes all the uploads of a client, with a second between each of them on a busy machine.
pytestmark = pytest.mark.timeout(300)

MODELS = ROOT / "tests" / "contract" / "models" / "pictures.py"

SMALL = b"\x89PNG\r\n\x1a\n and no picture"
#: Parts that differ, so that a wrong order would be seen.
LARGE = b"".join(b"%07d " % n for n in range(200_000))
PART = 100_000

LIMITS = {"files_spare_bytes": 1}

#: Bytes over the sizes from which both clients send parts: 90 and 100 MiB.
WHOLE_SIZE = 101 * 1024 * 1024


@pytest.fixture(scope="module")
def served():
    with official_server(MODELS, limits=LIMITS) as served:
        yield served


def ran(command: list[str], folder, to: OfficialServer, calls: object, timeout: float) -> dict[str, dict]:
    process = subprocess.run(
        command, cwd=folder, env=to.environment, input=json.dumps(calls), capture_output=True, text=True,
        timeout=timeout,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return {line["name"]: line for line in map(json.loads, process.stdout.splitlines())}


def python(to: OfficialServer, *calls: dict, timeout: float = 200.0) -> dict[str, dict]:
    return ran([sys.executable, str(CLIENTS / "files.py")], to.server.folder, to, calls, timeout)


def javascript(to: OfficialServer, *calls: dict, timeout: float = 200.0) -> dict[str, dict]:
    source = (CLIENTS / "files.mjs").read_text()
    return ran(["node", "--input-type=module", "--eval", source], need_node(), to, calls, timeout)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def fetched(to: OfficialServer, line: dict) -> Answer:
    """The file behind a URL that a client was given; the URL leads here, by the address that the client knows."""
    found = re.fullmatch(r"(https?)://(?:localhost|127\.0\.0\.1):(\d+)(/files/.+)", line.get("url", str(line)))
    assert found, line
    assert (found[1], int(found[2])) in {("http", to.server.port), ("https", to.tls_port)}
    return to.server.request("GET", found[3])


def lifetime_s(answer: Answer) -> int:
    return int(re.search(r"max-age=(\d+)", answer.headers["cache-control"])[1])


# --- Python -----------------------------------------------------------------------------------------------------

V3 = {"repository": "fal_v3", "fallback_repository": "fal_v3"}
STORAGE = {"repository": "fal", "fallback_repository": "fal"}
FEW = (1_000_000, PART)


@pytest.fixture(scope="module")
def by_python(served, tmp_path_factory):
    """All of them by one program: starting one takes a second."""
    large = tmp_path_factory.mktemp("files") / "large.csv"
    large.write_bytes(LARGE)
    small = [text(SMALL), "image/png", "a cat.png"]
    both = lambda name, kind, **more: [  # noqa: E731
        {"name": name, "kind": kind, **more},
        {"name": f"{name} async", "kind": f"{kind}_async", **more},
    ]
    calls = [
        *both("bytes", "upload", arguments=small, options=V3),
        *both("bytes to storage", "upload", arguments=small, options=STORAGE),
        *both("large bytes", "upload", arguments=[text(LARGE), "text/csv", "large.csv"], options=V3, multipart=FEW),
        *both("large file", "upload_file", arguments=[str(large)], options=V3, multipart=FEW),
        *both("file", "upload_file", arguments=[str(large)], options=V3),
        *both("image", "upload_image", arguments=["png"], options=V3),
        *both("for an hour", "upload", arguments=small, options=V3, expires_in="1h"),
        *both("for an hour in storage", "upload", arguments=small, options=STORAGE, expires_in="1h"),
        *both(
            "large for an hour", "upload", arguments=[text(LARGE), "a/b", "x"], options=V3, multipart=FEW,
            expires_in="1h",
        ),
    ]  # fmt: skip
    return python(served, *calls)


both_colours = pytest.mark.parametrize("colour", ["", " async"], ids=["sync", "async"])


@both_colours
@pytest.mark.parametrize("route", ["bytes", "bytes to storage"])
def test_python_uploads_bytes_by_both_of_its_routes(served, by_python, route, colour):
    line = by_python[route + colour]
    answer = fetched(served, line)

    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, SMALL, "image/png")
    assert line["url"].endswith("/a%20cat.png")


@both_colours
@pytest.mark.parametrize("kind", ["large bytes", "large file", "file"])
def test_python_uploads_a_large_file_in_parts_that_come_in_any_order(served, by_python, kind, colour):
    line = by_python[kind + colour]

    assert fetched(served, line).body == LARGE
    assert line["url"].endswith("/large.csv")


@both_colours
def test_python_uploads_an_image(served, by_python, colour):
    answer = fetched(served, by_python["image" + colour])

    assert (answer.body, answer.headers["content-type"]) == (b"an image as png", "image/png")


@both_colours
@pytest.mark.parametrize("route", ["for an hour", "for an hour in storage", "large for an hour"])
def test_pythons_lifecycle_is_kept_to(served, by_python, route, colour):
    assert 3_000 < lifetime_s(fetched(served, by_python[route + colour])) <= 3_600


def test_python_gets_no_token_for_a_wrong_key(served):
    wrong = {**served.environment, "FAL_KEY": "hr_aaaaaaaaaaaa:wrong"}
    to = OfficialServer(served.server, served.tls_port, wrong)

    line = python(to, {"name": "x", "kind": "upload", "arguments": [text(b"x"), "text/plain"], "options": STORAGE})

    assert line["x"]["error"]["status"] == 401


# --- JavaScript -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_javascript(served):
    small = {"content": text(SMALL), "type": "image/png", "file_name": "a cat.png"}
    large = {"content": text(LARGE), "type": "text/csv", "file_name": "large.csv", "parts": 11}
    calls = [
        {**call, "name": name + way, **more}
        for name, call in {
            "bytes": small,
            "nameless": {"content": text(b"{}"), "type": "application/json"},
            "for an hour": {**small, "expires_in": "1h"},
            "in an input": {**small, "run": "fal-ai/pictures"},
            "large": large,
            "large for an hour": {**large, "expires_in": 3600},
        }.items()
        for way, more in {" redirected": {}, " by proxy": {"proxy": served.proxy_url}}.items()
    ]
    return javascript(served, *calls)


both_ways = pytest.mark.parametrize("way", [" redirected", " by proxy"])


@both_ways
def test_javascript_uploads_a_blob(served, by_javascript, way):
    line = by_javascript["bytes" + way]
    answer = fetched(served, line)

    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, SMALL, "image/png")
    assert line["url"].endswith("/a%20cat.png")


@both_ways
def test_a_blob_in_an_input_comes_to_the_model_as_a_url(served, by_javascript, way):
    line = by_javascript["in an input" + way]

    assert fetched(served, {"url": line["result"]["given"]}).body == SMALL
    assert line["result"]["given_bytes"] == len(SMALL)


@both_ways
def test_a_blob_without_a_name_gets_one_that_says_what_it_is(served, by_javascript, way):
    line = by_javascript["nameless" + way]

    assert fetched(served, line).body == b"{}"
    assert re.search(r"/\d+\.json$", line["url"])


@both_ways
def test_javascript_uploads_a_large_blob_in_parts(served, by_javascript, way):
    line = by_javascript["large" + way]

    assert fetched(served, line).body == LARGE
    assert line["url"].endswith("/large.csv")


@both_ways
@pytest.mark.parametrize("size", ["", "large "])
def test_javascripts_lifecycle_is_kept_to(served, by_javascript, size, way):
    assert 3_000 < lifetime_s(fetched(served, by_javascript[f"{size}for an hour{way}"])) <= 3_600


# --- as large as they come --------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_files_over_a_hundred_megabytes_arrive_whole(served, request, tmp_path):
    if not request.config.getoption("full"):
        pytest.skip("moves 300 MB; part of a full run (--full)")
    large = tmp_path / "large.bin"
    large.write_bytes((b"headrace " * (WHOLE_SIZE // 9 + 1))[:WHOLE_SIZE])
    hash = hashlib.sha256(large.read_bytes()).hexdigest()
    calls = [{"name": name, "kind": name, "arguments": [str(large)], "options": V3} for name in
             ("upload_file", "upload_file_async")]  # fmt: skip

    lines = python(served, *calls, timeout=250)
    lines |= javascript(served, {"name": "javascript", "size": WHOLE_SIZE, "type": "a/b"}, timeout=250)

    assert lines["javascript"]["hash"] == hash
    digests = {name: fetched(served, line).headers["etag"].strip('"') for name, line in lines.items()}
    assert digests == dict.fromkeys(("upload_file", "upload_file_async", "javascript"), hash)
