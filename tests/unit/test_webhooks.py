"""Webhooks: what they say, that they prove who sent them and when, what an answer means, and when they come again."""

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import importlib.util
import ipaddress
import json
import pathlib
import ssl
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from headrace.core.keys import KeyFault
from headrace.core.netguard import ADDRESS_RULES, URL_RULES, Policy
from headrace.core.webhook import (
    PAYLOAD_BYTES_MAX,
    RETRIES_MAX,
    Webhook,
    Outcome,
    Verdict,
    body_of,
    judge,
    next_try_s,
    retry_after_s,
    signed_headers,
)
from headrace.outbound import webhooks
from headrace.outbound.exchange import Outbound
from headrace.outbound.webhooks import deliver
from headrace.store.certificates import names_of
from headrace.store.tls import TlsFolder
from headrace.store.webhook_key import WebhookKey
from tests.support.ed25519 import is_signed
from tests.support.internet import Internet, answer

A5, A6 = pytest.mark.promise("A5"), pytest.mark.promise("A6")
ROOT = pathlib.Path(__file__).parents[2]
PUBLIC = "93.184.216.34"
NOW = 1_790_000_000.25
ID, USER = "0b5a8b0e-3f5c-4a57-9d1a-6d0c5b1e0001", "hr_abcdefghijkl"


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return WebhookKey(tmp_path_factory.mktemp("data") / "webhook-key.pem")


def webhook(
    url="http://hooks.example.com/hook?token=secret", body=b'{"status":"OK"}', request_id=ID, user_id=USER
):
    return Webhook(url, request_id, user_id, body)


# --- what they say ------------------------------------------------------------------------------------------------


def test_a_good_result_is_the_payload_byte_for_byte():
    body = body_of(ID, ID, 200, b' {"images": [{"w": 1.0}], "n": 12345678901234567890}\n')

    assert body == (
        b'{"request_id":"%s","gateway_request_id":"%s","status":"OK",'
        b'"payload":{"images": [{"w": 1.0}], "n": 12345678901234567890}}' % (ID.encode(), ID.encode())
    )


def test_a_failure_is_an_error_with_the_error_body_as_payload():
    found = json.loads(body_of(ID, "other", 422, b'{"detail":[{"loc":["body","prompt"],"msg":"required"}]}'))

    assert found == {
        "request_id": ID,
        "gateway_request_id": "other",
        "status": "ERROR",
        "error": "Invalid status code: 422",
        "payload": {"detail": [{"loc": ["body", "prompt"], "msg": "required"}]},
    }


@pytest.mark.parametrize(
    "result",
    [b"", b"\x89PNG\r\n", b"NaN", b'{"a":Infinity}', b'{"a":1},"status":"ERROR"', b"{} {}", b"\xff\xfe{\x00}\x00",
     b"\xef\xbb\xbf{}", b"[" * 100_000 + b"]" * 100_000, b"1" * 5_000, b'"\xed\xa0\x80"', b"{'a':1}"],
    ids=lambda result: ascii(result[:20]),
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 500])
def test_a_result_that_is_no_json_is_null_with_the_reason(status, result):
    found = json.loads(body_of(ID, ID, status, result))

    assert found["payload"] is None
    assert found["payload_error"].startswith("Response payload is not JSON serializable.")
    assert found["status"] == ("OK" if status == 200 else "ERROR")


def test_a_result_over_the_bound_is_null_with_the_reason():
    largest = b'"%s"' % (b"x" * (PAYLOAD_BYTES_MAX - 2))

    assert json.loads(body_of(ID, ID, 200, largest))["payload"] == "x" * (PAYLOAD_BYTES_MAX - 2)
    found = json.loads(body_of(ID, ID, 200, largest + b" "))
    assert found["payload"] is None
    assert found["payload_error"] == (
        "Response payload is over 4194304 bytes. Use the queue endpoint to retrieve the response."
    )


# --- who sent them, and when --------------------------------------------------------------------------------------


def is_genuine(headers: dict[str, str], body: bytes, jwks: bytes, now: float) -> bool:
    """The check of a receiver, written from fal's page alone, over an Ed25519 that is not the sender's."""
    if abs(now - int(headers["X-Fal-Webhook-Timestamp"])) > 300:
        return False
    message = (
        headers["X-Fal-Webhook-Request-Id"]
        + "\n" + headers["X-Fal-Webhook-User-Id"]
        + "\n" + headers["X-Fal-Webhook-Timestamp"]
        + "\n" + hashlib.sha256(body).hexdigest()
    )  # fmt: skip
    signature = bytes.fromhex(headers["X-Fal-Webhook-Signature"])
    keys = [entry["x"] for entry in json.loads(jwks)["keys"] if (entry["kty"], entry["crv"]) == ("OKP", "Ed25519")]
    return any(
        is_signed(message.encode(), signature, base64.urlsafe_b64decode(x + "=" * (-len(x) % 4))) for x in keys
    )


def test_the_independent_check_knows_the_rfcs_own_example():
    """RFC 8032 section 7.1, test 2: one byte."""
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )

    assert is_signed(b"\x72", signature, public)
    assert not is_signed(b"\x73", signature, public)


CASES = [
    (f"0b5a8b0e-3f5c-4a57-9d1a-{number:012x}", user, now, body)
    for number, (user, now, body) in enumerate(
        (user, now, body)
        for user in (USER, "anonymous")
        for now in (NOW, 4_102_444_800.0)
        for body in (b"", b'{"status":"OK"}', '{"payload":"ü\n"}'.encode(), b"\x00\xff\r\n", b"x" * 1_000_000)
    )
]


@A6
@pytest.mark.parametrize(("request_id", "user", "now", "body"), CASES, ids=range(len(CASES)))
def test_a_webhook_proves_who_sent_it_and_when(key, request_id, user, now, body):
    headers = signed_headers(webhook(body=body, request_id=request_id, user_id=user), key.sign, now)

    assert is_genuine(headers, body, key.jwks, now + 299)
    assert not is_genuine(headers, body + b" ", key.jwks, now)
    assert not is_genuine(headers, body, key.jwks, now + 302)


def test_there_are_twenty_cases():
    assert len(CASES) == 20


@A6
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Fal-Webhook-Request-Id", "0b5a8b0e-3f5c-4a57-9d1a-6d0c5b1e0002"),
        ("X-Fal-Webhook-User-Id", "hr_bbbbbbbbbbbb"),
        ("X-Fal-Webhook-Timestamp", str(int(NOW) + 1)),
        ("X-Fal-Webhook-Timestamp", str(int(NOW) - 1_000)),
        ("X-Fal-Webhook-Signature", "00" * 64),
        ("X-Fal-Webhook-Signature", "ff" * 64),
        ("X-Fal-Webhook-Signature", "00" * 63),
    ],
)
def test_a_webhook_that_was_changed_on_the_way_proves_nothing(key, name, value):
    headers = signed_headers(webhook(), key.sign, NOW)

    assert is_genuine(headers, webhook().body, key.jwks, NOW)
    assert not is_genuine({**headers, name: value}, webhook().body, key.jwks, NOW)


@A6
def test_another_servers_key_proves_nothing(key, tmp_path):
    other = WebhookKey(tmp_path / "webhook-key.pem")
    headers = signed_headers(webhook(), other.sign, NOW)

    assert not is_genuine(headers, webhook().body, key.jwks, NOW)
    both = json.dumps({"keys": json.loads(key.jwks)["keys"] + json.loads(other.jwks)["keys"]}).encode()
    assert is_genuine(headers, webhook().body, both, NOW)


# --- the key ------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path):
    path = tmp_path / "data" / "webhook-key.pem"

    first = WebhookKey(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert WebhookKey(path).jwks == first.jwks
    assert WebhookKey(path).sign(b"x") == first.sign(b"x")


def test_everybody_who_comes_first_has_the_same_key(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: WebhookKey(tmp_path / "webhook-key.pem").jwks, range(16)))

    assert len(keys) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["webhook-key.pem", "webhook-key.pem.lock"]


def test_the_jwks_document_shows_the_public_half_alone(key):
    (entry,) = json.loads(key.jwks)["keys"]

    assert {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig"}.items() <= entry.items()
    assert set(entry) == {"kty", "crv", "x", "alg", "use", "kid"}
    assert len(entry["x"]) == 43


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_told_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "webhook-key.pem"
    path.write_bytes(content)

    with pytest.raises(KeyFault, match="not an Ed25519 key; restore it"):
        WebhookKey(path)
    assert path.read_bytes() == content


def test_a_key_of_another_kind_is_told(tmp_path):
    folder = TlsFolder(tmp_path / "tls")
    folder.prepare(names_of("127.0.0.1"), dt.datetime.now(dt.UTC))

    with pytest.raises(KeyFault, match="not an Ed25519 key"):
        WebhookKey(folder.ca_key)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "data").write_text("in the way")

    with pytest.raises(KeyFault, match="cannot be read or made .File exists.; check the folder's owner"):
        WebhookKey(tmp_path / "data" / "webhook-key.pem")


# --- what an answer means -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, "delivered"), (201, "delivered"), (204, "delivered"), (299, "delivered"),
     (301, "permanent"), (302, "permanent"), (304, "permanent"), (307, "permanent"), (308, "permanent"),
     (400, "retry"), (401, "retry"), (404, "retry"), (408, "retry"), (410, "retry"), (425, "retry"), (429, "retry"),
     (500, "retry"), (502, "retry"), (503, "retry"), (599, "retry"), (999, "retry")],
)  # fmt: skip
def test_a_status_means_delivered_again_or_never(status, verdict):
    assert verdict == judge(status, None, NOW).verdict.value


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        (format_datetime(dt.datetime.fromtimestamp(NOW // 1 + 90, dt.UTC), usegmt=True), 89.75),
        (format_datetime(dt.datetime.fromtimestamp(NOW // 1 - 90, dt.UTC), usegmt=True), 0.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e9", None),
        ("٣", None),
        ("9" * 5_000, None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    assert seconds == retry_after_s(value, NOW)


AGAIN = Outcome(Verdict.RETRY, "the receiver answered 503")


@A6
def test_a_webhook_is_tried_again_ten_times_within_two_hours():
    waits = [next_try_s(tries, AGAIN, 0.0) for tries in range(1, 13)]

    assert [7.0, 14.0, 28.0, 56.0, 112.0, 224.0, 448.0, 896.0, 1_792.0, 3_584.0, None, None] == waits
    assert 7_161.0 == sum(waits[:RETRIES_MAX])


def test_chance_shortens_a_wait_by_a_fifth_at_most():
    assert (7.0, 6.3, 5.6) == tuple(round(next_try_s(1, AGAIN, roll), 6) for roll in (0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    ("asked_s", "waited_s"), [(None, 14.0), (0.0, 14.0), (5.0, 14.0), (100.0, 100.0), (1e9, 3_600.0)]
)
def test_a_receiver_may_ask_for_longer_within_bounds(asked_s, waited_s):
    assert waited_s == next_try_s(2, Outcome(Verdict.RETRY, "", asked_s), 0.0)


@pytest.mark.parametrize("verdict", [Verdict.DELIVERED, Verdict.PERMANENT])
def test_what_is_over_is_not_tried_again(verdict):
    assert next_try_s(1, Outcome(verdict, ""), 0.0) is None


# --- one try ------------------------------------------------------------------------------------------------------


@pytest.fixture
def internet():
    internet = Internet()
    internet.name("hooks.example.com", PUBLIC)
    for inside in ("127.0.0.1", "10.0.0.1", "169.254.169.254"):
        internet.site(inside, 80, [answer(200)])
    return internet


def try_once(internet, key, sent=None, policy=Policy(allow_http=True), tls=None):
    async def main():
        return await deliver(sent or webhook(), Outbound(policy, lookup=internet.lookup, tls=tls), key.sign, NOW)

    return internet.run(main)


@A6
def test_a_webhook_is_posted_as_it_was_signed(internet, key):
    site = internet.site(PUBLIC, 80, [answer(200)])

    assert Outcome(Verdict.DELIVERED, "the receiver answered 200") == try_once(internet, key)
    (heard,) = site.heard
    assert "POST /hook?token=secret HTTP/1.1" == heard.line
    assert ("application/json", "hooks.example.com") == (heard.headers["content-type"], heard.headers["host"])
    assert webhook().body == heard.body
    names = ("Request-Id", "User-Id", "Timestamp", "Signature")
    told = {f"X-Fal-Webhook-{name}": heard.headers[f"x-fal-webhook-{name.lower()}"] for name in names}
    assert is_genuine(told, heard.body, key.jwks, NOW)


def test_a_webhook_goes_by_https_unless_the_operator_says_otherwise(internet, key, tmp_path):
    folder = TlsFolder(tmp_path / "tls")
    folder.prepare(names_of("127.0.0.1", ["hooks.example.com"]), dt.datetime.now(dt.UTC))
    site = internet.site(PUBLIC, 443, [answer(204)], tls=folder.context())
    trusting = ssl.create_default_context(cafile=folder.ca)

    plain = try_once(internet, key, policy=Policy())
    sealed = try_once(internet, key, webhook("https://hooks.example.com/hook"), Policy(), trusting)
    doubted = try_once(internet, key, webhook("https://hooks.example.com/hook"), Policy())

    assert (Verdict.PERMANENT, True) == (plain.verdict, "rule: scheme" in plain.reason)
    assert Verdict.DELIVERED is sealed.verdict
    assert (Verdict.RETRY, True) == (doubted.verdict, "certificate verify failed" in doubted.reason)
    assert 1 == len(site.heard)


@A5
@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://127.0.0.1/", "loopback"),
        ("http://2130706433/", "address-spelling"),
        ("http://169.254.169.254/latest/meta-data/", "link-local"),
        ("http://[::ffff:10.0.0.1]/", "v4-mapped"),
        ("http://localhost/", "local-name"),
        ("http://inside.example.com/", "private"),
        ("http://hooks.example.com:6379/", "port"),
        ("gopher://127.0.0.1/", "scheme"),
    ],
)
def test_a_webhook_to_the_inside_is_dropped_for_good(internet, key, url, rule):
    internet.name("inside.example.com", "10.0.0.1")

    outcome = try_once(internet, key, webhook(url))

    assert Verdict.PERMANENT is outcome.verdict
    assert outcome.reason.endswith(f"(rule: {rule})")
    assert [] == internet.connects


@A5
def test_a_name_that_moves_inside_between_two_tries_is_dropped_at_the_second(internet, key):
    internet.name("hooks.example.com", PUBLIC, "127.0.0.1")
    internet.site(PUBLIC, 80, [answer(503)])

    first, second = try_once(internet, key), try_once(internet, key)

    assert (Verdict.RETRY, Verdict.PERMANENT) == (first.verdict, second.verdict)
    assert [f"{PUBLIC}:80"] == internet.connects


@A5
@pytest.mark.parametrize(
    "location", ["http://127.0.0.1/", "http://hooks.example.com/other", "https://example.org/"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(internet, key, status, location):
    site = internet.site(PUBLIC, 80, [answer(status, Location=location)])

    outcome = try_once(internet, key)

    assert f"the receiver answered {status}; redirects are not followed" == outcome.reason
    assert Verdict.PERMANENT is outcome.verdict
    assert (1, 1) == (len(site.heard), len(internet.connects))


def test_a_receiver_that_asks_for_time_is_heard(internet, key):
    internet.site(PUBLIC, 80, [answer(429, Retry_After="120")])

    assert Outcome(Verdict.RETRY, "the receiver answered 429", 120.0) == try_once(internet, key)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "http://hooks.example.com: Connection refused"),
        (b"", "http://hooks.example.com: the connection could not be made, or was lost"),
        (b"220 smtp ready\r\n\r\n", "http://hooks.example.com: what came back is not HTTP"),
    ],
)
def test_what_may_pass_is_tried_again_and_told_without_the_path(internet, key, script, reason):
    if script is not None:
        internet.site(PUBLIC, 80, [script])

    assert Outcome(Verdict.RETRY, reason) == try_once(internet, key)


def test_a_name_that_is_not_known_may_be_known_later(internet, key):
    outcome = try_once(internet, key, webhook("http://new.example.com/"))

    assert Outcome(Verdict.RETRY, "http://new.example.com: new.example.com: no such name") == outcome


def test_a_receiver_that_says_nothing_has_fifteen_seconds(internet, key, monkeypatch):
    async def silent(writer):
        await asyncio.sleep(60)

    internet.site(PUBLIC, 80, [silent])
    assert 15.0 == webhooks.TIMEOUT_S
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.2)

    assert Outcome(Verdict.RETRY, "http://hooks.example.com: took too long") == try_once(internet, key)


def test_the_body_of_an_answer_is_not_waited_for(internet, key):
    async def endless(writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    internet.site(PUBLIC, 80, [endless])

    assert Verdict.DELIVERED is try_once(internet, key).verdict


# --- the example --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.fixture
def receiver(key):
    """The receiver of examples/, and a server with our keys. Gives what it handled, and how to send to it."""
    spec = importlib.util.spec_from_file_location("webhook_receiver", ROOT / "examples/webhook_receiver.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    handled, fetches, published = [], [], [key.jwks]

    class Jwks(BaseHTTPRequestHandler):
        def do_GET(self):
            fetches.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(published[0])

        def log_message(self, *args):
            pass

    class Receiver(example.Receiver):
        done = set()

        def handle_webhook(self, webhook):
            handled.append(webhook)

        def log_message(self, *args):
            pass

    with listening(Jwks) as keys_port, listening(Receiver) as port:
        Receiver.keys = example.Keys(f"http://127.0.0.1:{keys_port}/.well-known/jwks.json")
        policy = Policy(allow_http=True, ports=frozenset({port}), allowed=(ipaddress.ip_network("127.0.0.1/32"),))

        def send(body=body_of(ID, ID, 200, b'{"n":1}'), sign=key.sign, now=None, request_id=ID):
            sent = Webhook(f"http://127.0.0.1:{port}/hook", request_id, USER, body)
            return asyncio.run(deliver(sent, Outbound(policy), sign, time.time() if now is None else now)).reason

        send.keys, send.handled, send.fetches, send.published = Receiver.keys, handled, fetches, published
        yield send


TAKEN, DOUBTED = "the receiver answered 200", "the receiver answered 401"


@A6
def test_the_example_takes_a_webhook_once_however_often_it_comes(receiver):
    assert [TAKEN] * 3 == [receiver(), receiver(), receiver()]
    assert [{"n": 1}] == [webhook["payload"] for webhook in receiver.handled]
    assert 1 == len(receiver.fetches)


@A6
def test_the_example_doubts_what_is_forged_or_old(receiver):
    forged = [
        receiver(sign=lambda message: bytes(64)),
        receiver(sign=lambda message: b"short"),
        receiver(now=time.time() - 400),
        receiver(now=time.time() + 400),
    ]

    assert [DOUBTED] * 4 == forged
    assert [] == receiver.handled
    assert len(receiver.fetches) <= 1  # forgers cannot make it fetch
    assert TAKEN == receiver()


@A6
def test_the_example_learns_of_a_new_key(receiver, tmp_path):
    assert TAKEN == receiver()
    other = WebhookKey(tmp_path / "webhook-key.pem")
    receiver.published[0] = other.jwks

    assert DOUBTED == receiver(sign=other.sign, request_id="2")  # it looked less than a minute ago
    receiver.keys.fetched -= 61

    assert TAKEN == receiver(sign=other.sign, request_id="2")
    assert 2 == len(receiver.handled)


# --- the page -----------------------------------------------------------------------------------------------------


def test_every_rule_that_can_refuse_a_url_is_on_the_page():
    page = (ROOT / "docs/how-to/webhooks.md").read_text()

    assert [rule for rule, meaning in URL_RULES.items() if f"| `{rule}` | {meaning} |" not in page] == []
    assert [rule for rule in ADDRESS_RULES if rule and f"`{rule}`" not in page] == []
