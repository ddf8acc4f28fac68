"""A token lets its bearer watch one request, and do nothing else."""

import re
import subprocess
import sys

import pytest

from tests.support.official import key_of, users_environment
from tests.support.server import PATIENCE_S, RawStream, data_events, eventually, running_server

COUNTED = [{"i": 0}, {"i": 1}, {"total": 2}]


@pytest.fixture(scope="module")
def server():
    with running_server(args=("--log-level", "debug")) as server:
        yield server


def own_key(server) -> dict[str, str]:
    return {"Authorization": f"Key {key_of(server)}"}


def another_key(server) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "headrace", "keys", "create", "--name", "other", "--data-dir", str(server.folder / "data")],
        env=users_environment(server), capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    found = re.search(r"hr_[a-z2-7]{12}:\S+", made.stdout)
    assert found, made.stdout
    return found[0]


def finished(server, headers=None) -> str:
    """The path of a request that is over."""
    answer = server.post("/zoo/zoo/async", {"n": 2}, headers or own_key(server))
    assert answer.status == 200, answer.body
    return f"/zoo/zoo/requests/{answer.headers['x-fal-request-id']}"


def token_for(server, path, headers=None, **body) -> str:
    answer = server.post(f"{path}/token", body, headers or own_key(server))
    assert answer.status == 200, answer.body
    return answer.json["token"]


def watch(server, path, token):
    return server.request("GET", f"{path}/stream?fal_jwt_token={token}")


def test_with_a_token_and_no_key_a_request_can_be_watched(server):
    path = finished(server)

    watched = watch(server, path, token_for(server, path))

    assert (watched.status, data_events(watched.body)) == (200, COUNTED)
    assert b"id: " in watched.body
    assert server.request("GET", f"{path}/stream").status == 401


def test_a_token_goes_on_behind_the_last_event_too(server):
    path = finished(server)
    id_ = path.rpartition("/")[2]

    watched = server.request("GET", f"{path}/stream?fal_jwt_token={token_for(server, path)}&after={id_}.1.1")

    assert data_events(watched.body) == [{"total": 2}]


def test_its_answer_says_when_it_expires_and_is_kept_by_no_cache(server):
    path = finished(server)

    answer = server.post(f"{path}/token", {"expires_in": 60}, own_key(server))
    default = server.post(f"{path}/token", None, own_key(server))

    assert set(answer.json) == {"token", "expires_at"}
    assert 3_500 < default.json["expires_at"] - answer.json["expires_at"] <= 3_600
    assert answer.headers["cache-control"] == "no-store"
    assert re.fullmatch(r"[A-Za-z0-9._-]+", answer.json["token"])


@pytest.mark.parametrize("expires_in", [0, -1, 86_401, 1.5, "60", True, None])
def test_a_life_that_is_none_is_a_422_that_names_the_field(server, expires_in):
    answer = server.post(f"{finished(server)}/token", {"expires_in": expires_in}, own_key(server))

    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["body", "expires_in"])


def test_it_opens_nothing_but_the_stream_of_its_request(server):
    path = finished(server)
    submitted = server.post("/queue/zoo/zoo/async", {"n": 1}, own_key(server)).json["request_id"]
    queued = f"/zoo/zoo/requests/{submitted}"
    token, queued_token = token_for(server, path), token_for(server, queued)

    def status(method: str, to: str, token: str) -> int:
        body = {"n": 1, "name": "by token"} if method == "POST" else None
        return server.request(method, f"{to}?fal_jwt_token={token}", body).status

    refused = [
        *(("POST", f"{path}{action}", token) for action in ("/stream", "/token")),
        *(("POST", to, token) for to in ("/zoo/zoo/async", "/zoo/zoo/async/stream", "/queue/zoo/zoo/async")),
        *((method, f"{path}{action}", token) for method, action in [("PUT", "/cancel"), ("DELETE", "/token")]),
        *(("GET", to, token) for to in ("/v1/apps", "/metrics", "/zoo/zoo/openapi.json", "/fal/proxy")),
        *(("GET", f"/queue{queued}{action}", queued_token) for action in ("", "/status", "/status/stream", "/stream")),
        ("PUT", f"/queue{queued}/cancel", queued_token),
        ("HEAD", f"{path}/stream", token),
    ]  # fmt: skip
    assert [(case, status(*case)) for case in refused if status(*case) != 401] == []
    assert "start by token" not in server.notes()
    assert watch(server, queued, queued_token).status == 200


def test_the_proxy_route_takes_no_token_either(server):
    path = finished(server)
    target = f"https://fal.run{path}/stream?fal_jwt_token={token_for(server, path)}"

    assert server.request("GET", "/fal/proxy", None, {"x-fal-target-url": target}).status == 401


@pytest.mark.promise("P4")
def test_another_requests_or_appss_or_a_malformed_token_is_a_401_before_any_event(server):
    path, other = finished(server), finished(server)
    token = token_for(server, path)

    wrong = [
        token_for(server, other),
        "",
        "x",
        token[:-1],
        token + "x",
        token.upper(),
        "%00",
        "a" * 4_000,
        f"{token}%0a",
    ]
    answers = [watch(server, path, one) for one in wrong]
    answers.append(
        watch(server, path.replace("/zoo/zoo/", "/zoo/zoo/async/").replace(path[-36:], other[-36:]), token)
    )

    assert {(one.status, one.json["error_type"]) for one in answers} == {(401, "unauthorized")}
    assert not any(b"data:" in one.body for one in answers)
    assert watch(server, path.replace("/zoo/zoo/", "/zoo/single/"), token).status == 404


@pytest.mark.promise("P4")
def test_an_expired_token_is_a_401(server):
    path = finished(server)
    token = token_for(server, path, expires_in=1)

    eventually(lambda: watch(server, path, token).status == 401, "it expires")

    assert watch(server, path, token).json["detail"] == "This token has expired."


@pytest.mark.promise("P4")
def test_a_revocation_ends_all_tokens_of_the_request_and_new_ones_can_be_made(server):
    path, other = finished(server), finished(server)
    first, second, others = token_for(server, path), token_for(server, path), token_for(server, other)

    revoked = server.request("DELETE", f"{path}/token", None, own_key(server))

    assert (revoked.status, revoked.body) == (204, b"")
    assert [watch(server, path, one).status for one in (first, second)] == [401, 401]
    assert watch(server, path, token_for(server, path)).status == 200
    assert watch(server, other, others).status == 200


def test_a_token_ends_with_the_key_that_made_it(server):
    key = another_key(server)
    headers = {"Authorization": f"Key {key}"}
    eventually(lambda: server.post("/zoo/zoo/async", {"n": 2}, headers).status == 200, "the new key is known")
    path = finished(server, headers)
    token = token_for(server, path, headers)
    assert watch(server, path, token).status == 200

    subprocess.run(
        [sys.executable, "-m", "headrace", "keys", "revoke", key.partition(":")[0],
         "--data-dir", str(server.folder / "data")],
        env=users_environment(server), capture_output=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip

    eventually(lambda: watch(server, path, token).status == 401, "its tokens are void")


def test_another_keys_request_is_as_unknown_as_any(server):
    headers = {"Authorization": f"Key {another_key(server)}"}
    path = finished(server)
    eventually(lambda: server.post("/zoo/zoo/async", {"n": 0}, headers).status == 200, "the new key is known")

    for method in ("POST", "DELETE"):
        assert server.request(method, f"{path}/token", None, headers).status == 404
    unknown = "/zoo/zoo/requests/0f8fad5b-d9cb-469f-a165-70867728950e/token"
    assert server.request("POST", unknown, None, own_key(server)).status == 404


def test_a_request_that_still_runs_is_watched_to_its_end_by_token(server):
    with server.open("/zoo/zoo/async/stream", {"n": 3, "pause": 0.3}, own_key(server)) as stream:
        stream.read_until(b"data: ")
        id_ = re.search(rb"x-fal-request-id: (\S+)", stream.head)[1].decode()
        path = f"/zoo/zoo/requests/{id_}"
        watched = watch(server, path, token_for(server, path))

    assert data_events(watched.body) == [{"i": 0}, {"i": 1}, {"i": 2}, {"total": 3}]


def test_no_token_is_ever_in_the_log(server):
    path = finished(server)
    token = token_for(server, path)
    watch(server, path, token)
    watch(server, path, f"{token}x")
    with RawStream(server.port) as broken:
        broken.socket.sendall(f"GET {path}/stream?fal_jwt_token={token} HTTP/1.1\r\nHost: a b\r\n\r\n".encode())
        broken.read_to_end()

    assert token.rpartition(".")[2] not in server.log
    assert "fal_jwt_token" not in server.log


def test_tokens_of_queued_requests_and_their_revocations_survive_a_restart(tmp_path):
    with running_server(args=(), data_dir=tmp_path) as server:
        headers = own_key(server)
        paths = [
            f"/zoo/zoo/requests/{server.post('/queue/zoo/zoo/async', {'n': 2, 'pause': n}, headers).json['request_id']}"
            for n in (0, 0.01)
        ]
        good, revoked = (token_for(server, path) for path in paths)
        server.request("DELETE", f"{paths[1]}/token", None, headers)
        for path in paths:
            done = f"/queue{path}/status"
            eventually(lambda: server.request("GET", done, None, headers).status == 200, "it is done")  # noqa: B023

    with running_server(args=(), data_dir=tmp_path) as server:
        watched = watch(server, paths[0], good)
        assert (watched.status, data_events(watched.body)) == (200, COUNTED)
        assert watch(server, paths[1], revoked).status == 401


def test_where_no_key_is_needed_no_token_is():
    with running_server() as server:
        path = finished(server, {"Accept": "*/*"})

        assert watch(server, path, "whatever").status == 200
