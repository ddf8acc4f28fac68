"""The queue: submit, follow, fetch, stop; by path and by host; nothing accepted is lost."""

import base64
import hashlib
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.server import PATIENCE_S, ROOT, ZOO, RawStream, data_events, eventually, running_server

DONE = "COMPLETED"

#: Holds each request until the test releases it by its name.
PATIENT = f"{ROOT / 'tests' / 'support' / 'patient.py'}:Patient"


@pytest.fixture(scope="module")
def server():
    with running_server(ZOO, PATIENT) as server:
        yield server


def submit(server, path="/zoo/zoo/async", body=None, headers=None, query=""):
    answer = server.post(f"/queue{path}{query}", body or {}, headers)
    assert answer.status == 200, answer.body
    return answer.json


def path_of(url: str) -> str:
    return "/" + url.split("/", 3)[3]


def status_of(server, submitted, query=""):
    return server.request("GET", path_of(submitted["status_url"]) + query)


def until_done(server, submitted):
    eventually(lambda: status_of(server, submitted).json["status"] == DONE, "the request is completed")
    return server.request("GET", path_of(submitted["response_url"]))


# --- submit -----------------------------------------------------------------------------------------------------


def test_a_submit_is_answered_with_an_id_and_the_three_urls(server):
    submitted = submit(server, body={"n": 2})

    id_ = submitted["request_id"]
    base = f"http://127.0.0.1:{server.port}/queue/zoo/zoo/requests/{id_}"
    assert submitted == {
        "status": "IN_QUEUE",
        "request_id": id_,
        "queue_position": 0,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }


def test_its_result_is_the_run_views_answer(server):
    result = until_done(server, submit(server, body={"n": 2}))

    assert (result.status, result.json) == (200, {"total": 2})


def test_a_host_that_begins_with_queue_needs_no_prefix():
    with running_server(args=("--no-auth", "--allowed-host", "queue.test")) as server:
        headers = {"Host": "queue.test"}
        submitted = server.post("/zoo/zoo/async", {"n": 1}, headers).json

        assert submitted["status_url"] == f"http://queue.test/zoo/zoo/requests/{submitted['request_id']}/status"
        path = path_of(submitted["status_url"])
        eventually(lambda: server.request("GET", path, None, headers).json["status"] == DONE, "it completes")


@pytest.mark.parametrize(
    ("headers", "query", "words"),
    [
        ({"X-Fal-Queue-Priority": "urgent"}, "", "normal or low"),
        ({"X-Fal-Request-Timeout": "soon"}, "", "seconds over 0.1"),
        ({"Idempotency-Key": "a b"}, "", "visible ASCII"),
        ({}, "?fal_max_queue_length=many", "whole number"),
    ],
)
def test_what_a_submit_asks_wrongly_is_a_400_that_says_so(server, headers, query, words):
    answer = server.post(f"/queue/zoo/zoo/async{query}", {}, headers)

    assert answer.status == 400
    assert words in answer.json["detail"]


def test_an_unknown_app_is_a_404_at_the_submit(server):
    assert server.post("/queue/no/body", {}).status == 404


def test_a_submit_repeated_with_its_key_is_the_same_request(server):
    headers = {"Idempotency-Key": "queued-1"}

    first = submit(server, body={"n": 1, "name": "queued once"}, headers=headers)
    second = submit(server, body={"n": 1, "name": "queued once"}, headers=headers)
    other = server.post("/queue/zoo/zoo/async", {"n": 2}, headers)

    assert first["request_id"] == second["request_id"]
    assert (other.status, other.json["error_type"]) == (422, "idempotency_conflict")
    until_done(server, first)
    assert server.notes().count("start queued once") == 1


# --- sent again -------------------------------------------------------------------------------------------------


def submit_and_lose(server, path, body):
    """Submit, and reset the connection before the server has read a byte: it cannot have answered."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        stat = pathlib.Path(f"/proc/{server.process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the server stands still")
        stream = server.open(path, body)
        stream.reset()
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_submit_whose_connection_died_before_the_answer_is_one_request_when_it_is_sent_again(server):
    for turn in range(5):
        name = f"resent {turn}"
        body = {"n": 1, "name": name}
        submit_and_lose(server, "/queue/zoo/zoo/async", body)
        eventually(server.saw(f"finally {name}"), "the first one was accepted")

        again = submit(server, body=body)
        another = submit(server, body=body)

        assert until_done(server, again).json == until_done(server, another).json == {"total": 1}
        assert again["request_id"] != another["request_id"]
        assert server.notes().count(f"start {name}") == 2  # that which was never answered, and the last one


def test_equal_submits_that_were_answered_are_two_requests(server):
    body = {"n": 1, "name": "equal"}

    first, second = submit(server, body=body), submit(server, body=body)

    assert first["request_id"] != second["request_id"]
    until_done(server, first)
    until_done(server, second)
    assert server.notes().count("start equal") == 2


def test_a_submit_with_another_body_is_not_that_whose_connection_died(server):
    submit_and_lose(server, "/queue/zoo/zoo/async", {"n": 1, "name": "lost"})
    eventually(server.saw("finally lost"), "the first one was accepted")

    until_done(server, submit(server, body={"n": 1, "name": "found"}))

    assert [note for note in server.notes() if note in {"start lost", "start found"}] == [
        "start lost",
        "start found",
    ]


# --- status -----------------------------------------------------------------------------------------------------


def test_status_is_202_until_it_is_completed_and_then_200(server):
    holder = submit(server, "/zoo/single", {"pause": 60, "name": "queue holder"})
    eventually(lambda: status_of(server, holder).json["status"] == "IN_PROGRESS", "the first one runs")
    waiting = submit(server, "/zoo/single", {"name": "queue second"})
    third = submit(server, "/zoo/single", {"name": "queue third"})

    running = status_of(server, holder, "?logs=1")
    assert (running.status, running.json["logs"]) == (202, [])
    assert status_of(server, waiting).json["queue_position"] == 0
    assert status_of(server, third).json["queue_position"] == 1
    early = server.request("GET", path_of(waiting["response_url"]))
    assert (early.status, early.json["detail"]) == (400, "Request is still in progress")

    cancelled = server.request("PUT", path_of(holder["cancel_url"]))
    assert (cancelled.status, cancelled.json) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert until_done(server, waiting).json == {"name": "queue second", "end": True}
    assert until_done(server, third).status == 200
    done = status_of(server, third)
    assert done.status == 200
    assert done.json["metrics"]["inference_time"] >= 0
    assert done.json["logs"] is None


@pytest.mark.parametrize("spelling", ["{}/", "{}/response", "{}/response/"])
def test_other_spellings_of_the_result_are_taken(server, spelling):
    submitted = submit(server, body={"n": 1})
    until_done(server, submitted)

    assert server.request("GET", spelling.format(path_of(submitted["response_url"]))).json == {"total": 1}


def test_the_endpoints_own_path_may_stand_before_requests(server):
    submitted = submit(server, body={"n": 1})
    until_done(server, submitted)

    path = f"/queue/zoo/zoo/async/requests/{submitted['request_id']}"
    assert server.request("GET", f"{path}/status/").status == 200
    assert server.request("GET", path).json == {"total": 1}


def test_low_priority_goes_behind_everything_normal(server):
    holder = submit(server, "/zoo/single", {"pause": 60, "name": "priority holder"})
    eventually(lambda: status_of(server, holder).json["status"] == "IN_PROGRESS", "the first one runs")
    low = submit(server, "/zoo/single", {"name": "low"}, {"X-Fal-Queue-Priority": "low"})
    normal = submit(server, "/zoo/single", {"name": "normal"})

    assert status_of(server, low).json["queue_position"] == 1
    assert status_of(server, normal).json["queue_position"] == 0
    server.request("PUT", path_of(holder["cancel_url"]))
    until_done(server, low)
    notes = server.notes()
    assert notes.index("hold normal") < notes.index("hold low")


def test_the_status_is_a_stream_of_events_that_ends_with_it(server):
    submitted = submit(server, "/zoo/single", {"pause": 0.3, "name": "followed"})

    with RawStream(server.port) as stream:
        stream.socket.sendall(
            f"GET {path_of(submitted['status_url'])}/stream?logs=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        stream.read_until(b"\r\n0\r\n\r\n")

    states = [event["status"] for event in data_events(stream.body)]
    assert states[-1] == DONE
    assert set(states) <= {"IN_QUEUE", "IN_PROGRESS", DONE}
    assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", DONE].index)


# --- endings ----------------------------------------------------------------------------------------------------


def test_a_request_that_fails_is_completed_with_its_error_and_its_own_status(server):
    submitted = submit(server, "/zoo/zoo/refuse")
    result = until_done(server, submitted)

    assert (result.status, result.json["detail"]) == (409, "no pictures today")
    assert status_of(server, submitted).json["error_type"] == "app_error"


def test_a_wrong_input_is_accepted_and_its_result_is_the_422(server):
    result = until_done(server, submit(server, body={"n": "many"}))

    assert result.status == 422
    assert result.json["detail"][0]["loc"] == ["body", "n"]


def test_cancelling_who_waits_removes_it_and_who_has_ended_is_told(server):
    holder = submit(server, "/zoo/single", {"pause": 60, "name": "cancel holder"})
    eventually(server.saw("hold cancel holder"), "the first one runs")
    waiting = submit(server, "/zoo/single", {"name": "never started"})

    assert server.request("PUT", path_of(waiting["cancel_url"])).status == 202
    assert status_of(server, waiting).json["status"] == DONE
    assert server.request("GET", path_of(waiting["response_url"])).status == 499
    again = server.request("PUT", path_of(waiting["cancel_url"]))
    assert (again.status, again.json) == (400, {"status": "ALREADY_COMPLETED"})
    server.request("PUT", path_of(holder["cancel_url"]))
    until_done(server, holder)
    assert "hold never started" not in server.notes()
    eventually(server.saw("let go cancel holder"), "the first one is closed")


def test_unknown_requests_are_404(server):
    for method, action in (("GET", "/status"), ("GET", ""), ("GET", "/status/stream"), ("PUT", "/cancel")):
        answer = server.request(method, f"/queue/zoo/zoo/requests/0f8fad5b-d9cb-469f-a165-70867728950e{action}")
        assert answer.status == 404


def test_a_start_timeout_ends_who_did_not_start_with_a_504_of_the_users(server):
    holder = submit(server, "/zoo/single", {"pause": 60, "name": "start holder"})
    eventually(lambda: status_of(server, holder).json["status"] == "IN_PROGRESS", "the first one runs")
    late = submit(server, "/zoo/single", {"name": "late"}, {"X-Fal-Request-Timeout": "0.5"})

    result = until_done(server, late)
    server.request("PUT", path_of(holder["cancel_url"]))

    assert (result.status, result.headers["x-fal-request-timeout-type"]) == (504, "user")
    until_done(server, holder)
    assert "hold late" not in server.notes()


def test_more_than_the_caller_allows_in_the_queue_is_a_429(server):
    holder = submit(server, "/zoo/single", {"pause": 60, "name": "length holder"})
    eventually(lambda: status_of(server, holder).json["status"] == "IN_PROGRESS", "the first one runs")
    waiting = submit(server, "/zoo/single", {"name": "length second"})

    refused = server.post("/queue/zoo/single?fal_max_queue_length=1", {})

    assert (refused.status, refused.json["error_type"]) == (429, "overloaded")
    for one in (holder, waiting):
        server.request("PUT", path_of(one["cancel_url"]))
        until_done(server, one)


# --- attempts ---------------------------------------------------------------------------------------------------


def test_a_request_whose_runner_dies_is_tried_again(server):
    submitted = submit(server, "/test/patient", {"name": "twice"})
    eventually(server.saw("hold twice"), "the first attempt runs")
    kill_patient(server)
    server.release("twice")

    result = until_done(server, submitted)

    assert (result.status, result.json) == (200, {"name": "twice", "end": True})
    assert server.notes().count("hold twice") == 2


def kill_patient(server) -> None:
    """Kill the runner of `test/patient`, which the test has seen at work."""
    pid = int(server.log.rpartition("test/patient is ready (runner ")[2].partition(")")[0])
    os.kill(pid, signal.SIGKILL)


def test_a_caller_who_wants_no_retry_gets_the_failure(server):
    submitted = submit(server, "/zoo/zoo/die", {"n": 1}, {"X-Fal-No-Retry": "1"})

    result = until_done(server, submitted)

    assert (result.status, result.json["error_type"]) == (503, "runner_disconnected")


def test_a_reader_with_ids_is_told_that_an_attempt_does_not_count_any_more(server):
    submitted = submit(server, "/test/patient", {"name": "rolled back"})
    with RawStream(server.port) as watched:
        watched.post(f"/test/patient/requests/{submitted['request_id']}/stream", {})
        watched.read_until(b"rolled back")
        kill_patient(server)
        server.release("rolled back")
        watched.read_until(b"\r\n0\r\n\r\n")

    assert data_events(watched.body) == [
        {"name": "rolled back"},
        {"type": "rollback", "attempt": 2},
        {"name": "rolled back"},
        {"name": "rolled back", "end": True},
    ]


# --- attach -----------------------------------------------------------------------------------------------------


def test_a_queued_request_can_be_watched_before_it_starts_and_after_it_ended(server):
    holder = submit(server, "/zoo/single", {"pause": 60, "name": "attach holder"})
    waiting = submit(server, "/zoo/single", {"name": "attached"})
    path = f"/zoo/single/requests/{waiting['request_id']}/stream"
    with RawStream(server.port) as watched:
        watched.post(path, {})
        server.request("PUT", path_of(holder["cancel_url"]))
        watched.read_until(b"\r\n0\r\n\r\n")

    expected = [{"name": "attached"}, {"name": "attached", "end": True}]
    assert data_events(watched.body) == expected
    assert data_events(server.request("GET", path).body) == expected


# --- durability -------------------------------------------------------------------------------------------------


def test_what_was_accepted_survives_a_kill_and_goes_on_with_the_next_start(tmp_path):
    with running_server(data_dir=tmp_path) as server:
        done = submit(server, body={"n": 1})
        until_done(server, done)
        running = submit(server, "/zoo/single", {"pause": 60, "name": "was running"})
        eventually(server.saw("hold was running"), "the first one runs")
        waiting = submit(server, "/zoo/single", {"name": "was waiting"})
        path = path_of(running["cancel_url"])
        server.process.kill()
        server.process.wait()
        time.sleep(0.5)

    with running_server(data_dir=tmp_path) as server:
        assert server.request("GET", path_of(done["response_url"])).json == {"total": 1}
        replayed = server.request("GET", f"/zoo/zoo/requests/{done['request_id']}/stream")
        assert data_events(replayed.body) == [{"i": 0}, {"total": 1}]
        eventually(server.saw("hold was running"), "it is tried again")
        assert server.request("PUT", path).status == 202
        assert until_done(server, waiting).json == {"name": "was waiting", "end": True}
        assert until_done(server, running).status == 499


def test_who_waits_for_an_app_that_the_next_start_does_not_serve_is_told_of_and_can_be_stopped(tmp_path):
    with running_server(data_dir=tmp_path) as server:
        submit(server, "/zoo/single", {"pause": 60, "name": "holder"})
        eventually(server.saw("hold holder"), "the first one runs")
        waiting = submit(server, "/zoo/single", {"name": "nobody's"})
        server.process.kill()
        server.process.wait()

    with running_server(ROOT / "examples" / "hello_stream.py", data_dir=tmp_path) as server:
        eventually(
            lambda: "2 queued requests wait for zoo/single, which is not served" in server.log, "it is told"
        )
        asked = status_of(server, waiting)
        stopped = server.request("PUT", path_of(waiting["cancel_url"]))
        done = until_done(server, waiting)

    assert (asked.status, asked.json["status"], asked.json["queue_position"]) == (202, "IN_QUEUE", 1)
    assert (stopped.status, done.status) == (202, 499)


def test_a_node_that_stops_lets_run_what_runs_and_waits_for_nobody_who_waits(tmp_path):
    with (
        running_server(PATIENT, data_dir=tmp_path) as server,
        RawStream(server.port) as watched,
        RawStream(server.port) as told,
    ):
        running = submit(server, "/test/patient", {"name": "last"})
        eventually(server.saw("hold last"), "the first one runs")
        waiting = submit(server, "/test/patient", {"name": "next"})
        watched.post(f"/test/patient/requests/{waiting['request_id']}/stream", {})
        told.socket.sendall(
            f"GET {path_of(waiting['status_url'])}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        told.read_until(b"IN_QUEUE")
        server.process.send_signal(signal.SIGTERM)  # it may take a minute: two who wait would make it do so
        told.read_to_end()
        watched.read_to_end()
        server.release("last")
        status = server.process.wait(PATIENCE_S)

    assert status == 0
    assert "stopping: 1 requests may finish" in server.log
    assert (told.is_whole, [event["status"] for event in data_events(told.body)]) == (False, ["IN_QUEUE"])
    assert (b"503" in watched.head, b"shutting_down" in watched.bytes) == (True, True)
    with running_server(PATIENT, data_dir=tmp_path) as server:
        assert server.request("GET", path_of(running["response_url"])).json == {"name": "last", "end": True}
        server.release("next")
        assert until_done(server, waiting).json == {"name": "next", "end": True}


def test_another_keys_request_is_as_unknown_as_any(tmp_path):
    from headrace.store.keyfile import KeyFile

    keys = KeyFile(tmp_path / "keys.json")
    mine, theirs = (keys.create(name)[1] for name in ("mine", "theirs"))
    with running_server(args=(), data_dir=tmp_path) as server:
        submitted = server.post("/queue/zoo/zoo/async", {"n": 1}, {"Authorization": f"Key {mine}"}).json
        path = path_of(submitted["response_url"])
        for method, action in (("GET", ""), ("GET", "/status"), ("PUT", "/cancel"), ("GET", "/stream")):
            answer = server.request(method, path + action, None, {"Authorization": f"Key {theirs}"})
            assert answer.status == 404, action
        assert json.loads(server.request("GET", path + "/status", None, {"Authorization": f"Key {mine}"}).body)


# --- webhooks ---------------------------------------------------------------------------------------------------


def test_a_webhook_tells_how_a_request_ended_signed_by_the_key_we_publish():
    received: list[tuple[dict[str, str], bytes]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(500 if len(received) == 1 else 200)  # the first one is tried again
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    receiver = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    port = receiver.server_port
    args = ("--no-auth", "--outbound-http", "--outbound-network", "127.0.0.0/8", "--outbound-port", str(port))
    try:
        with running_server(args=args) as server:
            submitted = submit(server, body={"n": 1}, query=f"?fal_webhook=http://127.0.0.1:{port}/hook")
            eventually(lambda: len(received) == 2, "it is delivered, at the second try")
            jwks = server.request("GET", "/.well-known/jwks.json").json
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()

    headers, body = received[1]
    assert json.loads(body) == {
        "request_id": submitted["request_id"],
        "gateway_request_id": submitted["request_id"],
        "status": "OK",
        "payload": {"total": 1},
    }
    signed = [headers[f"x-fal-webhook-{part}"] for part in ("request-id", "user-id", "timestamp")]
    message = "\n".join([*signed, hashlib.sha256(body).hexdigest()]).encode()
    x = jwks["keys"][0]["x"]
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))
    key.verify(bytes.fromhex(headers["x-fal-webhook-signature"]), message)


@pytest.mark.promise("A5")
@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://127.0.0.1/hook", "loopback"),
        ("https://[::1]/hook", "loopback"),
        ("https://10.0.0.1/hook", "private"),
        ("http://example.org/hook", "scheme"),
        ("https://example.org:22/hook", "port"),
        ("https://localhost/hook", "local-name"),
        ("nonsense", ""),
    ],
)
def test_a_webhook_to_a_private_place_is_refused_with_the_rule_that_refused_it(server, url, rule):
    answer = server.post(f"/queue/zoo/zoo/async?fal_webhook={urllib.parse.quote(url, safe='')}", {})

    assert (answer.status, answer.json["error_type"]) == (400, "bad_request")
    assert f"(rule {rule}" in answer.json["detail"]


def test_a_webhook_that_was_given_up_is_listed_and_can_be_tried_again():
    answers = [302, 200]
    received: list[bytes] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(answers[min(len(received), len(answers)) - 1])
            self.send_header("Location", "http://127.0.0.1/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    receiver = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    port = receiver.server_port
    args = ("--no-auth", "--outbound-http", "--outbound-network", "127.0.0.0/8", "--outbound-port", str(port))
    try:
        with running_server(args=args) as server:
            id_ = submit(server, body={"n": 1}, query=f"?fal_webhook=http://127.0.0.1:{port}/hook")["request_id"]
            eventually(lambda: server.request("GET", "/v1/webhooks").json["dead"], "it is given up")
            command = [sys.executable, "-m", "headrace", "webhooks"]
            listed = subprocess.run(
                [*command, "list", "--url", server.url], capture_output=True, text=True, timeout=30, check=True
            )
            subprocess.run([*command, "retry", id_, "--url", server.url], timeout=30, check=True)
            eventually(lambda: len(received) == 2, "it is tried again")
            eventually(lambda: not server.request("GET", "/v1/webhooks").json["dead"], "it is no dead letter now")
            unknown = server.post(f"/v1/webhooks/{id_}/retry")
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()

    assert id_ in listed.stdout
    assert "302" in listed.stdout
    assert (unknown.status, unknown.json["error_type"]) == (404, "request_not_found")
