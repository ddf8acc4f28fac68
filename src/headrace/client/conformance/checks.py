"""Every check in its order: what was recorded goes in, what was found comes out. Nothing here touches a wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from headrace.client.conformance import endings, framing, heads, refusals
from headrace.client.conformance.answer import Answer
from headrace.client.conformance.findings import JS, PYTHON, Finding, Verdict, failed, passed, unchecked
from headrace.client.conformance.stream import Stream, read_stream


@dataclass(frozen=True, slots=True)
class Evidence:
    """Every answer that was recorded. `failing` and `slow` are None when no input for them was given."""

    stream: Answer  # read to its end
    as_json: Answer  # the same with `Accept: application/json`
    as_anything: Answer  # … with `Accept: */*`
    with_slash: Answer  # … with a slash behind the path
    wrong_key: Answer
    without_key: Answer
    unknown_app: Answer
    get: Answer
    media_type: Answer
    bad_json: Answer
    not_an_object: Answer
    large_body: Answer
    no_host: Answer
    two_hosts: Answer
    length_and_chunked: Answer
    after_leaving: Answer  # the same as `stream`, behind two readers that left
    failing: Answer | None = None
    slow: Answer | None = None
    silence_s: float = 15.0  # the longest silence that a stream may have

    @property
    def refusals(self) -> dict[str, Answer]:
        """The answers that refused a request which is HTTP, by the name of their check."""
        asked = {
            "wrong-key": self.wrong_key,
            "unknown-app": self.unknown_app,
            "get": self.get,
            "media-type": self.media_type,
            "bad-json": self.bad_json,
            "not-an-object": self.not_an_object,
            "large-body": self.large_body,
        }
        return {name: answer for name, answer in asked.items() if (answer.status or 0) >= 400}


@dataclass(frozen=True, slots=True)
class Result:
    """A check and what it found."""

    name: str
    promise: str
    finding: Finding


def judge(evidence: Evidence) -> list[Result]:
    """Return what every check found, in the order of the documentation."""
    streams = _streams(evidence)
    results = [Result(name, promise, check(evidence)) for name, promise, check in _BEGINNING]
    results += [Result(name, promise, _on_each(streams, _of_head(check))) for name, promise, check in heads.CHECKS]
    with_bytes = {name: stream for name, stream in streams.items() if stream.body}
    results += [Result(name, promise, _on_each(with_bytes, check)) for name, promise, check in framing.CHECKS]
    results += [Result(name, promise, check(evidence)) for name, promise, check in _REST]
    return results


def _streams(evidence: Evidence) -> dict[str, Stream]:
    recorded = {"": evidence.stream, "failing": evidence.failing, "slow": evidence.slow}
    return {
        name: read_stream(answer)
        for name, answer in recorded.items()
        if answer is not None and answer.is_event_stream
    }


def _of_head(check: Callable[[Answer], Finding]) -> Callable[[Stream], Finding]:
    return lambda stream: check(stream.answer)


def _on_each(streams: dict[str, Stream], check: Callable[[Stream], Finding]) -> Finding:
    """Judge every stream that came: the first fault counts, and says in which stream it is."""
    findings = {name: check(stream) for name, stream in streams.items()}
    for name, finding in findings.items():
        if finding.verdict is Verdict.FAILED:
            where = f"the {name} stream: " if name else ""
            return failed(where + finding.seen, finding.damage)
    return next(iter(findings.values()), unchecked("no byte of a stream came"))


# --- checks of more than one answer -------------------------------------------------------------------------


def _by_route(evidence: Evidence) -> Finding:
    asked = {"application/json": evidence.as_json, "*/*": evidence.as_anything}
    lacking = [accept for accept, answer in asked.items() if not answer.is_event_stream]
    if not evidence.stream.is_event_stream:
        return unchecked("no stream came at all")
    if lacking:
        return failed(
            f"with Accept: {lacking[0]} came {asked[lacking[0]]}",
            f"{JS} behind fal's server proxy, which sends Accept: application/json: no events; curl sends */*",
        )
    return passed("a stream with Accept: application/json and with */*")


def _with_slash(evidence: Evidence) -> Finding:
    if not evidence.stream.is_event_stream:
        return unchecked("no stream came at all")
    if evidence.with_slash.is_event_stream:
        return passed("the same stream")
    return failed(
        str(evidence.with_slash), f"{JS}: ids that are given as URLs get a slash; {PYTHON} async: SSEError"
    )


def _clean_end(evidence: Evidence) -> Finding:
    if not evidence.stream.is_event_stream:
        return unchecked("no stream came")
    return endings.clean_end(read_stream(evidence.stream))


def _after_leaving(evidence: Evidence) -> Finding:
    if not evidence.stream.is_event_stream:
        return unchecked("no stream came")
    return endings.after_leaving(evidence.after_leaving)


def _failure(check: Callable[[Stream], Finding]) -> Callable[[Evidence], Finding]:
    def judged(evidence: Evidence) -> Finding:
        if evidence.failing is None:
            return unchecked("needs --error-input, an input that makes the model fail after its first event")
        if why := endings.no_failure(evidence.failing):
            return unchecked(why)
        return check(read_stream(evidence.failing))

    return judged


def _heartbeats(evidence: Evidence) -> Finding:
    if evidence.slow is None:
        return unchecked(
            f"needs --slow-input, an input that keeps the model silent for over {evidence.silence_s:g} s"
        )
    return endings.heartbeats(evidence.slow, evidence.silence_s)


def _if_found(check: Callable[[Evidence], Finding]) -> Callable[[Evidence], Finding]:
    """Judge a refusal only where the path and the key are right: else it is refused for these."""

    def judged(evidence: Evidence) -> Finding:
        if evidence.stream.status in {401, 403, 404}:
            return unchecked(f"whatever is asked there is {evidence.stream.status}")
        return check(evidence)

    return judged


_Check = tuple[str, str, Callable[[Evidence], Finding]]

_BEGINNING: Final[Iterable[_Check]] = (
    ("stream.status", "a stream answers 200", lambda evidence: heads.status(evidence.stream)),
    ("stream.content-type", "its type is text/event-stream", lambda evidence: heads.content_type(evidence.stream)),
    ("stream.by-route", "the path makes it a stream, not Accept", _by_route),
    ("stream.slash", "a slash behind the path changes nothing", _with_slash),
)

_REST: Final[Iterable[_Check]] = (
    ("end.clean", "success ends the body cleanly", _clean_end),
    ("end.leaving", "a reader that leaves harms nobody", _after_leaving),
    ("silence.heartbeats", "no silence over 15 s", _heartbeats),
    ("error.event", "a failure is one event: error, the last event", _failure(endings.error_event)),
    ("error.data", "its data has error.type, .message, .request_id, .retryable", _failure(endings.error_data)),
    ("error.cut", "then the connection is cut, without the final chunk", _failure(endings.error_cut)),
    ("error.fin", "by FIN, not RST", _failure(endings.error_fin)),
    (
        "refusal.wrong-key",
        "a wrong key is 401",
        _if_found(lambda e: refusals.wrong_key(e.wrong_key, e.without_key)),
    ),
    ("refusal.unknown-app", "an unknown app is 404", lambda e: refusals.unknown_app(e.unknown_app)),
    ("refusal.get", "GET is 405 with Allow", _if_found(lambda e: refusals.get(e.get))),
    (
        "refusal.media-type",
        "a body that is not JSON by type is 415",
        _if_found(lambda e: refusals.media_type(e.media_type)),
    ),
    (
        "refusal.bad-json",
        "malformed JSON is 422 in fal's shape",
        _if_found(lambda e: refusals.wrong_input(e.bad_json)),
    ),
    (
        "refusal.not-an-object",
        "an array is 422 in fal's shape",
        _if_found(lambda e: refusals.wrong_input(e.not_an_object)),
    ),
    ("refusal.large-body", "a body of 1 GiB is 413", _if_found(lambda e: refusals.large_body(e.large_body))),
    ("refusal.json-body", "every refusal is JSON with detail", lambda e: refusals.json_body(e.refusals)),
    ("refusal.not-a-stream", "no refusal is an event stream", lambda e: refusals.not_a_stream(e.refusals)),
    ("refusal.request-id", "every refusal has x-fal-request-id", lambda e: refusals.request_id(e.refusals)),
    ("refusal.error-type", "every refusal has X-Fal-Error-Type", lambda e: refusals.error_type(e.refusals)),
    ("http.no-host", "no Host is 400", lambda e: refusals.malformed(e.no_host)),
    ("http.two-hosts", "two Hosts are 400", lambda e: refusals.malformed(e.two_hosts)),
    ("http.two-lengths", "Content-Length with chunks is 400", lambda e: refusals.malformed(e.length_and_chunked)),
)
