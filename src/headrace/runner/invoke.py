"""Runs the four kinds of endpoint, and sees to it that each is closed and its call ended, whatever happens.

    async generator, async def    a task on the loop
    generator, def                one thread for its whole life: a pool hop per item would cost 35 times as much

This file knows calls and endpoints; it does not know frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from headrace.app.context import CURRENT, Cancelled
from headrace.app.describe import Endpoint, EndpointKind
from headrace.core.errors import RequestError
from headrace.runner.blame import error_of, log
from headrace.runner.call import RunningCall
from headrace.runner.inputs import InputReader
from headrace.runner.interrupt import AuthorsCode
from headrace.runner.link import Link
from headrace.runner.threads import Crew, in_own_thread

#: An async generator that never awaits makes at most this many events, or goes on for at most this long, before
#: the others get a turn of the loop. 32 events fill a write; 200 µs are a tenth of what anyone notices.
EVENTS_PER_TURN: Final = 32
TURN_S: Final = 0.000_2

#: What a cancelled call's code is expected to end with: no news for the log.
_EXPECTED_WHEN_CANCELLED: Final = (Cancelled, asyncio.CancelledError, GeneratorExit)


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint of the app's one instance."""

    endpoint: Endpoint
    method: Callable[..., Any]  # bound to the instance
    reader: InputReader


def begin(call: RunningCall, served: Served, link: Link, crew: Crew) -> None:
    """Start the code of a call. Whatever becomes of it, it ends the call."""
    if served.endpoint.kind in {EndpointKind.COROUTINE, EndpointKind.ASYNC_GENERATOR}:
        call.task = asyncio.get_running_loop().create_task(_run_on_loop(call, served, link))
        return
    try:
        crew.run(lambda: _run_in_thread(call, served))
    except RuntimeError as error:  # the system has no thread left
        log(f"request {call.start.request_id} got no thread", error)
        call.end(RequestError("internal_error", "The runner could not start a thread for the request."))


def _error_of(call: RunningCall, raised: BaseException) -> RequestError | None:
    if not call.is_cancelled:
        return error_of(raised, call.start.request_id)
    if not issubclass(type(raised), _EXPECTED_WHEN_CANCELLED):  # isinstance would ask the author's exception
        log(f"request {call.start.request_id} raised while it was cancelled", raised)
    return None  # `end` knows the reason


def _put_result(call: RunningCall, endpoint: Endpoint, made: object) -> None:
    """Send what a function returned: an event where it has a stream, else a whole answer, which may be larger."""
    if endpoint.spec.stream_path is None:
        call.put_result(made)
    else:
        call.put(made)


# --- threads --------------------------------------------------------------------------------------------------


def _run_in_thread(call: RunningCall, served: Served) -> None:
    error = None
    try:
        call.enter()
        CURRENT.set(call)
        with AuthorsCode(call):
            arguments = served.reader.read(call.start.body)
            made = served.method(*arguments)
        if served.endpoint.kind is EndpointKind.GENERATOR:
            _drive(call, made)
        elif made is not None:
            call.wait_for_credit()
            _put_result(call, served.endpoint, made)
    except BaseException as raised:  # SystemExit and all: an author's code ends its request alone
        error = _error_of(call, raised)
    call.end(error)


def _drive(call: RunningCall, items: Iterator[object]) -> None:
    try:
        with AuthorsCode(call):
            _send_all(call, items)
    finally:
        _close(call, items)


def _send_all(call: RunningCall, items: Iterator[object]) -> None:
    wait_for_credit, put = call.wait_for_credit, call.put
    while True:
        wait_for_credit()
        try:
            item = next(items)
        except StopIteration as stop:
            if stop.value is not None:
                put(stop.value)
            return
        put(item)


def _close(call: RunningCall, items: Iterator[object]) -> None:
    close = getattr(items, "close", None)
    if close is None:
        return
    try:
        close()
    except BaseException as raised:  # the call's ending is already known
        log(f"request {call.start.request_id} raised while its generator was closed", raised)


# --- the loop -------------------------------------------------------------------------------------------------


async def _run_on_loop(call: RunningCall, served: Served, link: Link) -> None:
    error = None
    try:
        call.enter()
        CURRENT.set(call)
        read = served.reader.read
        body = call.start.body
        arguments = read(body) if served.reader.is_quick else await in_own_thread(lambda: read(body))
        if served.endpoint.kind is EndpointKind.ASYNC_GENERATOR:
            await _drive_async(call, served.method(*arguments), link)
        else:
            made = await served.method(*arguments)
            if made is not None:
                await call.credit()
                _put_result(call, served.endpoint, made)
    except BaseException as raised:  # SystemExit would end the loop, and with it everyone's stream
        error = _error_of(call, raised)
    call.end(error)


async def _drive_async(call: RunningCall, items: AsyncIterator[object], link: Link) -> None:
    put = call.put
    turn, made = link.turn, 0
    try:
        await call.credit()
        async for item in items:
            put(item)
            if call.needs_credit:
                await call.credit()
            if link.turn != turn:  # the loop has turned since our last event: it is not we who hold it up
                turn, made = link.turn, 0
                continue
            made += 1
            if made >= EVENTS_PER_TURN or monotonic() - link.turn_began > TURN_S:
                await asyncio.sleep(0)
    finally:
        await _close_async(call, items)


async def _close_async(call: RunningCall, items: AsyncIterator[object]) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(items, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except BaseException as raised:  # the call's ending is already known
        log(f"request {call.start.request_id} raised while its generator was closed", raised)
