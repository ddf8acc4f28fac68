"""JSON answers: their bytes, their headers, and the shapes fal gives to errors (protocol section 9)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import orjson

from headrace.core.errors import RequestError

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]
Answer: TypeAlias = tuple[int, Headers, bytes]


def request_id_header(request_id: str) -> tuple[bytes, bytes]:
    """Return the header that every answer carries."""
    return b"x-fal-request-id", request_id.encode("ascii")


def json_answer(status: int, body: bytes, request_id: str) -> Answer:
    """Return an answer whose body is ready JSON."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        request_id_header(request_id),
    ]
    return status, headers, body


def text_answer(media_type: bytes, body: bytes, request_id: str) -> Answer:
    """Return an answer of any text."""
    headers = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        request_id_header(request_id),
    ]
    return 200, headers, body


def value_answer(status: int, value: object, request_id: str) -> Answer:
    """Return an answer whose body is `value` as JSON."""
    return json_answer(status, orjson.dumps(value), request_id)


def error_answer(error: RequestError, request_id: str) -> Answer:
    """Return the HTTP form of a failure: `detail`, `error_type`, and the same type as a header."""
    status, headers, text = value_answer(error.status, error.to_body(request_id), request_id)
    headers.append((b"x-fal-error-type", error.type.encode("ascii")))
    if error.retryable:
        headers.append((b"x-fal-needs-retry", b"1"))
    headers += [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in error.headers.items()]
    if status == 401:
        headers.append((b"www-authenticate", b"Key"))
    return status, headers, text
