"""The conformance kit's checks, each with bytes that keep its promise and bytes that break it."""

import dataclasses
import json
from pathlib import Path

import pytest

from headrace.client.conformance import endings, framing, heads, refusals
from headrace.client.conformance.answer import AnswerParser, Ending, Framing
from headrace.client.conformance.checks import Evidence, judge
from headrace.client.conformance.findings import Verdict
from headrace.client.conformance.stream import read_stream

PASSED, FAILED, UNCHECKED = Verdict.PASSED, Verdict.FAILED, Verdict.UNCHECKED

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n"
    b"X-Accel-Buffering: no\r\nx-fal-request-id: req-1\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST = b"0\r\n\r\n"
GOOD = b'data: {"i":0}\n\n'
ERROR = (
    b'event: error\ndata: {"error":{"type":"runner_server_error","message":"Internal Server Error",'
    b'"request_id":"req-1","retryable":false,"status":500}}\n\n'
)


def parsed(*pieces, ending=Ending.COMPLETE, ended_s=None):
    """The answer in these pieces, which came a second after each other."""
    parser = AnswerParser()
    for at, piece in enumerate(pieces):
        parser.feed(piece, float(at))
    return parser.answer(ending, float(len(pieces)) if ended_s is None else ended_s)


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(*chunks, last=LAST, head=HEAD, ending=Ending.COMPLETE):
    """A streamed answer of these chunks."""
    return parsed(head + b"".join(map(chunk, chunks)) + last, ending=ending)


def stream(*chunks, **kwargs):
    return read_stream(answer(*chunks, **kwargs))


def refusal(status, body=b'{"detail":"No.","error_type":"bad_request"}', *lines, type=b"application/json"):
    lines = b"".join(
        line + b"\r\n" for line in lines or (b"x-fal-request-id: r", b"x-fal-error-type: bad_request")
    )
    return parsed(
        b"HTTP/1.1 %d No\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b"
        % (status, type, len(body), lines, body)
    )


# --- reading an answer --------------------------------------------------------------------------------------


def test_an_answer_is_the_same_in_whatever_way_its_bytes_are_cut():
    data = HEAD + chunk(GOOD) + chunk(b": ping\n") + LAST
    whole = parsed(data)

    bytewise = parsed(*(data[at : at + 1] for at in range(len(data))))

    assert (whole.headers, whole.body, True) == (bytewise.headers, bytewise.body, bytewise.is_whole)
    assert [GOOD, b": ping\n"] == [one.data for one in whole.chunks] == [one.data for one in bytewise.chunks]


@pytest.mark.parametrize(
    ("data", "body", "framing_", "is_whole"),
    [
        (HEAD + chunk(GOOD), GOOD, Framing.CHUNKED, False),
        (HEAD + b"10\r\ndata: {", b"data: {", Framing.CHUNKED, False),
        (HEAD + b"5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"hello", Framing.CHUNKED, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", Framing.LENGTH, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", b"hello", Framing.LENGTH, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", Framing.LENGTH, True),
        (b"HTTP/1.1 204 No\r\n\r\n", b"", Framing.LENGTH, True),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", Framing.CLOSE, False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok", Framing.LENGTH, True),
    ],
)
def test_the_end_of_a_body_is_where_its_framing_says(data, body, framing_, is_whole):
    read = parsed(data)

    assert (body, framing_, is_whole) == (read.body, read.framing, read.is_whole)


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-x\r\n\r\n", HEAD + b"zz\r\n", HEAD + b"2\r\nabcd", b"x" * 70_000],
    ids=["ssh", "size", "end", "long"],
)
def test_what_is_no_http_is_told_and_not_raised(data):
    assert parsed(data).fault


# --- framing: the rows of the table of constructs and what they do to clients ------------------------------

GOOD_STREAMS = [
    (GOOD,),
    (GOOD + GOOD, b": ping\n", GOOD),
    (b": ping\n", GOOD, b": ping\n"),
    (b"data:{}\n\n",),
    (b'event: progress\ndata: {"i":0}\n\n',),
    (b"retry: 500\n" + GOOD,),
    (GOOD, ERROR),
]


@pytest.mark.parametrize("chunks", GOOD_STREAMS)
@pytest.mark.parametrize(("name", "promise", "check"), framing.CHECKS, ids=[name for name, _, _ in framing.CHECKS])
def test_a_stream_in_the_safe_subset_passes_every_check(name, promise, check, chunks):
    assert PASSED is check(stream(*chunks)).verdict


BAD_STREAMS = [
    # (what is wrong, the chunks, which checks find it, who suffers)
    ("a scalar", (b"data: 0\n\n",), {"objects"}, "for-await drops"),
    ("an empty text", (b'data: ""\n\n',), {"objects"}, "for-await drops"),
    ("null", (b"data: null\n\n",), {"objects"}, "for-await drops"),
    ("an array", (b"data: [1]\n\n",), {"objects"}, "a field"),
    ("several data lines", (b'data: {"i":\ndata: 0}\n\n',), {"one_line"}, "line by line"),
    ("event: without data", (GOOD, b"event: x\n\n"), {"bare_fields"}, "JSONDecodeError"),
    ("retry: alone", (b"retry: 500\n\n", GOOD), {"bare_fields"}, "JSONDecodeError"),
    ("id: alone", (b"id: 1\n\n", GOOD), {"bare_fields", "no_ids"}, "JSONDecodeError"),
    ("an id", (b"id: 1\n" + GOOD,), {"no_ids"}, "EventSource"),
    ("a comment and a blank line", (GOOD, b": ping\n\n"), {"comments"}, "once any event had an id"),
    ("a blank line too many", (GOOD + b"\n", GOOD), {"blank_lines"}, "once any event had an id"),
    ("[DONE]", (GOOD, b"data: [DONE]\n\n"), {"no_done"}, "unhandled rejection"),
    ("malformed JSON", (b"data: {oops\n\n",), {"json_data"}, "JSONDecodeError"),
    ("empty data", (b"data:\n\n",), {"json_data"}, "JSONDecodeError"),
    ("NaN", (b'data: {"x":NaN}\n\n',), {"json_data"}, "NaN"),
    ("JSON too deep", (b"data: " + b"[" * 100_000 + b"\n\n",), {"json_data"}, "JSONDecodeError"),
    ("CRLF", (b'data: {"i":0}\r\n\r\n',), {"line_ends"}, "cuts in two"),
    ("bare CR", (b'data: {"i":0}\r\r',), {"line_ends"}, "held back"),
    ("a BOM", (b"\xef\xbb\xbf" + GOOD,), {"bom"}, "the first event is lost"),
    ("UTF-8", ('data: {"t":"é"}\n\n'.encode(),), {"ascii_only"}, "U+FFFD"),
    ("U+2028", ('data: {"t":"\u2028"}\n\n'.encode(),), {"ascii_only"}, "splitlines"),
    ("a character cut in two", (b'data: {"t":"\xc3', b'\xa9"}\n\n'), {"ascii_only", "chunks"}, "U+FFFD"),
    ("an event cut in two", (b'data: {"i"', b":0}\n\n"), {"chunks"}, "half a line"),
    ("its blank line apart", (b'data: {"i":0}\n', b"\n"), {"chunks"}, "half a line"),
    ("a comment cut in two", (b": pi", b"ng\n", GOOD), {"chunks"}, "half a line"),
    ("no blank line at the end", (GOOD, b'data: {"i":1}\n'), {"last_event"}, "dropped without a word"),
    ("no line end at the end", (GOOD, b'data: {"i":1}'), {"last_event"}, "dropped without a word"),
    ("NDJSON", (b'{"i":0}\n\n',), {"known_fields"}, "dropped without a word"),
    ("a second line of JSON", (b'data: {"i":0,\n "j":1}\n\n',), {"known_fields", "json_data"}, "dropped"),
    ("8 MB in one event", (b'data: {"x":"' + b"x" * 8_000_000 + b'"}\n\n',), {"event_size"}, "2.5 s"),
    ("20,000 events at once", (GOOD * 20_000,), {"burst"}, "12.9 s"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("chunks", "expected", "damage"), [row[1:] for row in BAD_STREAMS], ids=[row[0] for row in BAD_STREAMS]
)
def test_each_unsafe_construct_is_found_and_its_damage_named(chunks, expected, damage):
    bad = stream(*chunks)

    findings = {check.__name__: check(bad) for _, _, check in framing.CHECKS}
    found = {name for name, finding in findings.items() if finding.verdict is FAILED}

    assert expected == found
    assert damage in " ".join(findings[name].damage for name in found)
    assert all(findings[name].seen for name in found)


def test_chunks_are_not_judged_where_there_are_none():
    plain = parsed(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {", b"}\n\n")

    assert UNCHECKED is framing.chunks(read_stream(plain)).verdict


def test_what_is_shown_of_a_bad_event_is_short():
    assert len(framing.json_data(stream(b"data: {" + b"x" * 100_000 + b"\n\n")).seen) < 200


# --- the head of a stream -----------------------------------------------------------------------------------


def test_the_head_of_a_good_stream_passes_every_check():
    good = answer(GOOD)

    assert {PASSED} == {check(good).verdict for check in (heads.status, heads.content_type)}
    assert {PASSED} == {check(good).verdict for _, _, check in heads.CHECKS}


@pytest.mark.parametrize(
    ("check", "found", "instead", "damage"),
    [
        (heads.status, b"200 OK", b"307 Moved\r\nLocation: /x", "async one raises SSEError"),
        (heads.status, b"200 OK", b"503 No", "SSEError"),
        (heads.content_type, b"text/event-stream", b"application/json", "raw bytes"),
        (heads.content_type, b"text/event-stream", b"text/event-stream; charset=latin-1", "gives up for good"),
        (heads.content_type, b"text/event-stream", b"text/event-stream; boundary=x", "gives up for good"),
        (heads.content_type, b"text/event-stream", b"text/x-event-stream", "SSEError"),
        (heads.not_compressed, b"X-Accel", b"Content-Encoding: gzip\r\nX-Accel", "in lumps"),
        (heads.not_compressed, b"chunked", b"gzip, chunked", "in lumps"),
        (heads.not_buffered, b"X-Accel-Buffering: no", b"X: y", "nginx"),
        (heads.not_buffered, b"X-Accel-Buffering: no", b"X-Accel-Buffering: yes", "nginx"),
        (heads.not_cached, b"no-cache, no-transform", b"public", "cache"),
        (heads.not_cached, b"no-cache, no-transform", b"no-cache", "CDN"),
        (heads.request_id, b"x-fal-request-id: req-1", b"X: y", "requestId"),
        (heads.connection, b"X-Accel", b"Connection: close\r\nX-Accel", "clean end"),
        (heads.connection, b"X-Accel", b"Connection: Keep-Alive, Close\r\nX-Accel", "clean end"),
    ],
)
def test_a_wrong_head_is_found_and_its_damage_named(check, found, instead, damage):
    finding = check(answer(GOOD, head=HEAD.replace(found, instead)))

    assert FAILED is finding.verdict
    assert damage in finding.damage


@pytest.mark.parametrize("parameter", [b"", b";", b"; charset=utf-8", b';charset="UTF-8"'])
def test_a_charset_of_utf_8_is_no_fault(parameter):
    head = HEAD.replace(b"text/event-stream", b"Text/Event-Stream" + parameter)

    assert PASSED is heads.content_type(answer(GOOD, head=head)).verdict


def test_no_answer_at_all_is_a_fault_of_the_status():
    finding = heads.status(parsed(ending=Ending.SILENT, ended_s=60.0))

    assert (FAILED, "no answer: the connection fell silent") == (finding.verdict, finding.seen)


# --- endings ------------------------------------------------------------------------------------------------

CLOSE_HEAD = HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"")


@pytest.mark.parametrize(
    ("ended", "verdict", "says"),
    [
        (stream(GOOD), PASSED, "chunked"),
        (stream(GOOD, last=b"", ending=Ending.FIN), FAILED, "RemoteProtocolError"),
        (stream(GOOD, last=b"", ending=Ending.RESET), FAILED, "terminated"),
        (stream(GOOD, last=b"", ending=Ending.SILENT), FAILED, "wait for ever"),
        (stream(GOOD, last=b"", ending=Ending.LEFT), UNCHECKED, "longer than we read"),
        (read_stream(parsed(CLOSE_HEAD + GOOD, ending=Ending.FIN)), FAILED, "tells this from success"),
        (stream(GOOD, ERROR, last=b"", ending=Ending.FIN), UNCHECKED, "runner_server_error: Internal Server Error"),
    ],
)  # fmt: skip
def test_success_is_a_body_that_ends(ended, verdict, says):
    finding = endings.clean_end(ended)

    assert verdict is finding.verdict
    assert says in finding.seen + finding.damage


FAILURE = stream(GOOD, ERROR, last=b"", ending=Ending.FIN)


def error_checks(failing):
    checks = (endings.error_event, endings.error_data, endings.error_cut, endings.error_fin)
    return {check.__name__.removeprefix("error_"): check(failing).verdict for check in checks}


def test_one_error_event_and_a_cut_by_fin_is_how_a_stream_fails():
    assert {"event": PASSED, "data": PASSED, "cut": PASSED, "fin": PASSED} == error_checks(FAILURE)


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        # The failure that looks like success: what fal's own runtime does when an app raises.
        (stream(GOOD), {"event": FAILED, "data": UNCHECKED, "cut": FAILED, "fin": UNCHECKED}),
        (stream(GOOD, ERROR), {"event": PASSED, "data": PASSED, "cut": FAILED, "fin": UNCHECKED}),
        (stream(GOOD, last=b"", ending=Ending.FIN), {"event": FAILED, "data": UNCHECKED, "cut": PASSED, "fin": PASSED}),
        (stream(ERROR, last=b"", ending=Ending.RESET), {"event": PASSED, "data": PASSED, "cut": PASSED, "fin": FAILED}),
        (stream(ERROR, last=b"", ending=Ending.SILENT), {"event": PASSED, "data": PASSED, "cut": FAILED, "fin": UNCHECKED}),
        (stream(ERROR, ERROR, last=b"", ending=Ending.FIN), {"event": FAILED, "data": PASSED, "cut": PASSED, "fin": PASSED}),
        (stream(ERROR, GOOD, last=b"", ending=Ending.FIN), {"event": FAILED, "data": PASSED, "cut": PASSED, "fin": PASSED}),
        (read_stream(parsed(CLOSE_HEAD + ERROR, ending=Ending.FIN)), {"event": PASSED, "data": PASSED, "cut": FAILED, "fin": PASSED}),
    ],
    ids=["clean end", "error and clean end", "cut alone", "reset", "left open", "two errors", "events behind", "no chunks"],
)  # fmt: skip
def test_every_other_way_to_fail_is_found(failing, expected):
    assert expected == error_checks(failing)


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":"boom"}', b'{"error":{}}', b"[]", b'{"i":0}',
        b'{"error":{"type":"x","message":"m","request_id":"req-1","retryable":"no"}}',
        b'{"error":{"type":"x","message":"m","request_id":"another","retryable":true}}',
    ],
)  # fmt: skip
def test_an_error_must_be_known_by_its_data(data):
    failing = stream(b"event: error\ndata: " + data + b"\n\n", last=b"", ending=Ending.FIN)

    assert FAILED is endings.error_data(failing).verdict


def silent_for(seconds, *beats):
    """A stream that says nothing but these comments (time in seconds) before its only event."""
    parser = AnswerParser()
    parser.feed(HEAD, 0.0)
    for at_s in beats:
        parser.feed(chunk(b": ping\n"), at_s)
    parser.feed(chunk(GOOD) + LAST, seconds)
    return parser.answer(Ending.COMPLETE, seconds)


@pytest.mark.parametrize(
    ("slow", "verdict"),
    [
        (silent_for(20.0, 10.0), PASSED),
        (silent_for(40.0, 10.0, 20.0, 30.0), PASSED),
        (silent_for(20.0), FAILED),
        (silent_for(40.0, 10.0), FAILED),
        (silent_for(3.0), UNCHECKED),
        (refusal(422), UNCHECKED),
    ],
)
def test_silence_is_broken_every_15_seconds(slow, verdict):
    assert verdict is endings.heartbeats(slow, 15.0).verdict


def test_a_stream_that_never_says_another_byte_has_no_heartbeats():
    slow = parsed(HEAD + chunk(GOOD), ending=Ending.SILENT, ended_s=60.0)

    assert FAILED is endings.heartbeats(slow, 15.0).verdict


# --- refusals -----------------------------------------------------------------------------------------------

FAL_SHAPE = b'{"detail":[{"loc":["body",6],"msg":"JSON decode error","type":"json_invalid"}]}'


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (refusals.wrong_key(refusal(401), refusal(401)), PASSED),
        (refusals.wrong_key(answer(GOOD), answer(GOOD)), UNCHECKED),
        (refusals.wrong_key(answer(GOOD), refusal(401)), FAILED),
        (refusals.wrong_key(refusal(500), refusal(401)), FAILED),
        (refusals.unknown_app(refusal(404)), PASSED),
        (refusals.unknown_app(refusal(400)), FAILED),
        (refusals.unknown_app(parsed(ending=Ending.SILENT)), FAILED),
        (refusals.get(refusal(405, b"{}", b"Allow: POST, OPTIONS")), PASSED),
        (refusals.get(refusal(405)), FAILED),
        (refusals.get(refusal(404)), FAILED),
        (refusals.get(answer(GOOD)), UNCHECKED),
        (refusals.media_type(refusal(415)), PASSED),
        (refusals.media_type(refusal(422, FAL_SHAPE)), PASSED),
        (refusals.media_type(refusal(422)), FAILED),
        (refusals.media_type(answer(GOOD)), FAILED),
        (refusals.wrong_input(refusal(422, FAL_SHAPE)), PASSED),
        (refusals.wrong_input(refusal(422)), FAILED),
        (refusals.wrong_input(refusal(422, b'{"detail":[]}')), FAILED),
        (refusals.wrong_input(refusal(422, b'{"detail":[{"loc":"body","msg":"m","type":"t"}]}')), FAILED),
        (refusals.wrong_input(refusal(400, FAL_SHAPE)), FAILED),
        (refusals.large_body(refusal(413)), PASSED),
        (refusals.large_body(parsed(ending=Ending.SILENT)), FAILED),
        (refusals.malformed(refusal(400, b"<html>", type=b"text/html")), PASSED),
        (refusals.malformed(refusal(404)), FAILED),
        (refusals.malformed(parsed(ending=Ending.RESET)), FAILED),
    ],
)
def test_a_refusal_has_the_status_that_says_what_is_wrong(finding, verdict):
    assert verdict is finding.verdict


def facets(answer):
    checks = (refusals.json_body, refusals.not_a_stream, refusals.request_id, refusals.error_type)
    return {check.__name__ for check in checks if check({"get": answer}).verdict is FAILED}


@pytest.mark.parametrize(
    ("answer", "failing"),
    [
        (refusal(400), set()),
        (refusal(422, FAL_SHAPE), set()),
        (refusal(404, b"<html>", type=b"text/html"), {"json_body"}),
        (refusal(404, b"{}"), {"json_body"}),
        (refusal(404, b"[]"), {"json_body"}),
        (refusal(503, type=b"text/event-stream"), {"not_a_stream"}),
        (refusal(400, b'{"detail":"x"}', b"x-fal-error-type: bad_request"), {"request_id"}),
        (refusal(400, b'{"detail":"x"}', b"x-fal-request-id: r"), {"error_type"}),
        (refusal(400, b'{"detail":"x","error_type":"other"}'), {"error_type"}),
    ],
)
def test_every_refusal_can_be_read_by_a_client(answer, failing):
    assert failing == facets(answer)


def test_where_nothing_was_refused_nothing_is_said_of_refusals():
    assert UNCHECKED is refusals.json_body({}).verdict


def test_a_check_of_every_refusal_says_which_one_broke_it():
    finding = refusals.request_id({"get": refusal(405), "bad-json": refusal(422, b"{}", b"X: y")})

    assert "bad-json: not x-fal-request-id" == finding.seen


# --- all of it ----------------------------------------------------------------------------------------------

GOOD_EVIDENCE = Evidence(
    stream=answer(GOOD),
    as_json=answer(GOOD),
    as_anything=answer(GOOD),
    with_slash=answer(GOOD),
    wrong_key=refusal(401),
    without_key=refusal(401),
    unknown_app=refusal(404),
    get=refusal(405, b'{"detail":"No."}', b"Allow: POST", b"x-fal-request-id: r", b"x-fal-error-type: x"),
    media_type=refusal(415),
    bad_json=refusal(422, FAL_SHAPE),
    not_an_object=refusal(422, FAL_SHAPE),
    large_body=refusal(413),
    no_host=refusal(400),
    two_hosts=refusal(400),
    length_and_chunked=refusal(400),
    after_leaving=answer(GOOD),
    failing=answer(GOOD, ERROR, last=b"", ending=Ending.FIN),
    slow=silent_for(20.0, 10.0),
)


def verdicts(**changes):
    return {result.name: result.finding.verdict for result in judge(dataclasses.replace(GOOD_EVIDENCE, **changes))}


def failing(**changes):
    return {name for name, verdict in verdicts(**changes).items() if verdict is FAILED}


def test_good_evidence_passes_every_check():
    assert {PASSED} == set(verdicts().values())


def test_a_fault_in_any_stream_counts_and_says_where_it_is():
    results = judge(dataclasses.replace(GOOD_EVIDENCE, slow=answer(b": ping\n\n", GOOD)))

    [comments] = [result.finding for result in results if result.name == "framing.comments"]
    assert FAILED is comments.verdict
    assert comments.seen.startswith("the slow stream: ")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"as_json": refusal(406)}, {"stream.by-route"}),
        ({"as_anything": refusal(200)}, {"stream.by-route"}),
        ({"with_slash": refusal(404)}, {"stream.slash"}),
        ({"after_leaving": refusal(429)}, {"end.leaving"}),
        ({"after_leaving": parsed(HEAD, ending=Ending.SILENT)}, {"end.leaving"}),
        ({"no_host": refusal(404)}, {"http.no-host"}),
        ({"two_hosts": refusal(404)}, {"http.two-hosts"}),
        ({"length_and_chunked": refusal(404)}, {"http.two-lengths"}),
        ({"get": refusal(404, b"no", type=b"text/html")}, {"refusal.get", "refusal.json-body"}),
    ],
)
def test_each_fault_fails_its_check_and_no_other(changes, expected):
    assert expected == failing(**changes)


@pytest.mark.parametrize("status", [401, 404])
def test_without_a_stream_one_check_fails_and_the_rest_say_that_they_cannot_be_made(status):
    nothing = {name: refusal(status) for name in ("stream", "as_json", "as_anything", "with_slash", "get", "media_type",
        "bad_json", "not_an_object", "large_body", "after_leaving")}  # fmt: skip

    assert {"stream.status"} == failing(**nothing, failing=None, slow=None)


def test_what_needs_an_input_that_was_not_given_says_which():
    results = judge(dataclasses.replace(GOOD_EVIDENCE, failing=None, slow=None))
    why = {r.name: r.finding.seen for r in results if r.finding.verdict is UNCHECKED}

    assert {"silence.heartbeats", "error.event", "error.data", "error.cut", "error.fin"} == set(why)
    assert "--slow-input" in why["silence.heartbeats"]
    assert "--error-input" in why["error.cut"]


def test_a_failure_before_the_first_event_says_nothing_about_failing_in_midstream():
    assert UNCHECKED is verdicts(failing=refusal(500))["error.event"]


def test_a_stream_that_hides_its_failure_is_found():
    assert {"error.event", "error.cut"} == failing(failing=answer(GOOD))


def test_an_empty_stream_is_not_praised_for_its_framing():
    empty = verdicts(stream=answer(), failing=None, slow=None)

    assert {UNCHECKED} == {verdict for name, verdict in empty.items() if name.startswith("framing.")}


def test_the_page_explains_every_check():
    page = (Path(__file__).parents[2] / "docs/how-to/conformance.md").read_text()
    rows = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")}

    assert list(rows) == [result.name for result in judge(GOOD_EVIDENCE)]
    assert [] == [r.name for r in judge(GOOD_EVIDENCE) if r.promise not in rows[r.name]]


def test_no_finding_of_these_tests_fails_without_naming_the_damage():
    everything_wrong = dataclasses.replace(
        GOOD_EVIDENCE,
        **{
            field.name: parsed(ending=Ending.RESET)
            for field in dataclasses.fields(Evidence)
            if field.name != "silence_s"
        },
    )

    assert [] == [r.name for r in judge(everything_wrong) if r.finding.verdict is FAILED and not r.finding.damage]
    assert json.dumps([r.finding.seen for r in judge(everything_wrong)])
