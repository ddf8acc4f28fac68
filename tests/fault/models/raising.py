"""Models that raise anything Python can raise, and yield anything that it can hold, at any moment, in every kind of endpoint."""

from __future__ import annotations

import asyncio
import concurrent.futures
import decimal
import pathlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import headrace
import orjson
from pydantic import BaseModel

#: What no caller may ever read.
SECRET = "the password is swordfish"

#: Events of a model that nothing disturbs.
EVENTS = 3


class Ask(BaseModel):
    what: str
    at: int = 0  # the events made before it happens, 0 to EVENTS


class Ticks(BaseModel):
    n: int = 3
    pause: float = 0.0
    name: str = "x"


# --- what is raised -------------------------------------------------------------------------------------------


class Unpicklable(Exception):
    def __init__(self, a: object, b: object) -> None:
        super().__init__(SECRET)

    def __reduce__(self) -> Any:
        raise TypeError("never")


class Own(BaseException):
    """As `asyncio.CancelledError` and `headrace.Cancelled`, it passes an `except Exception`."""


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit("cannot say")


class Evil(Exception):
    @property
    def __class__(self) -> Any:
        raise ValueError("nobody asks me what I am")

    @property
    def __notes__(self) -> Any:
        raise KeyboardInterrupt


class Refusal(headrace.AppException):
    """A refusal that cannot be told: neither its text is one, nor its status."""

    message = Mute()  # type: ignore[assignment]
    status_code = 200

    def __init__(self) -> None: ...


def recursion() -> BaseException:
    return recursion()


def chain() -> BaseException:
    error: Exception = ValueError(SECRET)
    for _ in range(1_000):
        later = KeyError(SECRET)
        later.__cause__ = error
        error = later
    return error


RAISES: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: Exception(SECRET),
    "SystemExit": lambda: SystemExit(SECRET),
    "SystemExit(0)": lambda: SystemExit(0),
    "KeyboardInterrupt": lambda: KeyboardInterrupt(SECRET),
    "GeneratorExit": lambda: GeneratorExit(SECRET),
    "StopIteration": lambda: StopIteration(SECRET),
    "StopAsyncIteration": lambda: StopAsyncIteration(SECRET),
    "CancelledError": lambda: asyncio.CancelledError(SECRET),
    "TimeoutError": lambda: TimeoutError(SECRET),
    "MemoryError": lambda: MemoryError(SECRET),
    "RecursionError": recursion,
    "ExceptionGroup": lambda: ExceptionGroup(
        SECRET, [ValueError(SECRET), ExceptionGroup(SECRET, [OSError(SECRET)])]
    ),
    "BaseExceptionGroup": lambda: BaseExceptionGroup(SECRET, [SystemExit(1)]),
    "a BaseException of its own": lambda: Own(SECRET),
    "a class": lambda: ValueError,  # type: ignore[return-value,dict-item]
    "no exception": lambda: SECRET,  # type: ignore[return-value,dict-item]
    "unpicklable": lambda: Unpicklable(1, 2),
    "a megabyte": lambda: Exception(SECRET * 40_000),
    "surrogates": lambda: Exception(f"{SECRET} \ud800"),
    "a chain of a thousand": chain,
    "strange SyntaxError": lambda: SyntaxError(SECRET, (1, 2, 3, 4)),
    "mute": Mute,
    "evil": Evil,
    "a refusal that cannot be told": Refusal,
}


def trouble(ask: Ask, made: int) -> None:
    """Raise what was asked for, when it is due."""
    if made == ask.at:
        raise RAISES[ask.what]()


def event(i: int) -> dict[str, Any]:
    """An event that tells when it was made, by a clock that all processes share."""
    return {"i": i, "at": time.monotonic()}


class Ticking:
    """What a bystander reads."""

    @headrace.endpoint("/ticks")
    async def ticks(self, input: Ticks) -> AsyncIterator[dict]:
        for i in range(input.n):
            yield {"i": i}
            await asyncio.sleep(input.pause)
        yield {"total": input.n}


class Raising(Ticking, headrace.App, name="test/raising", max_multiplexing=2):
    """Two slots: one for a bystander, and one for whoever makes trouble. A slot that is not given back is missed."""

    @headrace.endpoint("/generator")
    def generator(self, input: Ask) -> Iterator[dict]:
        for i in range(EVENTS):
            trouble(input, i)
            yield event(i)
        trouble(input, EVENTS)

    @headrace.endpoint("/async-generator")
    async def async_generator(self, input: Ask) -> AsyncIterator[dict]:
        for i in range(EVENTS):
            trouble(input, i)
            yield event(i)
        await asyncio.sleep(0)
        trouble(input, EVENTS)

    @headrace.endpoint("/def", emits=dict)
    def a_def(self, input: Ask) -> dict:
        for i in range(EVENTS):
            trouble(input, i)
            headrace.emit(event(i))
        trouble(input, EVENTS)
        return {}

    @headrace.endpoint("/async-def", emits=dict)
    async def an_async_def(self, input: Ask) -> dict:
        for i in range(EVENTS):
            trouble(input, i)
            headrace.emit(event(i))
        await asyncio.sleep(0)
        trouble(input, EVENTS)
        return {}

    @headrace.endpoint("/emit-thread", emits=dict)
    def emit_thread(self, input: Ask) -> dict:
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            return threads.submit(self.a_def, input).result()

    @headrace.endpoint("/task", emits=dict)
    async def a_task(self, input: Ask) -> dict:
        return await asyncio.create_task(self.an_async_def(input))


# --- what is yielded ------------------------------------------------------------------------------------------


class Anything(BaseModel):
    value: Any = None


class Constants(BaseModel, ser_json_inf_nan="constants"):
    """It asks for NaN and Infinity, which are no JSON."""

    value: float


class Scalar:
    """As a scalar or an array of numpy's, or a tensor: it knows `__array__` and `tolist`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __array__(self) -> Any:
        raise AssertionError("no numpy here")

    def tolist(self) -> Any:
        return self.value


def cycle() -> Any:
    value: dict[str, Any] = {"secret": SECRET}
    value["self"] = value
    return value


def deep() -> Any:
    value: Any = SECRET
    for _ in range(10_000):
        value = [value]
    return value


NAN, INFINITY = float("nan"), float("inf")

#: What JSON cannot hold.
BAD: dict[str, Callable[[], Any]] = {
    "bytes": lambda: SECRET.encode(),
    "bytes inside": lambda: {"image": [SECRET.encode()]},
    "bytearray": lambda: bytearray(SECRET.encode()),
    "memoryview": lambda: memoryview(SECRET.encode()),
    "set": lambda: {"tags": {SECRET}},
    "frozenset": lambda: frozenset([SECRET]),
    "half a surrogate pair": lambda: {"text": f"{SECRET} \ud800"},
    "half a surrogate pair in a key": lambda: {f"{SECRET} \udfff": 1},
    "cycle": cycle,
    "too deep": deep,
    "object": object,
    "huge int": lambda: {"n": 2**64},
    "complex": lambda: 1j,
    "decimal": lambda: {"price": decimal.Decimal("0.1")},
    "path": lambda: pathlib.PurePosixPath(SECRET),
    "int key": lambda: {1: SECRET},
    "tuple key": lambda: {(1, 2): SECRET},
    "generator": lambda: ({} for _ in SECRET),
    "lock": lambda: {"lock": asyncio.Lock()},
    "exception": lambda: ValueError(SECRET),
    "class": lambda: Anything,
    "module": lambda: sys,
    "model holding bytes": lambda: Anything(value=b"\xff" + SECRET.encode()),
    "model holding an object": lambda: Anything(value=asyncio.Lock()),
    "model inside, holding bytes": lambda: {"models": [Anything(value=b"\xff" + SECRET.encode())]},
    "array of objects": lambda: Scalar([object()]),
    "array of complex": lambda: {"a": Scalar([1j])},
}

#: What JSON holds after all, and how it arrives.
GOOD: dict[str, tuple[Callable[[], Any], Any]] = {
    "NaN": (lambda: NAN, {"output": None}),
    "infinities": (lambda: {"n": [INFINITY, -INFINITY, 1.5]}, {"n": [None, None, 1.5]}),
    "model holding NaN": (lambda: Anything(value=NAN), {"value": None}),
    "model that asks for NaN": (lambda: Constants(value=NAN), {"value": None}),
    "model that asks for infinity, inside": (lambda: [Constants(value=-INFINITY)], {"output": [{"value": None}]}),
    "NaN in words": (lambda: {"text": "NaN, -Infinity"}, {"text": "NaN, -Infinity"}),
    "scalar": (lambda: {"loss": Scalar(0.25)}, {"loss": 0.25}),
    "scalar NaN": (lambda: Scalar(NAN), {"output": None}),
    "array": (lambda: Scalar([[1, 2], [3, 4]]), {"output": [[1, 2], [3, 4]]}),
    "array in a model": (lambda: Anything(value=Scalar([1, NAN])), {"value": [1, None]}),
    "None": (lambda: None, {"output": None}),
    "number": (lambda: 7, {"output": 7}),
    "line separators": (lambda: "a\r\nb\u2028c\x85", {"output": "a\r\nb\u2028c\x85"}),
    "JSON of its own, in lines": (lambda: {"raw": orjson.Fragment(b'{\r\n  "a": 1\n}')}, {"raw": {"a": 1}}),
}


def value_of(ask: Ask) -> Any:
    return GOOD[ask.what][0]() if ask.what in GOOD else BAD[ask.what]()


class Spoilt(Ticking, headrace.App, name="test/spoilt", max_multiplexing=2):
    """A value that is asked for, among good events."""

    @headrace.endpoint("/generator")
    def generator(self, input: Ask):
        for i in range(EVENTS):
            yield value_of(input) if i == input.at else {"i": i}

    @headrace.endpoint("/async-generator")
    async def async_generator(self, input: Ask):
        for i in range(EVENTS):
            yield value_of(input) if i == input.at else {"i": i}

    @headrace.endpoint("/emit", emits=dict)
    def emit(self, input: Ask) -> None:
        for i in range(EVENTS):
            headrace.emit(value_of(input) if i == input.at else {"i": i})

    @headrace.endpoint("/emit-async", emits=dict)
    async def emit_async(self, input: Ask) -> None:
        for i in range(EVENTS):
            headrace.emit(value_of(input) if i == input.at else {"i": i})

    @headrace.endpoint("/last-of-generator")
    def last_of_generator(self, input: Ask):
        for i in range(input.at):
            yield {"i": i}
        return value_of(input)

    @headrace.endpoint("/def")
    def a_def(self, input: Ask):
        return value_of(input)

    @headrace.endpoint("/async-def")
    async def an_async_def(self, input: Ask):
        return value_of(input)
