"""A stream cut after every single byte: no offset passes for an end, and no item that came whole is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.client import errors
from tests.support.scripted import CLOSE, LAST_CHUNK, STREAM_HEAD, Wait, answer, chunk, event, scripted
from tests.support.shells import SHELLS, no_credentials  # noqa: F401

EVENTS = [{"i": 1, "text": "é"}, {"i": 2}, {"i": 3}]
CHUNKS = [event(json.dumps(item, ensure_ascii=False).encode()) for item in EVENTS]
CHUNKED = STREAM_HEAD + CHUNKS[0] + chunk(b": ping\n") + CHUNKS[1] + CHUNKS[2] + LAST_CHUNK
SIZED = answer(200, b'data: {"i": 1}\n\ndata: {"i": 2}\n\n', content_type="text/event-stream")


def items_whole_in(body: bytes) -> list[dict[str, Any]]:
    ends = [body.find(each) for each in CHUNKS]
    return [
        item
        for item, start, each in zip(EVENTS, ends, CHUNKS, strict=True)
        if start >= 0 and start + len(each) <= len(body)
    ]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_a_chunked_stream_cut_after_any_byte_is_told_from_a_whole_one(shell: Any) -> None:
    wrong = []
    for offset in range(1, len(CHUNKED)):
        with scripted([CHUNKED[:offset], CLOSE]) as server:
            outcome = shell.stream(server.url, timeout=10.0)
        expected = errors.ConnectionFailed if offset < len(STREAM_HEAD) else errors.StreamCut
        # The two bytes that end a chunk are framing: its event is whole without them.
        least, most = items_whole_in(CHUNKED[:offset]), items_whole_in(CHUNKED[: offset + 2])
        if type(outcome.error) is not expected or outcome.items not in (least, most):
            wrong.append((offset, outcome))

    assert [] == wrong


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_a_sized_stream_cut_after_any_byte_is_told_from_a_whole_one(shell: Any) -> None:
    wrong = []
    head = SIZED.index(b"\r\n\r\n") + 4
    for offset in range(head, len(SIZED)):
        with scripted([SIZED[:offset], CLOSE]) as server:
            outcome = shell.stream(server.url, timeout=10.0)
        if type(outcome.error) is not errors.StreamCut:
            wrong.append((offset, outcome))

    assert [] == wrong


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
@pytest.mark.parametrize("whole", [CHUNKED, SIZED], ids=["chunked", "sized"])
def test_a_whole_stream_ends_without_an_error(shell: Any, whole: bytes) -> None:
    with scripted([whole]) as server:
        outcome = shell.stream(server.url, timeout=10.0)

    assert None is outcome.error
    assert [item["i"] for item in outcome.items] == list(range(1, len(outcome.items) + 1))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
@pytest.mark.parametrize("step", range(1, 8))
def test_a_stream_that_comes_in_drops_is_the_same_stream(shell: Any, step: int) -> None:
    drops: list[Any] = []
    for start in range(0, len(CHUNKED), step * 16):
        drops += [CHUNKED[start : start + step * 16], Wait(0.002)]
    with scripted(drops) as server:
        outcome = shell.stream(server.url, timeout=10.0)

    assert (EVENTS, None) == (outcome.items, outcome.error)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_items_that_came_before_a_cut_are_handed_over_to_a_slow_reader(shell: Any) -> None:
    """aiohttp tells of the cut first and would drop them."""
    with scripted([STREAM_HEAD + CHUNKS[0], Wait(0.1), CHUNKS[1] + CHUNKS[2], CLOSE]) as server:
        items, error = SLOW_READERS[shell.name](server.url)

    assert EVENTS == items
    assert errors.StreamCut is type(error)


def slow_sync(url: str) -> tuple[list[Any], BaseException | None]:
    import time

    from headrace import Client

    items = []
    try:
        with Client(url, "id:secret") as client:
            for item in client.stream("me/app"):
                items.append(item)
                time.sleep(0.3)  # everything has come, and the cut, before we read again
    except errors.HeadraceError as error:
        return items, error
    return items, None


def slow_async(url: str) -> tuple[list[Any], BaseException | None]:
    import asyncio

    from headrace import AsyncClient

    items = []

    async def main() -> None:
        async for item in AsyncClient(url, "id:secret").stream("me/app"):
            items.append(item)
            await asyncio.sleep(0.3)  # everything has come, and the cut, before we read again

    try:
        asyncio.run(main())
    except errors.HeadraceError as error:
        return items, error
    return items, None


SLOW_READERS = {"sync": slow_sync, "async": slow_async}
