"""The decoder of the SDK for JavaScript, in Node: the parse table, random streams, and what costs what."""

from tests.support.javascript import assert_all_decoded, node, sse_cases

JUDGE = """
    const [{ EventDecoder }, { judge }] = await Promise.all([import(SDK), import(SCRIPTS + "decoding.mjs")]);
    console.log(JSON.stringify(judge(EventDecoder, given)));
"""

LONG = """
    const { EventDecoder } = await import(SDK);
    const decoder = new EventDecoder();
    const piece = new TextEncoder().encode("x".repeat(64));
    decoder.feed(new TextEncoder().encode(given.begins));
    for (let count = 0; count < 131_072; count += 1) decoder.feed(piece);
    const unfinished = decoder.unfinished;
    const events = decoder.feed(new TextEncoder().encode("\\n\\ndata: {}\\n\\n"));
    console.log(JSON.stringify([unfinished, events.map(({ data }) => data.length)]));
"""


def test_a_stream_means_the_same_however_it_is_cut():
    assert_all_decoded(node(JUDGE, sse_cases()))


def test_a_long_event_in_small_pieces_takes_no_time_to_speak_of():
    assert [8_388_614, [8_388_608, 2]] == node(LONG, {"begins": "data: "})


def test_a_comment_without_end_takes_no_memory():
    assert [1, [2]] == node(LONG, {"begins": ": "})


def test_a_decoder_that_garbled_split_characters_would_be_found():
    garbling = JUDGE.replace(
        "judge(EventDecoder",
        "judge(class extends EventDecoder { feed(bytes) {"
        " return super.feed(new TextEncoder().encode(new TextDecoder().decode(bytes))); } }",
    )

    judged = node(garbling, sse_cases())

    assert "two bytes" in [mistake["name"] for mistake in judged["mistakes"]]
