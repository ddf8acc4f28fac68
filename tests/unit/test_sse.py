"""The decoder and the encoder of event streams: the parse table, the reference, and what costs what."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest

from headrace.core.sse import Decoder, Event, encode
from tests.support.sse_cases import CASES, PARTS, Case
from tests.support.sse_reference import reference


def whole(stream: bytes) -> Iterator[list[bytes]]:
    yield [stream]


def by_size(stream: bytes) -> Iterator[list[bytes]]:
    for size in (1, 2, 3, 7):
        yield [stream[start : start + size] for start in range(0, len(stream), size)]


def at_every_cut(stream: bytes) -> Iterator[list[bytes]]:
    for cut in range(min(len(stream), 600) + 1):
        yield [stream[:cut], stream[cut:]]


def at_random(stream: bytes) -> Iterator[list[bytes]]:
    for seed in range(10):
        yield random_pieces(stream, random.Random(seed))


def random_pieces(stream: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.choices(range(len(stream) + 1), k=chance.randrange(6)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def decoded(pieces: Iterable[bytes], id: str = "") -> tuple[list[tuple[str, str, str]], str, int | None]:
    decoder = Decoder(id)
    events = [event for piece in pieces for event in decoder.feed(piece)] + decoder.close()
    return [tuple(event) for event in events], decoder.last_event_id, decoder.retry_ms


def test_the_table_is_as_long_as_promised() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("cutting", [whole, by_size, at_every_cut, at_random], ids=lambda way: way.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stream_means_the_same_however_it_is_cut(case: Case, cutting) -> None:
    for pieces in cutting(case.stream):
        assert (case.events, case.last_event_id, case.retry_ms) == decoded(pieces, case.starts_with_id), pieces


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reference_agrees_with_the_table(case: Case) -> None:
    assert (case.events, case.last_event_id, case.retry_ms) == reference(case.stream, case.starts_with_id)


@pytest.mark.parametrize("block", range(10))
def test_random_streams_mean_what_the_reference_says(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        chance = random.Random(seed)
        stream = b"".join(chance.choices(PARTS, k=chance.randrange(1, 60)))
        expected = reference(stream, "before")
        for pieces in ([stream], random_pieces(stream, chance), [bytes([byte]) for byte in stream]):
            assert expected == decoded(pieces, "before"), (seed, pieces)


@pytest.mark.parametrize(
    "ends", [b"\n\n", b"\r\r", b"\r\n\r", b"\n\r", b"\r\r\n", b"\r\n\n"], ids=lambda ends: repr(ends)
)
def test_an_event_is_handed_over_as_soon_as_its_blank_line_is_known(ends: bytes) -> None:
    decoder = Decoder()
    before = [decoder.feed(bytes([byte])) for byte in b"data: a"]
    at_ends = [len(decoder.feed(bytes([byte]))) for byte in ends]
    prompt = {b"\r\r\n": [0, 1, 0]}.get(ends, [0] * (len(ends) - 1) + [1])

    assert [[]] * 7 == before
    assert prompt == at_ends


def test_an_event_has_names_for_its_parts() -> None:
    [event] = Decoder().feed(b"event: x\nid: 1\ndata: a\n\n")

    assert ("x", "a", "1") == (event.type, event.data, event.id)
    assert Event("message", "a", "") == Decoder().feed(b"data: a\n\n")[0]


def test_close_drops_what_was_cut_and_feeding_can_begin_anew() -> None:
    decoder = Decoder()
    decoder.feed(b"id: 1\ndata: a\n\nevent: x\nid: 2\ndata: b\nda")

    assert [] == decoder.close()
    assert "1" == decoder.last_event_id
    assert [Event("message", "c", "1")] == decoder.feed(b"data: c\n\n")


@pytest.mark.parametrize(
    ("stream", "unfinished"),
    [
        (b"", False),
        (b"data: a\n\n", False),
        (b"data: a\n\n: ping", False),
        (b": ping\n", False),
        (b"data: a\n\nd", True),
        (b"data: a\n", True),
        (b"data\n", True),
        (b"data: a\n: ping", True),
    ],
)
def test_unfinished_tells_an_event_that_the_end_cuts(stream: bytes, unfinished: bool) -> None:
    for pieces in ([stream], [bytes([byte]) for byte in stream]):
        decoder = Decoder()
        for piece in pieces:
            decoder.feed(piece)

        assert unfinished == (decoder.unfinished > 0)


def test_unfinished_grows_with_the_event_so_that_a_caller_can_bound_it() -> None:
    decoder = Decoder()
    for _ in range(10):
        decoder.feed(b"data: " + b"x" * 1000 + b"\n")
    decoder.feed(b"y" * 1000)

    assert 11_000 <= decoder.unfinished <= 11_100
    decoder.feed(b"\n\n")
    assert 0 == decoder.unfinished


def test_a_comment_of_any_length_costs_no_memory() -> None:
    decoder = Decoder()
    for _ in range(1000):
        decoder.feed(b":" + b"x" * 1000)

    assert sum(map(len, decoder._line)) < 10


# --- linear time: the work is counted, not timed ----------------------------------------------------------


def calls_of(pieces: list[bytes]) -> int:
    """How many function calls, ours and C's, decoding takes: a count, so a busy machine does not change it."""
    decoder = Decoder()
    calls = 0

    def count(_frame: object, kind: str, _argument: object) -> None:
        nonlocal calls
        calls += kind in ("call", "c_call")

    sys.setprofile(count)
    try:
        for piece in pieces:
            decoder.feed(piece)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    "pieces",
    [
        lambda n: [b"data: "] + [b"x" * 16] * n + [b"\n\n"],
        lambda n: [b"data: x\n"] * n,
        lambda n: [b":"] + [b"x" * 16] * n,
        lambda n: [b"event: a\ndata: b\n\n" * n],
        lambda n: [b"data: a\n\n: ping\n" * n],
        lambda n: [b"data: a\r\n\r\n"] * n,
        lambda n: [b"\r\n" * n],
        lambda n: [b"\r"] * n,
    ],
    ids=["a long line", "many lines", "a comment", "named events", "heartbeats", "CRLF", "blank", "blank drops"],
)
def test_the_calls_grow_no_faster_than_the_bytes(pieces) -> None:
    small, large = calls_of(pieces(500)), calls_of(pieces(4_000))

    assert large < 8 * small * 1.5 + 100


def test_a_huge_line_in_tiny_pieces_copies_each_byte_a_few_times_only() -> None:
    decoder = Decoder()
    pieces = [b"data: "] + [b"x" * 64] * 20_000 + [b"\n\n"]
    tracemalloc.start()
    for piece in pieces:
        events = decoder.feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert ["x" * 64 * 20_000] == [event.data for event in events]
    assert peak < 10 * 64 * 20_000


# --- the encoder ------------------------------------------------------------------------------------------


def test_the_usual_event() -> None:
    assert b'data: {"a": 1}\n\n' == encode('{"a": 1}')


def test_all_fields_and_several_lines() -> None:
    assert b"event: error\nid: r.1.2\ndata: a\ndata: b\n\n" == encode("a\nb", event="error", id="r.1.2")


@pytest.mark.parametrize(
    "data", ["", "\n", "\r", "\r\n", "a\r", "\ra", "a\r\nb\rc\nd\n", "\u2028\u0085\x0b", "\ufeff"]
)
def test_any_text_is_legal_data_and_line_ends_arrive_as_line_feeds(data: str) -> None:
    [event] = Decoder().feed(encode(data))

    assert data.replace("\r\n", "\n").replace("\r", "\n") == event.data


@pytest.mark.parametrize(
    "fields",
    [{"event": "a\nb"}, {"event": "a\rb"}, {"event": "\n"}, {"id": "a\nb"}, {"id": "a\r"}, {"id": "\0"}, {"id": "a\0b"},
     {"event": "\ud800"}, {"id": "\udfff"}],
    ids=repr,
)  # fmt: skip
def test_what_would_be_another_field_or_be_dropped_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        encode("a", **fields)


def test_a_lone_surrogate_in_data_is_refused() -> None:
    with pytest.raises(ValueError):
        encode("a\ud800b")


def injections() -> Iterator[tuple[str, str | None, str | None]]:
    """At least a thousand attempts to smuggle a field, an event or an end through each argument."""
    ends = [
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\r",
        "\r\n\r\n",
        "\u2028",
        "\u0085",
        "\x0b",
        "\0",
        "\ud800",
        "\ufeff",
        " ",
        "",
    ]
    loads = ["data: evil", "event: error", "id: 0", "id", "retry: 1", ": c", ":", "", " ", "data", "{}", "a: b"]
    for end in ends:
        for load in loads:
            text = f"a{end}{load}"
            yield text, None, None
            yield "a", text, None
            yield "a", None, text
            yield f"{load}{end}", f"{end}{load}", f"{load}{end}"
            yield text + end, "x", "1"
            yield f"{end}{load}", None, load
            yield "a", load, f"{load}{end}{load}"


def test_an_encoded_event_decodes_to_itself_or_is_refused() -> None:
    cases = list(injections())
    assert len(cases) >= 1_000

    for data, event, id in cases:
        try:
            wire = encode(data, event=event, id=id)
        except ValueError:
            bad = "".join(part for part in (event, id) if part)
            surrogate = any("\ud800" <= letter <= "\udfff" for letter in f"{data}{bad}")
            assert surrogate or "\n" in bad or "\r" in bad or "\0" in (id or ""), (data, event, id)
            continue
        before, after = b"data: before\n\n", b"data: after\n\n"
        got = Decoder("old").feed(before + wire + after)
        plain = data.replace("\r\n", "\n").replace("\r", "\n")
        now = "old" if id is None else id

        assert [("message", "before", "old"), (event or "message", plain, now), ("message", "after", now)] == got
