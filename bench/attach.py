"""One stream and those who read it beside the one who started it: what each of them costs, and whom they slow.

A stream has one log; a reader who comes later is a position in it. The one who started the stream sets its pace.
"""

import re
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass

from bench.load import Streams, get, post
from bench.measure import DRAIN_S, WARM_UP_S, Window
from bench.queued import DISK, slot_held
from bench.report import Row
from bench.servers import Running, apart

#: Readers beside the one who started the stream.
READERS = (0, 1, 10, 100)
#: Events a second of the stream, by the name its rows get; 0 is flat out.
RATES = {"200/s": 200, "flat out": 0}
#: Seconds in which all readers come, before the stream goes on.
COMING_S = 0.3

REQUEST_ID = re.compile(rb"\r\nx-fal-request-id: ([^\r]+)")


class Watched(Streams):
    """One stream and all who read it. The first opened is its own reader, who sets its pace."""

    def __init__(self) -> None:
        super().__init__()
        self.own_events = 0
        self.id = ""
        self._own = -1

    def _read(self, descriptor: int) -> None:
        before = self.events
        super()._read(descriptor)
        if descriptor == self._own:
            self.own_events += self.events - before

    def _end_of_head(self, descriptor: int, size: int) -> int:
        if self._own < 0:
            self._own = descriptor
            self.id = REQUEST_ID.findall(self._buffer, 0, size)[0].decode()
        return super()._end_of_head(descriptor, size)


@dataclass(frozen=True, slots=True)
class Watching:
    """What a window over one stream showed."""

    all: Window  # events that came to any reader
    own: int  # those that came to the one who set its pace
    left: int  # readers that were still there: that the log had not passed


def patient_window(running: Running, others: int, rate_hz: int, seconds: float) -> Watching:
    """As `attach_window`; on a machine too busy for all readers to come in time, once more with ten times as much."""
    try:
        return attach_window(running, others, rate_hz, seconds, COMING_S)
    except TimeoutError:
        return attach_window(running, others, rate_hz, seconds, 10 * COMING_S)


def attach_window(running: Running, others: int, rate_hz: int, seconds: float, coming_s: float) -> Watching:
    """Measure a window of `seconds` over one stream of `rate_hz` events a second (0: flat out) and its readers.

    Raises TimeoutError when a reader has not come within `coming_s` and the warm-up.
    """
    port, now_ns = running.port, time.time_ns()
    opens = time.monotonic() + coming_s + WARM_UP_S
    begins_ns, ends_ns = now_ns + int(coming_s * 1e9), now_ns + int((coming_s + WARM_UP_S + seconds + 0.1) * 1e9)
    body = b'{"rate_hz":%d,"from_ns":%d,"until_ns":%d}' % (rate_hz, begins_ns, ends_ns)
    with closing(Watched()) as readers:
        readers.open(port, post("/bench/free/watched/stream", body))
        readers.read_until_begun(opens)
        for _ in range(others):
            readers.open(port, get(f"/bench/free/requests/{readers.id}/stream"))
        readers.read_until_begun(opens)
        readers.read_until(opens)

        began, events, own, receives = time.perf_counter(), readers.events, readers.own_events, readers.receives
        cpu_ns = running.tree.cpu_ns()
        readers.read_until(opens + seconds)
        window = Window(
            count=readers.events - events,
            cpu_ns=running.tree.cpu_ns() - cpu_ns,
            seconds=time.perf_counter() - began,
            receives=readers.receives - receives,
        )
        watching = Watching(window, readers.own_events - own, readers.opened)

        readers.read_until(time.monotonic() + DRAIN_S)
        return watching


def measure(rounds: int, seconds: float) -> list[Row]:
    """Return what readers cost, in windows taken in turn."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with apart([DISK]) as [running], slot_held(running):  # so the busy app is up too, and no load is in a window
        for _ in range(rounds):
            for rate, rate_hz in RATES.items():
                for others in READERS:
                    window = patient_window(running, others, rate_hz, seconds)
                    subject, all_ = f"{others} beside", window.all
                    values[f"{rate}, each", subject, "µs/event"].append(all_.cpu_us)
                    values[f"{rate}, own reader", subject, "events/s"].append(window.own / all_.seconds)
                    values[f"{rate}, all", subject, "events/s"].append(all_.count / all_.seconds)
                    values[f"{rate}, there to the end", subject, "readers"].append(window.left)
    return [Row.of(name, subject, taken, unit) for (name, subject, unit), taken in values.items()]
