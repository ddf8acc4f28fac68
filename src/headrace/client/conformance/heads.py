"""Checks of what comes before a stream's first byte: its status and its headers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from headrace.client.conformance.answer import Answer
from headrace.client.conformance.findings import JS, PYTHON, Finding, failed, passed, unchecked

_CHARSETS: Final = frozenset({"", "charset=utf-8", 'charset="utf-8"'})


def status(answer: Answer) -> Finding:
    """200, whatever the caller accepts."""
    if answer.status == 200:
        return passed("200")
    if answer.status is None:
        return failed(str(answer), "every client: no stream")
    if 300 <= answer.status < 400:
        return failed(
            f"{answer.status} to {answer.header('location')}",
            f"{PYTHON}: the sync client follows, the async one raises SSEError",
        )
    return failed(
        f"{answer}: {_text(answer)}",
        f"no stream to check; are --app, --path, --key and --input right? {PYTHON}: SSEError, the status is lost; "
        f"{JS}: for-await ends with zero events",
    )


def content_type(answer: Answer) -> Finding:
    """`text/event-stream`, with no parameter but the charset."""
    value = answer.header("content-type")
    if answer.status != 200:
        return unchecked(f"no stream: {answer}")
    parameter = (value or "").partition(";")[2].strip().lower()
    if answer.media_type == "text/event-stream" and parameter in _CHARSETS:
        return passed(str(value))
    return failed(
        f"Content-Type: {value}",
        f"{PYTHON}: SSEError, no event arrives; {JS}: raw bytes instead of events; EventSource: gives up for good",
    )


def not_compressed(answer: Answer) -> Finding:
    """No content coding, although gzip was offered: the official clients offer it on streams too."""
    encoding = answer.header("content-encoding") or "identity"
    transfer = [coding.strip() for coding in (answer.header("transfer-encoding") or "").lower().split(",")]
    coded = [coding for coding in transfer if coding not in {"", "chunked", "identity"}]
    if encoding == "identity" and not coded:
        return passed("plain, though gzip was offered")
    return failed(
        f"Content-Encoding: {encoding}" if not coded else f"Transfer-Encoding: {', '.join(transfer)}",
        "every client: events come in lumps, as the compressor fills its window; curl: binary on the screen",
    )


def not_buffered(answer: Answer) -> Finding:
    """`X-Accel-Buffering: no`: nginx buffers otherwise."""
    value = answer.header("x-accel-buffering")
    if value == "no":
        return passed("X-Accel-Buffering: no")
    return failed(
        f"X-Accel-Buffering: {value or 'absent'}",
        "every client behind nginx: events come in lumps of 4 to 8 KiB, heartbeats too late or at the end",
    )


def not_cached(answer: Answer) -> Finding:
    """`Cache-Control` with no-cache or no-store, and no-transform."""
    value = answer.header("cache-control") or ""
    said = {directive.strip().lower() for directive in value.split(",")}
    if said & {"no-cache", "no-store"} and "no-transform" in said:
        return passed(f"Cache-Control: {value}")
    return failed(
        f"Cache-Control: {value or 'absent'}",
        "every client behind a cache or a CDN: yesterday's stream, or one that was compressed on the way "
        "(no-cache, no-transform says not to)",
    )


def request_id(answer: Answer) -> Finding:
    """`x-fal-request-id`, that the server's log can be asked about."""
    value = answer.header("x-fal-request-id")
    if value:
        return passed(f"x-fal-request-id: {value}")
    return failed(
        "x-fal-request-id: absent", f"{JS}: requestId is undefined; nobody can find the request in a log"
    )


def connection(answer: Answer) -> Finding:
    """No `Connection: close` on a stream."""
    value = answer.header("connection") or ""
    if "close" not in {option.strip().lower() for option in value.split(",")}:
        return passed(f"Connection: {value or 'absent'}")
    return failed(
        f"Connection: {value}", f"{JS} in Node: a cut connection is taken for a clean end, so for success"
    )


def _text(answer: Answer) -> str:
    """Return the beginning of a body for reading."""
    return repr(answer.body[:120])[1:]


#: The checks of every stream's head: name, promise, function.
CHECKS: Final[Iterable[tuple[str, str, Callable[[Answer], Finding]]]] = (
    ("stream.not-compressed", "a stream is not compressed", not_compressed),
    ("stream.not-buffered", "proxies are told not to buffer", not_buffered),
    ("stream.not-cached", "caches are told to stay out of it", not_cached),
    ("stream.request-id", "a stream names its request", request_id),
    ("stream.connection", "a stream never says Connection: close", connection),
)
