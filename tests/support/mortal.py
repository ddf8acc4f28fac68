"""Models whose requests end in every way a request can end. Each notes in the file $ZOO_NOTES that it was closed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import headrace
from pydantic import BaseModel

SECRET = "the password is swordfish"

#: Seconds of the apps' deadlines.
FIRST_EVENT_S, EVENT_GAP_S, REQUEST_S = 0.5, 0.4, 0.8
#: The same as the last, where an event comes before it is over.
TOTAL_S = 4.0


def note(text: str) -> None:
    with open(os.environ["ZOO_NOTES"], "a") as file:
        file.write(f"{text}\n")


class Ask(BaseModel):
    how: str = "well"
    events: int = 1  # made before it
    pause: float = 0.0  # seconds before those
    name: str = "x"


class Flood(BaseModel):
    n: int
    name: str = "x"


def raises() -> None:
    raise ValueError(SECRET)


def exits() -> None:
    raise SystemExit(SECRET)


def refuses() -> None:
    raise headrace.AppException("no pictures today", status_code=418)  # a status that no client of fal tries again


def finds_fault() -> None:
    raise headrace.FieldException("prompt", "too rude")


def gives_up() -> None:
    raise headrace.Cancelled


SUDDEN: dict[str, Callable[[], object]] = {
    "raised": raises,
    "exited": exits,
    "refused": refuses,
    "found a field wrong": finds_fault,
    "gave up": gives_up,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "left by os._exit": lambda: os._exit(0),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGABRT": os.abort,
}
SPOILT: dict[str, Callable[[], object]] = {
    "yielded bytes": lambda: {"image": b"x"},
    "yielded too much": lambda: {"text": "x" * (1024 * 1024)},
}


class Mortal(headrace.App, name="mortal/any", max_multiplexing=16, first_event_timeout=FIRST_EVENT_S,
             event_gap_timeout=EVENT_GAP_S):  # fmt: skip
    @headrace.endpoint("/")
    async def end(self, input: Ask):
        """Make some events, then end as asked."""
        try:
            await asyncio.sleep(input.pause)
            for i in range(input.events):
                yield {"i": i}
            if input.how in SPOILT:
                yield SPOILT[input.how]()
            elif input.how in SUDDEN:
                await asyncio.sleep(0.05)  # until the events are on their way: a dead process sends no more
                SUDDEN[input.how]()
            elif input.how == "silent":
                await asyncio.sleep(600)
            elif input.how == "asks to be cancelled":
                note(f"cancel me {self.current_request.request_id}")
                await asyncio.sleep(600)
            elif input.how == "endless":
                while True:
                    await asyncio.sleep(0.05)
                    yield {}
        finally:
            note(f"finally {input.name}")

    @headrace.endpoint("/sync")
    def end_in_a_thread(self, input: Ask):
        """As above, in a thread that hears of its end when it yields or emits."""
        try:
            for i in range(input.events):
                yield {"i": i}
            while input.how == "endless":
                time.sleep(0.05)
                yield {}
            while input.how == "silent":  # a busy loop, to be interrupted
                time.sleep(0.01)
        finally:
            note(f"finally {input.name}")

    @headrace.endpoint("/def")
    def function(self, input: Ask) -> dict[str, Any]:
        time.sleep(input.pause)
        return {"done": True}

    @headrace.endpoint("/flood")
    def flood(self, input: Flood):
        for i in range(input.n):
            yield {"i": i, "pad": "x" * 1_000}
        note(f"flooded {input.name}")


class Hurried(
    Mortal, name="mortal/hurried", request_timeout=REQUEST_S, first_event_timeout=60, event_gap_timeout=60
): ...


class Crash(
    Mortal,
    name="mortal/crash",
    max_multiplexing=1,
    min_concurrency=2,
    first_event_timeout=60,
    event_gap_timeout=60,
): ...


class Clean(
    Mortal, name="mortal/clean", max_multiplexing=1, request_timeout=REQUEST_S, stream_error_end="clean"
): ...


class Single(Mortal, name="mortal/single", max_multiplexing=1, event_gap_timeout=600): ...


# Those of which no deadline passes but the one that a test means, however busy the machine is. They are started when they
# are called.


class Calm(Mortal, name="mortal/calm", min_concurrency=0, first_event_timeout=60, event_gap_timeout=600): ...


class Gap(Mortal, name="mortal/gap", min_concurrency=0, first_event_timeout=60): ...


class Total(
    Mortal,
    name="mortal/total",
    min_concurrency=0,
    request_timeout=TOTAL_S,
    first_event_timeout=60,
    event_gap_timeout=60,
): ...
