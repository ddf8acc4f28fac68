"""A real runner process behind a pretend node: the four kinds, credit, cancelling, emit, fairness."""

import json

import pytest

from headrace.core.frames import Kind
from headrace.core.limits import EVENT_OVERHEAD_BYTES, Limits, cost_of
from tests.support.pretend_node import DEADLINE_S, PretendNode
from tests.support.server import eventually

MODELS = '''
import asyncio, contextvars, threading, time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import headrace
from pydantic import BaseModel, field_validator

ENDED = {}          # name -> when its `finally` ran, time.monotonic()
MADE = {}           # name -> items made so far
POOL = ThreadPoolExecutor(2)
IS_OVER = threading.Event()  # a test knows that the request has ended
MINE = contextvars.ContextVar("mine", default=0)


class Count(BaseModel):
    n: int = 3
    name: str = "x"
    pad: int = 0


class Checked(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def small(cls, n: int) -> int:
        if n > 9:
            raise ValueError("too many")
        if n == 7:
            raise KeyError("a secret")
        return n


class Models(headrace.App, name="t/models", max_multiplexing=16):
    def setup(self):
        self.ready_in = threading.current_thread().name

    @headrace.endpoint("/def")
    def a_def(self, input: Count):
        return {"n": input.n} if input.n else None

    @headrace.endpoint("/async-def")
    async def an_async_def(self, input: Count):
        await asyncio.sleep(0)
        return {"n": input.n} if input.n else None

    @headrace.endpoint("/generator")
    def a_generator(self, input: Count):
        try:
            for i in range(input.n):
                MADE[input.name] = i + 1
                yield {"i": i, "pad": "x" * input.pad}
        finally:
            ENDED[input.name] = time.monotonic()

    @headrace.endpoint("/async-generator")
    async def an_async_generator(self, input: Count):
        try:
            for i in range(input.n):
                MADE[input.name] = i + 1
                await asyncio.sleep(0)
                yield {"i": i, "pad": "x" * input.pad}
        finally:
            await asyncio.sleep(0)
            ENDED[input.name] = time.monotonic()

    @headrace.endpoint("/never-awaits")
    async def never_awaits(self, input: Count):
        for i in range(input.n):
            yield {"i": i}

    @headrace.endpoint("/handed-out")
    def handed_out(self, input: Count) -> Iterator[dict]:
        return self.a_generator(input)

    @headrace.endpoint("/returns")
    def returns(self, input: Count):
        yield {"i": 0}
        return {"last": True}

    @headrace.endpoint("/no-input")
    def no_input(self):
        request = self.current_request
        return {"id": request.request_id, "endpoint": request.endpoint, "attempt": request.attempt,
                "headers": dict(request.headers), "setup": self.ready_in != threading.main_thread().name}

    @headrace.endpoint("/any")
    def any(self, input):
        return input

    @headrace.endpoint("/checked")
    async def checked(self, input: Checked):
        return {"n": input.n}

    # --- endless ones, one of each kind

    @headrace.endpoint("/endless/def", emits=dict)
    def endless_def(self, input: Count):
        try:
            while True:
                headrace.emit({"at": time.monotonic()})
                time.sleep(0.001)
        finally:
            ENDED[input.name] = time.monotonic()

    @headrace.endpoint("/endless/async-def")
    async def endless_async_def(self, input: Count):
        try:
            headrace.emit({})
            await asyncio.sleep(3600)
        finally:
            ENDED[input.name] = time.monotonic()

    @headrace.endpoint("/endless/generator")
    def endless_generator(self, input: Count):
        try:
            while True:
                yield {}
                time.sleep(0.001)
        except Exception:
            pass
        finally:
            ENDED[input.name] = time.monotonic()

    @headrace.endpoint("/endless/async-generator")
    async def endless_async_generator(self, input: Count):
        try:
            while True:
                yield {}
                await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ENDED[input.name] = time.monotonic()

    @headrace.endpoint("/endless/busy")
    def endless_busy(self, input: Count):
        try:
            headrace.emit({})
            while True:
                pass
        finally:
            ENDED[input.name] = time.monotonic()

    @headrace.endpoint("/endless/deaf")
    async def endless_deaf(self, input: Count):
        try:
            while True:
                yield {}
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        finally:
            ENDED[input.name] = time.monotonic()

    # --- emit

    @headrace.endpoint("/emit/callback", emits=dict)
    def from_callback(self, input: Count) -> dict:
        def job(callback):
            for i in range(input.n):
                callback(i)
        job(lambda i: headrace.emit({"i": i}))
        return {"done": True}

    @headrace.endpoint("/emit/thread")
    def from_thread(self, input: Count):
        thread = threading.Thread(target=lambda: [headrace.emit({"i": i}) for i in range(input.n)])
        thread.start()
        thread.join()
        return {"done": True}

    @headrace.endpoint("/emit/pool")
    def from_pool(self, input: Count):
        POOL.submit(lambda: [headrace.emit({"i": i}) for i in range(input.n)]).result()
        return {"done": True}

    @headrace.endpoint("/emit/to-thread")
    async def from_to_thread(self, input: Count):
        await asyncio.to_thread(lambda: [headrace.emit({"i": i, "pad": "x" * input.pad}) for i in range(input.n)])
        return {"done": True}

    @headrace.endpoint("/emit/many-threads")
    def from_many_threads(self, input: Count):
        request = self.current_request
        def work(t):
            for i in range(input.n):
                request.emit({"thread": t, "i": i})
        threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        return {"done": True}

    @headrace.endpoint("/emit/loop")
    async def on_the_loop(self, input: Count):
        for i in range(input.n):
            headrace.emit({"i": i, "pad": "x" * input.pad})
        return {"done": True}

    @headrace.endpoint("/emit/native")
    def from_native_thread(self, input: Count):
        """A thread that no wrapper has seen, like one of a C library's."""
        import _thread
        done, told = threading.Event(), []
        def work():
            try:
                headrace.emit({"native": True})
            except RuntimeError as error:
                told.append(str(error))
            done.set()
        _thread.start_new_thread(work, ())
        done.wait(10)
        return {"told": told}

    @headrace.endpoint("/emit/late")
    def late(self, input: Count):
        request, told = self.current_request, []
        def work():
            IS_OVER.wait()
            try:
                request.emit({})
            except BaseException as error:
                MADE["late"] = f"{type(error).__name__}: {error}"
        threading.Thread(target=work, daemon=True).start()
        return {"done": True}

    # --- asked by the tests

    @headrace.endpoint("/is-over")
    async def is_over(self, input):
        IS_OVER.set()
        return {}

    @headrace.endpoint("/when-ended")
    async def when_ended(self, input: Count):
        deadline = time.monotonic() + 30
        while input.name not in ENDED and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        return {"at": ENDED.get(input.name)}

    @headrace.endpoint("/made")
    async def made(self, input):
        return {"made": MADE}

    @headrace.endpoint("/left")
    async def left(self, input):
        return {"threads": threading.active_count(), "tasks": len(asyncio.all_tasks())}

    @headrace.endpoint("/mine")
    def mine(self, input):
        seen = MINE.get()
        MINE.set(seen + 1)
        return {"mine": seen}
'''

KINDS = ["/def", "/async-def", "/generator", "/async-generator", "/handed-out"]
ENDLESS = ["def", "async-def", "generator", "async-generator"]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    file = tmp_path_factory.mktemp("models") / "models.py"
    file.write_text(MODELS)
    with PretendNode(str(file)) as node:
        node.setup()
        yield node


def result(node: PretendNode, path: str, body: object = None):
    events, error = node.call(path, body)
    assert error is None, error
    return events[-1]


# --- the four kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/def", "/async-def"])
def test_a_function_has_one_item(node, path):
    assert ([{"n": 5}], None) == node.call(path, {"n": 5})


@pytest.mark.parametrize("path", ["/generator", "/async-generator", "/handed-out", "/never-awaits"])
def test_a_generator_has_its_items_in_order(node, path):
    events, error = node.call(path, {"n": 500})

    assert (list(range(500)), None) == ([event["i"] for event in events], error)


def test_what_a_generator_returns_is_its_last_item(node):
    assert ([{"i": 0}, {"last": True}], None) == node.call("/returns")


@pytest.mark.parametrize("path", KINDS)
def test_no_item_at_all_is_an_error(node, path):
    events, error = node.call(path, {"n": 0})

    assert ([], "no_result", 500) == (events, error["type"], error["status"])


def test_an_endpoint_knows_its_request(node):
    stream = node.start("/no-input", b"")
    (request,), error = node.finish(stream)

    assert {
        "id": f"r-{stream}", "endpoint": "/no-input", "attempt": 1, "headers": {"x-trace": "t"}, "setup": True,
    } == request  # fmt: skip


def test_an_empty_body_is_an_empty_object(node):
    assert ([{}], None) == node.call("/any", b"")


def test_an_unknown_endpoint_is_not_found(node):
    assert ("not_found", 404) == (lambda error: (error["type"], error["status"]))(node.call("/nope")[1])


# --- input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/def", {"n": 3, "unknown": 1}, None),
        ("/def", {"n": "x"}, (["body", "n"], "int_parsing", "x")),
        ("/def", [], (["body"], "model_type", [])),
        ("/def", b'{"n": ', (["body", 6], "json_invalid", None)),
        ("/def", b'{"n": 1} x', (["body", 9], "json_invalid", None)),
        ("/def", b"\xff", (["body", 0], "json_invalid", None)),
        ("/checked", {}, (["body", "n"], "missing", {})),
        ("/checked", {"n": 10}, (["body", "n"], "value_error", 10)),
        ("/def", {"n": float("nan")}, (["body", "n"], "finite_number", None)),
        ("/any", [1], (["body"], "dict_type", [1])),
        ("/checked", {"pad": "x" * 2000}, (["body", "n"], "missing", None)),
    ],
)
def test_a_wrong_input_is_told_alike_by_check_and_start(node, path, body, expected):
    checked = node.check(path, body)

    if expected is None:
        assert checked is None
        return
    assert ([], checked) == node.call(path, body)
    assert ("validation_error", 422) == (checked["type"], checked["status"])
    (wrong,) = checked["detail"]
    assert expected == (wrong["loc"], wrong["type"], wrong.get("input"))
    assert wrong["msg"]


def test_a_thousand_wrong_fields_are_listed_within_a_bound(node, tmp_path):
    file = tmp_path / "wide.py"
    file.write_text(
        "import headrace\n"
        "class Wide(headrace.App, name='t/wide'):\n"
        "    @headrace.endpoint()\n"
        "    def run(self, input: dict[str, int]): ...\n"
    )
    with PretendNode(str(file)) as wide:
        wide.setup()
        error = wide.check("/", {str(i): "x" for i in range(1000)})

    assert 100 == len(error["detail"])


def test_an_accident_in_a_validator_is_the_apps_and_secret(node):
    error = node.check("/checked", {"n": 7})

    assert ("runner_server_error", "Internal Server Error") == (error["type"], error["message"])
    assert "a secret" in node.log


# --- credit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/generator", "/async-generator", "/never-awaits", "/emit/to-thread"])
def test_a_producer_waits_before_the_event_beyond_its_window(node, path):
    stream = node.start(path, {"n": 10}, window=1)

    assert [{"i": 0}] == [{"i": json.loads(node.receive(stream)[1])["i"]}]
    assert node.is_quiet(0.1)

    cost = cost_of([b'{"i":0,"pad":""}'])
    node.grant(stream, 2 * cost)
    for i in (1, 2):
        assert i == json.loads(node.receive(stream)[1])["i"]
    node.grant(stream, 1 << 20)
    events, error = node.finish(stream)
    assert (10 - 3, None) == (len([event for event in events if "i" in event]), error)


def test_fifteen_flat_out_threads_make_no_more_than_their_windows(node):
    window, largest = 64 * 1024, cost_of([b'{"i":100000,"pad":""}' + b"x" * 100])
    streams = [
        node.start("/generator", {"n": 10**9, "name": f"flat-{i}", "pad": 100}, window=window) for i in range(15)
    ]

    def spent_on(stream: int) -> int:
        return node.bytes_of[stream] + EVENT_OVERHEAD_BYTES * node.order.count((Kind.EVENT, stream))

    node.read_until(lambda: all(spent_on(stream) >= window for stream in streams))
    while not node.is_quiet(0.3):
        pass
    made = result(node, "/made")["made"]

    for i, stream in enumerate(streams):
        events = node.events(stream)
        spent = cost_of([json.dumps(event, separators=(",", ":")).encode() for event in events])
        assert window <= spent < window + largest
        assert made[f"flat-{i}"] == len(events)  # not one item was made beyond the window
    for stream in streams:
        node.cancel(stream)
    assert ["client_disconnected"] * 15 == [node.finish(stream)[1]["type"] for stream in streams]


def test_emit_on_the_loop_runs_ahead_by_a_bound_and_then_raises(node):
    stream = node.start("/emit/loop", {"n": 10_000, "pad": 10_000}, window=1)

    events, error = node.finish(stream)

    assert "runner_server_error" == error["type"]
    assert 0 <= len(events) * cost_of([b"x" * 10_020]) - Limits().emit_ahead_bytes_max < 20_000
    assert "cannot wait there; yield the items" in node.log


# --- big events ---------------------------------------------------------------------------------------------


def test_a_big_event_leaves_in_pieces_and_a_small_one_does_not_overtake_it(node):
    stream = node.start("/generator", {"n": 3, "pad": 700_000})
    events, error = node.finish(stream)

    assert ([(0, 700_000), (1, 700_000), (2, 700_000)], None) == ([(e["i"], len(e["pad"])) for e in events], error)


MIXED = """
import pathlib
import headrace

class Mixed(headrace.App, name='t/mixed', max_multiplexing=2):
    @headrace.endpoint('/big')
    def big(self):
        yield {'pad': 'x' * 1_000_000}
        yield {'pad': ''}

    @headrace.endpoint('/small')
    def small(self):
        for i in range(3):
            yield {'i': i}
        pathlib.Path(__file__).with_name('small-is-done').touch()
"""


def test_a_big_event_of_one_stream_does_not_hold_up_another(tmp_path):
    (tmp_path / "mixed.py").write_text(MIXED)
    with PretendNode(str(tmp_path / "mixed.py")) as node:
        node.setup()
        big = node.start("/big")
        # A few of its first pieces have come, and the sockets hold some more; the rest cannot leave.
        assert node.pump(DEADLINE_S, 1 << 16)
        small = node.start("/small")
        eventually((tmp_path / "small-is-done").exists, "the small ones are made")
        small_events, _ = node.finish(small)
        big_events, error = node.finish(big)

    assert node.order.index((Kind.DONE, small)) < node.order.index((Kind.EVENT, big))
    assert [{"i": 0}, {"i": 1}, {"i": 2}] == small_events
    assert ([1_000_000, 0], None) == ([len(event["pad"]) for event in big_events], error)


# --- cancelling ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("reason", ["client_disconnected", "client_cancelled", "request_timeout"])
def test_cancel_runs_finally_and_ends_with_its_reason(node, kind, reason):
    name = f"{kind}-{reason}"
    stream = node.start(f"/endless/{kind}", {"name": name})
    node.receive(stream)

    node.cancel(stream, reason)
    _, error = node.finish(stream)

    assert reason == error["type"]
    assert result(node, "/when-ended", {"name": name})["at"] is not None


@pytest.mark.parametrize("path", ["/generator", "/async-generator", "/emit/to-thread"])
def test_cancel_wakes_a_producer_that_waits_for_credit(node, path):
    stream = node.start(path, {"n": 9, "name": f"waits{path}"}, window=1)
    node.receive(stream)

    node.cancel(stream)
    events, error = node.finish(stream)

    assert ([], "client_disconnected") == (events, error["type"])


@pytest.mark.parametrize("kind", ENDLESS)
def test_cancel_before_the_first_step_starts_nothing(node, kind):
    # Both frames in one write: the call is cancelled before its task or thread took a step.
    name = f"never-{kind}"
    head = {"request_id": "r", "path": f"/endless/{kind}", "headers": {}, "attempt": 1, "window": 1 << 20}
    from headrace.core.frames import encode

    stream = node._next_stream
    node._next_stream += 1
    payload = json.dumps(head).encode() + b"\n" + json.dumps({"name": name}).encode()
    node.socket.sendall(encode(Kind.START, stream, payload) + encode(Kind.CANCEL, stream, b"client_disconnected"))
    events, error = node.finish(stream)

    assert "client_disconnected" == error["type"]
    if "async" in kind:
        assert [] == events


def test_a_busy_loop_is_interrupted(node):
    stream = node.start("/endless/busy", {"name": "busy"})
    node.receive(stream)

    node.cancel(stream)
    _, error = node.finish(stream)

    assert "client_disconnected" == error["type"]
    assert result(node, "/when-ended", {"name": "busy"})["at"] is not None


def test_a_generator_that_swallows_the_cancellation_is_closed_at_its_next_item(node):
    stream = node.start("/endless/deaf", {"name": "deaf"})
    node.receive(stream)

    node.cancel(stream)
    _, error = node.finish(stream)

    assert "client_disconnected" == error["type"]
    assert result(node, "/when-ended", {"name": "deaf"})["at"] is not None


def test_frames_for_a_stream_that_has_ended_are_dropped(node):
    stream = node.start("/def", {})
    node.finish(stream)

    node.cancel(stream)
    node.grant(stream, 1)

    assert ([{"n": 3}], None) == node.call("/def", {})


def test_nothing_is_left_behind_by_two_hundred_cancelled_calls(node):
    def two_hundred():
        for i in range(200):
            stream = node.start(f"/endless/{ENDLESS[i % 4]}", {"name": f"leak-{i}"})
            if i % 2:
                node.receive(stream)
            node.cancel(stream)
            node.finish(stream)

    # The first round leaves the threads that are kept, and one whose last thread was late leaves another of these.
    left = []

    def left_no_more() -> bool:
        two_hundred()
        left.append(result(node, "/left"))
        return left[-1:] == left[-2:-1]

    eventually(left_no_more, f"a round that leaves what the one before left, not {left}", seconds=DEADLINE_S)


def test_nothing_of_one_request_is_seen_by_the_next_in_its_thread(node):
    assert [0] * 20 == [result(node, "/mine")["mine"] for _ in range(20)]


# --- fairness -----------------------------------------------------------------------------------------------


def test_a_generator_that_never_awaits_does_not_starve_the_others(node):
    endless = node.start("/never-awaits", {"n": 10**9})
    events, error = node.call("/async-generator", {"n": 20})
    pong_after = node.start("/def", {})
    node.finish(pong_after)
    node.cancel(endless)

    assert (20, None) == (len(events), error)
    assert "client_disconnected" == node.finish(endless)[1]["type"]


# --- emit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["callback", "thread", "pool", "to-thread", "loop"])
def test_emit_finds_its_request(node, path):
    other = node.start("/endless/async-def", {"name": f"other-{path}"})  # so that there is a wrong one to find
    node.receive(other)

    events, error = node.call(f"/emit/{path}", {"n": 5})

    assert ([0, 1, 2, 3, 4], None) == ([event["i"] for event in events[:-1]], error)
    assert {"done": True} == events[-1]
    assert [] == node.events(other)
    node.cancel(other)
    node.finish(other)


def test_items_of_many_threads_arrive_whole_and_each_threads_in_order(node):
    events, error = node.call("/emit/many-threads", {"n": 300})

    assert (2401, None) == (len(events), error)
    for t in range(8):
        assert list(range(300)) == [event["i"] for event in events if event.get("thread") == t]


def test_a_thread_without_a_context_means_the_only_running_request(node):
    assert [{"native": True}, {"told": []}] == node.call("/emit/native")[0]


def test_a_thread_without_a_context_is_never_guessed_among_several(node):
    other = node.start("/endless/async-def", {"name": "other-native"})
    node.receive(other)

    ((told,), error) = node.call("/emit/native")

    assert "self.current_request.emit" in told["told"][0]
    node.cancel(other)
    assert ([], "client_disconnected") == (lambda ended: (ended[0], ended[1]["type"]))(node.finish(other))


def test_what_is_emitted_after_the_end_is_refused(node):
    stream = node.start("/emit/late")
    assert ([{"done": True}], None) == node.finish(stream)
    node.call("/is-over")
    eventually(lambda: "late" in result(node, "/made")["made"], "it has tried")

    assert (
        f"RuntimeError: request r-{stream} is over; nothing more can be emitted for it"
        == result(node, "/made")["made"]["late"]
    )


def test_ping_is_answered_while_a_thread_is_busy(node):
    busy = node.start("/endless/busy", {"name": "busy-ping"})
    node.receive(busy)
    node.send(Kind.PING, 0, b"abc")

    assert (Kind.PONG, b"abc") == node.receive(0)
    node.cancel(busy)
    node.finish(busy)
