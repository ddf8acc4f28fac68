"""A webhook: what it says, how it is signed, what an answer to it means, and when it is tried again.

    body       {"request_id", "gateway_request_id", "status": "OK" | "ERROR", "payload", "error", "payload_error"}
    signed     request id, user id, unix seconds, SHA-256 of the body in hex: four lines, by Ed25519
    headers    X-Fal-Webhook-Request-Id, -User-Id, -Timestamp, -Signature (hex)

All of it as fal documents it (fal.ai/docs, Webhooks), so a receiver written for fal takes ours. The receiver may
hear of a request more than once, never of two under one id. This file signs nothing and sends nothing: the key and
the network are passed in, and so are time and chance.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, NoReturn, TypeAlias

#: Bytes of a result that travels in a webhook; a larger one is to be fetched from the queue. fal names no figure.
#: It is parsed once to be sure that it is JSON, which holds the event loop for some 10 ms a MiB.
PAYLOAD_BYTES_MAX: Final = 4 * 1024 * 1024

#: Tries after the first one.
RETRIES_MAX: Final = 10

#: Seconds before the first retry; each next wait is twice as long. Ten of them make 7,161 s: fal's two hours.
RETRY_FIRST_S: Final = 7.0

#: The share of a wait that chance takes away, so that a receiver that was down is not met by everybody at once.
RETRY_JITTER: Final = 0.2

#: Seconds that a receiver's Retry-After may ask for: about the longest wait of the schedule.
RETRY_AFTER_S_MAX: Final = 3_600.0

#: Makes the 64 bytes of an Ed25519 signature.
Sign: TypeAlias = Callable[[bytes], bytes]

_SECONDS: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook to deliver: the same bytes at every try."""

    url: str  # as the caller gave it; judged anew at every try
    request_id: str
    user_id: str  # whose request it was: the public id of a key
    body: bytes  # as `body_of` made it


class Verdict(enum.Enum):
    """What became of one try."""

    DELIVERED = "delivered"
    RETRY = "retry"
    PERMANENT = "permanent"  # no further try can end otherwise


@dataclass(frozen=True, slots=True)
class Outcome:
    """One try, told in a line: `reason` is for the operator's list of dead letters."""

    verdict: Verdict
    reason: str
    asked_s: float | None = None  # the receiver's Retry-After


def body_of(request_id: str, gateway_request_id: str, status: int, result: bytes) -> bytes:
    """Return what is posted when a request ends: with the model's answer, `status` and `result`, as it gave them.

    A status from 400 on is an ERROR, whose text is fal's. A result that JSON cannot carry, or one over
    `PAYLOAD_BYTES_MAX`, becomes `"payload": null` with the reason in `payload_error`; the queue still has it.
    """
    fields: dict[str, str] = {"request_id": request_id, "gateway_request_id": gateway_request_id}
    fields["status"] = "OK" if status < 400 else "ERROR"
    if status >= 400:
        fields["error"] = f"Invalid status code: {status}"
    fault = _why_not_payload(result)
    if fault is not None:
        fields["payload_error"] = f"{fault} Use the queue endpoint to retrieve the response."
    # The result goes in as it stands: numbers keep their digits, and a megabyte is not encoded twice.
    head = json.dumps(fields, separators=(",", ":")).encode("ascii").removesuffix(b"}")
    return b'%s,"payload":%s}' % (head, b"null" if fault is not None else result.strip(b" \t\r\n"))


def signed_headers(webhook: Webhook, sign: Sign, now: float) -> dict[str, str]:
    """Return the headers that prove who sent a webhook and when. `now` is seconds since 1970, of this very try."""
    timestamp = str(int(now))
    digest = hashlib.sha256(webhook.body).hexdigest()
    signed = f"{webhook.request_id}\n{webhook.user_id}\n{timestamp}\n{digest}".encode()
    return {
        "X-Fal-Webhook-Request-Id": webhook.request_id,
        "X-Fal-Webhook-User-Id": webhook.user_id,
        "X-Fal-Webhook-Timestamp": timestamp,
        "X-Fal-Webhook-Signature": sign(signed).hex(),
    }


def judge(status: int, retry_after: str | None, now: float) -> Outcome:
    """Return what a receiver's answer means.

    2xx is delivered. 3xx is permanent: fal says so, and following one would let a receiver choose the next
    target. Anything else is tried again, the 4xx too: a receiver that is wrong today is often mended within hours.
    """
    reason = f"the receiver answered {status}"
    if 200 <= status <= 299:
        return Outcome(Verdict.DELIVERED, reason)
    if 300 <= status <= 399:
        return Outcome(Verdict.PERMANENT, f"{reason}; redirects are not followed")
    return Outcome(Verdict.RETRY, reason, retry_after_s(retry_after, now))


def retry_after_s(value: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, as seconds or as a date (RFC 9110 section 10.2.3).

    None where there is none, or none that can be read. `now` is seconds since 1970.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        then = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(0.0, then.timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def next_try_s(tries: int, outcome: Outcome, roll: float) -> float | None:
    """Return the seconds to wait after the n-th try (from 1) had `outcome`, or None if it was the last.

    `roll` is chance, from 0 to 1. A receiver may ask for longer than the schedule says, up to `RETRY_AFTER_S_MAX`.
    """
    if outcome.verdict is not Verdict.RETRY or tries > RETRIES_MAX:
        return None
    wait_s = RETRY_FIRST_S * 2.0 ** (tries - 1) * (1.0 - RETRY_JITTER * roll)
    return max(wait_s, min(outcome.asked_s or 0.0, RETRY_AFTER_S_MAX))


def _why_not_payload(result: bytes) -> str | None:
    if len(result) > PAYLOAD_BYTES_MAX:
        return f"Response payload is over {PAYLOAD_BYTES_MAX} bytes."
    try:
        json.loads(result.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return "Response payload is not JSON serializable."
    return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # RFC 8259 section 6
