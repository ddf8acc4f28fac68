"""What the SDK thinks of a queue, without one: tries, pauses, deadlines, statuses, and which log lines are new."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.client import errors
from headrace.client._answer import Head, api_error
from headrace.client._queue import (
    ASKING,
    CANCELLING,
    FETCHING,
    FOLLOWING,
    SUBMITTING,
    Completed,
    Deadline,
    Expired,
    InProgress,
    Links,
    Queued,
    Retries,
    backoff_s,
    cancel_request,
    links_to,
    result_request,
    start_timeout_of,
    status_in,
    status_request,
    status_stream_request,
    timed_out,
    with_options,
)
from headrace.client._request import Patience, Request, Target
from headrace.client._watch import Watch
from headrace.client.credentials import Key, origin_of

TARGET = Target("http://gpu.test:8080", Key("id:secret", "a test"), None)
REQUEST = Request("GET", "http://gpu.test:8080/queue/me/app/requests/r1/status?logs=1", {}, None)
STREAM_HEAD = Head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})


def refused(status: int, **headers: str) -> errors.APIError:
    """The error of an answer; with a request id, unless it is a proxy's."""
    own = {"x-fal-request-id": "r1"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return api_error(TARGET, REQUEST, Head(status, {n: v for n, v in own.items() if v}), b'{"detail": "no"}')


def lines(*messages: str) -> list[dict[str, Any]]:
    return [{"message": message} for message in messages]


# --- tries and pauses ---------------------------------------------------------------------------------------

LOST = [errors.ConnectionFailed("reset"), errors.ConnectTimeout("late", timeout=1.0), errors.StreamCut("cut")]
SILENT = errors.ReadTimeout("silent", timeout=1.0)
FINAL = [
    errors.TLSFailed("no"),
    errors.ProtocolError("no"),
    errors.EventTimeout("the deadline", timeout=1.0),
    refused(400),
    refused(401),
    refused(404),
    refused(422),
    refused(500),
    refused(504, x_fal_request_timeout_type="user"),
]


@pytest.mark.parametrize("retries", [SUBMITTING, ASKING, FOLLOWING, FETCHING, CANCELLING])
def test_a_lost_connection_is_always_tried_again_and_a_refusal_never(retries: Retries) -> None:
    assert [0.25] * 3 == [retries.pause_s(error, 1, 0.5) for error in LOST]
    assert [None] * len(FINAL) == [retries.pause_s(error, 1, 0.5) for error in FINAL]


def test_only_a_submit_is_sent_again_after_silence() -> None:
    assert [True, False, False, False, False] == [
        retries.pause_s(SILENT, 1, 0.5) is not None
        for retries in (SUBMITTING, ASKING, FOLLOWING, FETCHING, CANCELLING)
    ]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_servers_answer_is_tried_again_where_it_is_not_the_models(status: int) -> None:
    assert [True, True, True, False, False] == [
        retries.pause_s(refused(status), 1, 0.5) is not None
        for retries in (SUBMITTING, ASKING, FOLLOWING, FETCHING, CANCELLING)
    ]
    assert FETCHING.pause_s(refused(status, x_fal_request_id=""), 1, 0.5) is not None


def test_the_tries_have_an_end() -> None:
    assert [3, 3, 8, 8, 3] == [
        1 + sum(retries.pause_s(LOST[0], tried, 0.5) is not None for tried in range(1, 20))
        for retries in (SUBMITTING, ASKING, FOLLOWING, FETCHING, CANCELLING)
    ]


def test_pauses_double_to_a_bound_and_chance_spreads_them() -> None:
    assert [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0] == [backoff_s(failures, 0.5) for failures in range(1, 8)]
    assert (0.125, 0.375) == (backoff_s(1, 0.0), backoff_s(1, 1.0))


def test_a_retry_after_is_the_least_of_a_pause_and_a_long_one_is_the_callers() -> None:
    assert 2.25 == SUBMITTING.pause_s(refused(429, retry_after="2"), 1, 0.5)
    assert 30.25 == SUBMITTING.pause_s(refused(503, retry_after="30"), 1, 0.5)
    assert SUBMITTING.pause_s(refused(503, retry_after="31"), 1, 0.5) is None


# --- deadlines ----------------------------------------------------------------------------------------------


def test_a_deadline_limits_waits_and_exchanges_until_it_passes() -> None:
    deadline = Deadline.after(10.0, 100.0)

    assert (3.0, 1.0) == (deadline.left_of(3.0, 101.0), deadline.left_of(3.0, 109.0))
    assert Patience(30.0, 120.0, 4.0) == deadline.limit(Patience(30.0, 120.0), 106.0)
    for act in (lambda: deadline.left_of(0.0, 110.0), lambda: deadline.limit(Patience(30.0, None), 111.0)):
        with pytest.raises(Expired):
            act()


def test_no_deadline_limits_nothing() -> None:
    deadline = Deadline.after(None, 100.0)

    assert (3.0, Patience(30.0, 1.0)) == (deadline.left_of(3.0, 1e9), deadline.limit(Patience(30.0, 1.0), 1e9))


def test_the_deadlines_end_of_an_exchange_is_told_from_the_servers_silence() -> None:
    with pytest.raises(Expired), Deadline.after(1.0, 0.0).watched():
        raise errors.EventTimeout("…", timeout=1.0)
    with pytest.raises(errors.ReadTimeout), Deadline.after(1.0, 0.0).watched():
        raise errors.ReadTimeout("…", timeout=1.0)


def test_what_a_caller_is_told_says_what_became_of_the_request() -> None:
    assert "no result within 5 s (client_timeout); request r1 was cancelled" == str(timed_out(5.0, "r1"))
    assert "no result within 5 s (client_timeout); it was not accepted yet" == str(timed_out(5.0, None))


def test_a_client_timeout_is_the_start_timeout_where_there_is_none() -> None:
    assert [None, 5.0, 7.0, 5.0] == [
        start_timeout_of(None, None), start_timeout_of(None, 5.0), start_timeout_of(7.0, None), start_timeout_of(5.0, 9.0),
    ]  # fmt: skip


# --- addresses and headers ----------------------------------------------------------------------------------


def test_the_requests_of_a_handle_are_these() -> None:
    links = links_to(TARGET, "workflows/me/app/deep/path", "r-1.x")
    base = "http://gpu.test:8080/queue/workflows/me/app/requests/r-1.x"

    assert [
        ("GET", f"{base}/status?logs=0", "application/json"),
        ("GET", f"{base}/status/stream?logs=1", "text/event-stream"),
        ("GET", base, "application/json"),
        ("PUT", f"{base}/cancel", "application/json"),
    ] == [
        (request.method, request.url, request.headers["accept"])
        for request in (
            status_request(TARGET, links, with_logs=False),
            status_stream_request(TARGET, links, with_logs=True),
            result_request(TARGET, links),
            cancel_request(TARGET, links),
        )
    ]


def test_what_the_server_put_into_its_urls_stays_but_for_the_host() -> None:
    links = Links("r1", "http://GPU.test:8080/x/r1?a=b", "http://gpu.test:8080/s/?a=b", "")

    assert "http://gpu.test:8080/x/r1?a=b" == result_request(TARGET, links).url
    assert "http://gpu.test:8080/s/?a=b&logs=1" == status_request(TARGET, links, with_logs=True).url
    assert "http://gpu.test:8080/s/stream?a=b&logs=1" == status_stream_request(TARGET, links, with_logs=True).url


def test_a_queue_at_an_address_of_its_own_is_the_servers_too() -> None:
    target = Target("https://gpu.test", None, None, "https://queue.gpu.test")
    for base in ("https://gpu.test/me", "https://QUEUE.gpu.test:443/me"):
        assert base.lower().replace(":443", "") == result_request(target, Links("r1", base, "", "")).url
    with pytest.raises(errors.ProtocolError, match="the key is not sent there"):
        result_request(target, Links("r1", "https://other.gpu.test/me", "", ""))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a.test", "http://A.test:80/x?y"),
        ("https://a.test:443/", "https://a.test"),
        ("http://localhost:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://localhost:8080"),
        ("http://[2001:DB8::1]:1/", "http://[2001:db8::1]:1"),
    ],
)
def test_one_origin_has_one_spelling(one: str, other: str) -> None:
    assert origin_of(one) == origin_of(other)


def test_other_origins_have_others() -> None:
    urls = ["http://a.test", "https://a.test", "http://a.test:8080", "http://b.test", "http://a.test.b.test"]

    assert len(urls) == len({origin_of(url) for url in urls})


def test_options_go_over_the_callers_headers_only_where_they_are_given() -> None:
    assert {"X-Fal-Queue-Priority": "low"} == with_options({"X-Fal-Queue-Priority": "low"})
    assert {"X-Fal-Request-Timeout": "2.5", "a": "b"} == with_options({"a": "b"}, start_timeout=2.5)


# --- statuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"status": "IN_QUEUE", "queue_position": 2}, Queued(2)),
        ({"status": "IN_QUEUE"}, Queued(0)),
        ({"status": "IN_PROGRESS", "logs": None}, InProgress(None)),
        ({"status": "IN_PROGRESS"}, InProgress(None)),
        ({"status": "IN_PROGRESS", "logs": [{"message": "x"}, 5]}, InProgress(lines("x"))),
        ({"status": "COMPLETED", "metrics": None}, Completed(None, {})),
        ({"status": "COMPLETED", "error": "422", "error_type": "x"}, Completed(None, {}, "422", "x")),
        ({"status": "COMPLETED", "error": {"a": 1}}, Completed(None, {}, "{'a': 1}")),
    ],
)
def test_a_status_is_read_as_generously_as_it_can_be(value: Any, expected: Any) -> None:
    assert expected == status_in(REQUEST, "r1", value)


def event(text: str) -> bytes:
    return b"data: " + text.encode() + b"\n\n"


def watch(**options: Any) -> Watch:
    return Watch("r1", **({"interval": 0.1, "changes": True, "is_known": True} | options))


def test_a_status_in_pieces_is_one_status() -> None:
    each = watch()
    each.opened(REQUEST, STREAM_HEAD)
    whole = b": ping\n" + event('{"status": "IN_PROGRESS", "logs": [{"message": "x"}]}')
    told = [status for byte in whole for status in each.fed(bytes([byte]))]

    assert ([InProgress(lines("x"))], False) == (told, each.is_over)


def test_what_follows_the_end_is_not_read() -> None:
    each = watch()
    each.opened(REQUEST, STREAM_HEAD)
    told = each.fed(event('{"status": "COMPLETED"}') + event('{"status": "IN_QUEUE"}'))

    assert ([Completed(None, {})], True) == (told, each.is_over)


def test_a_place_in_the_queue_and_a_new_attempt_are_changes_and_a_repeat_is_none() -> None:
    each = watch()
    values = [
        {"status": "IN_QUEUE", "queue_position": 2},
        {"status": "IN_QUEUE", "queue_position": 1},
        {"status": "IN_QUEUE", "queue_position": 1},
        {"status": "IN_PROGRESS"},
        {"status": "IN_PROGRESS"},
        {"status": "IN_QUEUE", "queue_position": 1},
        {"status": "IN_PROGRESS"},
    ]
    told = [status for value in values for status in each.asked(REQUEST, value)]

    assert [Queued(2), Queued(1), InProgress(None), Queued(1), InProgress(None)] == told


def test_fals_way_hands_over_every_answer_whole() -> None:
    each = watch(changes=False)
    value = {"status": "IN_PROGRESS", "logs": lines("a")}

    assert not each.is_streamed
    assert [InProgress(lines("a"))] * 2 == [*each.asked(REQUEST, value), *each.asked(REQUEST, value)]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([["a"], ["a", "b"], ["a", "b"]], ["a", "b"]),
        ([["a"], [], ["a", "b"]], ["a", "b"]),
        ([["a", "a"], ["a", "a", "a"]], ["a", "a", "a"]),
        ([["a", "b", "c"], ["b", "c", "d"]], ["a", "b", "c", "d"]),
        ([["a", "b", "c"], ["c"]], ["a", "b", "c"]),
        ([["a", "b"], ["c", "d"]], ["a", "b", "c", "d"]),
        ([["a", "b"], ["c"]], ["a", "b", "c"]),
    ],
    ids=str,
)
def test_of_whole_logs_only_the_new_lines_are_handed_over(lists: Any, expected: Any) -> None:
    each = watch()
    told = [
        status
        for messages in lists
        for status in each.asked(REQUEST, {"status": "IN_PROGRESS", "logs": lines(*messages)})
    ]

    assert expected == [line["message"] for status in told for line in status.logs]


def test_the_first_lines_of_a_stream_that_was_opened_again_are_all_of_them() -> None:
    each = watch()
    each.opened(REQUEST, STREAM_HEAD)
    told = each.fed(event('{"status": "IN_PROGRESS", "logs": [{"message": "a"}, {"message": "b"}]}'))
    each.opened(REQUEST, STREAM_HEAD)
    told += each.fed(event('{"status": "IN_QUEUE", "queue_position": 0}'))
    told += each.fed(event('{"status": "IN_PROGRESS", "logs": []}'))
    told += each.fed(
        event('{"status": "IN_PROGRESS", "logs": [{"message": "a"}, {"message": "b"}, {"message": "c"}]}')
    )
    told += each.fed(event('{"status": "IN_PROGRESS", "logs": [{"message": "a"}]}'))

    assert [
        InProgress(lines("a", "b")),
        Queued(0),
        InProgress([]),
        InProgress(lines("c")),
        InProgress(lines("a")),
    ] == told


@pytest.mark.parametrize(
    ("data", "type_"),
    [
        (b"", errors.StreamCut),
        (b'event: error\ndata: {"error": {}}\n\n', errors.StreamCut),
        (event("{"), errors.ProtocolError),
        (event('"IN_QUEUE"'), errors.ProtocolError),
        (event('{"status": "DANCING"}'), errors.ProtocolError),
    ],
)
def test_what_ends_a_status_stream_too_early_is_an_error(data: bytes, type_: Any) -> None:
    each = watch()
    each.opened(REQUEST, STREAM_HEAD)

    with pytest.raises(type_):
        each.fed(data)


@pytest.mark.parametrize("error", [*LOST, SILENT, refused(503), refused(429)], ids=repr)
def test_a_stream_that_was_cut_is_opened_again_thrice_with_growing_pauses(error: Any) -> None:
    each = watch()
    seen = []
    for _ in range(3):
        each.failed(error, 0.5)
        seen.append((each.is_streamed, each.pause_s))

    assert [(True, 0.25), (True, 0.5), (False, 1.0)] == seen


@pytest.mark.parametrize(
    "error", [refused(404), refused(405), refused(500), errors.ProtocolError("html")], ids=repr
)
def test_a_server_without_a_status_stream_is_asked_at_once(error: Any) -> None:
    each = watch()
    each.failed(error, 0.5)

    assert (False, 0.0) == (each.is_streamed, each.pause_s)


def test_a_status_makes_up_for_the_failures_before_it() -> None:
    each = watch()
    for _ in range(5):
        each.failed(LOST[0], 0.5)
        each.failed(LOST[0], 0.5)
        each.opened(REQUEST, STREAM_HEAD)
        each.fed(event('{"status": "IN_QUEUE", "queue_position": 0}'))

    assert each.is_streamed


@pytest.mark.parametrize("interval", [-1, float("nan"), float("inf")])
def test_an_interval_that_is_no_time_is_refused(interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        watch(interval=interval)
