"""What a real server answers: statuses, shapes and headers, before any event."""

import contextlib
import json
import pathlib
import re
import socket
import time

import pytest

from tests.support.server import PATIENCE_S, eventually, running_server


@pytest.fixture(scope="module")
def server():
    with running_server() as server:
        yield server


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/zoo/zoo", {"total": 2}),
        ("/zoo/zoo/", {"total": 2}),
        ("/zoo/zoo/async", {"total": 2}),
        ("/zoo/zoo/def", {"total": 2}),
        ("/zoo/zoo/async-def", {"total": 2}),
        ("/zoo/zoo/steps", {"total": 2}),
        ("/zoo/zoo/chat", {"i": 1}),
        ("/workflows/zoo/flow/sub/path", {"flow": True}),
        ("/zoo/lazy", {"lazy": True}),
    ],
)
def test_run_answers_with_the_last_item_of_every_kind_of_endpoint(server, path, expected):
    answer = server.post(path, {"n": 2})

    assert (answer.status, answer.json) == (200, expected)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/zoo/zoo", {}, 200),
        ("GET", "/health", None, 200),
        ("HEAD", "/health", None, 200),
        ("GET", "/ready", None, 200),
        ("GET", "/v1/apps", None, 200),
        ("GET", "/zoo/zoo/openapi.json", None, 200),
        ("GET", "/zoo/zoo/llms.txt", None, 200),
        ("GET", "/zoo/none/llms.txt", None, 404),
        ("POST", "/llms.txt", {}, 405),
        ("POST", "/nobody/here", {}, 404),
        ("POST", "/zoo", {}, 404),
        ("POST", "/", {}, 404),
        ("POST", "/zoo/zoo/unknown", {}, 404),
        ("POST", "/zoo//zoo", {}, 404),
        ("POST", "//zoo/zoo", {}, 404),
        ("POST", "/zoo/zoo/%2e%2e/zoo", {}, 404),
        ("POST", "/zoo/zoo;x", {}, 404),
        ("POST", "/zoo/zoo/%00", {}, 404),
        ("GET", "/zoo/zoo", None, 405),
        ("PUT", "/zoo/zoo/stream", {}, 405),
        ("DELETE", "/health", None, 405),
        ("POST", "/ready", {}, 405),
        ("POST", "/zoo/zoo", b"{", 422),
        ("POST", "/zoo/zoo", b"[1]", 422),
        ("POST", "/zoo/zoo/stream", b'{"a":' * 1_000, 422),
        ("POST", "/zoo/zoo", {"n": "many"}, 422),
        ("POST", "/zoo/zoo/stream", {"n": -1}, 422),
        ("POST", "/zoo/zoo/raise-first", {}, 500),
        ("POST", "/zoo/zoo/raise-first/stream", {}, 500),
        ("POST", "/zoo/zoo/nothing", {}, 500),
    ],
)
def test_every_answer_has_its_status_and_a_request_id(server, method, path, body, status):
    answer = server.request(method, path, body)

    assert answer.status == status
    assert UUID.fullmatch(answer.headers["x-fal-request-id"])
    if status >= 400:
        assert answer.headers["x-fal-error-type"] == answer.json["error_type"]
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["detail"]


def test_a_wrong_method_is_told_which_are_right(server):
    assert server.request("GET", "/zoo/zoo").headers["allow"] == "POST"
    assert server.request("POST", "/health", {}).headers["allow"] == "GET, HEAD"
    assert server.request("GET", "/zoo/zoo").json["detail"] == "Method Not Allowed"


def test_a_wrong_field_is_told_where_it_is_as_fal_tells_it(server):
    answer = server.post("/zoo/zoo/stream", {"n": -1})

    [error] = answer.json["detail"]
    assert (error["loc"], error["type"]) == (["body", "n"], "greater_than_equal")
    assert error["msg"]


def test_unknown_fields_of_the_input_are_ignored(server):
    assert server.post("/zoo/zoo", {"n": 1, "negative_prompt": "none"}).status == 200


def test_no_body_at_all_is_an_empty_object(server):
    assert server.request("POST", "/zoo/zoo").json == {"total": 3}


def test_a_body_must_say_that_it_is_json(server):
    answer = server.request("POST", "/zoo/zoo", b"{}", {"Content-Type": "application/x-www-form-urlencoded"})

    assert (answer.status, answer.json["error_type"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json["detail"]


def test_a_body_over_the_limit_is_refused_before_it_is_read(server):
    answer = server.request("POST", "/zoo/zoo", None, {"Content-Length": str(11 * 1024 * 1024)})

    assert (answer.status, answer.json["error_type"]) == (413, "payload_too_large")
    assert answer.headers["connection"] == "close"


def test_a_body_just_under_the_limit_reaches_the_app_whole(server):
    text = "x" * (10 * 1024 * 1024 - 100)

    answer = server.post("/zoo/zoo/request", {"text": text})

    assert answer.status == 200
    assert answer.json["input"] == {"text": text}


def test_an_endpoint_without_a_stream_view_says_which_views_it_has(server):
    answer = server.post("/zoo/zoo/def/stream", {})

    assert answer.status == 404
    assert "run at /zoo/zoo/def" in answer.json["detail"]
    assert "stream at /zoo/zoo/def" not in answer.json["detail"]


def test_a_path_that_ends_in_stream_is_the_stream_view_and_has_no_run_view(server):
    assert server.post("/zoo/zoo/own/stream", {"n": 1}).headers["content-type"].startswith("text/event-stream")
    assert server.post("/zoo/zoo/own", {"n": 1}).status == 404
    assert server.post("/zoo/zoo/own/stream/stream", {"n": 1}).status == 404


def test_a_stream_may_have_a_path_of_its_own(server):
    assert server.post("/zoo/zoo/talk", {"n": 1}).headers["content-type"].startswith("text/event-stream")
    assert server.post("/zoo/zoo/chat/stream", {"n": 1}).status == 404


def test_an_apps_own_words_and_status_reach_the_caller(server):
    refused, field = server.post("/zoo/zoo/refuse"), server.post("/zoo/zoo/field")

    assert (refused.status, refused.json["detail"]) == (409, "no pictures today")
    assert field.status == 422
    assert field.json["detail"] == [{"loc": ["body", "prompt"], "msg": "too rude", "type": "value_error"}]


def test_the_text_of_an_unexpected_exception_stays_on_the_server(server):
    answer = server.post("/zoo/zoo/raise-first")

    assert b"secret" not in answer.body
    assert answer.json["request_id"] == answer.headers["x-fal-request-id"]
    eventually(lambda: "ValueError: a secret of the model" in server.log, "the log has its traceback")
    eventually(lambda: answer.json["request_id"] in server.log, "the log has its id")


def test_the_app_sees_its_request_but_not_the_callers_key(server):
    answer = server.post(
        "/zoo/zoo/request", {"a": 1}, {"Authorization": "Key a:b", "X-Fal-Runner-Hint": "h", "Cookie": "c"}
    )

    assert answer.json["id"] == answer.headers["x-fal-request-id"]
    assert answer.json["headers"]["x-fal-runner-hint"] == "h"
    assert not {"authorization", "cookie"} & set(answer.json["headers"])
    assert answer.json["input"] == {"a": 1}


def test_a_runner_cannot_read_the_servers_keys():
    secrets = {
        "HEADRACE_LOG_LEVEL": "info",
        "FAL_KEY": "a:b",
        "FAL_KEY_ID": "a",
        "FAL_KEY_SECRET": "b",
        "OTHER": "x",
    }
    with running_server(env=secrets) as server:
        answer = server.post("/zoo/zoo/environment").json

    seen = set(answer["names"]) | {entry.partition("=")[0] for entry in answer["parent"].split("\0")}
    assert "OTHER" in seen
    assert not [name for name in seen if name.startswith(("HEADRACE_", "FAL_KEY"))]


def test_openapi_names_inputs_results_and_the_items_of_the_stream(server):
    document = server.request("GET", "/zoo/zoo/openapi.json").json

    stream = document["paths"]["/zoo/zoo/stream"]["post"]
    items = stream["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]
    run = document["paths"]["/zoo/zoo"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    schemas = document["components"]["schemas"]
    assert {reference["$ref"].rpartition("/")[2] for reference in items["anyOf"]} == {"Word", "Result"}
    assert json.dumps(run).count("Result") >= 1 or run["title"] == "Result"
    assert "i" in schemas["Word"]["properties"]
    assert "/zoo/zoo/def/stream" not in document["paths"]
    assert "/zoo/zoo/own" not in document["paths"]


def test_machines_are_told_in_markdown_what_there_is_and_how_to_call_it(server):
    index = server.request("GET", "/llms.txt")
    links = re.findall(r"\]\((\S+)\)", index.body.decode())
    pages = [server.request("GET", link.removeprefix(server.url)).body.decode() for link in links]

    assert "text/markdown; charset=utf-8" == index.headers["content-type"]
    assert 4 == len(pages)
    assert any(f"- stream: `POST {server.url}/zoo/zoo/stream`" in page for page in pages)


def test_every_reference_in_the_openapi_document_leads_somewhere(server):
    document = server.request("GET", "/zoo/zoo/openapi.json").json

    for reference in set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))):
        here = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]
        assert here


def test_the_list_of_apps_names_each_endpoints_views(server):
    apps = {app["name"]: app for app in server.request("GET", "/v1/apps").json["apps"]}

    assert set(apps) == {"zoo/zoo", "zoo/single", "zoo/lazy", "workflows/zoo/flow"}
    views = {endpoint["path"]: endpoint["views"] for endpoint in apps["zoo/zoo"]["endpoints"]}
    assert views["/"] == {"run": "/zoo/zoo", "stream": "/zoo/zoo/stream", "queue": "/queue/zoo/zoo"}
    assert views["/def"] == {"run": "/zoo/zoo/def", "stream": None, "queue": "/queue/zoo/zoo/def"}
    assert views["/own/stream"] == {
        "run": None,
        "stream": "/zoo/zoo/own/stream",
        "queue": "/queue/zoo/zoo/own/stream",
    }
    assert views["/chat"] == {"run": "/zoo/zoo/chat", "stream": "/zoo/zoo/talk", "queue": "/queue/zoo/zoo/chat"}


def test_the_openapi_document_names_the_same_views(server):
    for app in server.request("GET", "/v1/apps").json["apps"]:
        document = server.request("GET", f"/{app['name']}/openapi.json").json
        views = {
            (view, path)
            for endpoint in app["endpoints"]
            for view, path in endpoint["views"].items()
            if path is not None
        }
        told = {(item["post"]["operationId"].partition(":")[0], path) for path, item in document["paths"].items()}

        assert views == told


def test_every_view_that_is_named_is_there(server):
    for app in server.request("GET", "/v1/apps").json["apps"]:
        for endpoint in app["endpoints"]:
            for path in filter(None, endpoint["views"].values()):
                assert server.request("GET", path).status == 405, path  # it is there, and wants POST


def test_an_alias_serves_the_same_app():
    with running_server(args=("--no-auth", "--alias", "fal-ai/flux=zoo/zoo")) as server:
        assert server.post("/fal-ai/flux", {"n": 1}).json == {"total": 1}
        assert server.post("/zoo/zoo", {"n": 1}).json == {"total": 1}


def test_an_app_with_min_concurrency_0_is_set_up_by_its_first_request():
    with running_server() as server:
        before = server.saw("lazy setup")()
        answer = server.post("/zoo/lazy")

        assert (before, answer.status, server.saw("lazy setup")()) == (False, 200, True)


RAW = [
    (b"NONSENSE\r\n\r\n", 400),
    (b"POST /zoo/zoo HTTP/1.1\r\n\r\n", 400),
    (b"POST /zoo/zoo HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    (b"POST /zoo/zoo HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400),
    (b"POST http://localhost/zoo/zoo HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (
        b"POST /zoo/zoo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        400,
    ),
    (b"POST /zoo/zoo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 1\r\n\r\n{", 400),
    (b"POST /zoo/zoo HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400),
    (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 17_000 + b"\r\n\r\n", 431),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
    (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
        + b"".join(b"X%d: %b\r\n" % (i, b"x" * 8_000) for i in range(6)),
        431,
    ),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000, 431),
]


@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize(("sent", "status"), RAW)
def test_malformed_http_is_refused_in_json_and_the_connection_closed(server, sent, status, is_bytewise):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
        received = b""
        # What we still send may meet a closed socket; the answer has come before, and can be read all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if is_bytewise and len(sent) < 1_000:
                for at in range(len(sent)):
                    client.sendall(sent[at : at + 1])
            else:
                client.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65_536):
                received += piece

    head, _, body = received.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"connection: close" in head.lower()
    assert b"x-fal-request-id: " in head.lower()
    assert json.loads(body)["detail"]


def test_a_connection_that_never_finishes_its_headers_is_closed():
    with running_server(limits={"header_timeout_s": 0.3}) as server:
        for sent in (b"", b"POST /zoo/zoo HTTP/1.1\r\nHost: loc"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
                client.sendall(sent)

                with contextlib.suppress(ConnectionResetError):  # a server that was held up had not read it yet
                    assert client.recv(1_000) == b""


def test_a_body_that_stalls_is_given_up():
    with running_server(limits={"body_timeout_s": 0.3}) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
            client.sendall(b"POST /zoo/zoo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")

            assert client.recv(1_000).startswith(b"HTTP/1.1 408")


def test_pipelined_requests_are_answered_in_order(server):
    one = b'POST /zoo/zoo/def HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"n":%d}'
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
        client.sendall(one % 1 + one % 2 + one % 3)
        received = b""
        while received.count(b'{"total":') < 3:
            received += client.recv(65_536)

    assert re.findall(rb'"total":(\d)', received) == [b"1", b"2", b"3"]


def test_garbage_behind_a_stream_ends_the_connection_and_is_never_written_into_it(server):
    with server.open(
        "/zoo/zoo/async/stream", {"n": 100_000, "pause": 0.02}
    ) as stream:  # it does not end by itself
        stream.read_until(b"data: ")
        good = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        stream.socket.sendall(good + b"garbage\r\n\r\n")
        stream.read_to_end()

    assert b"HTTP/1.1 400" not in stream.bytes
    assert not stream.is_whole


def test_a_client_that_pipelines_without_bound_is_refused(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        received = b""
        try:
            while piece := client.recv(65_536):
                received += piece
        except ConnectionResetError:
            pass  # it still sent

    assert received.count(b"HTTP/1.1 200") < 500


def test_a_client_that_asks_on_and_never_reads_gets_no_more_answers_than_it_takes():
    # What it sends while the server is held up comes in one read: more than may be pipelined as a rule.
    with running_server(limits={"pipelined_max": 1_000, "stall_timeout_s": 120}) as server:
        before = memory_kib(server.process.pid)
        request = b"GET /zoo/zoo/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
            for _ in range(700):  # some 35 MB of answers
                client.sendall(request)
                time.sleep(0.005)
            assert memory_kib(server.process.pid) - before < 10 * 1024
            assert server.post("/zoo/zoo/def", {"n": 1}).json == {"total": 1}


def memory_kib(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
