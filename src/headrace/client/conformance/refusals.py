"""Checks of failures before the first event: a real status, a JSON body, and what a client reads of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.client.conformance.answer import Answer, Ending
from headrace.client.conformance.findings import JS, PYTHON, Finding, Verdict, failed, passed, unchecked

#: What a client makes of a failure whose status says success, or something else than what is wrong.
_WRONG_STATUS: Final = (
    f"{PYTHON}, {JS}: the exception names another fault, or there is none; retries are decided by the status"
)


def wrong_key(answer: Answer, without_key: Answer) -> Finding:
    """401 for a key that is none, unless the server asks nobody for a key."""
    if answer.status == 200 and without_key.status == 200:
        return unchecked("the server answers without a key")
    return _has_status(
        answer, 401, "whoever has no key of this server uses it, or cannot learn that theirs is wrong"
    )


def unknown_app(answer: Answer) -> Finding:
    """404 for an app that is not there."""
    return _has_status(answer, 404, _WRONG_STATUS)


def get(answer: Answer) -> Finding:
    """405 for GET, naming POST; a server that streams on GET too keeps another promise."""
    if answer.is_event_stream:
        return unchecked("this server streams on GET, too")
    finding = _has_status(answer, 405, _WRONG_STATUS)
    allow = answer.header("allow")
    if finding.verdict is Verdict.PASSED and "POST" not in (allow or ""):
        return failed(f"405 with Allow: {allow or 'absent'}", "curl, tools: not told which method is right")
    return finding


def media_type(answer: Answer) -> Finding:
    """415 for a body that is not said to be JSON; 422 in fal's shape, as its own runtime says, is as good."""
    if answer.status == 422:
        return _has_fal_shape(answer)
    return _has_status(answer, 415, _WRONG_STATUS)


def wrong_input(answer: Answer) -> Finding:
    """422 with a list of what is wrong where: `loc`, `msg`, `type`."""
    finding = _has_status(answer, 422, _WRONG_STATUS)
    return _has_fal_shape(answer) if finding.verdict is Verdict.PASSED else finding


def large_body(answer: Answer) -> Finding:
    """413 for a body of a gibibyte, before it is read to its end."""
    return _has_status(answer, 413, "everybody: one caller can fill the server's memory or disk")


def malformed(answer: Answer) -> Finding:
    """400 for what is no HTTP request."""
    return _has_status(
        answer,
        400,
        "everybody behind one proxy: it and the server can disagree where a request ends or whom it is for, and "
        "a caller smuggles requests past it",
    )


def _has_status(answer: Answer, status: int, damage: str) -> Finding:
    if answer.status == status:
        return passed(str(status))
    if answer.status is None and answer.ending is Ending.SILENT:
        return failed(f"no answer within {answer.ended_s:.0f} s", damage)
    return failed(str(answer), damage)


def _has_fal_shape(answer: Answer) -> Finding:
    body = answer.json
    detail = body.get("detail") if isinstance(body, dict) else None
    if isinstance(detail, list) and detail and all(map(_is_fault, detail)):
        return passed(f"{answer.status}, {detail[0]['type']} at {detail[0]['loc']}: {detail[0]['msg']}")
    return failed(
        f"{answer.status}, and detail is no list of loc, msg and type",
        f"{JS}: ValidationError.fieldErrors is empty, so no form can show what is wrong",
    )


def _is_fault(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("loc"), list)
        and isinstance(item.get("msg"), str)
        and isinstance(item.get("type"), str)
    )


# --- what holds of every refusal ----------------------------------------------------------------------------


def json_body(refusals: Mapping[str, Answer]) -> Finding:
    """A JSON object with `detail`."""
    return _all_of(
        refusals,
        lambda answer: isinstance(answer.json, dict) and bool(answer.json.get("detail")),
        "a JSON body with detail",
        f"{PYTHON}: the message is the raw text; {JS}: ApiError.body is undefined",
    )


def not_a_stream(refusals: Mapping[str, Answer]) -> Finding:
    """Never `text/event-stream`."""
    return _all_of(
        refusals,
        lambda answer: answer.media_type != "text/event-stream",
        "another type than text/event-stream",
        f"{PYTHON}: yields the error as an item and ends as after success; {JS}: ApiError without a body",
    )


def request_id(refusals: Mapping[str, Answer]) -> Finding:
    """`x-fal-request-id` on each."""
    return _all_of(
        refusals,
        lambda answer: bool(answer.header("x-fal-request-id")),
        "x-fal-request-id",
        f"{JS}: requestId is undefined; {PYTHON}: run repeats a 502 to 504 that has none and mentions nginx",
    )


def error_type(refusals: Mapping[str, Answer]) -> Finding:
    """`X-Fal-Error-Type` on each, the same as in the body."""
    return _all_of(
        refusals,
        _has_error_type,
        "X-Fal-Error-Type, the same as error_type in the body",
        f"{PYTHON}: error_type is None, or one thing here and another in the log",
    )


def _has_error_type(answer: Answer) -> bool:
    named = answer.header("x-fal-error-type")
    body = answer.json
    in_body = body.get("error_type") if isinstance(body, dict) else None
    return bool(named) and in_body in {None, named}


def _all_of(refusals: Mapping[str, Answer], holds: Callable[[Answer], bool], what: str, damage: str) -> Finding:
    if not refusals:
        return unchecked("nothing was refused")
    lacking = [name for name, answer in refusals.items() if not holds(answer)]
    if not lacking:
        return passed(f"{len(refusals)} of {len(refusals)} refusals have {what}")
    return failed(f"{', '.join(lacking)}: not {what}", damage)
