"""What browsers and fal's JavaScript client meet: CORS, the proxy route, forwarded addresses."""

import json

import pytest

from tests.support.server import data_events, running_server

PAGE = {"Origin": "http://localhost:3000"}
EVIL = {"Origin": "https://evil.example"}


@pytest.fixture(scope="module")
def server():
    with running_server(args=()) as server:
        yield server


def proxied(url: str, **headers: str) -> dict[str, str]:
    return {"x-fal-target-url": url, **headers}


def test_a_preflight_from_a_local_page_is_answered_without_a_key(server):
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-fal-target-url",
    }

    answer = server.request("OPTIONS", "/zoo/zoo/stream", None, {**PAGE, **asked})

    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type,x-fal-target-url"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["x-fal-request-id"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "GET"])
@pytest.mark.parametrize("path", ["/zoo/zoo/stream", "/zoo/zoo", "/fal/proxy", "/health"])
def test_a_foreign_page_is_refused_whatever_it_asks(server, method, path):
    answer = server.request(method, path, None, {**EVIL, "Access-Control-Request-Method": "POST"})

    assert (answer.status, answer.json["error_type"]) == (403, "forbidden")
    assert "access-control-allow-origin" not in answer.headers


def test_a_foreign_page_runs_no_model_even_without_authentication():
    with running_server() as server:
        simple = {**EVIL, "Content-Type": "text/plain"}
        answer = server.request("POST", "/zoo/zoo", b'{"name": "evil"}', simple)

        assert answer.status == 403
        assert "start evil" not in server.notes()


def test_errors_carry_the_cors_headers_too(server):
    answer = server.request("POST", "/nobody/here", {}, PAGE)

    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "x-fal-request-id" in answer.headers["access-control-expose-headers"]


def test_the_proxy_adds_the_key_for_a_local_page_and_streams(server):
    with server.open("/fal/proxy", {"n": 1}, proxied("https://fal.run/zoo/zoo/stream", **PAGE)) as stream:
        stream.read_until(b"0\r\n\r\n")

    assert data_events(stream.body) == [{"i": 0}, {"total": 1}]
    assert b"access-control-allow-origin: http://localhost:3000" in stream.head


def test_the_proxy_adds_no_key_for_a_program_or_over_a_wrong_one(server):
    target = "https://fal.run/zoo/zoo"

    assert server.post("/fal/proxy", {}, proxied(target)).status == 401
    assert server.post("/fal/proxy", {}, proxied(target, Authorization="Key a:b", **PAGE)).status == 401
    assert server.post("/fal/proxy", {}, proxied(target, **PAGE)).json == {"total": 3}
    assert server.post("/zoo/zoo", {}, PAGE).status == 401


def test_the_proxy_passes_statuses_and_shapes_unchanged(server):
    wrong = server.post("/fal/proxy", {"n": -1}, proxied("https://fal.run/zoo/zoo/stream", **PAGE))
    unknown = server.post("/fal/proxy", {}, proxied("https://fal.run/nobody/here", **PAGE))
    foreign = server.post("/fal/proxy", {}, proxied("https://evil.example/zoo/zoo", **PAGE))
    missing = server.post("/fal/proxy", {}, PAGE)

    assert wrong.json["detail"][0]["loc"] == ["body", "n"]
    assert [wrong.status, unknown.status, foreign.status, missing.status] == [422, 404, 412, 400]


def test_the_proxy_cannot_be_its_own_target(server):
    answer = server.post("/fal/proxy", {}, proxied("https://fal.run/fal/proxy", **PAGE))

    assert answer.status == 404


def test_a_page_without_a_key_is_nobody_for_whom_a_link_could_be_made(server):
    answer = server.post("/fal/proxy", {}, proxied("https://fal.run/v1/page-link", **PAGE))

    assert (answer.status, answer.json["error_type"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    "path",
    ["/v1/page-session", "/v1/apps", "/metrics", "/webhooks", "/files/upload", "/storage/auth/token", "/llms.txt",
     "/zoo/zoo/requests/no/token", "/zoo/zoo/requests/no/stream", "/health", "/", "/storage/upload/" + "0" * 32],
)  # fmt: skip
def test_no_route_fails_for_want_of_an_owner(server, path):
    answer = server.post("/fal/proxy", {}, proxied(f"https://rest.fal.ai{path}", **PAGE))

    assert answer.status < 500


def test_other_origins_and_hosts_are_the_operators_to_name():
    args = ("--no-auth", "--origin", "https://app.example.org", "--allowed-host", "api.example.org")
    with running_server(args=args) as server:
        listed = server.post("/zoo/zoo", {}, {"Origin": "https://app.example.org", "Host": "api.example.org"})
        unlisted = server.post("/zoo/zoo", {}, {"Host": "other.example.org"})

    assert (listed.status, unlisted.status) == (200, 400)


def test_the_schema_names_the_public_address():
    with running_server(args=("--no-auth", "--public-url", "https://api.example.org/")) as server:
        document = server.request("GET", "/zoo/zoo/openapi.json").json

    assert document["servers"] == [{"url": "https://api.example.org"}]


def test_a_server_on_loopback_answers_to_its_public_name_behind_a_proxy():
    with running_server(args=("--no-auth", "--public-url", "https://api.example.org")) as server:
        public = server.post("/zoo/zoo", {}, {"Host": "api.example.org"})
        other = server.post("/zoo/zoo", {}, {"Host": "other.example.org"})

    assert (public.status, other.status) == (200, 400)


def test_a_trusted_proxy_says_what_the_address_is():
    told = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "api.example.org"}
    with running_server(args=("--no-auth", "--trusted-proxy", "127.0.0.0/8")) as server:
        trusting = server.request("GET", "/zoo/zoo/openapi.json", None, told).json["servers"]
    with running_server() as server:
        untrusting = server.request("GET", "/zoo/zoo/openapi.json", None, told).json["servers"]

    assert trusting == [{"url": "https://api.example.org"}]
    assert untrusting == [{"url": server.url}]


def test_a_runner_gets_a_withheld_variable_by_name_or_a_clean_environment():
    env = {"FAL_KEY": "a:b", "OTHER": "x", "TOKEN": "t"}
    with running_server(args=("--no-auth", "--env", "FAL_KEY"), env=env) as server:
        named = set(server.post("/zoo/zoo/environment").json["names"])
    with running_server(args=("--no-auth", "--clean-env", "--env", "TOKEN,ZOO_NOTES"), env=env) as server:
        clean = set(server.post("/zoo/zoo/environment").json["names"])

    assert {"FAL_KEY", "OTHER"} <= named
    assert {"TOKEN", "PATH"} <= clean
    assert not {"FAL_KEY", "OTHER"} & clean
    assert json.dumps(sorted(clean)).count("HEADRACE") == 0
