"""What only a queue can do, measured of ours alone: submits that are answered when they are safe on the disk.

    submit to first event   an idle server, one request at a time; its reader comes as soon as it has the id
    submits                 64 callers, each submitting again as soon as it has its answer

What one sync takes is measured in the server's own data directory and stands beside them. `SLOW` is the same server
on a disk whose every sync takes 4 ms longer.
"""

import json
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from bench.load import Caller, Callers, Streams, Submitter, get, post
from bench.measure import DRAIN_S, Window, closed_loop_window, percentile
from bench.report import Row
from bench.servers import Running, Server, apart, headrace_serving
from tests.support import disk

DISK = Server(
    "this disk", "queue", headrace_serving("queued_app.py"), "/bench/free/{}/stream".format, is_peer=False
)
SLOW = replace(DISK, name="4 ms more a sync", key="queue-slow", sync_ms=4.0)
DISKS = (DISK, SLOW)

#: Callers who submit at a time, and what they submit: an image model's input.
SUBMITTERS = 64
BODY = b'{"prompt": "a watercolour of a mill by a river, early in the morning", "seed": 42}'

#: Requests a second of window that are made one at a time; seconds in which the one before comes to rest on the disk.
SINGLES_PER_S = 30
REST_S = 0.15
#: Syncs before a first event: one for the submit, one for the attempt that begins.
SYNCS_TO_FIRST_EVENT = 2

#: Seconds in which what was submitted to the working app must have ended.
DRAIN_ALL_S = 30.0

ENDED = re.compile(rb'headrace_requests_total{app="bench/free",ending="completed",view="run"} (\d+)')


#: Overwrites 8 KiB of a file at each line of input, and prints the seconds that its sync took.
SYNCER = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(file, bytes(4 << 20), 0)
os.fsync(file)
for turn, _ in enumerate(sys.stdin):
    os.pwrite(file, bytes(8192), turn % 512 * 8192)
    began = time.perf_counter()
    os.fdatasync(file)
    print(time.perf_counter() - began, flush=True)
"""


class Reader(Caller):
    """A connection, opened in advance, that watches the requests it is told of: from their start to their end."""

    def __init__(self, port: int) -> None:
        super().__init__(port, post("/bench/free/short/stream", BODY))
        self.first_event_at()

    def watch(self, id_: str) -> None:
        """Read a request's whole stream."""
        self._request = get(f"/bench/free/requests/{id_}/stream")
        self.ask()

    def first_event_at(self) -> float:
        """Read the stream to its end; return when its first event was there, by time.perf_counter()."""
        times: list[float] = []
        while not self.read(times):
            pass
        return self.asked + times[0]


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds, of as many requests as were made one at a time."""

    syncs: list[float]  # of the disk, shortly before each
    acks: list[float]  # to its acknowledgement
    first_events: list[float]  # to the first event that a reader sees


def waits_of_single_requests(running: Running, requests: int) -> Waits:
    """Submit to an idle server and watch, again and again."""
    waits = Waits([], [], [])
    submit = post("/queue/bench/free/short", BODY)
    with closing(Reader(running.port)) as reader, syncer(running) as sync:
        for _ in range(requests):
            time.sleep(REST_S)
            waits.syncs.append(sync())
            with closing(Submitter(running.port, submit)) as submitter:
                while not submitter.read(waits.acks):
                    pass
                reader.watch(json.loads(submitter.body)["request_id"])
                waits.first_events.append(reader.first_event_at() - submitter.asked)
    return waits


@contextmanager
def slot_held(running: Running) -> Iterator[None]:
    """Keep the only slot of the busy app, so that what is submitted to it waits."""
    until_ns = time.time_ns() + 600 * 10**9
    with closing(Streams()) as holder:
        holder.open(running.port, post("/bench/busy/silent/stream", b'{"until_ns":%d}' % until_ns))
        holder.read_until_begun(time.monotonic() + DRAIN_S)
        yield


def ended(running: Running) -> int:
    """Return how many submits the working app has brought to their end."""
    with closing(Submitter(running.port, get("/metrics"))) as scraper:
        while not scraper.read([]):
            pass
    return int(ENDED.findall(scraper.body)[0])


def wait_until_ended(running: Running, count: int) -> None:
    """Return when the queue of the working app is empty, after so many of its requests. Raises TimeoutError."""
    deadline = time.monotonic() + DRAIN_ALL_S
    while ended(running) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ended(running)} of {count} submits have ended in {DRAIN_ALL_S:.0f} s")
        time.sleep(0.2)


def submit_window(running: Running, app: str, seconds: float) -> Window:
    """Measure a window of submits in a closed loop."""
    request = post(f"/queue/bench/{app}/answer", BODY)
    return closed_loop_window(running, Callers(running.port, request, SUBMITTERS, Submitter), seconds)


def worked_window(running: Running, seconds: float) -> tuple[Window, float]:
    """Measure a window of submits that are worked off meanwhile; return it and how many ended a second in all."""
    before, began = ended(running), time.perf_counter()
    request = post("/queue/bench/free/answer", BODY)
    callers = Callers(running.port, request, SUBMITTERS, Submitter)
    window = closed_loop_window(running, callers, seconds)
    wait_until_ended(running, before + callers.answers)
    return window, (ended(running) - before) / (time.perf_counter() - began)


@contextmanager
def syncer(running: Running) -> Iterator[Callable[[], float]]:
    """Return what takes the seconds of one sync in the server's data directory, as the server has that disk."""
    command = [sys.executable, "-c", SYNCER, str(running.directory / "sync")]
    environment = running.server.environment(str(running.directory))
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:

        def sync() -> float:
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        yield sync
        process.stdin.close()


def can_measure(server: Server) -> bool:
    """Whether this machine can: to slow a disk down takes a C compiler."""
    if server.sync_ms and disk.COMPILER is None:
        print(f"no C compiler here: {server.name} is left out", file=sys.stderr)
        return False
    return True


def measure(server: Server, rounds: int, seconds: float) -> list[Row]:
    """Return what submits take on one disk.

    The many come before the one at a time: until the first checkpoint the store's log grows, and a file that grows
    syncs more slowly than one that is overwritten, as it is from then on.
    """
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    singles: dict[str, list[float]] = defaultdict(list)
    with apart([server]) as [running], slot_held(running):
        for _ in range(rounds):
            waiting = submit_window(running, "busy", seconds)
            working, ended_per_s = worked_window(running, seconds)
            values["submits", "/s"].append(waiting.count / waiting.seconds)
            values["CPU of a submit", "µs"].append(waiting.cpu_us)
            values["submits beside work", "/s"].append(working.count / working.seconds)
            values["work ended", "/s"].append(ended_per_s)
            for percent in (50, 99):
                values[f"64 submits, p{percent}", "ms"].append(percentile(waiting.first_events_s, percent) * 1e3)

            waits = waits_of_single_requests(running, max(2, int(seconds * SINGLES_PER_S)))
            singles["a sync"] += waits.syncs
            singles["one submit"] += waits.acks
            singles["its first event"] += waits.first_events
    for name, times in singles.items():
        for percent in (50, 99):
            values[f"{name}, p{percent}", "ms"].append(percentile(times, percent) * 1e3)
    of_it = (
        SYNCS_TO_FIRST_EVENT * statistics.median(singles["a sync"]) / statistics.median(singles["its first event"])
    )
    values["of it syncs", "%"].append(100 * of_it)
    return [Row.of(name, server.name, taken, unit) for (name, unit), taken in values.items()]
