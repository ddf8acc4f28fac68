"""A real runner whose apps make large events and results: how large they may be, and how they share the link.

The pretend node reads with the limits that it told the runner, and raises `BadFrame` beyond them.
"""

import json
import signal

import pytest

from headrace.core.frames import Kind
from headrace.core.limits import Limits
from tests.support.pretend_node import DEADLINE_S, PretendNode
from tests.support.server import eventually

MIB = 1 << 20

MODELS = """
import asyncio, pathlib
import headrace

FOLDER = pathlib.Path(__file__).parent
MADE = {"blocks": 0}


class Large(headrace.App, name="t/large", max_multiplexing=80):
    async def teardown(self):
        (FOLDER / "torn-down").touch()

    @headrace.endpoint("/def")
    def a_def(self, input):
        return {"pad": "x" * (input["size"] - 10)}

    @headrace.endpoint("/async-def")
    async def an_async_def(self, input):
        return {"pad": "x" * (input["size"] - 10)}

    @headrace.endpoint("/emits", emits=dict)
    def emits(self, input):
        headrace.emit({})
        return {"pad": "x" * (input["size"] - 10)}

    @headrace.endpoint("/async-emits", emits=dict)
    async def async_emits(self, input):
        headrace.emit({})
        return {"pad": "x" * (input["size"] - 10)}

    @headrace.endpoint("/emit-only")
    def emit_only(self, input):
        headrace.emit({"pad": "x" * (input["size"] - 10)})
        return {}

    @headrace.endpoint("/generator")
    def a_generator(self, input):
        yield {}
        yield {"pad": "x" * (input["size"] - 10)}

    @headrace.endpoint("/async-generator")
    async def an_async_generator(self, input):
        yield {}
        yield {"pad": "x" * (input["size"] - 10)}

    @headrace.endpoint("/returns")
    def returns(self, input):
        yield {}
        return {"pad": "x" * (input["size"] - 10)}

    @headrace.endpoint("/between")
    def between(self, input):
        yield {"before": True}
        yield {"pad": "x" * (input["size"] - 10)}
        yield {"after": True}

    @headrace.endpoint("/blocks")
    def blocks(self, input):
        while True:
            MADE["blocks"] += 1
            yield {"pad": "x" * (input["size"] - 10)}

    @headrace.endpoint("/made")
    def made(self):
        return MADE

    @headrace.endpoint("/ticks")
    async def ticks(self):
        i = 0
        while True:
            yield {"i": i}
            i += 1
            await asyncio.sleep(0.001)
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "large.py").write_text(MODELS)
    return tmp_path / "large.py"


@pytest.fixture
def node(file):
    with PretendNode(str(file)) as node:
        node.setup()
        yield node


# --- how large ----------------------------------------------------------------------------------------------


def outcome(node: PretendNode, path: str, size: int) -> object:
    """The size of the last event, or the error's type and status."""
    stream = node.start(path, {"size": size})
    last = b""
    while True:
        kind, payload = node.receive(stream)
        match kind:
            case Kind.EVENT:
                last = payload
            case Kind.DONE:
                return len(last)
            case Kind.ERROR:
                error = json.loads(payload)
                return error["type"], error["status"]


@pytest.mark.promise("S10")
def test_a_result_that_no_stream_carries_has_a_bound_of_its_own(file):
    with PretendNode(str(file), limits={"event_bytes_max": 1000, "result_bytes_max": 200_000}) as node:
        node.setup()

        for path in ("/def", "/async-def"):
            assert 1001 == outcome(node, path, 1001)
            assert 200_000 == outcome(node, path, 200_000)
            assert ("result_too_large", 500) == outcome(node, path, 200_001)
        for path in ("/emits", "/async-emits", "/emit-only", "/generator", "/async-generator", "/returns"):
            assert ("event_too_large", 500) == outcome(node, path, 1001)
        assert 1000 == outcome(node, "/emits", 1000)


def test_by_default_a_result_may_be_32_mib(node):
    assert 32 * MIB == outcome(node, "/def", 32 * MIB)
    assert ("result_too_large", 500) == outcome(node, "/async-def", 32 * MIB + 1)


def test_a_result_too_large_says_how_large_and_what_to_do(file):
    with PretendNode(str(file), limits={"result_bytes_max": 2000}) as node:
        node.setup()
        _, error = node.call("/def", {"size": 2001})

    assert error["message"] == (
        "The app returned a result of 2001 bytes; at most 2000 are allowed. "
        "Put files behind URLs, and return those."
    )
    assert not error["retryable"]


# --- how they share the link --------------------------------------------------------------------------------


def finish_all(node: PretendNode, streams: list[int], bystander: int) -> tuple[dict[int, list[bytes]], list[int]]:
    """Read until each stream is DONE; return their events, and what the bystander sent meanwhile."""
    events: dict[int, list[bytes]] = {stream: [] for stream in streams}
    for stream in streams:
        while True:
            kind, payload = node.receive(stream)
            if kind is Kind.DONE:
                break
            assert kind is Kind.EVENT, payload[:200]
            events[stream].append(payload)
    return events, [event["i"] for event in node.events(bystander)]


def test_sixty_four_events_of_a_mebibyte_share_the_link(node):
    size = Limits().event_bytes_max
    bystander = node.start("/ticks")
    node.receive(bystander)
    streams = [node.start("/between", {"size": size}) for _ in range(64)]

    events, ticks = finish_all(node, streams, bystander)

    for stream in streams:
        assert [b'{"before":true}', size, b'{"after":true}'] == [
            text if len(text) < 100 else len(text) for text in events[stream]
        ]
    assert list(range(1, len(ticks) + 1)) == ticks
    arrived = [at for at, message in enumerate(node.order) if message == (Kind.EVENT, bystander)]
    last_done = max(at for at, (kind, _) in enumerate(node.order) if kind is Kind.DONE)
    assert len([at for at in arrived if at < last_done]) > 1


@pytest.mark.parametrize("path", ["/def", "/async-def"])
def test_four_results_of_thirty_mebibytes_share_the_link(node, path):
    bystander = node.start("/ticks")
    node.receive(bystander)
    streams = [node.start(path, {"size": 30 * MIB}) for _ in range(4)]

    events, ticks = finish_all(node, streams, bystander)

    expected = b'{"pad":"' + b"x" * (30 * MIB - 10) + b'"}'
    assert all([expected] == events[stream] for stream in streams)
    assert list(range(1, len(ticks) + 1)) == ticks
    # Only one of them fits at once; the bystander's events came between any two.
    ends = [at for at, (kind, stream) in enumerate(node.order) if kind is Kind.EVENT and stream in streams]
    for before, after in zip(ends, ends[1:], strict=False):
        assert (Kind.EVENT, bystander) in node.order[before:after]


def test_while_large_events_wait_no_stream_makes_more_of_them(node):
    window = Limits().window_bytes
    streams = [node.start("/blocks", {"size": MIB}, window=window) for _ in range(48)]
    node.read_until(lambda: all((Kind.EVENT, stream) in node.order for stream in streams))
    while not node.is_quiet(0.5):
        pass
    (made,), _ = node.call("/made", b"")

    assert [1] * 48 == [len(node.events(stream)) for stream in streams]
    assert {"blocks": 48} == made


def test_a_runner_told_to_leave_sends_its_finished_results_first(file):
    # The result is more than the sockets hold, and nobody reads: most of it is in the outbox when the runner leaves.
    with PretendNode(str(file), limits={"kill_grace_s": 60.0}) as node:
        node.setup()
        stream = node.start("/async-def", {"size": 8 * MIB})
        assert node.pump(DEADLINE_S, 1 << 16)  # its first pieces have left, and so it is made
        node.process.send_signal(signal.SIGTERM)
        eventually((file.parent / "torn-down").exists, "it is torn down")
        events, error = node.finish(stream)

        assert ([8 * MIB - 10], None) == ([len(event["pad"]) for event in events], error)
        assert 0 == node.exit_status()
