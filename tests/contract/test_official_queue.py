"""The queue by fal's own clients, unmodified, with keys and TLS: what works, and what its users see when it does not."""

import contextlib
import dataclasses
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.losing import LosingTheFirst
from tests.support.official import CLIENTS, OfficialServer, key_of, need_node, official_server
from tests.support.server import ROOT, ZOO, eventually

TELLER = ROOT / "tests" / "contract" / "models" / "teller.py"
PYTHON_ERROR = "fal_client.client.FalClientHTTPError"
COLORS = ("sync", "async")

#: Seconds one program may take: in one story it waits a minute and more of its own accord.
STORY_S = 150.0
#: The first test of each client waits for its whole story.
pytestmark = pytest.mark.timeout(300)


class Receiver:
    """Somebody who is told by webhook."""

    def __init__(self) -> None:
        self.told: list[dict] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclasses.dataclass(frozen=True)
class Rooms:
    """A server of theirs, and who is told of its requests."""

    official: OfficialServer
    receiver: Receiver

    @property
    def server(self):
        return self.official.server

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Key {key_of(self.server)}"}

    def python(self, color: str, story: str, **settings: object) -> dict[str, dict]:
        return self._told([sys.executable, str(CLIENTS / "queued.py"), color, story], settings, self.server.folder)

    def javascript(self, story: str = "free", **settings: object) -> dict[str, dict]:
        # As text, for its imports are then looked up from the current folder.
        source = (CLIENTS / "queued.mjs").read_text()
        settings = {"proxy": self.official.proxy_url, **settings}
        return self._told(["node", "--input-type=module", "--eval", source, "--", story], settings, need_node())

    def _told(self, command, settings, folder) -> dict[str, dict]:
        settings = {"webhook": f"http://127.0.0.1:{self.receiver.port}/hook", **settings}
        settings = {"folder": str(self.server.folder), **settings}
        process = subprocess.run(
            [*command, json.dumps(settings)],
            cwd=folder, env=self.official.environment, capture_output=True, text=True, timeout=STORY_S,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr[-4_000:]
        lines = [json.loads(line) for line in filter(None, process.stdout.split("\n"))]
        return {line.pop("name"): line for line in lines}

    @contextlib.contextmanager
    def taken_slot(self) -> Iterator[None]:
        """Keep zoo/single's one slot."""
        headers = self.headers()
        held = self.server.post("/queue/zoo/single", {"pause": 600, "name": "holder"}, headers).json
        path = f"/queue/zoo/single/requests/{held['request_id']}"

        def status() -> str:
            return self.server.request("GET", f"{path}/status", None, headers).json["status"]

        eventually(lambda: status() == "IN_PROGRESS", "the holder runs")
        try:
            yield
        finally:
            self.server.request("PUT", f"{path}/cancel", None, headers)
            eventually(lambda: status() == "COMPLETED", "the holder has let go")


@pytest.fixture(scope="module")
def rooms():
    with Receiver() as receiver:
        args = ("--alias", "fal-ai/counter=zoo/zoo", "--outbound-http", "--outbound-network", "127.0.0.0/8")
        args += ("--outbound-port", str(receiver.port))
        with official_server(ZOO, TELLER, args=args, limits={"heartbeat_s": 0.3}) as official:
            yield Rooms(official, receiver)


@pytest.fixture(scope="module", params=COLORS)
def python(request, rooms):
    """What was told to the Python client of one colour, by name."""
    return rooms.python(request.param, "free", name=f"queued python {request.param}")


@pytest.fixture(scope="module", params=["by proxy", "as headrace env leads it"])
def javascript(request, rooms):
    """What was told to the JavaScript client, by name."""
    if request.param == "by proxy":
        return rooms.javascript(name="queued javascript")
    return rooms.javascript(name="queued javascript", proxy=None)


@pytest.fixture(scope="module", params=COLORS)
def python_in_line(request, rooms):
    with rooms.taken_slot():
        return rooms.python(request.param, "line")


@pytest.fixture(scope="module")
def javascript_in_line(rooms):
    with rooms.taken_slot():
        return rooms.javascript("line")


def states(updates: list) -> list[str]:
    """The states in the order of their first telling."""
    return list(dict.fromkeys(one[0] if isinstance(one, list) else one["status"] for one in updates))


def messages(logs: list[dict]) -> list[str]:
    return [line["message"] for line in logs]


# --- Python -----------------------------------------------------------------------------------------------------


def test_python_a_handle_follows_its_request_to_the_result(python):
    told = python["handle"]["told"]

    assert told["result"] == {"total": 3}
    assert states(told["events"])[-1] == "Completed"
    assert set(states(told["events"])) <= {"Queued", "InProgress", "Completed"}
    completed = told["events"][-1][1]
    assert (completed["error"], completed["error_type"]) == (None, None)
    assert completed["metrics"]["inference_time"] > 0.3


def test_python_status_and_result_are_found_by_the_request_id(python):
    told = python["by_id"]["told"]

    assert told["result"] == {"total": 1}
    assert told["status"][0] == "Completed"
    assert isinstance(told["status"][1]["logs"], list)


def test_python_subscribe_returns_the_result(python):
    assert python["subscribe"] == {"told": {"total": 2}}


def test_python_subscribe_tells_on_the_way(python):
    told = python["subscribe_with_updates"]["told"]

    assert told["result"] == {"total": 3}
    assert len(told["enqueued"][0]) == 36
    assert states(told["updates"])[-2:] == ["InProgress", "Completed"]


def test_python_gets_all_log_lines_in_each_status(python):
    completed = python["logs"]["told"][-1]

    assert completed[0] == "Completed"
    assert messages(completed[1]["logs"]) == [f"line {i} of 4" for i in range(4)]


def test_python_sub_paths_namespaces_and_aliases(python):
    assert python["sub_path"] == {"told": {"total": 4}}
    assert python["path_argument"] == {"told": {"total": 5}}
    assert python["namespace"] == {"told": {"flow": True}}
    assert python["alias"] == {"told": {"total": 1}}


def test_python_hint_and_priority_reach_the_app(python):
    headers = python["hint_and_priority"]["told"]["headers"]

    assert (headers["x-fal-runner-hint"], headers["x-fal-queue-priority"]) == ("runner-7", "low")


@pytest.mark.parametrize(
    ("name", "status", "error_type"),
    [
        ("wrong_input", 422, "validation_error"),
        ("field_refused", 422, "validation_error"),
        ("raises", 500, "runner_server_error"),
        ("raises_later", 500, "runner_server_error"),
        ("unknown_app", 404, "not_found"),
        ("unknown_request", 404, "request_not_found"),
        ("private_webhook", 400, "bad_request"),
    ],
)
def test_python_a_failure_is_raised_with_status_and_type(python, name, status, error_type):
    error = python[name]["error"]

    assert (error["type"], error["is_client_error"]) == (PYTHON_ERROR, True)
    assert (error["status"], error["error_type"]) == (status, error_type)
    assert "secret" not in error["message"]


def test_python_the_status_of_a_failed_request_says_so(python):
    kind, status = python["failed_status"]["told"]

    assert (kind, status["error_type"]) == ("Completed", "runner_server_error")
    assert status["error"]


def test_python_cancel_stops_the_model_and_a_second_one_is_too_late(rooms, python):
    assert python["cancelled status"]["told"][1]["error_type"] == "client_cancelled"
    assert python["cancelled result"]["error"]["status"] == 499
    assert python["cancel"]["error"]["status"] == 400
    starts = [note for note in rooms.server.notes() if note.startswith("start queued python")]
    eventually(
        lambda: all(note.replace("start", "finally") in rooms.server.notes() for note in starts), "it is stopped"
    )


def test_python_a_webhook_is_told(rooms, python):
    told = python["webhook"]["told"]

    assert told["result"] == {"total": 2}
    eventually(lambda: told["id"] in [one["request_id"] for one in rooms.receiver.told], "it was delivered")
    (delivered,) = [one for one in rooms.receiver.told if one["request_id"] == told["id"]]
    assert (delivered["status"], delivered["payload"]) == ("OK", {"total": 2})


def test_python_low_priority_stands_behind_normal(python_in_line):
    told = python_in_line["in_line"]["told"]

    assert told["waiting"] == [["Queued", {"position": 1}], ["Queued", {"position": 0}]]
    assert [status[1]["error_type"] for status in told["ended"]] == ["client_cancelled"] * 2


def test_python_a_start_timeout_is_a_504_of_the_users_that_is_not_tried_again(python_in_line):
    error = python_in_line["start_timeout"]["error"]

    assert (error["type"], error["status"], error["error_type"]) == (PYTHON_ERROR, 504, "startup_timeout")


def test_python_a_client_timeout_is_raised_and_cancels(python_in_line):
    error = python_in_line["client_timeout"]["error"]

    assert error["type"] == "fal_client.client.FalClientTimeoutError"
    assert len(error["request_id"]) == 36
    assert python_in_line["after_client_timeout"]["told"][1]["error_type"] == "client_cancelled"


@pytest.mark.slow
def test_python_asks_ten_times_for_a_result_that_is_a_409(rooms):
    began = time.monotonic()
    error = rooms.python("sync", "conflict")["conflict"]["error"]

    assert (error["status"], error["message"]) == (409, "no pictures today")
    assert time.monotonic() - began > 20  # its own waits between the ten, 51 s without chance


# --- JavaScript -------------------------------------------------------------------------------------------------


def test_javascript_submits_looks_and_fetches(rooms, javascript):
    told = javascript["by_hand"]["told"]

    base = told["submitted"]["response_url"]
    assert base in [
        f"{origin}/queue/zoo/zoo/requests/{told['id']}"
        for origin in (rooms.server.url, f"https://localhost:{rooms.official.tls_port}")
    ]
    assert told["submitted"] == {
        "status": "IN_QUEUE",
        "request_id": told["id"],
        "queue_position": told["submitted"]["queue_position"],
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }
    assert told["status"]["metrics"]["inference_time"] > 0.3
    assert told["data"] == {"total": 3}


def test_javascript_streams_the_status(javascript):
    told = javascript["stream_status"]["told"]

    assert states([{"status": one} for one in told["states"]])[-2:] == ["IN_PROGRESS", "COMPLETED"]
    assert told["last"]["status"] == "COMPLETED"
    assert told["last"]["response_url"].endswith(told["last"]["request_id"])


@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_javascript_subscribes(javascript, mode):
    told = javascript[mode]["told"]

    assert told["data"] == {"total": 3}
    assert told["enqueued"] == [told["id"]]
    assert states(told["updates"])[-2:] == ["IN_PROGRESS", "COMPLETED"]


@pytest.mark.parametrize("mode", ["polling_logs", "streaming_logs"])
def test_javascript_has_each_log_line_once_in_either_mode(javascript, mode):
    updates = javascript[mode]["told"]["updates"]

    completed = updates[-1]
    assert completed["status"] == "COMPLETED"
    assert messages(completed["logs"]) == [f"line {i} of 4" for i in range(4)]


def test_javascript_sub_paths_namespaces_and_aliases(javascript):
    assert javascript["sub_path"]["told"]["data"] == {"total": 4}
    assert javascript["namespace"]["told"]["data"] == {"flow": True}
    assert javascript["alias"]["told"]["data"] == {"total": 1}


def test_javascript_hint_and_priority_reach_the_app(javascript):
    headers = javascript["hint_and_priority"]["told"]["data"]["headers"]

    assert (headers["x-fal-runner-hint"], headers["x-fal-queue-priority"]) == ("runner-7", "low")


@pytest.mark.parametrize(
    ("name", "type_", "status", "error_type"),
    [
        ("wrong_input", "ValidationError", 422, "validation_error"),
        ("field_refused", "ValidationError", 422, "validation_error"),
        ("refused", "ApiError", 409, "app_error"),
        ("raises", "ApiError", 500, "runner_server_error"),
        ("raises_later", "ApiError", 500, "runner_server_error"),
        ("unknown_app", "ApiError", 404, "not_found"),
        ("unknown_request", "ApiError", 404, "request_not_found"),
        ("early_result", "ApiError", 400, "still_in_progress"),
        ("private_webhook", "ApiError", 400, "bad_request"),
    ],
)
def test_javascript_a_failure_is_thrown_with_status_body_and_request_id(
    javascript, name, type_, status, error_type
):
    error = javascript[name]["error"]

    assert (error["type"], error["status"]) == (type_, status)
    assert error["body"]["error_type"] == error_type
    assert len(error["request_id"]) == 36


def test_javascript_a_validation_error_names_its_fields(javascript):
    (field,) = javascript["wrong_input"]["error"]["fields"]

    assert (field["loc"], field["type"]) == (["body", "n"], "greater_than_equal")


def test_javascript_cancel_stops_the_model_and_a_second_one_is_too_late(rooms, javascript):
    assert javascript["cancelled_status"]["told"]["error_type"] == "client_cancelled"
    assert javascript["cancelled_result"]["error"]["status"] == 499
    assert javascript["cancel"]["error"]["status"] == 400
    eventually(rooms.server.saw("finally queued javascript"), "it is stopped")


def test_javascript_a_webhook_is_told(rooms, javascript):
    id_ = javascript["webhook"]["told"]["id"]

    eventually(lambda: id_ in [one["request_id"] for one in rooms.receiver.told], "it was delivered")


def test_javascript_low_priority_stands_behind_normal(javascript_in_line):
    told = javascript_in_line["in_line"]["told"]

    assert [(one["status"], one["queue_position"]) for one in told["waiting"]] == [
        ("IN_QUEUE", 1),
        ("IN_QUEUE", 0),
    ]
    assert [one["error_type"] for one in told["ended"]] == ["client_cancelled"] * 2


def test_javascript_a_start_timeout_is_a_504_that_is_not_tried_again(javascript_in_line):
    error = javascript_in_line["start_timeout"]["error"]

    assert (error["type"], error["status"], error["body"]["error_type"]) == ("ApiError", 504, "startup_timeout")


def test_javascript_a_client_timeout_rejects_and_cancels(javascript_in_line):
    told = javascript_in_line["client_timeout"]["told"]

    assert told["message"] == "Client timed out waiting for the request to complete after 1000ms"
    assert told["status"]["error_type"] == "client_cancelled"


# --- a network that fails -----------------------------------------------------------------------------------------


def test_javascript_sends_a_submit_again_that_nobody_answered_and_it_is_one_request(rooms):
    with LosingTheFirst(rooms.server) as network:
        told = rooms.javascript("resent", proxy=f"http://127.0.0.1:{network.port}/fal/proxy")

    assert told == {"resent": {"told": {"total": 1}}}
    assert network.lost == 1
    assert rooms.server.notes().count("start resent") == 1
