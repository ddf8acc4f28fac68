"""Large messages in turn: whole, in order, never more begun than the node holds, and nobody else held up."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.frames import FrameReader, Kind, encode, pieces, stream_of, weight_of
from headrace.core.limits import Limits
from headrace.runner.rotation import PIECES_PER_TURN, LargeMessage, Rotation

FRAME_BYTES_MAX = 8
ROOM_BYTES = 1000


def reader(message_bytes_max: int = ROOM_BYTES) -> FrameReader:
    return FrameReader(frame_bytes_max=FRAME_BYTES_MAX, message_bytes_max=message_bytes_max)


def outgoing(stream: int, payload: bytes) -> bytes | LargeMessage:
    if len(payload) <= FRAME_BYTES_MAX:
        return encode(Kind.EVENT, stream, payload)
    return LargeMessage(Kind.EVENT, stream, payload, FRAME_BYTES_MAX)


def turns_of(rotation: Rotation, *messages: tuple[int, bytes]) -> list[list[tuple[int, bytes]]]:
    """What a node has read after each turn in which the rotation sent, until it is empty."""
    node, turns = reader(), []
    taken = [outgoing(stream, payload) for stream, payload in messages]
    while taken or rotation.streams:
        sent = rotation.take(taken) + rotation.next_frames()
        assert sent, "a turn in which nothing leaves would be the last"
        turns.append([(stream, payload) for _, stream, payload in node.feed(b"".join(sent))])
        taken = []
    return turns


large = st.binary(min_size=FRAME_BYTES_MAX + 1, max_size=50)
small = st.binary(max_size=FRAME_BYTES_MAX)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.tuples(st.integers(1, 6), large | small), max_size=8), max_size=12))
def test_whatever_is_sent_arrives_whole_in_its_streams_order_and_within_the_nodes_bound(turns):
    rotation, node, received = Rotation(ROOM_BYTES), reader(), []
    for messages in turns:
        sent = rotation.take([outgoing(stream, payload) for stream, payload in messages])
        received += node.feed(b"".join(sent + rotation.next_frames()))
    while rotation.streams:
        received += node.feed(b"".join(rotation.take([]) + rotation.next_frames()))

    posted = [message for messages in turns for message in messages]
    for stream in range(1, 7):
        assert [payload for to, payload in posted if to == stream] == [
            payload for _, to, payload in received if to == stream
        ]


def test_no_more_begin_than_fit_and_the_rest_come_in_their_order():
    largest = b"x" * 40  # with its five pieces' overhead it weighs 680 of 1000: two never fit
    messages = [(stream, largest) for stream in (3, 1, 2)]

    arrived = [message for turn in turns_of(Rotation(ROOM_BYTES), *messages) for message in turn]

    assert messages == arrived


def test_a_light_message_does_not_pass_a_heavy_one_that_waits():
    begun, heavy, light = (1, b"b" * 40), (2, b"h" * 40), (3, b"l" * 9)
    rotation = Rotation(ROOM_BYTES)
    rotation.take([outgoing(*begun), outgoing(*heavy), outgoing(*light)])

    first = [stream_of(frame) for frame in rotation.next_frames()]

    assert [1] == first


def test_messages_that_fit_together_take_turns():
    long, short = (1, b"x" * 40), (2, b"y" * 9)  # 680 and 265

    arrived = [message for turn in turns_of(Rotation(ROOM_BYTES), long, short) for message in turn]

    assert [short, long] == arrived


def test_a_small_frame_waits_behind_its_own_streams_large_message_only():
    mine, other = (1, b"mine"), (2, b"other")

    turns = turns_of(Rotation(ROOM_BYTES), (1, b"x" * 40), mine, other)

    assert [other] == turns[0]
    assert [(1, b"x" * 40), mine] == turns[-1]


def test_a_small_frame_behind_a_message_that_waits_for_room_waits_too():
    waits, behind, other = (2, b"y" * 40), (2, b"behind"), (3, b"other")

    turns = turns_of(Rotation(ROOM_BYTES), (1, b"x" * 40), waits, behind, other)

    assert [other] == turns[0]
    assert [waits, behind] == turns[-1]


def test_a_streams_next_large_message_lines_up_behind_the_others():
    first, second, other = (1, b"1" * 40), (1, b"2" * 40), (2, b"o" * 40)

    arrived = [
        message
        for turn in turns_of(Rotation(ROOM_BYTES), first, (1, b"a"), second, (1, b"b"), other)
        for message in turn
    ]

    assert [first, (1, b"a"), other, second, (1, b"b")] == arrived


def test_one_turn_sends_few_pieces_however_many_messages_there_are():
    rotation = Rotation(10_000)
    rotation.take([outgoing(stream, b"x" * 20) for stream in range(1, 21)])

    assert PIECES_PER_TURN == len(rotation.next_frames())


@pytest.mark.parametrize("size", [9, 16, 17, 800])
def test_a_message_that_fits_by_its_weight_is_never_refused(size):
    weight = weight_of(size, FRAME_BYTES_MAX)
    node = reader(weight)

    assert [(68, 1, b"x" * size)] == node.feed(b"".join(pieces(68, 1, b"x" * size, FRAME_BYTES_MAX)))


def test_by_default_the_link_holds_the_largest_result_and_the_largest_body():
    limits = Limits()
    head_bytes = limits.headers_bytes_max + limits.target_bytes_max + 1024

    for message_bytes in (limits.result_bytes_max, limits.event_bytes_max, limits.body_bytes_max + head_bytes):
        assert weight_of(message_bytes, limits.frame_bytes_max) <= limits.message_bytes_max
