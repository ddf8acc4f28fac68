"""Whatever an author's code raises or yields, its request ends once, typed, and nobody else's does."""

import json

import pytest

from headrace import AppException
from headrace.core.frames import Kind
from headrace.runner.blame import error_of
from tests.support.pretend_node import PretendNode

MODELS = """
import asyncio
import headrace
from headrace.core.errors import RequestError


class Unpicklable(Exception):
    def __init__(self, a, b): super().__init__("a secret")
    def __reduce__(self): raise TypeError("never")

class Mute(Exception):
    def __str__(self): raise ValueError("cannot say")

class Refusal(headrace.AppException):
    def __init__(self): pass

def recurse(): return recurse()

def group(): raise ExceptionGroup("a secret", [ValueError("a secret")])

RAISE = {
    "Exception": lambda: Exception("a secret"),
    "KeyError": lambda: KeyError("a secret"),
    "SystemExit": lambda: SystemExit("a secret"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("a secret"),
    "GeneratorExit": lambda: GeneratorExit("a secret"),
    "CancelledError": lambda: asyncio.CancelledError("a secret"),
    "StopIteration": lambda: StopIteration("a secret"),
    "StopAsyncIteration": lambda: StopAsyncIteration("a secret"),
    "Unpicklable": lambda: Unpicklable(1, 2),
    "Mute": Mute,
    "megabyte": lambda: Exception("a secret" * 131072),
    "surrogate": lambda: Exception("a secret \\ud800"),
    "MemoryError": MemoryError,
    "AppException": lambda: headrace.AppException("the GPU is too hot \\ud800", 503),
    "AppExceptionLong": lambda: headrace.AppException("x" * 1_000_000),
    "Refusal": Refusal,
    "FieldException": lambda: headrace.FieldException("size", "not free"),
    "Cancelled": headrace.Cancelled,
}

def fail(name):
    if name == "recursion":
        recurse()
    if name == "group":
        group()
    raise RAISE[name]()

def cyclic():
    value = {}
    value["self"] = value
    return value

BAD = {
    "bytes": lambda: b"x", "nested bytes": lambda: {"a": [b"x"]}, "set": lambda: {1}, "nested set": lambda: {"a": {1}},
    "object": object, "surrogate": lambda: {"t": "\\ud800"}, "surrogate key": lambda: {"\\ud800": 1},
    "cycle": cyclic, "int key": lambda: {1: 1}, "huge int": lambda: {"n": 2**70}, "complex": lambda: 1j,
    "function": lambda: fail, "exception": lambda: {"e": ValueError("a secret")},
    "generator": lambda: (i for i in "ab"), "too large": lambda: {"t": "x" * (32 << 20)},
}


class Broken(headrace.App, name="t/broken", max_multiplexing=16):
    @headrace.endpoint("/def", emits=dict)
    def a_def(self, input):
        if input["after"]: headrace.emit({"i": 0})
        fail(input["name"])

    @headrace.endpoint("/async-def")
    async def an_async_def(self, input):
        if input["after"]: headrace.emit({"i": 0})
        await asyncio.sleep(0)
        fail(input["name"])

    @headrace.endpoint("/generator")
    def a_generator(self, input):
        if input["after"]: yield {"i": 0}
        fail(input["name"])

    @headrace.endpoint("/async-generator")
    async def an_async_generator(self, input):
        if input["after"]: yield {"i": 0}
        fail(input["name"])

    @headrace.endpoint("/bad/def")
    def bad_def(self, input):
        return BAD[input["name"]]()

    @headrace.endpoint("/bad/async-def")
    async def bad_async_def(self, input):
        return BAD[input["name"]]()

    @headrace.endpoint("/bad/generator")
    def bad_generator(self, input):
        yield {"i": 0}
        yield BAD[input["name"]]()
        yield {"i": 2}

    @headrace.endpoint("/bad/async-generator")
    async def bad_async_generator(self, input):
        yield {"i": 0}
        yield BAD[input["name"]]()
        yield {"i": 2}

    @headrace.endpoint("/bad/emit")
    def bad_emit(self, input):
        headrace.emit({"i": 0})
        headrace.emit(BAD[input["name"]]())

    @headrace.endpoint("/stubborn")
    def stubborn(self):
        while True:
            try: yield {}
            except GeneratorExit: pass

    @headrace.endpoint("/stubborn-async")
    async def stubborn_async(self):
        while True:
            try: yield {}
            except GeneratorExit: pass

    @headrace.endpoint("/raises-in-finally")
    def raises_in_finally(self):
        try:
            while True: yield {"pad": "x" * 1000}
        finally:
            raise ValueError("from finally")

    @headrace.endpoint("/closes-stderr")
    def closes_stderr(self):
        import sys
        stderr, sys.stderr = sys.stderr, None
        try:
            yield {}
            1 / 0
        finally:
            sys.stderr = stderr

    @headrace.endpoint("/good")
    async def good(self):
        return {"good": True}
"""

ACCIDENTS = [
    "Exception", "KeyError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "StopIteration",
    "StopAsyncIteration", "Unpicklable", "Mute", "megabyte", "surrogate", "MemoryError", "recursion", "group",
]  # fmt: skip
BAD = [
    "bytes", "nested bytes", "set", "nested set", "object", "surrogate", "surrogate key", "cycle", "int key",
    "huge int", "complex", "function", "exception", "generator", "too large",
]  # fmt: skip
KINDS = ["def", "async-def", "generator", "async-generator"]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    file = tmp_path_factory.mktemp("broken") / "broken.py"
    file.write_text(MODELS)
    with PretendNode(str(file)) as node:
        node.setup()
        yield node


def is_well(node: PretendNode) -> bool:
    return node.call("/good") == ([{"good": True}], None)


@pytest.mark.promise("S11")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ACCIDENTS)
def test_an_accident_ends_its_request_with_a_fixed_text(node, name, kind, after):
    stream = node.start(f"/{kind}", {"name": name, "after": after})
    events, error = node.finish(stream)

    assert [{"i": 0}] * after == events
    assert {
        "type": "runner_server_error",
        "message": "Internal Server Error",
        "status": 500,
        "retryable": False,
    } == error
    assert f"request r-{stream} failed in the app's code" in node.log
    assert is_well(node)


@pytest.mark.promise("S11")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "type_", "status", "message"),
    [
        ("AppException", "app_error", 503, "the GPU is too hot ?"),
        ("AppExceptionLong", "app_error", 500, "x" * 4096),
        ("Refusal", "app_error", 500, ""),
        ("FieldException", "validation_error", 422, "not free"),
        ("Cancelled", "client_cancelled", 499, "The app stopped the request."),
    ],
)
def test_what_an_author_says_on_purpose_reaches_the_caller(node, kind, name, type_, status, message):
    _, error = node.call(f"/{kind}", {"name": name, "after": True})

    assert (type_, status, message) == (error["type"], error["status"], error["message"])
    if name == "FieldException":
        assert [{"loc": ["body", "size"], "msg": "not free", "type": "value_error"}] == error["detail"]


@pytest.mark.promise("S12")
@pytest.mark.parametrize("kind", [*KINDS, "emit"])
@pytest.mark.parametrize("name", BAD)
def test_an_item_that_json_cannot_hold_ends_its_request_alone(node, name, kind):
    stream = node.start(f"/bad/{kind}", {"name": name})
    events, error = node.finish(stream)

    assert ([] if "def" in kind else [{"i": 0}]) == events
    too_large = "result_too_large" if "def" in kind else "event_too_large"
    assert (too_large if name == "too large" else "unserializable_item") == error["type"]
    assert 500 == error["status"]
    assert "secret" not in json.dumps(error)
    assert is_well(node)


@pytest.mark.parametrize("path", ["/stubborn", "/stubborn-async"])
def test_a_generator_that_refuses_to_close_ends_all_the_same(node, path):
    stream = node.start(path, b"", window=1)
    node.receive(stream)
    node.cancel(stream)

    assert "client_disconnected" == node.finish(stream)[1]["type"]
    assert is_well(node)


def test_an_accident_while_closing_is_logged_and_changes_nothing(node):
    stream = node.start("/raises-in-finally", b"", window=1)
    node.receive(stream)
    node.cancel(stream, "client_cancelled")

    assert "client_cancelled" == node.finish(stream)[1]["type"]
    assert "ValueError: from finally" in node.log


def test_a_log_that_cannot_be_written_loses_no_request(node):
    events, error = node.call("/closes-stderr")

    assert ([{}], "runner_server_error") == (events, error["type"])


def test_a_long_traceback_is_cut_in_the_middle(node):
    before = len(node.log)
    node.call("/def", {"name": "megabyte", "after": False})

    assert len(node.log) - before < 20_000
    assert "characters left out" in node.log[before:]


def test_every_call_ends_exactly_once(node):
    streams = [node.start(f"/{kind}", {"name": "Exception", "after": True}) for kind in KINDS * 10]
    for stream in streams:
        node.finish(stream)

    assert node.is_quiet(0.2)
    assert all(node.events(stream) == [] for stream in streams)
    node.send(Kind.PING, 0, b"x")
    assert (Kind.PONG, b"x") == node.receive(0)


@pytest.mark.parametrize(
    ("exception", "retryable"),
    [
        (AppException("busy", 503), True),
        (AppException("busy", 503, needs_retry=False), False),
        (AppException("odd", 500), False),
        (AppException("odd", 500, needs_retry=True), True),
    ],
)
def test_an_apps_own_failure_is_retryable_as_it_says_or_as_its_status_does(exception, retryable):
    assert error_of(exception, "id").retryable is retryable
