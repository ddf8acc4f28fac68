"""The runner's end of the link, without a process: whatever a node sends, it is answered or hung up on."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headrace.core.frames import MORE, FrameReader, Kind, encode
from headrace.core.limits import Limits
from headrace.runner.serve import Runner

LIMITS = Limits(body_bytes_max=50_000, result_bytes_max=50_000, event_bytes_max=50_000, message_bytes_max=120_000)

#: What a runner with no app answers to anything at all.
ANSWERS = {Kind.CHECKED, Kind.ERROR, Kind.PONG}


class Wire:
    """Where the link writes: the edge of what is ours."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


def answers_to(*chunks: bytes) -> tuple[list[tuple[int, int, bytes]], bool]:
    """The messages that a runner without apps answers with, and whether it hung up."""

    async def feed() -> Wire:
        wire = Wire()
        link = Runner({}, LIMITS).link
        link.connection_made(wire)
        for chunk in chunks:
            if not wire.is_aborted:
                link.data_received(chunk)
        await asyncio.sleep(0)  # the flush
        return wire

    wire = asyncio.run(feed())
    node = FrameReader(frame_bytes_max=LIMITS.frame_bytes_max, message_bytes_max=LIMITS.message_bytes_max)
    return node.feed(wire.sent), wire.is_aborted


START = b'{"request_id": "r", "path": "/", "headers": {}, "attempt": 1, "window": 1}\n{}'

heads = st.sampled_from(
    [b"{}", b"[]", b"null", b'{"request_id": 1, "path": null}', b'{"request_id": "r", "path": "/", "headers": []}',
     b'{"request_id": "r", "path": "/", "window": "x"}', b'{"request_id": "r", "path": "/", "attempt": {}}',
     b'{"app": []}', b"[" * 5000, b"1" * 5000, b'"\xff"', START]
)  # fmt: skip
frames = st.builds(
    lambda kind, more, stream, payload: encode(kind | more, stream, payload),
    st.sampled_from([int(kind) for kind in Kind]) | st.integers(0, 127),
    st.sampled_from([0, 0, 0, MORE]),
    st.integers(0, 3) | st.integers(0, 2**32 - 1),
    heads | st.binary(max_size=40),
)


@pytest.mark.promise("R7")
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(frames | st.binary(max_size=30), max_size=10))
@example([b"\x80\x00\x00\x00\x03\x00\x00\x00\x01"])
def test_whatever_a_node_sends_is_answered_or_hung_up_on(chunks):
    answers, _ = answers_to(*chunks)

    assert {kind for kind, _, _ in answers} <= ANSWERS


@pytest.mark.promise("R7")
@pytest.mark.parametrize("kind", sorted({*range(128)} - {int(kind) for kind in Kind if kind < Kind.HELLO}))
def test_a_kind_that_is_not_for_runners_is_hung_up_on(kind):
    assert ([], True) == answers_to(encode(kind, 1))


@pytest.mark.promise("R7")
def test_unfinished_messages_beyond_their_bound_are_hung_up_on():
    piece = encode(Kind.START | MORE, 1, b"x" * LIMITS.frame_bytes_max)

    assert ([], False) == answers_to(piece)
    assert ([], True) == answers_to(piece, piece)


@pytest.mark.promise("R7")
def test_what_follows_nonsense_is_not_read():
    answers, has_hung_up = answers_to(encode(Kind.PING, 0, b"1") + encode(99, 0) + encode(Kind.PING, 0, b"2"))

    assert has_hung_up
    assert [] == answers  # an aborted transport takes nothing, not even the first answer


def test_a_start_before_setup_is_answered_with_a_typed_error():
    ((kind, stream, payload),), has_hung_up = answers_to(encode(Kind.START, 7, START))

    assert (Kind.ERROR, 7, False) == (kind, stream, has_hung_up)
    assert "runner_scheduling_failure" == json.loads(payload)["type"]
