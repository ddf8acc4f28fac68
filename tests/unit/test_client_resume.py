"""What a stream that survives cuts decides: where to go on, whether and when, and how to leave."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.client import errors
from headrace.client._answer import Head
from headrace.client._request import Patience, Target
from headrace.client._resume import (
    FIRST_TRIES_MAX,
    GRACE_S,
    SILENCE_S,
    TRIES_MAX,
    Resumption,
    attached,
    begun,
    patient,
)

TARGET = Target("http://server", None, None)
CUT = errors.StreamCut("cut")
OPENED = Head(200, {"x-fal-request-id": "req-1", "content-type": "text/event-stream"})
MARK = {"type": "rollback", "attempt": 2}


def new(headers: Any = None) -> Resumption:
    return begun(TARGET, "me/app/fast", {"a": 1}, idempotency_key="key-1", path="/stream", headers=headers)


def running() -> Resumption:
    resumption = new()
    resumption.sending()
    resumption.opened(OPENED)
    return resumption


def watched(after: str | None = None) -> Resumption:
    return attached(TARGET, "me/app/fast", "req-1", after=after, resumes=True, headers=None)


# --- where to go on -------------------------------------------------------------------------------------------------


def test_the_call_itself_is_sent_until_its_request_is_known() -> None:
    resumption = new()
    first = resumption.sending()
    resumption.pause_s(errors.ConnectionFailed("reset"), 0.0, 0.5)

    assert first == resumption.sending()
    assert ("POST", "http://server/me/app/fast/stream", b'{"a":1}') == (first.method, first.url, first.body)
    assert ("key-1", "grace:30", "1") == tuple(
        first.headers[name] for name in ("idempotency-key", "x-headrace-on-disconnect", "x-headrace-event-ids")
    )


def test_a_known_request_is_watched_behind_its_last_event_and_never_posted_again() -> None:
    resumption = running()
    before = resumption.request
    resumption.passed([{}], "req-1.1.4")

    assert "last-event-id" not in before.headers
    again = resumption.request
    assert ("GET", "http://server/me/app/requests/req-1/stream", None) == (again.method, again.url, again.body)
    assert "req-1.1.4" == again.headers["last-event-id"]


def test_the_callers_own_headers_go_along_every_time_and_before_ours() -> None:
    resumption = new({"X-Own": "1", "idempotency-key": "mine"})
    first = resumption.sending()
    resumption.opened(OPENED)

    assert ("1", "mine") == (first.headers["x-own"], first.headers["idempotency-key"])
    assert "1" == resumption.request.headers["x-own"]


@pytest.mark.parametrize("id_", ["../keys", "a/b", "", "é", "x" * 300])
def test_an_id_that_is_none_leads_nowhere(id_: str) -> None:
    resumption = new()
    resumption.sending()
    resumption.opened(Head(200, {"x-fal-request-id": id_}))

    assert "http://server/me/app/fast/stream" == resumption.request.url
    assert None is resumption.farewell()
    with pytest.raises(ValueError, match="request's id"):
        attached(TARGET, "me/app", id_, after=None, resumes=True, headers=None)


@pytest.mark.parametrize("after", ["a\r\nb", "a\0", "é"])
def test_what_cannot_be_a_header_is_not_sent(after: str) -> None:
    with pytest.raises(ValueError, match="header"):
        watched(after)


# --- whether, and when ----------------------------------------------------------------------------------------------


def test_pauses_double_up_to_five_seconds_and_an_event_begins_anew() -> None:
    resumption = running()
    pauses = []
    for _ in range(8):
        pauses.append(resumption.pause_s(CUT, 0.0, 0.5))
    resumption.passed([{}], "req-1.1.0")

    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] == pauses
    assert 0.1 == resumption.pause_s(CUT, 0.0, 0.5)


def test_chance_spreads_the_pauses() -> None:
    assert [0.05, 0.1] == [running().pause_s(CUT, 0.0, chance) for chance in (0.0, 0.5)]
    assert 0.15 == pytest.approx(running().pause_s(CUT, 0.0, 1.0))


@pytest.mark.parametrize(("resumption", "tries"), [(new(), FIRST_TRIES_MAX), (running(), TRIES_MAX)])
def test_connections_that_bring_nothing_are_counted(resumption: Resumption, tries: int) -> None:
    pauses = [resumption.pause_s(CUT, 0.0, 0.5) for _ in range(tries)]

    assert [False] * (tries - 1) + [True] == [pause is None for pause in pauses]


def test_nobody_comes_back_once_the_grace_is_over() -> None:
    resumption = running()

    assert None is not resumption.pause_s(CUT, 100.0, 0.5)
    assert None is not resumption.pause_s(CUT, 100.0 + GRACE_S, 0.5)
    assert None is resumption.pause_s(CUT, 100.1 + GRACE_S, 0.5)


def test_an_answer_begins_the_grace_anew() -> None:
    resumption = running()
    resumption.pause_s(CUT, 100.0, 0.5)
    resumption.opened(OPENED)

    assert None is not resumption.pause_s(CUT, 150.0, 0.5)


def refusal(status: int, request_id: str | None) -> errors.APIError:
    return errors.APIError(
        "no", status_code=status, message="no", detail="no", error_type=None, request_id=request_id,
        response_headers={}, retryable=True, body=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "is_cut"),
    [
        (CUT, True),
        (errors.ConnectionFailed("reset"), True),
        (errors.ConnectTimeout("slow", timeout=1.0), True),
        (errors.ReadTimeout("silent", timeout=1.0), True),
        (refusal(502, None), True),
        (refusal(503, None), True),
        (refusal(503, "req-1"), False),
        (refusal(429, None), False),
        (refusal(412, "req-1"), False),
        (errors.EventTimeout("slow", timeout=1.0), False),
        (errors.TLSFailed("no"), False),
        (errors.ProtocolError("what?"), False),
    ],
)
def test_only_a_cut_is_answered_with_another_connection(error: errors.HeadraceError, is_cut: bool) -> None:
    assert is_cut == (running().pause_s(error, 0.0, 0.5) is not None)


def test_items_without_ids_cannot_be_gone_on_from() -> None:
    resumption = running()
    resumption.passed([{}], "")

    assert None is resumption.pause_s(CUT, 0.0, 0.5)


def test_silence_has_an_end_unless_the_caller_says_which() -> None:
    assert SILENCE_S == patient(Patience(30.0, None)).bytes_s
    assert 5.0 == patient(Patience(30.0, 5.0)).bytes_s


# --- a queued request that begins again -----------------------------------------------------------------------------


def test_a_mark_told_again_behind_a_cut_is_left_out_and_another_one_is_not() -> None:
    resumption = watched()
    resumption.opened(OPENED)
    first = resumption.passed([{"i": 0}, MARK], "req-1.1.0")
    resumption.opened(OPENED)
    again = resumption.passed([MARK, {"i": 0}], "req-1.2.0")
    resumption.opened(OPENED)
    later = resumption.passed([{"type": "rollback", "attempt": 3}], "req-1.2.0")

    assert [{"i": 0}, MARK] == first
    assert [{"i": 0}] == again
    assert [{"type": "rollback", "attempt": 3}] == later


# --- leaving --------------------------------------------------------------------------------------------------------


def test_a_farewell_stops_the_request_and_is_said_once() -> None:
    resumption = running()
    farewell = resumption.farewell()

    assert farewell is not None
    assert ("PUT", "http://server/me/app/requests/req-1/cancel") == (farewell.method, farewell.url)
    assert None is resumption.farewell()


def test_a_farewell_before_any_answer_takes_the_grace_back_and_then_stops_what_it_finds() -> None:
    resumption = new()
    first = resumption.sending()
    farewell = resumption.farewell()
    assert farewell is not None
    second = resumption.second_farewell(OPENED)

    assert {**first.headers, "x-headrace-on-disconnect": "cancel"} == farewell.headers
    assert (first.method, first.url, first.body) == (farewell.method, farewell.url, farewell.body)
    assert second is not None
    assert "http://server/me/app/requests/req-1/cancel" == second.url
    assert None is resumption.second_farewell(OPENED)


@pytest.mark.parametrize("error", [None, CUT, refusal(412, "req-1"), errors.ReadTimeout("silent", timeout=1.0)])
def test_there_is_no_farewell_where_nothing_is_left_to_stop(error: Any) -> None:
    resumption = running()
    resumption.ended(error)

    assert None is resumption.farewell()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), errors.EventTimeout("slow", timeout=1.0), GeneratorExit()])
def test_who_gives_up_says_farewell(error: Any) -> None:
    resumption = running()
    resumption.ended(error)

    assert None is not resumption.farewell()


def test_nobody_says_farewell_to_what_was_never_sent_or_is_anothers() -> None:
    other = watched()
    other.sending()
    other.opened(OPENED)

    assert None is new().farewell()
    assert None is other.farewell()
