"""The conformance kit on the wire: our own server passes all of it, bad ones are found out, and nothing is harmed."""

import json
import os
import re
import subprocess
import sys

import pytest

from headrace.client.conformance import NothingToCheck, Plan, Target, Verdict, check_server, find_stream
from headrace.client.conformance.answer import Ending
from headrace.client.conformance.wire import Leave, record
from tests.support.scripted import CLOSE, HOLD, LAST_CHUNK, RESET, TLS_CERTIFICATE, Wait, chunk, event, scripted
from tests.support.server import running_server

PASSED, FAILED, UNCHECKED = Verdict.PASSED, Verdict.FAILED, Verdict.UNCHECKED

#: Heartbeats so often that only a server that is held up for all of `SILENCE_S` says nothing in it.
QUICK = {"headers_hold_s": 0.2, "heartbeat_s": 0.2}
SILENCE_S = 6

#: Seconds to wait for what never comes, and so also for a server of ours that is held up.
PATIENCE_S = 5

MODEL = """
import asyncio
import headrace

class Model(headrace.App, name="me/model", max_multiplexing=2):
    @headrace.endpoint("/")
    async def talk(self, input: dict):
        yield {"text": "é \\u2028 🌅"}
        await asyncio.sleep(input.get("silence", 0))
        if input.get("fails"):
            raise ValueError("a secret of the model")
        yield {"end": True}
"""


def headrace(*words, **env):
    """Run `headrace conformance`, with nothing of this user's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "FAL_"))}
    return subprocess.run(
        [sys.executable, "-m", "headrace", "conformance", *words],
        capture_output=True, text=True, timeout=55, env={**environment, "XDG_CONFIG_HOME": "/nowhere", **env},
    )  # fmt: skip


def by_verdict(results, verdict):
    return {result.name for result in results if result.finding.verdict is verdict}


# --- our own server -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoo():
    with running_server(limits=QUICK) as server:
        yield server


def test_our_server_keeps_every_promise_of_the_kit(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    with running_server(tmp_path / "model.py", args=(), limits=QUICK) as server:
        (key,) = json.loads((server.folder / "config/headrace/credentials").read_text()).values()
        plan = Plan(
            Target(server.url, key),
            "/me/model/stream",
            {},
            {"fails": True},
            {"silence": SILENCE_S + 1},
            patience_s=20,
            silence_s=SILENCE_S,
        )
        results = check_server(plan)

    assert {} == {result.name: result.finding for result in results if result.finding.verdict is not PASSED}


def test_the_command_takes_the_first_stream_of_the_server_and_exits_with_0(zoo):
    shown = headrace(zoo.url)

    assert (0, "") == (shown.returncode, shown.stderr)
    assert shown.stdout.startswith(f"{zoo.url}/zoo/zoo/stream\n")
    assert re.search(
        r"^✓ framing\.objects +every event is a JSON object: an object in every event \(4\)$", shown.stdout, re.M
    )
    assert re.search(
        r"^– refusal\.wrong-key +a wrong key is 401: the server answers without a key$", shown.stdout, re.M
    )
    assert re.search(r"^\d+ passed, 0 failed, 6 not checkable$", shown.stdout, re.M)


def test_the_command_finds_the_users_key():
    with running_server(args=()) as server:
        shown = headrace(server.url, "--json", XDG_CONFIG_HOME=str(server.folder / "config"))

    report = json.loads(shown.stdout)
    assert (0, 0) == (shown.returncode, report["failed"])
    assert {
        "name": "refusal.wrong-key",
        "promise": "a wrong key is 401",
        "verdict": "passed",
        "seen": "401",
        "suffers": None,
    } in report["checks"]


def test_a_failure_in_midstream_is_told_and_cut_as_it_should_be(zoo):
    shown = headrace(zoo.url, "--app", "zoo/zoo/raise-later", "--error-input", "{}", "--json")

    verdicts = {check["name"]: check["verdict"] for check in json.loads(shown.stdout)["checks"]}
    assert 0 == shown.returncode
    assert {"passed"} == {verdict for name, verdict in verdicts.items() if name.startswith("error.")}


def test_our_server_fails_a_stream_over_https_just_the_same():
    limits = {"flush_timeout_s": 30}  # a kit that is held up says its goodbye late, and is not reset for it
    with running_server(args=("--no-auth", "--tls", "--tls-port", "0"), limits=limits) as server:
        url = "https://localhost:" + re.search(r"https://[^ ]*:(\d+)", server.log)[1]
        words = [url, "--app", "zoo/zoo/raise-later", "--error-input", "{}", "--json"]
        shown = headrace(*words, SSL_CERT_FILE=str(server.folder / "data/tls/ca.pem"))

    verdicts = {check["name"]: check["verdict"] for check in json.loads(shown.stdout)["checks"]}
    assert 0 == shown.returncode
    assert ("passed", "passed") == (verdicts["error.cut"], verdicts["error.fin"])


def test_a_silent_model_is_heard_of(zoo):
    slow = {"pause": SILENCE_S + 1}
    plan = Plan(Target(zoo.url), "/zoo/zoo/silent/stream", {}, slow_input=slow, patience_s=20, silence_s=SILENCE_S)

    results = check_server(plan)

    assert set() == by_verdict(results, FAILED)
    assert "silence.heartbeats" in by_verdict(results, PASSED)


def test_a_path_that_is_not_there_fails_and_says_what_to_look_at(zoo):
    shown = headrace(zoo.url, "--app", "nobody/here", "--json")

    report = json.loads(shown.stdout)
    [status] = [check for check in report["checks"] if check["verdict"] == "failed"]
    assert (1, "stream.status") == (shown.returncode, status["name"])
    assert "are --app, --path, --key and --input right?" in status["suffers"]


# --- servers that are not like ours -------------------------------------------------------------------------

BAD_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    b"Content-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def test_a_naive_server_is_found_out():
    """It streams the way a first afternoon's server does: everything on any path, an end marker, no refusals."""
    body = [chunk(b'id: 1\r\ndata: {"text": "h\xc3'), chunk(b'\xa9"}\r\n\r\n'), chunk(b"data: [DONE]\n\n")]
    with scripted([BAD_HEAD, *body, LAST_CHUNK]) as server:
        plan = Plan(Target(server.url), "/a/b/stream", {}, failing_input={}, slow_input={}, patience_s=PATIENCE_S)
        results = check_server(plan)

    assert {
        "stream.not-buffered", "stream.not-cached", "stream.request-id", "stream.connection",
        "framing.line-ends", "framing.ascii", "framing.no-done", "framing.no-ids", "framing.chunks",
        "error.event", "error.cut", "refusal.unknown-app", "refusal.media-type", "refusal.bad-json",
        "refusal.not-an-object", "refusal.large-body", "http.no-host", "http.two-hosts", "http.two-lengths",
    } == by_verdict(results, FAILED)  # fmt: skip
    assert all(result.finding.damage for result in results if result.finding.verdict is FAILED)


def test_the_command_names_who_suffers_and_exits_with_1():
    with scripted([BAD_HEAD, chunk(b"data: [DONE]\n\n"), LAST_CHUNK]) as server:
        shown = headrace(server.url, "--app", "a/b", "--timeout", str(PATIENCE_S))

    assert (1, "") == (shown.returncode, shown.stderr)
    assert "✗ framing.no-done" in shown.stdout
    assert "suffers: fal-client (Python): JSONDecodeError instead of an end" in shown.stdout


def test_a_server_that_resets_its_failed_streams_is_found_out():
    with scripted([BAD_HEAD, event(b'{"i":0}'), Wait(0.2), RESET]) as server:
        plan = Plan(Target(server.url), "/a/b/stream", {}, failing_input={}, patience_s=PATIENCE_S)
        results = check_server(plan)

    assert {"end.clean", "error.event", "error.fin"} <= by_verdict(results, FAILED)


def test_what_a_server_says_cannot_steer_the_terminal():
    with scripted([b"HTTP/1.1 404 No\r\nContent-Type: \x1b[31m\r\nContent-Length: 4\r\n\r\n\x1b[2J"]) as server:
        shown = headrace(server.url, "--app", "a/b", "--timeout", str(PATIENCE_S))

    assert 1 == shown.returncode
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["http://127.0.0.1:1"], "cannot be reached"),
        (["http://127.0.0.1:1", "--app", "a/b"], "cannot be reached"),
        (["ftp://x"], "is not a server's address"),
        (["http://127.0.0.1:1", "--app", "alone"], "expected owner/alias"),
        (["http://127.0.0.1:1", "--app", "a/b c"], "characters that a path cannot have"),
        (["http://127.0.0.1:1", "--input", "{"], "--input is not JSON"),
        (["http://127.0.0.1:1", "--error-input", "[]"], "--error-input must be a JSON object"),
        (["http://127.0.0.1:1", "--slow-input", '{"a": NaN}'], "--slow-input is not JSON: NaN"),
        (["http://127.0.0.1:1", "--timeout", "0"], "must be a number of seconds over 0"),
        (["http://127.0.0.1:1", "--key", "a b"], "is not a key"),
        ([], "Missing argument 'URL'"),
    ],
)
def test_where_nothing_can_be_checked_the_status_is_2_and_one_line_says_why(words, says):
    shown = headrace(*words)

    assert (2, "") == (shown.returncode, shown.stdout)
    assert says in shown.stderr


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"apps":[{"endpoints":[{"views":{"stream":"/a b"}}]}]}'])
def test_a_server_without_a_list_of_streams_needs_app(body):
    with scripted([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)]) as server:
        with pytest.raises(NothingToCheck, match="say which with --app owner/alias"):
            find_stream(Target(server.url), 10)


# --- recording ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "ending"),
    [
        ([LAST_CHUNK], Ending.COMPLETE),
        ([CLOSE], Ending.FIN),
        ([Wait(0.2), RESET], Ending.RESET),
        ([HOLD], Ending.SILENT),
    ],
    ids=["complete", "fin", "reset", "silent"],
)
def test_how_an_answer_ended_is_recorded(steps, ending):
    with scripted([BAD_HEAD, event(b"{}"), *steps]) as server:
        target = Target(server.url)
        patience_s = PATIENCE_S if ending is Ending.SILENT else 20
        answer = record(target, [target.request("POST", "/a", b"{}")], patience_s=patience_s)

    assert (ending, b"data: {}\n\n", ending is Ending.COMPLETE) == (answer.ending, answer.body, answer.is_whole)


@pytest.mark.parametrize("leave", Leave)
def test_a_reader_may_leave_at_the_first_event(leave):
    with scripted([BAD_HEAD, event(b"{}"), HOLD]) as server:
        target = Target(server.url)
        answer = record(target, [target.request("POST", "/a", b"{}")], patience_s=20, until=b"data:", leave=leave)
        server.wait_for_leavers()

    assert Ending.LEFT is answer.ending


def test_sending_stops_where_an_answer_begins():
    with scripted([], on_connect=[b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", HOLD]) as server:
        target = Target(server.url)
        sent = []

        def pieces():
            for piece in [b"POST / HTTP/1.1\r\n", *[b" " * 65_536] * 10_000]:
                sent.append(piece)
                yield piece

        answer = record(target, pieces(), patience_s=20)

    assert 413 == answer.status
    assert len(sent) < 10_000


def test_a_prefix_a_host_and_a_key_are_sent():
    request = Target("https://[::1]:8443/prefix", "a:b").request("POST", "/x", b"{}", {"Accept": None})

    assert request == (
        b"POST /prefix/x HTTP/1.1\r\nHost: [::1]:8443\r\nUser-Agent: headrace-conformance\r\n"
        b"Accept-Encoding: gzip, deflate\r\nAuthorization: Key a:b\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )


def test_the_key_is_not_shown():
    assert "secret" not in repr(Target("http://localhost", "a:secret"))


def test_tls_is_spoken_with_whoever_ssl_cert_file_trusts(monkeypatch):
    with scripted([BAD_HEAD, event(b"{}"), CLOSE], tls=True) as server:
        target = Target(server.url)
        request = [target.request("POST", "/a", b"{}")]
        untrusted = record(target, request, patience_s=20)
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS_CERTIFICATE))
        trusted = record(target, request, patience_s=20)

    assert (Ending.UNREACHABLE, None) == (untrusted.ending, untrusted.status)
    assert "certificate" in untrusted.fault
    assert (200, b"data: {}\n\n", Ending.FIN) == (trusted.status, trusted.body, trusted.ending)
