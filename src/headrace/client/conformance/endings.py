"""Checks of how streams end, and of what comes while they are silent."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from headrace.client.conformance.answer import Answer, Ending, Framing
from headrace.client.conformance.findings import JS, PYTHON, Finding, failed, passed, unchecked
from headrace.client.conformance.stream import Stream, read_stream

_ERROR_FIELDS: Final = {"type": str, "message": str, "request_id": str, "retryable": bool}

_LOOKS_LIKE_SUCCESS: Final = (
    f"{PYTHON}, {JS}, curl: nothing tells this from success; half a result is taken for all of it"
)


def clean_end(stream: Stream) -> Finding:
    """A stream that succeeds ends its body: the final chunk, or the last byte of its length."""
    answer = stream.answer
    if stream.errors:
        return unchecked(f"the model failed: {_error_of(stream)}; give an --input that it can take")
    if answer.is_whole:
        return passed(f"the body ended by {answer.framing.value}")
    if answer.ending is Ending.LEFT:
        return unchecked(answer.fault or "the stream is longer than we read")
    if answer.framing is Framing.CLOSE and answer.ending is Ending.FIN:
        return failed("the body ends with the connection, no chunks and no length", _LOOKS_LIKE_SUCCESS)
    if answer.ending is Ending.SILENT:
        return failed(
            f"no end, and no byte for {answer.ended_s - answer.arrivals_s[-1]:.0f} s",
            f"{PYTHON}, {JS}, curl: wait for ever; neither official client has a deadline here",
        )
    return failed(
        f"no final chunk; the connection {answer.ending.value}",
        f'{PYTHON}: RemoteProtocolError after the last event; {JS}: an error "terminated", for-await ends without '
        "a word; curl: exit status 18",
    )


def error_event(stream: Stream) -> Finding:
    """A failure after the first byte is one `event: error`, the last event."""
    count = len(stream.errors)
    if count == 1 and stream.events[-1] is stream.errors[0]:
        return passed(f"one error event, behind {len(stream.events) - 1} others")
    if count == 0:
        return failed(
            f"{len(stream.events)} events, none of them event: error",
            "every client: learns that the stream failed at best, never why",
        )
    return failed(
        f"{count} error events among {len(stream.events)}, or events behind one",
        "every client: goes on with a request that has failed",
    )


def error_data(stream: Stream) -> Finding:
    """The error is known by its data, since the official clients drop the event's name."""
    if not stream.errors:
        return unchecked("no error event came")
    data = stream.errors[-1].json
    error = data.get("error") if isinstance(data, dict) else None
    fields = error if isinstance(error, dict) else {}
    wrong = [name for name, kind in _ERROR_FIELDS.items() if not isinstance(fields.get(name), kind)]
    if wrong:
        return failed(
            f"data.error lacks {', '.join(wrong)}, or has another type there",
            f"{PYTHON}, {JS}: drop the name `error`, so the caller cannot tell this from an item",
        )
    named = stream.answer.header("x-fal-request-id")
    if named and fields["request_id"] != named:
        return failed(
            f"data.error.request_id is {fields['request_id']}, x-fal-request-id is {named}",
            "whoever looks for the request in the log looks for the wrong one",
        )
    return passed(_error_of(stream))


def error_cut(stream: Stream) -> Finding:
    """After the error the body does not end: the connection does."""
    answer = stream.answer
    if answer.is_whole:
        return failed(f"the body ended by {answer.framing.value}, as after success", _LOOKS_LIKE_SUCCESS)
    if answer.framing is Framing.CLOSE:
        return failed("a body without chunks or length: a cut is its end", _LOOKS_LIKE_SUCCESS)
    if answer.ending is Ending.SILENT:
        return failed(
            "the connection stays open behind the failure",
            f"{PYTHON}, {JS}, curl: wait for ever; neither official client has a deadline here",
        )
    return passed(f"no final chunk; the connection {answer.ending.value}")


def error_fin(stream: Stream) -> Finding:
    """The cut is a FIN: a RST takes along what the client has not read yet."""
    match stream.answer.ending:
        case Ending.FIN:
            return passed("FIN")
        case Ending.RESET:
            return failed(
                "RST", f"{JS} in Node, curl: what was not read yet is lost, often the error event itself"
            )
        case ending:
            return unchecked(f"the connection {ending.value}")


def no_failure(answer: Answer) -> str:
    """Return why an answer says nothing about failing in midstream, "" when it does."""
    if not answer.is_event_stream:
        return f"it failed before its first event, with {answer}; give an --error-input that fails later"
    return ""


def heartbeats(answer: Answer, silence_s: float) -> Finding:
    """Something comes every `silence_s` seconds while the model says nothing."""
    if not answer.is_event_stream:
        return unchecked(f"no stream: {answer}")
    without_event_s = _longest_gap_s(read_stream(answer).event_times_s, answer.ended_s)
    without_byte_s = _longest_gap_s(list(answer.arrivals_s), answer.ended_s)
    if without_event_s <= silence_s:
        return unchecked(
            f"the model was silent for {without_event_s:.1f} s at most; give a --slow-input that keeps it silent "
            f"for over {silence_s:g} s"
        )
    if without_byte_s > silence_s:
        return failed(
            f"{without_byte_s:.1f} s without a byte",
            "every client behind a proxy or a load balancer: cut off in the midst, after 15 to 60 s of silence",
        )
    return passed(f"{without_event_s:.1f} s without an event, {without_byte_s:.1f} s at most without a byte")


def after_leaving(answer: Answer) -> Finding:
    """The request behind two readers that left gets its events."""
    if answer.is_event_stream and b"data:" in answer.body:
        return passed("the next request got its events")
    return failed(
        f"the next request got {answer}",
        "whoever asks next: waits for the work of readers that are gone",
    )


def _longest_gap_s(times_s: list[float], ended_s: float) -> float:
    return max(later - earlier for earlier, later in pairwise([0.0, *times_s, ended_s]))


def _error_of(stream: Stream) -> str:
    data = stream.errors[-1].json
    error = data.get("error") if isinstance(data, dict) else None
    fields = error if isinstance(error, dict) else {}
    return f"{fields.get('type', 'an error without a type')}: {fields.get('message', '')}"
