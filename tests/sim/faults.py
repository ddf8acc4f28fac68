"""Faults to plant in the real code, so that we know that the simulation would find them.

Each is what somebody could write by mistake. A fault is planted for the time of a world and taken out again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from headrace.core import request
from headrace.core.frames import FrameReader
from headrace.core.replay import Replay
from headrace.core.request import Move, State
from headrace.core.scheduler import Restarts
from headrace.gateway.events import EventWriter
from headrace.supervisor import pool, streams
from headrace.supervisor.deadlines import Deadlines
from headrace.supervisor.devices import Lease
from headrace.supervisor.fleet import Fleet
from headrace.supervisor.link import RunnerLink
from headrace.supervisor.pool import Pool
from headrace.supervisor.process import RunnerProcess
from headrace.supervisor.streams import LiveRequest

Plant = tuple[object, str, Callable[..., Any]]


def every(count: int, usual: Callable[..., Any], wrong: Callable[..., Any]) -> Callable[..., Any]:
    """Return what does as `usual`, but goes `wrong` each `count`-th time."""
    calls = 0

    def do(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return (usual if calls % count else wrong)(*args, **kwargs)

    return do


def nothing(*_: object, **__: object) -> None:
    """Forget to do it."""


def _lost_done() -> Plant:
    return RunnerLink, "_on_end", every(9, RunnerLink._on_end, nothing)


def _slot_given_twice() -> Plant:
    rooms = Pool._rooms
    return Pool, "_rooms", lambda pool: [free + 1 for free in rooms(pool)]


def _slot_forgotten() -> Plant:
    return pool, "emptiest", nothing


def _event_dropped() -> Plant:
    extend = Replay.extend
    return Replay, "extend", every(7, extend, lambda log, texts: extend(log, texts[1:]))


def _event_repeated() -> Plant:
    extend = Replay.extend
    return Replay, "extend", every(7, extend, lambda log, texts: extend(log, [*texts, texts[-1]]))


def _events_swapped() -> Plant:
    since = Replay.since
    return Replay, "since", lambda log, position: since(log, position)[::-1]


def _credit_given_early() -> Plant:
    give = LiveRequest._give_credit
    return LiveRequest, "_give_credit", lambda live, cost: give(live, cost + live.limits.window_bytes)


def _credit_never_given() -> Plant:
    return LiveRequest, "_give_credit", nothing


def _frame_cut_in_its_head() -> Plant:
    feed = FrameReader.feed

    def forgetful(reader: FrameReader, data: bytes) -> Any:
        if len(reader._rest) == 1:
            reader._rest = b""
        return feed(reader, data)

    return FrameReader, "feed", forgetful


def _withdrawn_but_still_waiting() -> Plant:
    return Pool, "_withdraw", nothing


def _leaver_not_cancelled() -> Plant:
    return LiveRequest, "_go_on_unread", lambda live, *_: setattr(live, "left_at", streams.monotonic())


def _request_without_end() -> Plant:
    return Deadlines, "_total_is_over", nothing


def _stuck_request_left_alone() -> Plant:
    return Pool, "_is_stuck", nothing


def _failure_that_looks_like_success() -> Plant:
    async def close(writer: EventWriter) -> None:
        if writer.has_begun and not writer._outlet.is_lost:
            writer._outlet.end()

    return EventWriter, "close", close


def _stalled_reader_kept() -> Plant:
    return EventWriter, "_watch_stall", nothing


def _second_ending() -> Plant:
    def end(live: LiveRequest, move: Move, error: Any) -> None:
        live.state = State.FAILED if move is Move.FAIL else State.COMPLETED
        live.error = error
        live.wake_readers()
        live._tell_final()

    return LiveRequest, "_end", end


def _illegal_move() -> Plant:
    return request, "MOVES", {**request.MOVES, (State.CANCELLING, Move.FINISH): State.COMPLETED}


def _dead_runner_not_replaced() -> Plant:
    return Restarts, "died", lambda *_: 1e9


def _too_many_runners() -> Plant:
    def match(fleet: Fleet) -> None:
        if fleet._tasks is not None and not fleet._is_winding_down and fleet._starting < 9:
            fleet._starting += 1
            fleet._tasks.create_task(fleet._tend())

    return Fleet, "match", match


def _process_left_behind() -> Plant:
    async def stop(process: RunnerProcess) -> None:
        process.link.abort()

    return RunnerProcess, "stop", stop


def _device_kept() -> Plant:
    return Lease, "give_back", nothing


#: Each fault by its name: how to plant it, and words of the promises that it breaks.
FAULTS: Mapping[str, tuple[Callable[[], Plant], str]] = {
    "a link loses a DONE": (_lost_done, "does not work on what it was given"),
    "a slot is given twice": (_slot_given_twice, "more than its slots|requests and .* slots"),
    "a free slot is forgotten": (_slot_forgotten, "has a free slot"),
    "the log drops an event": (_event_dropped, "completed with|for event|got event"),
    "the log repeats an event": (_event_repeated, "completed with|for event|got event"),
    "the log turns events round": (_events_swapped, "for event"),
    "credit is given before anything was taken": (_credit_given_early, "not taken, the window is"),
    "credit is never given": (_credit_never_given, "waits for credit"),
    "a frame cut in its head is misread": (
        _frame_cut_in_its_head,
        "runner_disconnected for no reason|does not work on what it",
    ),
    "a request that left goes on waiting": (
        _withdrawn_but_still_waiting,
        "waits, and is cancelled|holds a slot and is",
    ),
    "a request whose reader left goes on": (_leaver_not_cancelled, "goes on without a reader|nobody wants it"),
    "a request outlives its deadline": (_request_without_end, "runs for"),
    "a stuck request keeps its slot": (_stuck_request_left_alone, "was cancelled and does not end"),
    "a failure ends like a success": (_failure_that_looks_like_success, "saw success"),
    "a stalled reader is kept": (_stalled_reader_kept, "takes nothing since"),
    "a final state changes": (_second_ending, "went from"),
    "a cancelled request completes": (_illegal_move, "went from State.CANCELLING to State.COMPLETED"),
    "a dead runner is not replaced": (_dead_runner_not_replaced, "has . runners|are missing"),
    "more runners start than are allowed": (_too_many_runners, "are allowed"),
    "a process is left behind": (_process_left_behind, "are still there|leased to nobody|more than its slots"),
    "a device is never given back": (_device_kept, "has 0 runners|leased to nobody"),
}


@contextlib.contextmanager
def planted(fault: Callable[[], Plant]) -> Iterator[None]:
    """Have a fault in the code."""
    place, name, wrong = fault()
    right = vars(place)[name]
    setattr(place, name, wrong)
    try:
        yield
    finally:
        setattr(place, name, right)
