"""A receiver of webhooks that believes what is signed, once.

    python webhook_receiver.py http://127.0.0.1:8080/.well-known/jwks.json 9000

Works the same for fal's own webhooks: their keys are at https://rest.fal.ai/.well-known/jwks.json.
Needs `pip install cryptography` and nothing else.
"""

import base64
import hashlib
import json
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WINDOW_S = 300  # a webhook that was signed longer ago may be one that somebody recorded
BODY_BYTES_MAX = 8 * 1024 * 1024


class Keys:
    """The sender's public keys: good for a day, and fetched anew (once a minute) when none of them fits."""

    def __init__(self, url: str):
        self.url = url
        self.keys: list[Ed25519PublicKey] = []
        self.fetched = float("-inf")

    def fit(self, signature: bytes, message: bytes) -> bool:
        age_s = time.monotonic() - self.fetched
        if age_s < 86_400 and self.any_fits(signature, message):
            return True
        if age_s < 60:
            return False
        self.fetched = time.monotonic()
        with urllib.request.urlopen(self.url, timeout=10) as answer:  # noqa: S310 - a URL of our own
            found = json.load(answer)["keys"]
        raw = [base64.urlsafe_b64decode(key["x"] + "==") for key in found if key.get("crv") == "Ed25519"]
        self.keys = [Ed25519PublicKey.from_public_bytes(x) for x in raw]
        return self.any_fits(signature, message)

    def any_fits(self, signature: bytes, message: bytes) -> bool:
        for key in self.keys:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return True
        return False


class Receiver(BaseHTTPRequestHandler):
    keys: Keys
    # In a real receiver: a table of the database, written together with what the webhook changes there.
    done: set[str] = set()  # noqa: RUF012
    turn = threading.Lock()
    timeout = 20

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if 0 <= length <= BODY_BYTES_MAX else b""
        if not self.is_genuine(body):
            self.answer(401)
            return
        id_ = self.headers["X-Fal-Webhook-Request-Id"]
        with self.turn:
            if id_ not in self.done:  # the sender may not have heard our last 200
                self.handle_webhook(json.loads(body))
                self.done.add(id_)
        self.answer(200)

    def is_genuine(self, body: bytes) -> bool:
        id_, user, sent, signature = (
            self.headers.get(f"X-Fal-Webhook-{name}", "")
            for name in ("Request-Id", "User-Id", "Timestamp", "Signature")
        )
        message = "\n".join((id_, user, sent, hashlib.sha256(body).hexdigest())).encode()
        try:
            return abs(time.time() - int(sent)) <= WINDOW_S and self.keys.fit(bytes.fromhex(signature), message)
        except ValueError:  # not a number, or not hex
            return False

    def handle_webhook(self, webhook: dict[str, Any]) -> None:
        print(webhook["request_id"], webhook["status"], webhook["payload"], flush=True)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    Receiver.keys = Keys(sys.argv[1])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Receiver).serve_forever()
