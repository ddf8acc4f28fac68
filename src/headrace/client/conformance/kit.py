"""The exchanges of a conformance run, one after the other, and the verdicts over what was recorded.

It asks for about twenty answers, each over a connection of its own, and two of them run the model to its end
(more with inputs for failing and for silence); everywhere else it leaves at the first event.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

from headrace.client.conformance.answer import Answer, Ending
from headrace.client.conformance.checks import Evidence, Result, judge
from headrace.client.conformance.wire import Leave, Target, record

#: Where readers leave that have seen enough: at the first event.
_FIRST_EVENT: Final = b"data:"
#: What the large body says of itself, 1 GiB, and what we send of it at most, 32 MiB. No input of a model is so
#: large, and a server that is naive enough to make room for it at once should survive this.
_LARGE_BODY_BYTES: Final = 1 << 30
_LARGE_BODY_PIECES: Final = 512
#: A path that can stand in a request line as it is (RFC 3986, section 3.3).
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]+")
_PIECE: Final = b" " * (64 * 1024)


class NothingToCheck(Exception):
    """The server cannot be reached, or has no stream. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask, and how long to wait, in seconds."""

    target: Target
    path: str  # of the stream view
    input: Mapping[str, Any]
    failing_input: Mapping[str, Any] | None = None  # makes the model fail after its first event
    slow_input: Mapping[str, Any] | None = None  # keeps the model silent for over `silence_s`
    patience_s: float = 60.0  # without a byte before we give up
    silence_s: float = 15.0


def check_server(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> list[Result]:
    """Record everything and judge it; `tell` hears what is being asked. Raises `NothingToCheck`."""
    return judge(_Recording(plan, tell).evidence())


def find_stream(target: Target, patience_s: float) -> str:
    """Return the path of the first stream view that `GET /v1/apps` lists. Raises `NothingToCheck`."""
    answer = record(target, [target.request("GET", "/v1/apps")], patience_s=patience_s)
    if answer.ending is Ending.UNREACHABLE:
        raise NothingToCheck(f"{target.url} cannot be reached: {answer.fault}")
    path = _first_stream(answer.json) if answer.status == 200 else None
    if path is None:
        raise NothingToCheck(f"GET /v1/apps names no stream ({answer}); say which with --app owner/alias")
    return path


def _first_stream(listed: Any) -> str | None:
    """Read the list of apps, whoever wrote it."""
    try:
        paths = [end["views"]["stream"] for app in listed["apps"] for end in app["endpoints"]]
    except (TypeError, KeyError, AttributeError):
        return None
    return next((path for path in paths if isinstance(path, str) and _PATH.fullmatch(path)), None)


class _Recording:
    """One run."""

    def __init__(self, plan: Plan, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._body = json.dumps(plan.input).encode("ascii")

    def evidence(self) -> Evidence:
        """Ask for everything; the first answer says whether there is a server at all."""
        plan = self._plan
        stream = self._ask("a stream, to its end", until=None)
        if stream.ending is Ending.UNREACHABLE:
            raise NothingToCheck(f"{plan.target.url} cannot be reached: {stream.fault}")
        return Evidence(
            stream=stream,
            as_json=self._ask("a stream as application/json", headers={"Accept": "application/json"}),
            as_anything=self._ask("a stream as */*", headers={"Accept": "*/*"}),
            with_slash=self._ask("a stream with a slash", path=f"{plan.path}/"),
            wrong_key=self._ask("with a wrong key", headers={"Authorization": "Key conformance:wrong"}),
            without_key=self._ask("without a key", headers={"Authorization": None}),
            unknown_app=self._ask("an app that is not there", path=_nowhere()),
            get=self._raw("GET", plan.target.request("GET", plan.path)),
            media_type=self._ask("a body of text", headers={"Content-Type": "text/plain"}),
            bad_json=self._ask("malformed JSON", body=b'{"a": '),
            not_an_object=self._ask("an array", body=b"[1, 2]"),
            large_body=self._large_body(),
            **self._malformed(),
            after_leaving=self._leave_and_return(),
            failing=self._ask_with("a stream that fails", plan.failing_input),
            slow=self._ask_with("a stream that keeps silent", plan.slow_input),
            silence_s=plan.silence_s,
        )

    def _ask(
        self,
        what: str,
        *,
        path: str | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        until: bytes | None = _FIRST_EVENT,
        leave: Leave = Leave.FIN,
    ) -> Answer:
        plan = self._plan
        self._tell(what)
        request = plan.target.request("POST", path or plan.path, self._body if body is None else body, headers)
        return record(plan.target, [request], patience_s=plan.patience_s, until=until, leave=leave)

    def _ask_with(self, what: str, input: Mapping[str, Any] | None) -> Answer | None:
        """Stream another input to its end, with patience for the silence that it may make."""
        if input is None:
            return None
        plan = self._plan
        self._tell(what)
        request = plan.target.request("POST", plan.path, json.dumps(input).encode("ascii"))
        return record(plan.target, [request], patience_s=max(plan.patience_s, 4 * plan.silence_s))

    def _raw(self, what: str, request: bytes) -> Answer:
        self._tell(what)
        return record(self._plan.target, [request], patience_s=self._plan.patience_s, until=_FIRST_EVENT)

    def _large_body(self) -> Answer:
        self._tell("a body of 1 GiB")
        plan = self._plan
        head = plan.target.request("POST", plan.path, b"", {"Content-Length": str(_LARGE_BODY_BYTES)})
        # It is sent only until an answer comes: to a server that counts as it reads, little more than its limit.
        pieces = [head, *repeat(_PIECE, _LARGE_BODY_PIECES)]
        return record(plan.target, pieces, patience_s=plan.patience_s)

    def _malformed(self) -> dict[str, Answer]:
        """Three heads that are none. They aim where nothing is, so that a server that takes them runs nothing."""
        target, path = self._plan.target, _nowhere()
        plain = target.request("GET", path, headers={"Host": None})
        two_hosts = target.request("GET", path).replace(b"\r\n\r\n", b"\r\nHost: elsewhere.invalid\r\n\r\n")
        chunked = target.request("POST", path, b"0\r\n\r\n", {"Transfer-Encoding": "chunked"})
        return {
            "no_host": self._raw("no Host", plain),
            "two_hosts": self._raw("two Hosts", two_hosts),
            "length_and_chunked": self._raw("Content-Length with chunks", chunked),
        }

    def _leave_and_return(self) -> Answer:
        for leave in Leave:
            self._ask(f"leaving a stream by {leave.value}", leave=leave)
        return self._ask("a stream behind those")


def _nowhere() -> str:
    """Return the stream path of an app that nobody has."""
    return f"/nobody/{uuid.uuid4().hex}/stream"
