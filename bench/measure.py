"""The windows: how a running server is loaded, and what its process tree used meanwhile.

A window is a warm-up and then a measured time; CPU is read at both ends of it by the load generator itself, so
that both counts belong to the same moments. It knows nothing of which server it measures.
"""

import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.load import Callers, Streams
from bench.servers import Running

#: Seconds of load before a window opens: enough for every server to have started its streams.
WARM_UP_S = 0.5
#: Seconds the streams of a window may take to end after it.
DRAIN_S = 10.0
#: Open streams between which memory is compared. The first ones pay for what is set up only once.
MEMORY_STREAMS = (50, 450)


@dataclass(frozen=True, slots=True)
class Load:
    """A workload, and how many streams or callers at a time."""

    workload: str
    streams: int


@dataclass(frozen=True, slots=True)
class Window:
    """What one window showed."""

    count: int  # events, or answers
    cpu_ns: int  # of the whole server
    seconds: float
    receives: int = 0  # of the load generator
    first_events_s: tuple[float, ...] = ()

    @property
    def cpu_us(self) -> float:
        """Return microseconds of CPU for each event or answer; infinite when there was none."""
        return self.cpu_ns / self.count / 1000 if self.count else float("inf")


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of them do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def stream_window(running: Running, load: Load, seconds: float) -> Window:
    """Measure a window of `seconds` over long streams; return when all of them have ended."""
    opens = time.monotonic() + WARM_UP_S
    until_ns = time.time_ns() + int((WARM_UP_S + seconds + 0.1) * 1e9)
    with contextlib.closing(Streams()) as streams:
        request = running.request(load.workload, until_ns)
        for _ in range(load.streams):
            streams.open(running.port, request)
        streams.read_until(opens)

        began, events, receives = time.perf_counter(), streams.events, streams.receives
        cpu_ns = running.tree.cpu_ns()
        streams.read_until(opens + seconds)
        window = Window(
            count=streams.events - events,
            cpu_ns=running.tree.cpu_ns() - cpu_ns,
            seconds=time.perf_counter() - began,
            receives=streams.receives - receives,
        )

        streams.read_until(time.monotonic() + DRAIN_S)
        return window


def call_window(running: Running, load: Load, seconds: float) -> Window:
    """Measure a window of `seconds` over short requests in a closed loop."""
    request = running.request(load.workload, 0)
    return closed_loop_window(running, Callers(running.port, request, load.streams), seconds)


def closed_loop_window(running: Running, callers: Callers, seconds: float) -> Window:
    """Measure a window of `seconds` over callers who are just starting, and let them leave behind it."""
    with contextlib.closing(callers):
        callers.call_until(time.monotonic() + WARM_UP_S)

        began, answers, first_events = time.perf_counter(), callers.answers, len(callers.first_events_s)
        cpu_ns = running.tree.cpu_ns()
        callers.call_until(time.monotonic() + seconds)
        window = Window(
            count=callers.answers - answers,
            cpu_ns=running.tree.cpu_ns() - cpu_ns,
            seconds=time.perf_counter() - began,
            first_events_s=tuple(callers.first_events_s[first_events:]),
        )

        callers.finish(time.monotonic() + DRAIN_S)
        return window


def bytes_per_stream(running: Running) -> float:
    """Return what each open, silent stream adds to the server's memory, all processes together."""
    few, many = MEMORY_STREAMS
    until_ns = time.time_ns() + int(2 * DRAIN_S * 1e9)
    request = running.request("silent", until_ns)
    with contextlib.closing(Streams()) as streams:
        before = _memory_with(running, streams, few, request)
        after = _memory_with(running, streams, many, request)
    return (after - before) / (many - few)


def _memory_with(running: Running, streams: Streams, count: int, request: bytes) -> int:
    """Open streams until there are `count`, wait until each has had its event, and return the server's memory."""
    deadline = time.monotonic() + DRAIN_S
    while streams.events < count:
        while streams.opened < count and streams.silent < 16:
            streams.open(running.port, request)
        streams.read_until(min(deadline, time.monotonic() + 0.01))
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{streams.events} of {count} streams had their first event in {DRAIN_S:.0f} s")
    return running.tree.memory_bytes()
