"""The bytes of the link: cut anyhow, they give the same messages; out of bounds, they give BadFrame."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.frames import HEAD_BYTES, MORE, BadFrame, FrameReader, Kind, encode, pieces


def reader(frame_bytes_max: int = 8, message_bytes_max: int = 4096) -> FrameReader:
    return FrameReader(frame_bytes_max=frame_bytes_max, message_bytes_max=message_bytes_max)


def test_a_frame_is_length_kind_stream_payload_in_network_order():
    assert b"\x00\x00\x00\x02\x44\x00\x00\x01\x00{}" == encode(Kind.EVENT, 256, b"{}")


def test_whole_and_bytewise_give_the_same_messages():
    wire = encode(1, 0, b"a") + b"".join(pieces(68, 7, b"0123456789abcdefgh", 8)) + encode(69, 7)

    whole = reader().feed(wire)
    bytewise_reader = reader()
    bytewise = [message for byte in wire for message in bytewise_reader.feed(bytes([byte]))]

    assert [(1, 0, b"a"), (68, 7, b"0123456789abcdefgh"), (69, 7, b"")] == whole == bytewise


messages = st.lists(st.tuples(st.integers(0, 127), st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages, st.lists(st.integers(1, 30), max_size=60))
def test_any_cut_gives_back_what_was_sent(sent, cuts):
    wire = b"".join(frame for kind, stream, payload in sent for frame in pieces(kind, stream, payload, 8))
    received, taker = [], reader()
    for cut in cuts:
        received += taker.feed(wire[:cut])
        wire = wire[cut:]
    received += taker.feed(wire)

    assert sent == received


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=30), max_size=20))
def test_any_bytes_either_parse_or_raise_bad_frame(chunks):
    taker = reader()
    try:
        for chunk in chunks:
            taker.feed(chunk)
    except BadFrame:
        pass


def test_pieces_of_two_streams_may_be_interleaved():
    one, two = list(pieces(68, 1, b"1" * 20, 8)), list(pieces(68, 2, b"2" * 12, 8))

    received = reader().feed(one[0] + two[0] + one[1] + encode(68, 3, b"s") + two[1] + one[2])

    assert [(68, 3, b"s"), (68, 2, b"2" * 12), (68, 1, b"1" * 20)] == received


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 17])
def test_pieces_are_as_few_as_the_bound_allows(size):
    frames = list(pieces(68, 1, b"x" * size, 8))

    assert max(1, -(-size // 8)) == len(frames)
    assert all(len(frame) <= HEAD_BYTES + 8 for frame in frames)


@pytest.mark.parametrize("length", [9, 2**31, 2**32 - 1])
def test_a_length_over_the_bound_is_refused_before_its_bytes_arrive(length):
    with pytest.raises(BadFrame, match=str(length)):
        reader().feed(length.to_bytes(4, "big") + b"\x44\x00\x00\x00\x01")


def test_unfinished_messages_are_bounded_together():
    taker = reader(message_bytes_max=300)
    taker.feed(encode(68 | MORE, 1, b"x" * 8) + encode(68 | MORE, 2, b"x" * 8))

    with pytest.raises(BadFrame, match="300"):
        taker.feed(encode(68 | MORE, 3, b"x" * 8))


def test_empty_pieces_count_too():
    with pytest.raises(BadFrame, match="4096"):
        reader().feed(encode(68 | MORE, 1) * 40)


def test_a_finished_message_makes_room_for_the_next():
    taker = reader(message_bytes_max=300)
    for _ in range(10):
        assert [(68, 1, b"x" * 18)] == taker.feed(b"".join(pieces(68, 1, b"x" * 18, 8)))
