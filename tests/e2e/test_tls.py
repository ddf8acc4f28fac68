"""https beside http: the same gateway, the same endings, and clients that find it by `headrace env`."""

import contextlib
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import time

import certifi
import pytest

from headrace import Client
from tests.support.official import official_server, tls_port_of, users_environment
from tests.support.server import PATIENCE_S, ZOO, RawStream, data_events, eventually, running_server


def key_of(served) -> str:
    return served.environment["FAL_KEY"]


def ca_of(served) -> pathlib.Path:
    return served.server.folder / "data" / "tls" / "ca.pem"


class TlsStream(RawStream):
    """A raw client by TLS. A connection that ends without a goodbye (close_notify) is an error to it."""

    def __init__(self, served, name: str = "localhost") -> None:
        super().__init__(served.tls_port)
        context = ssl.create_default_context(cafile=ca_of(served))
        self.socket = context.wrap_socket(self.socket, server_hostname=name, suppress_ragged_eofs=False)
        self.served = served

    def post(self, path, body, headers=None):
        super().post(path, body, {"Authorization": f"Key {key_of(self.served)}", **(headers or {})})


@pytest.fixture(scope="module")
def served():
    with official_server(args=("--impersonate",), limits={"flush_timeout_s": 1}) as served:
        yield served


def call(served, *command, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run a client's program in the shell of a user who said `eval "$(headrace env --node)"`."""
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, env={**served.environment, **environment}
    )  # fmt: skip


# --- the listener -------------------------------------------------------------------------------------------


def test_http_and_https_lead_to_the_same_apps(served):
    headers = {"Authorization": f"Key {key_of(served)}"}
    with TlsStream(served) as stream:
        stream.post("/zoo/zoo/def", {"n": 2})
        stream.read_until(b'{"total":2}')

    assert served.server.post("/zoo/zoo/def", {"n": 2}, headers).json == {"total": 2}
    assert f"serves on {served.server.url}\n" in served.server.log
    assert f"serves on https://localhost:{served.tls_port}\n" in served.server.log
    assert f"Made a local CA: {ca_of(served)}\n" in served.server.log


def test_a_connection_serves_another_stream_after_the_first(served):
    with TlsStream(served) as stream:
        stream.post("/zoo/zoo/stream", {"n": 1})
        stream.read_until(b"0\r\n\r\n")
        stream.bytes = b""
        stream.post("/zoo/zoo/async/stream", {"n": 2})
        stream.read_until(b"0\r\n\r\n")

    assert data_events(stream.body) == [{"i": 0}, {"i": 1}, {"total": 2}]


def test_a_failure_after_the_first_event_is_told_then_cut_with_a_goodbye_and_no_final_chunk(served):
    with TlsStream(served) as stream:
        stream.post("/zoo/zoo/raise-later/stream", {})
        stream.read_to_end()

    assert data_events(stream.body)[:2] == [{"i": 0}, {"i": 1}]
    assert data_events(stream.body)[2]["error"]["type"] == "runner_server_error"
    assert not stream.is_whole


def test_a_client_that_never_says_goodbye_is_left_when_the_flush_timeout_is_over(served):
    context = ssl.create_default_context(cafile=ca_of(served))
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(received, sent, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", served.tls_port), timeout=15) as raw:
        by_hand(client.do_handshake, raw, received, sent)
        client.write(
            b"POST /zoo/zoo/raise-later/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nAuthorization: Key %b\r\n\r\n{}" % key_of(served).encode()
        )
        text = b""
        while piece := by_hand(lambda: client.read(65_536), raw, received, sent):
            text += piece

        assert b"event: error" in text
        assert raw.recv(1) == b""  # the server's FIN, while we say nothing; stall_timeout_s is 30


def by_hand(step, raw, received, sent):
    """Take one step of a TLS connection that we move the bytes of. Its end by close_notify is b""."""
    while True:
        try:
            result = step()
        except ssl.SSLWantReadError:
            raw.sendall(sent.read())
            received.write(raw.recv(65_536))
        except ssl.SSLZeroReturnError:
            return b""
        else:
            raw.sendall(sent.read())
            return result


def test_a_refusal_of_a_body_that_is_not_read_arrives_whole(served):
    head = f"POST /zoo/zoo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Key {key_of(served)}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {11 * 1024 * 1024}\r\n\r\n"
    for _ in range(20):
        with TlsStream(served) as stream:
            begun = time.monotonic()
            with contextlib.suppress(OSError):
                stream.socket.sendall(head.encode())
                stream.socket.sendall(b"x" * 1024 * 1024)
            if time.monotonic() - begun < 1.0:  # linger_s; else this test was held up, and hung up on: again
                stream.read_to_end()
                break

    status, _, answer = stream.bytes.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer)["error_type"] == "payload_too_large"


def test_a_greeting_that_does_not_end_is_hung_up_on():
    # A server of its own: with so little patience for the others, a client that is held up loses its connection.
    args = ("--no-auth", "--tls", "--tls-port", "0")
    with running_server(args=args, limits={"header_timeout_s": 1}) as server:
        before = server.log
        with socket.create_connection(("127.0.0.1", tls_port_of(server)), timeout=PATIENCE_S) as silent:
            silent.sendall(b"\x16\x03\x01")

            assert silent.recv(1) == b""
        assert server.log == before


def test_plain_http_on_the_tls_port_is_hung_up_on_and_harms_nobody(served):
    before = served.server.log
    with RawStream(served.tls_port) as plain:
        plain.post("/zoo/zoo/stream", {})
        with contextlib.suppress(ConnectionError):
            plain.read_to_end()
    with TlsStream(served) as stream:
        stream.post("/zoo/zoo/def", {"n": 2})
        stream.read_until(b'{"total":2}')

    assert not plain.bytes.startswith(b"HTTP")
    assert served.server.log == before


def test_a_reader_that_reads_nothing_paces_its_model_and_gets_every_event_in_the_end(served):
    with TlsStream(served) as stream:
        stream.post("/zoo/zoo/flood/stream", {"n": 5_000, "name": "tls"})
        eventually(lambda: made(served.server) > 0, "the model has begun")
        other = TlsStream(served)
        with other:
            other.post("/zoo/zoo/stream", {"n": 100, "pause": 0.01})
            other.read_until(b"0\r\n\r\n")
        unread = made(served.server)
        stream.read_until(b"0\r\n\r\n")

    assert unread * 1_000 < 4 * 1024 * 1024
    assert [event["i"] for event in data_events(stream.body)] == list(range(5_000))


def made(server) -> int:
    return max((int(note.split()[-1]) for note in server.notes() if note.startswith("flood tls ")), default=0)


def test_leaving_stops_the_model(served):
    with TlsStream(served) as stream:
        stream.post("/zoo/zoo/stream", {"n": 10_000, "pause": 0.02, "name": "left by tls"})
        stream.read_until(b"data: ")

    eventually(served.server.saw("finally left by tls"), "the generator is closed")


# --- names --------------------------------------------------------------------------------------------------


def test_an_impersonating_server_answers_as_fal_run(served):
    with TlsStream(served, "fal.run") as stream:
        stream.post("/zoo/zoo/def", {"n": 2})
        stream.bytes = b""
        stream.read_until(b'{"total":2}')


def test_what_queue_fal_run_is_asked_is_asked_of_the_queue(served):
    headers = {"Authorization": f"Key {key_of(served)}", "Host": "queue.fal.run"}
    answer = served.server.post("/zoo/zoo/def", {"n": 2}, headers)

    assert answer.status == 404 or "request_id" in answer.json
    assert answer.json != {"total": 2}


def test_a_server_that_impersonates_nobody_is_not_fal_run():
    with official_server() as served:
        refused = served.server.post("/zoo/zoo/def", {}, {"Host": "fal.run"})
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'fal.run'"):
            TlsStream(served, "fal.run")

    assert (refused.status, refused.json["error_type"]) == (400, "bad_request")


def test_a_taken_port_is_told_with_the_flag_that_names_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=f"port {port} on 127.0.0.1 is in use; .* add --tls-port"):
            with running_server(args=("--no-auth", "--tls", "--tls-port", str(port))):
                pass


@pytest.mark.parametrize("args", [["--impersonate"], ["--tls-name", "gpu.example.org"]])
def test_a_name_without_tls_is_refused(tmp_path, args):
    told = subprocess.run(
        [sys.executable, "-m", "headrace", "serve", str(ZOO), *args],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip

    assert (told.returncode, told.stderr) == (
        2, f"headrace: {args[0]}: is for the certificate of --tls; add --tls\n"
    )  # fmt: skip


# --- clients ------------------------------------------------------------------------------------------------

#: As on fal's page for Python, but for the name of the app.
PYTHON = """
import fal_client

stream = fal_client.stream("zoo/zoo", arguments={"n": 2})
for event in stream:
    print(event)
"""


def test_fals_python_client_needs_nothing_but_the_variables(served):
    told = call(served, sys.executable, "-c", PYTHON)

    assert (told.stderr, told.stdout) == ("", "{'i': 0}\n{'i': 1}\n{'total': 2}\n")


def test_our_own_sdk_goes_by_tls_too(served, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", served.environment["SSL_CERT_FILE"])
    with Client(f"https://localhost:{served.tls_port}", key=key_of(served)) as client:
        assert list(client.stream("zoo/zoo", {"n": 1})) == [{"i": 0}, {"total": 1}]


def test_curl_sees_a_whole_stream_as_whole_and_a_cut_one_as_cut(served):
    command = [
        "curl",
        "-sSN",
        "--cacert",
        str(ca_of(served)),
        "-H",
        f"Authorization: Key {key_of(served)}",
        "--json",
        "{}",
    ]
    whole = call(served, *command, f"https://localhost:{served.tls_port}/zoo/zoo/stream")
    cut = call(served, *command, f"https://localhost:{served.tls_port}/zoo/zoo/raise-later/stream")

    assert (whole.returncode, whole.stdout.count("data: ")) == (0, 4)
    assert (cut.returncode, cut.stdout.count("data: ")) == (18, 3)  # 18: transfer closed with data outstanding


#: What a program may hand to fetch. Each must go to the server, and say there what it says here.
FETCH = """
const headers = { Authorization: `Key ${process.env.FAL_KEY}`, "Content-Type": "application/json" };
const plain = { method: "POST", headers, body: '{"n":1}' };
const body = () => new ReadableStream({
  start(controller) { controller.enqueue(new TextEncoder().encode('{"n":1}')); controller.close(); },
});
const calls = {
  text: ["https://fal.run/zoo/zoo/def?a=b", plain],
  URL: [new URL("https://fal.run/zoo/zoo/def"), plain],
  Request: [new Request("https://fal.run/zoo/zoo/def", plain)],
  "Request and options": [new Request("https://fal.run/zoo/zoo/def"), plain],
  "stream as body": ["https://fal.run/zoo/zoo/def", { ...plain, body: body(), duplex: "half" }],
  "Request with a stream": [new Request("https://fal.run/zoo/zoo/def", { ...plain, body: body(), duplex: "half" })],
  default_port: ["https://FAL.run:443/zoo/zoo/def", plain],
};
for (const [name, args] of Object.entries(calls)) {
  const answer = await fetch(...args);
  console.log(name, answer.status, await answer.text());
}
"""


def node(served, program, **environment):
    return call(served, "node", "--input-type=module", "--eval", program, **environment)


def test_whatever_way_a_node_program_calls_fetch_it_comes_here(served):
    told = node(served, FETCH)

    names = [
        "text",
        "URL",
        "Request",
        "Request and options",
        "stream as body",
        "Request with a stream",
        "default_port",
    ]
    assert (told.stderr, told.stdout.splitlines()) == ("", [f'{name} 200 {{"total":1}}' for name in names])


def test_a_node_programs_signal_still_stops_the_model(served):
    told = node(served, """
const leave = new AbortController();
const body = '{"n": 10000, "pause": 0.02, "name": "aborted"}';
const headers = { Authorization: `Key ${process.env.FAL_KEY}`, "Content-Type": "application/json" };
const request = new Request("https://fal.run/zoo/zoo/stream", { method: "POST", headers, body, signal: leave.signal });
const answer = await fetch(request);
try {
  for await (const _ of answer.body) leave.abort();
} catch (error) {
  console.log(error.name);
}
""")  # fmt: skip

    assert (told.stderr, told.stdout) == ("", "AbortError\n")
    eventually(served.server.saw("finally aborted"), "the generator is closed")


def test_the_queues_and_the_rest_hosts_come_here_too(served):
    told = node(served, """
const headers = { Authorization: `Key ${process.env.FAL_KEY}` };
for (const url of ["https://queue.fal.run/zoo/nobody", "https://rest.fal.ai/zoo/nobody"]) {
  const answer = await fetch(url, { method: "POST", headers });
  console.log(answer.headers.has("x-fal-request-id"), new URL(answer.url).pathname);
}
""")  # fmt: skip

    assert (told.stderr, told.stdout) == ("", "true /queue/zoo/nobody\ntrue /zoo/nobody\n")


@pytest.mark.parametrize(
    "url",
    [
        "https://evilfal.run/", "https://fal.run.invalid/", "https://a.fal.run/", "https://fal.run:444/",
        "http://fal.run/", "https://fal.run@127.0.0.1:1/", "not a url", "data:,https://fal.run/",
    ],
)  # fmt: skip
def test_every_other_address_is_left_to_fetch_as_it_is(served, url):
    # The module is given a fetch that tells what it was asked for: no test goes to the network.
    program = f"""
globalThis.fetch = (resource) => console.log(String(resource));
await import({json.dumps(served.environment["NODE_OPTIONS"].split()[-1])});
fetch({json.dumps(url)});
fetch("https://fal.run/a?b#c");
"""
    told = node(served, program, NODE_OPTIONS="")

    assert (told.stderr, told.stdout) == ("", f"{url}\nhttps://localhost:{served.tls_port}/a?b\n")


def test_without_an_address_to_redirect_to_the_program_does_not_start_and_no_key_leaves(served):
    told = node(served, "console.log('started')", HEADRACE_REDIRECT="")

    assert (told.returncode, told.stdout) == (1, "")
    assert "redirect.mjs needs HEADRACE_REDIRECT" in told.stderr


def test_a_client_that_was_not_told_of_the_ca_refuses(served):
    told = call(
        served,
        sys.executable,
        "-c",
        PYTHON,
        **users_environment(served.server) | {"SSL_CERT_FILE": str(certifi.where())},
    )

    assert told.returncode == 1
