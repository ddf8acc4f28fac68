"""The four mishaps: what is done to a server, and what was measured of it.

Each function takes a running server and returns plain figures. What they mean in words is `table.py`'s business.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.compare import model
from bench.compare.client import OPEN, WHOLE, Stream, status_of
from bench.compare.servers import Running

#: Seconds that anything which should happen soon may take.
SOON_S = 10.0


@dataclass(frozen=True, slots=True)
class Raised:
    """The model raised after its third item. What the client saw."""

    status: int | None
    events: int
    ending: str
    error: str | None  # what an error event told


def model_raises(one: Running) -> Raised:
    """Let the model raise after its third item of ten."""
    stream, _ = one.ask(10, every_s=0.02, fails_after=3)
    with stream:
        stream.read(time.monotonic() + SOON_S)
        return Raised(stream.status, stream.events, stream.ending, stream.error)


#: A reader leaves after 5 of 150 items, one every 20 ms: 2.9 s of work that nobody wants.
LEFT_ITEMS, LEFT_EVERY_S, LEFT_AFTER = 150, 0.02, 5


@dataclass(frozen=True, slots=True)
class Left:
    """The reader left early."""

    items: int  # that were asked for
    read: int  # when the reader left
    made: int  # in the end
    next_s: float | None  # until the next request had its first event; None when it never had
    closed_s: float | None  # until the generator was over, its `finally:` run; None when it was not
    watched_s: float  # from the leaving


def reader_leaves(one: Running) -> Left:
    """Leave a stream, send the next request at once, and watch what the model does for the time it had left to work."""
    stream, notes = one.ask(LEFT_ITEMS, every_s=LEFT_EVERY_S)
    with stream:
        stream.read(time.monotonic() + SOON_S, events=LEFT_AFTER)
        read = stream.events
    left_at = time.monotonic()

    following, _ = one.ask(1)
    with following:
        following.read(left_at + SOON_S, events=1)
        next_s = time.monotonic() - left_at if following.events else None

    work_left_s = (LEFT_ITEMS - LEFT_AFTER) * LEFT_EVERY_S
    _wait(lambda: model.read(notes).ended_ns, left_at + 1.5 * work_left_s)
    seen = model.read(notes)
    closed_s = seen.ended_ns / 1e9 - left_at if seen.ended_ns else None
    return Left(LEFT_ITEMS, read, seen.made, next_s, closed_s, time.monotonic() - left_at)


#: A model makes up to 300 MB, 1,000 bytes an item, as fast as it may, for a reader that takes nothing.
FLOOD_ITEMS, FLOOD_TEXT_BYTES = 300_000, 1_000
#: Seconds it is watched for at most, and seconds without a new item after which it counts as paused.
FLOOD_S, PAUSED_S = 60.0, 3.0


@dataclass(frozen=True, slots=True)
class Flooded:
    """A reader stopped reading."""

    items: int  # that were asked for
    made: int
    grown_bytes: int  # what all of the server's processes held more, at their peak
    seconds: float  # it was watched for
    is_paused: bool  # no item was made for the last seconds, although there were some to make


def reader_stalls(one: Running, watch_s: float = FLOOD_S) -> Flooded:
    """Ask for a flood and read none of it; watch the memory until the model pauses, has made all, or time is up."""
    before = peak = one.memory_bytes()
    began = time.monotonic()
    stream, notes = one.ask(FLOOD_ITEMS, text_bytes=FLOOD_TEXT_BYTES)
    with stream:
        made, made_at = 0, began
        while (now := time.monotonic()) < began + watch_s:
            seen = model.read(notes)
            if seen.made > made:
                made, made_at = seen.made, now
            peak = max(peak, one.memory_bytes())
            if now - made_at >= PAUSED_S:  # one look after the last item: what travels has arrived
                break
            time.sleep(0.1)
    is_paused = made < FLOOD_ITEMS and now - made_at >= PAUSED_S
    return Flooded(FLOOD_ITEMS, made, peak - before, now - began, is_paused)


#: Seconds a server may take to answer again after its model's process was killed.
RECOVERY_S = 30.0
#: Seconds between two new requests: one that was caught by the fall may hang where a later one is answered.
ASK_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True)
class Killed:
    """The process that ran the model was killed (SIGKILL) in the middle of a stream."""

    is_server: bool  # that process was the one that was started, and nothing is left
    has_left: bool  # the server was over within the time it was watched
    events: int  # of the stream, all told
    ending: str
    error: str | None
    told_s: float | None  # until the stream's client knew; None when it never did
    other_events: int  # of another client's three, asked for before the kill
    other_ending: str
    answers_s: float | None  # until a new request was answered; None when none ever was
    health_down_s: float | None  # for how long the health endpoint did not say 200; None when it never did again


def model_is_killed(one: Running, recovery_s: float = RECOVERY_S) -> Killed:
    """Kill the model's process under one stream while another client has asked too, and see who is still served."""
    stream, notes = one.ask(1_000, every_s=0.02)
    stream.read(time.monotonic() + SOON_S, events=5)
    # Slow enough to be still there where the two run side by side; where there is one slot, it waits for that.
    other, _ = one.ask(3, every_s=0.2)
    other.read(time.monotonic() + 0.1)

    pid = model.read(notes).pid
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    deadline = killed_at + recovery_s
    with stream, other, ThreadPoolExecutor() as pool:
        told_at = pool.submit(_end_of, stream, deadline)
        other_ended_at = pool.submit(_end_of, other, deadline)
        is_answering = threading.Event()
        health_down_s = pool.submit(_health_down_s, one, deadline, is_answering)
        answered_at = _first_answer(one, deadline)
        is_answering.set()
        other_ended_at.result()
        return Killed(
            is_server=pid == one.process.pid,
            has_left=one.has_left(),
            told_s=_since(killed_at, told_at.result()),
            events=stream.events,
            ending=stream.ending,
            error=stream.error,
            other_events=other.events,
            other_ending=other.ending,
            answers_s=_since(killed_at, answered_at),
            health_down_s=health_down_s.result(),
        )


def _end_of(stream: Stream, deadline: float) -> float | None:
    """Read a stream to its end and return when that was; None when it never came."""
    stream.read(deadline)
    return None if stream.ending is OPEN else time.monotonic()


def _first_answer(one: Running, deadline: float) -> float | None:
    """Ask again and again; return when one was answered whole, or None when none ever is or the server has left."""
    with contextlib.ExitStack() as stack:
        asked: list[Stream] = []
        ask_at = 0.0
        while (now := time.monotonic()) < deadline:
            if now >= ask_at:
                ask_at = now + ASK_AGAIN_S
                has_left = one.has_left()
                try:
                    asked.append(stack.enter_context(one.ask(3)[0]))
                except OSError:
                    if has_left:
                        return None
            for stream in asked:
                stream.read(time.monotonic() + 0.005)
                if (stream.status, stream.events, stream.ending) == (200, 3, WHOLE):
                    return time.monotonic()
            time.sleep(0.01)
        return None


def _health_down_s(one: Running, deadline: float, is_answering: threading.Event) -> float | None:
    """Return for how long the health endpoint said anything but 200; None when it did not say so at the end."""
    down_at = None
    while True:
        is_last_look = is_answering.is_set() or time.monotonic() > deadline
        looked_at = time.monotonic()
        is_up = status_of(one.port, one.server.health) == 200
        if is_up and (is_last_look or down_at is not None):
            return time.monotonic() - down_at if down_at is not None else 0.0
        if is_last_look:
            return None
        if not is_up and down_at is None:
            down_at = looked_at
        time.sleep(0.02)


def _since(start: float, moment: float | None) -> float | None:
    return None if moment is None else moment - start


def _wait(is_true: Callable[[], object], deadline: float) -> None:
    """Return when `is_true()` holds or the time is up."""
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.02)
