"""The body of an HTTP/1.1 message out of raw bytes, however they are cut, and what is no body."""

from __future__ import annotations

import pytest

from headrace.client._body import BadFraming, ChunkedBody, OpenBody, SizedBody

WHOLE = b"5\r\nhello\r\n1\r\n \r\nA;name=value\r\n0123456789\r\n005 \r\nthere\r\n0\r\nX-Trailer: yes\r\n\r\n"
PAYLOAD = b"hello 0123456789there"


def fed(body, pieces: list[bytes]) -> bytes:
    return b"".join(body.feed(piece) for piece in pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 1000])
def test_chunks_come_out_however_they_are_cut(size: int) -> None:
    body = ChunkedBody()

    assert PAYLOAD == fed(body, [WHOLE[start : start + size] for start in range(0, len(WHOLE), size)])
    assert (True, False) == (body.is_whole, body.has_surplus)


def test_chunks_come_out_at_every_cut() -> None:
    for cut in range(len(WHOLE) + 1):
        body = ChunkedBody()

        assert PAYLOAD == fed(body, [WHOLE[:cut], WHOLE[cut:]]), cut


def test_a_body_is_whole_only_with_its_last_byte() -> None:
    for cut in range(len(WHOLE)):
        body = ChunkedBody()
        fed(body, [WHOLE[:cut]])

        assert not body.is_whole, cut


def test_the_payload_of_an_open_chunk_is_not_held_back() -> None:
    body = ChunkedBody()

    assert [b"", b"ab", b"c", b""] == [body.feed(piece) for piece in (b"64\r\n", b"ab", b"c", b"")]


def test_what_follows_a_whole_body_is_surplus() -> None:
    body = ChunkedBody()
    fed(body, [WHOLE + b"HTTP/1.1"])

    assert body.has_surplus


@pytest.mark.parametrize(
    "stream",
    [b"zz\r\n", b"-5\r\nhello", b"+5\r\nhello", b"0x5\r\nhello", b"5_0\r\n", b"\r\n", b" 5\r\nhello", b";a\r\n",
     b"5\r\nhelloX\r\n", b"5\r\nhello\n", b"5\r\nhello\rX", b"f" * 16 + b"\r\n", b"5" * 20_000,
     b"0\r\n" + b"a: b\r\n" * 20_000, b"\xc2\xb2\r\n"],
)  # fmt: skip
def test_what_is_no_chunk_is_refused(stream: bytes) -> None:
    for pieces in ([stream], [stream[start : start + 7] for start in range(0, len(stream), 7)]):
        with pytest.raises(BadFraming):
            fed(ChunkedBody(), pieces)


def test_a_sized_body_is_whole_with_its_last_byte() -> None:
    body = SizedBody(5)

    assert [(b"he", False), (b"llo", True)] == [
        (body.feed(piece), body.is_whole) for piece in (b"he", b"llo more")
    ]
    assert body.has_surplus
    assert SizedBody(0).is_whole


def test_an_open_body_is_never_whole() -> None:
    body = OpenBody()

    assert (b"a", False) == (body.feed(b"a"), body.is_whole)
