"""The node's end of the link, and a rogue on the other: whatever it sends, only its own link suffers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headrace.core.errors import FileFault, RequestError
from headrace.core.frames import HEAD_BYTES, MORE, VERSION, FrameReader, Kind, encode, pieces
from headrace.core.limits import Limits
from headrace.core.request import FINAL, RequestId, State
from headrace.core.routes import Route, View
from headrace.core.spec import AppSpec, EndpointSpec
from headrace.supervisor.link import RunnerLink
from headrace.supervisor.streams import LiveRequest

LIMITS = Limits(
    body_bytes_max=100_000,
    event_bytes_max=10_000,
    result_bytes_max=100_000,
    message_bytes_max=200_000,
    window_bytes=10_000,
    emit_ahead_bytes_max=10_000,
    replay_bytes_max=20_000,
)
ENDPOINT = EndpointSpec("/", "", "/stream", "", 1, {}, {}, {})
APP = AppSpec("t/app", "App", "app.py", 1, "", (ENDPOINT,))
ROUTE = Route(APP, ENDPOINT, View.STREAM)
HELLO = {"version": VERSION, "pid": 1, "apps": [APP.to_wire()]}
PATIENCE_S = 20.0


class Reader:
    """A reader that looks, and takes nothing."""

    def wake(self) -> None:
        pass


class Rogue:
    """A link of ours, its peer's socket, and the requests that it was given."""

    def __init__(self, link: RunnerLink, peer: socket.socket) -> None:
        self.link = link
        self.peer = peer
        self.lives: list[LiveRequest] = []
        self.ends: list[RequestId] = []  # who was told its end, each time
        self.raised: list[dict[str, Any]] = []  # into the loop

    def hold(self, number: int = 1, *, paces: bool = True, body: bytes = b"{}") -> list[LiveRequest]:
        """Give it requests; the first is stream 1."""
        for _ in range(number):
            live = LiveRequest(
                RequestId(f"request {len(self.lives)}"), ROUTE, body, headers={}, limits=LIMITS, grace_s=60
            )
            live.attach(Reader(), paces=paces)
            live.on_final.append(lambda live: self.ends.append(live.id))
            live.on_cancel = self.link.cancel
            self.link.start(live)
            self.lives.append(live)
        return self.lives

    async def send(self, data: bytes) -> None:
        """Send, as far as anybody reads it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.get_running_loop().sock_sendall(self.peer, data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    async def told(self) -> list[tuple[int, int, bytes]]:
        """What it has been sent so far."""
        await asyncio.sleep(0)
        return FrameReader(
            frame_bytes_max=LIMITS.frame_bytes_max, message_bytes_max=LIMITS.message_bytes_max
        ).feed(await asyncio.get_running_loop().sock_recv(self.peer, 1 << 20))

    async def is_heard(self) -> None:
        """Wait until all that was sent so far has been read."""
        live = self.hold()[-1]
        stream = self.link._numbers[live]
        await self.send(encode(Kind.EVENT, stream, b"{}") + encode(Kind.DONE, stream))
        await self.until(lambda: live.state is State.COMPLETED)
        self.lives.remove(live)
        self.ends.remove(live.id)

    async def until(self, is_true: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():
                await asyncio.sleep(0.001)

    async def is_hung_up_on(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self.link.closed)


def against(scenario: Callable[[Rogue], Coroutine[Any, Any, None]]) -> Rogue:
    """Play a scenario against a rogue; nothing may be raised into the loop, then or when the link is closed."""

    async def play() -> Rogue:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        link = RunnerLink(LIMITS)
        rogue = Rogue(link, theirs)
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: rogue.raised.append(fault))
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        try:
            await scenario(rogue)
        finally:
            theirs.close()
            await rogue.is_hung_up_on()
        return rogue

    rogue = asyncio.run(play())
    assert [] == rogue.raised
    assert all(live.state in FINAL for live in rogue.lives)
    assert sorted(live.id for live in rogue.lives) == sorted(rogue.ends), "each is told its end once"
    return rogue


def error(**fields: object) -> bytes:
    told = {"type": "app_error", "message": "no", "status": 500, "retryable": False, **fields}
    return encode(Kind.ERROR, 1, json.dumps(told).encode())


def hello(**fields: object) -> bytes:
    return encode(Kind.HELLO, 0, json.dumps({**HELLO, **fields}).encode())


BAD = {
    "a length of 2^31": b"\x80\x00\x00\x00\x44\x00\x00\x00\x01",
    "a length of 2^32 - 1": b"\xff\xff\xff\xff\x44\x00\x00\x00\x01",
    "a byte too long": (LIMITS.frame_bytes_max + 1).to_bytes(4, "big") + b"\x44\x00\x00\x00\x01",
    "all ones": b"\xff" * 9,
    "text": b"HTTP/1.1 200 OK\r\n\r\n",
    "a traceback": b'Traceback (most recent call last):\n  File "app.py", line 1, in <module>\n',
    "too many pieces": encode(Kind.EVENT | MORE, 1, b"x" * 60_000) * 4,
    "empty pieces": encode(Kind.EVENT | MORE, 1) * 2_000,
    "a finished piece of an unknown kind": encode(99 | MORE, 1, b"x") + encode(99, 1),
    **{f"kind {kind}": encode(kind, 1) for kind in (0, *Kind, 63, 72, 127) if kind < 64 or kind > 71},
    **{
        f"garbage in {kind.name}": encode(kind, 1, garbage)
        for kind in (Kind.HELLO, Kind.FAULT, Kind.ERROR, Kind.CHECKED)
        for garbage in (b"\xff", b"{", b"[]", b"7", b"null", b'"text"', b"[" * 5_000, b"9" * 5_000)
    },
    "an empty HELLO": encode(Kind.HELLO, 0),
    "an empty ERROR": encode(Kind.ERROR, 1),
    "a HELLO without a version": encode(Kind.HELLO, 0, b'{"pid": 1, "apps": []}'),
    "an older version": hello(version=VERSION - 1),
    "a newer version": hello(version=VERSION + 1),
    "a version in words": hello(version=str(VERSION)),
    "apps that are no list": hello(apps=7),
    "an app that is no object": hello(apps=["t/app"]),
    "an app without a name": hello(apps=[{"endpoints": []}]),
    "an app with a field too many": hello(apps=[{**APP.to_wire(), "more": 1}]),
    "a FAULT without a line": encode(Kind.FAULT, 0, b'{"file": "a", "message": "", "traceback": ""}'),
    "a FAULT whose traceback is no text": encode(
        Kind.FAULT, 0, b'{"file": "a", "line": 1, "message": "", "traceback": 7}'
    ),
}


@pytest.mark.promise("R7")
@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
def test_a_frame_that_breaks_the_format_ends_the_link_and_fails_each_request_once(bad):
    async def scenario(rogue: Rogue) -> None:
        rogue.hold(3)
        check = asyncio.create_task(rogue.link.check(rogue.lives[2]))
        await asyncio.sleep(0)
        # What came before it counts, what comes after does not.
        await rogue.send(encode(Kind.EVENT, 2, b'{"i": 0}') + bad + encode(Kind.EVENT, 2, b'{"i": 1}'))
        await rogue.is_hung_up_on()
        with pytest.raises(RequestError, match="died") as refused:
            await check
        assert "runner_disconnected" == refused.value.type
        for future in (rogue.link.hello, rogue.link.ready):
            assert isinstance(future.exception(), RequestError | FileFault)

    rogue = against(scenario)

    assert ["runner_disconnected"] * 3 == [live.error and live.error.type for live in rogue.lives]
    assert rogue.lives[1].replay.end <= 1
    assert 0 == rogue.link.busy


@pytest.mark.promise("R7")
@pytest.mark.parametrize("cut", range(1, HEAD_BYTES + 8))
def test_a_frame_cut_short_by_the_end_is_no_frame(cut):
    async def scenario(rogue: Rogue) -> None:
        rogue.hold(2)
        await rogue.send(encode(Kind.EVENT, 1, b'{"i": 0}') + encode(Kind.EVENT, 1, b'{"i": 1}')[:cut])
        await rogue.until(lambda: rogue.lives[0].replay.end)

    rogue = against(scenario)

    assert ["runner_disconnected"] * 2 == [live.error and live.error.type for live in rogue.lives]
    assert [b'{"i": 0}'] == rogue.lives[0].replay.since(0)


@pytest.mark.promise("R7")
@pytest.mark.parametrize(
    "harmless",
    [
        encode(Kind.EVENT, 77, b"{}"),
        encode(Kind.EVENT, 0, b"{}"),
        encode(Kind.DONE, 77),
        encode(Kind.ERROR, 77, b'{"type": "app_error"}'),
        encode(Kind.CHECKED, 77),
        encode(Kind.CHECKED, 1, b'{"type": "validation_error"}'),
        encode(Kind.READY, 0) * 2,
        hello() * 2,
        encode(Kind.READY, 0) + hello(),
        encode(Kind.PONG, 0, b"never asked"),
        encode(Kind.DONE, 1, b"with a payload"),
        encode(Kind.EVENT, 1, b"{}") + encode(Kind.DONE, 1) * 2,
        encode(Kind.EVENT, 1, b"{}") + encode(Kind.DONE, 1) + error(),
        encode(Kind.EVENT, 1, b"{}") + encode(Kind.DONE, 1) + encode(Kind.EVENT, 1, b"{}"),
        error() + encode(Kind.DONE, 1) + error(),
        error(type="of its own making", status=None, retryable=None),
        b"".join(pieces(Kind.EVENT, 1, b"x" * 100, 7)),
    ],
    ids=repr,
)  # fmt: skip
def test_what_makes_no_sense_but_keeps_the_format_is_passed_over(harmless):
    async def scenario(rogue: Rogue) -> None:
        rogue.hold(2)
        await rogue.send(harmless)
        await rogue.is_heard()

        assert not rogue.link.closed.done()
        assert State.RUNNING is rogue.lives[1].state

    against(scenario)


@pytest.mark.promise("R7")
@pytest.mark.parametrize(
    "status", ["teapot", "500", 200, 99, 1_000, 10**18, -500, 500.5, [500], {}, True, None], ids=repr
)
def test_an_error_with_a_status_that_is_none_has_the_one_of_its_type(status):
    async def scenario(rogue: Rogue) -> None:
        rogue.hold()
        await rogue.send(error(status=status, detail={"loc": []}, retryable="maybe"))
        await rogue.until(lambda: rogue.lives[0].is_final)

    fault = against(scenario).lives[0].error

    assert fault is not None
    assert ("app_error", 500, False, "no") == (fault.type, fault.status, fault.retryable, fault.detail)


@pytest.mark.promise("R7", "S6")
def test_events_beyond_any_window_end_the_link():
    async def scenario(rogue: Rogue) -> None:
        rogue.hold(2)
        event = encode(Kind.EVENT, 1, b"x" * 1_000)
        for _ in range(200):
            await rogue.send(event)
        await rogue.is_hung_up_on()

    rogue = against(scenario)

    assert ["runner_disconnected"] * 2 == [live.error and live.error.type for live in rogue.lives]
    # One read more than the bound, at most.
    assert rogue.lives[0].replay.kept <= LIMITS.replay_bytes_max + LIMITS.ahead_bytes_max + 300_000


@pytest.mark.promise("R7", "S6")
def test_where_nobody_sets_the_pace_a_flood_overruns_nobody_and_holds_no_more_than_its_log():
    async def scenario(rogue: Rogue) -> None:
        rogue.hold(1, paces=False)
        for _ in range(500):
            await rogue.send(encode(Kind.EVENT, 1, b"x" * 1_000))
        await rogue.is_heard()

        assert 500 == rogue.lives[0].replay.end
        assert rogue.lives[0].replay.kept <= LIMITS.replay_bytes_max

    against(scenario)


@pytest.mark.promise("R7")
def test_a_rogue_that_reads_nothing_is_hung_up_on_all_the_same():
    async def scenario(rogue: Rogue) -> None:
        rogue.hold(100, body=b'{"pad": "' + b"x" * 60_000 + b'"}')  # more than the kernel takes for it
        await asyncio.sleep(0)
        await rogue.send(BAD["text"])
        await rogue.is_hung_up_on()

    rogue = against(scenario)

    assert {"runner_disconnected"} == {live.error and live.error.type for live in rogue.lives}


@pytest.mark.promise("R7")
def test_a_request_that_is_being_cancelled_ends_as_cancelled_and_once():
    async def scenario(rogue: Rogue) -> None:
        (live,) = rogue.hold()
        live.cancel("client_disconnected")
        await rogue.send(BAD["text"])
        await rogue.is_hung_up_on()

    rogue = against(scenario)

    assert State.CANCELLED is rogue.lives[0].state
    assert rogue.lives[0].error is not None
    assert "client_disconnected" == rogue.lives[0].error.type


# --- fuzz -----------------------------------------------------------------------------------------------------

PAYLOADS = [
    b"", b"{}", b"[]", b"null", b"\xff\xfe", b"x" * 5_000, b"[" * 5_000, json.dumps(HELLO).encode(),
    b'{"type": "app_error", "message": "no", "status": 500, "retryable": false}',
    b'{"type": "app_error", "message": [], "status": "x"}',
    b'{"file": "a.py", "line": 1, "message": "no", "traceback": "Traceback"}',
]  # fmt: skip


def nonsense(dice: random.Random) -> bytes:
    """A few frames, most of them well formed, some damaged."""
    out = b""
    for _ in range(dice.randint(1, 12)):
        kind = dice.choice([Kind.EVENT, *Kind, dice.randrange(256)])
        payload = dice.choice([*PAYLOADS, dice.randbytes(dice.randrange(40))])
        frame = encode(kind | dice.choice((0, 0, 0, MORE)), dice.choice((0, 1, 2, 3, 2**32 - 1)), payload)
        match dice.randrange(12):
            case 0:
                frame = frame[: dice.randrange(len(frame))]
            case 1:
                at = dice.randrange(len(frame))
                frame = frame[:at] + dice.randbytes(1) + frame[at + 1 :]
            case 2:
                frame += dice.randbytes(dice.randrange(20))
        out += frame
    return out


@pytest.mark.promise("R7")
@pytest.mark.timeout(600)
def test_whatever_a_runner_sends_ends_each_request_once_and_raises_nothing(request):
    for seed in range(2_000 if request.config.getoption("full") else 200):
        dice = random.Random(seed)
        data = nonsense(dice)
        size = dice.choice((1, 7, 1_000, len(data)))

        async def scenario(rogue: Rogue, data: bytes = data, size: int = size) -> None:
            rogue.hold(3)
            check = asyncio.create_task(rogue.link.check(rogue.lives[0]))
            await asyncio.sleep(0)
            for at in range(0, len(data), size):
                rogue.link.data_received(data[at : at + size])
                if rogue.link._transport.is_closing():
                    break
            rogue.peer.shutdown(socket.SHUT_RDWR)
            await rogue.is_hung_up_on()
            await asyncio.gather(check, return_exceptions=True)

        try:
            against(scenario)
        except BaseException as fault:
            fault.add_note(f"seed {seed}: {data!r}")
            raise
