"""A real language model behind the server: examples/smollm2.py, as a user serves it."""

import concurrent.futures
import contextlib

import pytest

from tests.support.server import RawStream, Server, data_events, eventually, running_server
from tests.support.smollm2 import EXAMPLE, need_model

pytestmark = pytest.mark.timeout(180)

#: What greedy decoding makes of these, whoever else is in the batch.
PINNED = {
    "Name three primary colors.": "The primary colors are:\n\nRed (R)\nBlue (B)\nYellow (Y)",
    "Count from one to one hundred in words.": "One hundred is a very large number.",
    "What is the capital of France?": "L'Étoile, la Marseillaise, la femme, la femme au martyre, la",
    "Write a very long story about a dragon and a knight.": (
        "Once upon a time, in a land far away, there lived a brave knight named Sir Reginald. He was"
    ),
}
STORY = {
    "prompt": "Write a very long story about a dragon and a knight.",
    "max_tokens": 900,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def server():
    need_model()
    with running_server(EXAMPLE) as server:
        yield server


def greedy(server: Server, prompt: str) -> str:
    answer = server.post("/headrace/smollm2", {"prompt": prompt, "max_tokens": 24, "temperature": 0})
    return answer.json["output"]


def test_a_prompt_is_streamed_token_by_token_and_ends_with_the_whole(server):
    body = {"prompt": "Name three primary colors.", "max_tokens": 24, "temperature": 0}
    answer = server.post("/headrace/smollm2/stream", body)
    *deltas, last = data_events(answer.body)

    assert 200 == answer.status
    assert 15 < len(deltas)
    assert {
        "output": PINNED["Name three primary colors."],
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 35, "completion_tokens": 22},
    } == last
    assert last["output"] == "".join(item["delta"] for item in deltas)


def test_greedy_text_is_the_same_alone_and_batched_with_three_others(server):
    alone = {prompt: greedy(server, prompt) for prompt in PINNED}
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        batched = dict(zip(PINNED, callers.map(lambda prompt: greedy(server, prompt), PINNED), strict=True))

    assert PINNED == alone
    assert PINNED == batched


def test_a_conversation_goes_on(server):
    messages = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Arr!"},
        {"role": "user", "content": "Who are you?"},
    ]
    answer = server.post("/headrace/smollm2", {"messages": messages, "max_tokens": 8})

    assert 200 == answer.status
    assert "length" == answer.json["finish_reason"]
    assert 8 == answer.json["usage"]["completion_tokens"]


def test_a_seed_makes_a_warm_answer_repeatable(server):
    body = {"prompt": "Tell me a story.", "max_tokens": 16, "temperature": 1.5}
    same = {server.post("/headrace/smollm2", body | {"seed": 7}).json["output"] for _ in range(2)}
    others = {server.post("/headrace/smollm2", body | {"seed": seed}).json["output"] for seed in range(3)}

    assert 1 == len(same)
    assert 1 < len(others)


def test_leaving_a_stream_frees_its_slot_at_the_next_token(server):
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(server.open("/headrace/smollm2/stream", STORY)) for _ in range(4)]
        for reader in readers:
            reader.read_until(b'data: {"delta"')
        fifth = stack.enter_context(server.open("/headrace/smollm2/stream", STORY))
        eventually(lambda: 1 == waiting(server), "the fifth waits for a slot")

        readers[0].close()
        fifth.read_until(b'data: {"delta"')
        are_over = [is_over(reader) for reader in readers[1:]]

    assert [False, False, False] == are_over
    eventually(lambda: 0 == waiting(server), "nobody waits")


def is_over(reader: RawStream) -> bool:
    """Take what has arrived, without waiting, and say whether that is all."""
    reader.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        reader.read_to_end()
    return reader.is_whole


def waiting(server: Server) -> int:
    return server.request("GET", "/ready").json["apps"]["headrace/smollm2"]["waiting"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "give either prompt or messages"),
        ({"prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}, "give either prompt or messages"),
        ({"messages": []}, "at least 1 item"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "'system', 'user' or 'assistant'"),
        ({"prompt": "hi", "max_tokens": 0}, "greater than or equal to 1"),
        ({"prompt": "hi", "temperature": -1}, "greater than or equal to 0"),
        ({"prompt": "hi", "seed": 2**32}, "less than 4294967296"),
    ],
)
def test_a_wrong_input_is_422_in_words(server, body, message):
    answer = server.post("/headrace/smollm2/stream", body)

    assert 422 == answer.status
    assert message in answer.json["detail"][0]["msg"]


def test_a_prompt_beyond_the_context_is_told_in_the_engines_words(server):
    answer = server.post("/headrace/smollm2/stream", {"prompt": "word " * 2000})

    assert (400, "app_error") == (answer.status, answer.json["error_type"])
    assert "exceeds the available context size" in answer.json["detail"]


def test_the_engines_log_is_quiet(server):
    greedy(server, "Name three primary colors.")

    assert [] == [line for line in server.log.splitlines() if " I srv " in line or " W srv " in line]


@pytest.mark.parametrize("content", [None, b"", b"GGUF and nothing more"], ids=["absent", "empty", "cut"])
def test_a_model_that_is_not_there_is_told_with_the_line_that_fetches_it(tmp_path, content):
    pytest.importorskip("xllamacpp")
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with running_server(EXAMPLE, env={"SMOLLM2_GGUF": str(path)}, until_ready=False) as server:
        eventually(lambda: b"failing" in server.request("GET", "/ready").body, "the app fails to start")
        fault = server.request("GET", "/ready").json["apps"]["headrace/smollm2"]["fault"]

    assert fault.endswith(f"{path} is missing or damaged; run: headrace models pull smollm2")
