"""Keys of a real server: who may call, what is kept, and how soon a key is gone."""

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import time

import pytest

from tests.support.server import RawStream, eventually, running_server


def key_of(server) -> str:
    credentials = (server.folder / "config" / "headrace" / "credentials").read_text()
    return re.search(r"hr_[a-z0-9]+:[A-Za-z0-9_-]+", credentials)[0]


def headrace(server, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *args, "--data-dir", str(server.folder / "data")],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "XDG_CONFIG_HOME": str(server.folder / "config")},
    )  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with running_server(args=()) as server:
        yield server


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Key", "Key ", "Key wrong", "Key a:b", "Basic YTpi", "Key hr_aaaaaaaaaaaa:wrong", "Bearer \u00e9"],
)
@pytest.mark.parametrize("path", ["/zoo/zoo", "/zoo/zoo/stream", "/nobody/here"])
def test_without_a_good_key_every_path_is_a_401(server, authorization, path):
    headers = {} if authorization is None else {"Authorization": authorization}

    answer = server.request("POST", path, {}, headers)

    assert (answer.status, answer.json["error_type"]) == (401, "unauthorized")
    assert "hr_" not in answer.json["detail"]


@pytest.mark.parametrize("scheme", ["Key", "Bearer", "key"])
def test_the_first_key_is_kept_for_the_user_and_opens_every_door(server, scheme):
    headers = {"Authorization": f"{scheme} {key_of(server)}"}

    assert server.request("POST", "/zoo/zoo", {}, headers).status == 200
    assert server.request("GET", "/v1/apps", None, headers).status == 200


def test_a_key_whose_bodies_come_slowly_keeps_nobody_else_out():
    body = json.dumps({"pad": "x" * 1_000_000}).encode()
    with (
        running_server(args=(), limits={"bodies_bytes_max": 5_000_000}) as server,
        contextlib.ExitStack() as open_now,
    ):
        made = headrace(server, "keys", "create", "--name", "other").stdout
        mine, other = (
            {"Authorization": f"Key {key}"} for key in (key_of(server), re.search(r"hr_\w+:\S+", made)[0])
        )
        for _ in range(2):  # all but its end, of each
            stream = open_now.enter_context(RawStream(server.port))
            head = f"POST /zoo/zoo HTTP/1.1\r\nHost: localhost\r\nAuthorization: {mine['Authorization']}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            stream.socket.sendall(head.encode() + body[:-1])
        eventually(lambda: bodies_of(server, mine) == 2 * (len(body) - 1), "two of half the room are held")

        refused, served = (server.post("/zoo/zoo", body, key) for key in (mine, other))

    assert (refused.status, refused.json["error_type"]) == (429, "overloaded")
    assert served.status == 200


def bodies_of(server, key: dict[str, str]) -> float:
    metrics = server.request("GET", "/metrics", None, key).body.decode()
    return float(re.search(r'headrace_held_bytes\{kind="bodies"\} (\S+)', metrics)[1])


def test_health_and_readiness_need_no_key(server):
    assert server.request("GET", "/health").status == 200
    assert server.request("GET", "/ready").status == 200


def test_the_server_keeps_hashes_alone_in_a_file_for_its_user(server):
    secret = key_of(server).partition(":")[2]
    path = server.folder / "data" / "keys.json"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((server.folder / "config" / "headrace" / "credentials").stat().st_mode) == 0o600
    assert secret not in path.read_text()
    assert json.loads(path.read_text())["keys"][0]["hash"]


def test_a_revoked_key_is_refused_within_two_seconds_without_a_restart(server):
    key = headrace(server, "keys", "create", "--name", "short").stdout.strip().splitlines()[-1]
    headers = {"Authorization": f"Key {key}"}
    deadline = time.monotonic() + 30
    while server.post("/zoo/zoo", {}, headers).status != 200:
        assert time.monotonic() < deadline

    headrace(server, "keys", "revoke", key.partition(":")[0])
    revoked_at = time.monotonic()
    while server.post("/zoo/zoo", {}, headers).status == 200:
        assert time.monotonic() < revoked_at + 30  # the promise is 2 s; the machine is shared

    assert server.post("/zoo/zoo", {}, headers).status == 401


def test_a_second_start_makes_no_second_key(tmp_path):
    kept = []
    for _ in range(2):
        with running_server(args=(), data_dir=tmp_path, until_ready=False):
            kept.append((tmp_path / "keys.json").read_text())

    assert len(json.loads(kept[0])["keys"]) == 1
    assert kept[0] == kept[1]


def test_without_authentication_any_key_or_none_is_good():
    with running_server() as server:
        assert server.post("/zoo/zoo").status == 200
        assert server.post("/zoo/zoo", {}, {"Authorization": "Key whatever"}).status == 200
