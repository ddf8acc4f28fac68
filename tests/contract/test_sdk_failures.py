"""Everything that can go wrong on the way, on both shells: each case raises exactly one documented type, once.

The table is the promise. Each row is a script for the server and what the caller must see: the error's type (its
very class), the items before it, and how many requests and connections the server saw.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

import pytest

from headrace.client import errors
from tests.support.scripted import (
    CLOSE,
    HOLD,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    STRETCHES,
    TAKEN,
    Beat,
    answer,
    chunk,
    event,
    refusing,
    scripted,
)
from tests.support.server import eventually
from tests.support.shells import SHELLS, no_credentials  # noqa: F401

ONE = event(b'{"i": 1}')
PING = chunk(b": ping\n")
DETAIL = b'{"detail": "no room", "error_type": "overloaded"}'
FIELDS = b'{"detail": [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]}'
FAILED = (
    b'event: error\ndata: {"error": {"type": "runner_disconnected", "message": "it died", '
    b'"request_id": "req-9", "retryable": true, "status": 503}}\n\n'
)


@dataclass(frozen=True)
class Case:
    name: str
    script: list[Any]
    raises: type[BaseException]
    items: list[Any] = field(default_factory=list)
    call: str = "stream"
    options: dict[str, Any] = field(default_factory=dict)
    on_connect: list[Any] = field(default_factory=list)
    requests: int = 1
    says: str = ""


def stream(name: str, *script: Any, raises: type[BaseException], **fields: Any) -> Case:
    return Case(name, list(script), raises, **fields)


def run(name: str, *script: Any, raises: type[BaseException], **fields: Any) -> Case:
    return Case(name, list(script), raises, call="run", **fields)


E = errors
CASES = [
    # An HTTP status before the first event, streams and runs
    stream("400", answer(400, b'{"detail": "what?", "error_type": "bad_request"}'), raises=E.APIError, says="what?"),
    stream("401", answer(401, b'{"detail": "no"}'), raises=E.AuthenticationError, says="the argument `key`"),
    stream("403", answer(403, b'{"detail": "no"}'), raises=E.PermissionDenied),
    stream("404", answer(404, b'{"detail": "no app"}'), raises=E.NotFound, says="no app"),
    stream("405", answer(405, b'{"detail": "no"}'), raises=E.APIError),
    stream("408", answer(408, b""), raises=E.APIError, says="408"),
    stream("422", answer(422, FIELDS), raises=E.InvalidInput, says="prompt: Field required"),
    stream("429", answer(429, DETAIL, "Retry-After: 3"), raises=E.Overloaded, says="overloaded"),
    stream("500", answer(500, b'{"detail": "oh"}'), raises=E.APIError),
    stream("502 of a proxy", answer(502, b"<h1>Bad Gateway</h1>", content_type="text/html"), raises=E.APIError),
    stream("503", answer(503, DETAIL), raises=E.Overloaded),
    stream("503 that calls itself a stream", answer(503, DETAIL, content_type="text/event-stream"), raises=E.Overloaded),
    stream("504", answer(504, b'{"detail": "late"}'), raises=E.DeadlinePassed),
    stream("301", answer(301, b"", "Location: https://elsewhere.test/x"), raises=E.APIError, says="https://elsewhere"),
    stream("303", answer(303, b"", "Location: /x"), raises=E.APIError, says="/x"),
    stream("307", answer(307, b"", "Location: /x"), raises=E.APIError, says="/x"),
    stream("307 without an address", answer(307, b""), raises=E.APIError, says="nowhere"),
    stream("503 whose body is cut", answer(503, DETAIL)[:-9], CLOSE, raises=E.Overloaded),
    stream("503 whose body is reset", answer(503, DETAIL)[:-9], RESET, raises=E.Overloaded),
    stream("503 in bad chunks", STREAM_HEAD.replace(b"200", b"503"), TAKEN, b"nonsense\r\n", raises=E.Overloaded),
    run("run 422", answer(422, FIELDS), raises=E.InvalidInput),
    run("run 429", answer(429, DETAIL), raises=E.Overloaded),
    run("run 502", answer(502, b""), raises=E.APIError),
    run("run 503", answer(503, DETAIL), raises=E.Overloaded),
    run("run 504", answer(504, b""), raises=E.DeadlinePassed),
    # Not what was asked for
    stream("200 JSON", answer(200, b"{}"), raises=E.ProtocolError, says="text/event-stream"),
    stream("200 of no type", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", raises=E.ProtocolError),
    stream("200 of a similar type", answer(200, b"", content_type="text/event-stream-not"), raises=E.ProtocolError),
    stream("204", b"HTTP/1.1 204 None\r\nContent-Type: text/event-stream\r\n\r\n", raises=E.ProtocolError),
    stream("206", answer(206, b"", content_type="text/event-stream"), raises=E.ProtocolError),
    stream("compressed", answer(200, b"", "Content-Encoding: gzip", content_type="text/event-stream"),
           raises=E.ProtocolError, says="gzip"),
    stream("[DONE]", STREAM_HEAD, ONE, event(b"[DONE]"), HOLD, raises=E.ProtocolError, items=[{"i": 1}], says="[DONE]"),
    stream("a number", STREAM_HEAD, ONE, event(b"7"), HOLD, raises=E.ProtocolError, items=[{"i": 1}]),
    stream("an empty event", STREAM_HEAD, event(b""), HOLD, raises=E.ProtocolError),
    run("run not JSON", answer(200, b"<p>hello", content_type="text/html"), raises=E.ProtocolError, says="<p>hello"),
    run("run of nothing", answer(200, b""), raises=E.ProtocolError),
    run("run of a stream", STREAM_HEAD, ONE, LAST_CHUNK, raises=E.ProtocolError, says="use stream()"),
    # Not HTTP
    stream("no HTTP", b"220 mail.test ESMTP\r\n\r\n", HOLD, raises=E.ProtocolError),
    stream("a bad status line", b"HTTP/1.1 abc OK\r\n\r\n", HOLD, raises=E.ProtocolError),
    stream("an endless status line", b"HTTP/1.1 200 " + b"x" * 200_000, HOLD, raises=E.ProtocolError),
    stream("an endless header", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000, HOLD, raises=E.ProtocolError),
    stream("1,000 headers", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1_000, HOLD, raises=E.ProtocolError),
    stream("a length that is none", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: x\r\n\r\n",
           HOLD, raises=E.ProtocolError),
    stream("chunks that are none", STREAM_HEAD, ONE, TAKEN, b"zz\r\nhello\r\n", HOLD, raises=E.ProtocolError, items=[{"i": 1}]),
    # The server fails on the way
    stream("an error event", STREAM_HEAD, ONE, chunk(FAILED), CLOSE, raises=E.StreamError, items=[{"i": 1}]),
    stream("an error event, then a clean end", STREAM_HEAD, ONE, chunk(FAILED), LAST_CHUNK, raises=E.StreamError,
           items=[{"i": 1}]),
    stream("an error event and nothing else", STREAM_HEAD, chunk(FAILED), HOLD, raises=E.StreamError),
    stream("an error event, more, a reset", STREAM_HEAD, ONE + chunk(FAILED) + ONE, HOLD, raises=E.StreamError,
           items=[{"i": 1}]),
    stream("an error in plain data", STREAM_HEAD, event(b'{"error": {"type": "no_result", "message": "m"}}'), CLOSE,
           raises=E.StreamError),
    stream("an error event without form", STREAM_HEAD, chunk(b"event: error\ndata: {}\n\n"), HOLD, raises=E.StreamError),
    # The connection fails
    stream("a reset at once", raises=E.ConnectionFailed, on_connect=[RESET], requests=0),
    stream("a close at once", raises=E.ConnectionFailed, on_connect=[CLOSE], requests=0),
    stream("a reset before the answer", RESET, raises=E.ConnectionFailed),
    stream("a close before the answer", CLOSE, raises=E.ConnectionFailed),
    stream("a reset in the head", STREAM_HEAD[:40], RESET, raises=E.ConnectionFailed),
    stream("a cut in the head", STREAM_HEAD[:40], CLOSE, raises=E.ConnectionFailed),
    stream("a cut in the first line", STREAM_HEAD[:7], CLOSE, raises=E.ConnectionFailed),
    stream("a cut after the head", STREAM_HEAD, CLOSE, raises=E.StreamCut),
    stream("a cut between events", STREAM_HEAD, ONE, CLOSE, raises=E.StreamCut, items=[{"i": 1}], says="req-1"),
    stream("a cut in an event", STREAM_HEAD, ONE + ONE[:9], CLOSE, raises=E.StreamCut, items=[{"i": 1}]),
    stream("a reset between events", STREAM_HEAD, ONE, TAKEN, RESET, raises=E.StreamCut, items=[{"i": 1}]),
    stream("a cut that the length shows", answer(200, b"data: {}\n\n" * 9, content_type="text/event-stream")[:-30],
           CLOSE, raises=E.StreamCut, items=[{}] * 6),
    stream("a clean end inside an event", STREAM_HEAD, ONE, chunk(b'data: {"i": 2}\n'), LAST_CHUNK,
           raises=E.StreamCut, items=[{"i": 1}]),
    stream("an end that proves nothing", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
           b'data: {"i": 1}\n\n', CLOSE, raises=E.StreamCut, items=[{"i": 1}]),
    run("a run reset before the answer", RESET, raises=E.ConnectionFailed),
    run("a run cut in its answer", answer(200, b'{"a": 1}')[:-3], CLOSE, raises=E.StreamCut),
    run("a run reset in its answer", answer(200, b'{"a": 1}')[:-3], TAKEN, RESET, raises=E.StreamCut),
    # Nothing comes
    stream("silence before the answer", HOLD, raises=E.ReadTimeout, options={"timeout": 0.3}),
    stream("silence in the head", STREAM_HEAD[:40], HOLD, raises=E.ReadTimeout, options={"timeout": 0.3}),
    stream("silence after the head", STREAM_HEAD, HOLD, raises=E.ReadTimeout, options={"timeout": 0.3}),
    stream("silence after an event", STREAM_HEAD, ONE, HOLD, raises=E.ReadTimeout, items=[{"i": 1}],
           options={"timeout": 0.3}, says="timeout"),
    stream("no event, only heartbeats", STREAM_HEAD, Beat(PING), raises=E.EventTimeout,
           options={"event_timeout": 0.3, "timeout": 5.0}, says="event_timeout"),
    stream("heartbeats after an event", STREAM_HEAD, ONE, Beat(PING), raises=E.EventTimeout, items=[{"i": 1}],
           options={"event_timeout": 0.3}),
    stream("no head within the event's time", HOLD, raises=E.EventTimeout, options={"event_timeout": 0.3}),
    stream("half an event, drop by drop", STREAM_HEAD, Beat(chunk(b"x")), raises=E.EventTimeout,
           options={"event_timeout": 0.3}),
    run("a run without an answer", HOLD, raises=E.ReadTimeout, options={"timeout": 0.3}),
    run("a run with half an answer", answer(200, b"{}")[:-1], HOLD, raises=E.ReadTimeout, options={"timeout": 0.3}),
]  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_failure_is_one_documented_type_and_one_request(case: Case, shell: Any) -> None:
    for stretch in STRETCHES:
        options = {name: seconds * stretch for name, seconds in case.options.items()}
        with scripted(case.script, on_connect=case.on_connect) as server:
            outcome = getattr(shell, case.call)(server.url, **options)
            # Who gave up soon may have left before the server had looked at what it sent.
            eventually(lambda: len(server.requests) >= case.requests, "the request")  # noqa: B023 - called here
        is_told = (case.raises, case.items) == (type(outcome.error), outcome.items)
        if is_told or not isinstance(outcome.error, errors.Timeout):
            break  # else it gave up before it had the connection, or the item

    assert (case.raises, case.items) == (type(outcome.error), outcome.items), outcome.error
    assert isinstance(outcome.error, errors.HeadraceError)
    assert case.says in str(outcome.error)
    assert (case.requests, 1) == (len(server.requests), server.connections)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_a_refused_connection_is_connection_failed(shell: Any) -> None:
    with refusing() as url:
        outcome = shell.stream(url)

    assert errors.ConnectionFailed is type(outcome.error)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_an_unknown_host_is_connection_failed(shell: Any) -> None:
    outcome = shell.stream("http://no-such-host.invalid")

    assert errors.ConnectionFailed is type(outcome.error)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
@pytest.mark.parametrize("limits", [
    {"client": {"connect_timeout": 0.3}},
    {"timeout": 0.3},
    {"client": {"connect_timeout": 0.3}, "event_timeout": 60.0},
], ids=str)  # fmt: skip
def test_a_connection_that_does_not_come_about_is_connect_timeout(shell: Any, limits: dict[str, Any]) -> None:
    with full_backlog() as url:
        outcome = shell.stream(url, **limits)

    assert errors.ConnectTimeout is type(outcome.error), outcome.error
    assert isinstance(outcome.error, TimeoutError)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_the_event_timeout_covers_the_connection(shell: Any) -> None:
    with full_backlog() as url:
        outcome = shell.stream(url, event_timeout=0.3)

    assert errors.EventTimeout is type(outcome.error)


class full_backlog:
    """A listening address whose queue of connections is full: Linux drops the next SYN, and nothing answers."""

    def __enter__(self) -> str:
        self.server = socket.socket()
        self.server.bind(("127.0.0.1", 0))
        self.server.listen(0)
        self.fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.server.getsockname())
            self.fillers.append(filler)
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        for each in [*self.fillers, self.server]:
            each.close()
