"""What a node counts and measures, for whoever watches over it: the table of metrics, and one node's numbers.

The numbers are plain ones, all of them there from the start at zero; `prometheus_client` puts them in words when
it is asked to. (Its own Counter and Histogram cost five times as much for each request, and add a `_created` to
each series unless a switch of the whole process says no.) Gauges are not kept at all: they are read where the
truth is, at the moment of the scrape.

One thread: whoever counts and whoever scrapes share the node's loop. This file knows no HTTP and no clock.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from headrace.core.errors import ERROR_TYPES
from headrace.core.routes import View

#: The values of a metric's labels, in the table's order: the name of one series.
Labels = tuple[str, ...]

VIEWS: Final[Labels] = tuple(view.value for view in View)

#: How a request can end: well, or with an error type of the wire.
ENDINGS: Final[Labels] = ("completed", *ERROR_TYPES)

#: Why a runner can end, and what that means.
RUNNER_ENDS: Final[Mapping[str, str]] = {
    "died": "Its process ended by itself: a crash, an exit, the kernel's OOM killer.",
    "load_failed": "It was never ready: the file, `setup()`, or too long a start.",
    "retired": "It held a request that did not stop when it was told to.",
    "idle": "It was one too many for `keep_alive` seconds.",
    "replaced": "Its app was reloaded.",
    "stopped": "Its process was stopped (SIGSTOP).",
    "silent": "It gave no sign of life for `runner_silence_s`.",
    "memory": "It held more than the app's `memory_limit`.",
    "node": "The node was leaving.",
}

#: Upper bounds in seconds, for all histograms. A first token takes milliseconds, a video an hour; a quantile read
#: from them is at most 2.5 times off up to ten seconds, where people watch, and coarser beyond.
BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
)  # fmt: skip

#: The text exposition format; every Prometheus reads it.
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. `labels` has every value that each label can have; for the app's name, none."""

    type: Literal["counter", "gauge", "histogram"]
    labels: Mapping[str, Labels]
    meaning: str
    unit: str

    def series(self, app: str | None) -> Iterator[Labels]:
        """Return every series that this metric can have for one app, or for the node itself (None)."""
        known = self.labels if app is None else {**self.labels, "app": (app,)}
        return itertools.product(*known.values())


_APP: Final[Mapping[str, Labels]] = {"app": ()}

METRICS: Final[Mapping[str, Metric]] = {
    # Requests
    "headrace_requests_total": Metric(
        "counter", {**_APP, "view": VIEWS, "ending": ENDINGS}, "Requests that have ended, by how.", "requests"
    ),
    "headrace_requests": Metric(
        "gauge",
        {**_APP, "state": ("waiting", "running")},
        "Requests that wait for a slot or hold one.",
        "requests",
    ),
    "headrace_requests_shed_total": Metric(
        "counter", {}, "Requests ended or refused because the node's memory bounds were reached.", "requests"
    ),
    "headrace_request_seconds": Metric(
        "histogram", {**_APP, "view": VIEWS}, "From a request's arrival to its end.", "seconds"
    ),
    "headrace_first_event_seconds": Metric(
        "histogram", _APP, "From a stream's arrival to its first event.", "seconds"
    ),
    "headrace_slot_wait_seconds": Metric(
        "histogram", _APP, "From a request's arrival to its slot in a runner.", "seconds"
    ),
    "headrace_work_after_leave_seconds_total": Metric(
        "counter", _APP, "Time that requests went on in their runner after their last reader had left.", "seconds"
    ),
    "headrace_events_total": Metric("counter", _APP, "Events of requests that have ended.", "events"),
    # Readers
    "headrace_connections": Metric("gauge", {}, "Open connections.", "connections"),
    "headrace_readers_stalled_total": Metric(
        "counter", _APP, "Readers cut off because they took no byte for too long.", "readers"
    ),
    "headrace_held_bytes": Metric(
        "gauge", {"kind": ("events", "bodies")}, "Memory held by the requests that are alive.", "bytes"
    ),
    # Files
    "headrace_files": Metric("gauge", {}, "Files that are kept, at the last sweep.", "files"),
    "headrace_files_bytes": Metric(
        "gauge", {}, "Bytes of these files on the disk; shared ones count once.", "bytes"
    ),
    "headrace_uploads": Metric("gauge", {}, "Uploads that are not finished.", "uploads"),
    "headrace_uploads_bytes": Metric(
        "gauge", {}, "What has come of them, as it counts against the bound.", "bytes"
    ),
    # Runners
    "headrace_runners": Metric(
        "gauge",
        {**_APP, "state": ("working", "leaving")},
        "Runners that take requests, or only finish theirs.",
        "runners",
    ),
    "headrace_runner_starts_total": Metric("counter", _APP, "Runners started.", "runners"),
    "headrace_runner_ends_total": Metric(
        "counter", {**_APP, "reason": tuple(RUNNER_ENDS)}, "Runners ended, by why.", "runners"
    ),
    "headrace_output_dropped_bytes_total": Metric(
        "counter", _APP, "What runners printed faster than the log takes it.", "bytes"
    ),
    "headrace_devices": Metric(
        "gauge", {"state": ("free", "leased")}, "GPUs, by whether a runner has them.", "devices"
    ),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a gauge is right now. Raises `ValueError` for a name or a label that the table does not have."""

    name: str
    labels: Mapping[str, str]
    value: float

    def __post_init__(self) -> None:
        metric = METRICS.get(self.name)
        if metric is None or metric.type != "gauge":
            raise ValueError(f"no gauge is named {self.name!r}")
        if self.labels.keys() != metric.labels.keys() or any(
            value not in metric.labels[label] for label, value in self.labels.items() if label != "app"
        ):
            raise ValueError(f"{self.name} has no series {dict(self.labels)}")

    @property
    def series(self) -> Labels:
        """The values of the labels, in the table's order."""
        return tuple(self.labels[label] for label in METRICS[self.name].labels)


class Count:
    """A number that only rises."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float) -> None:
        """Add `amount`, zero or more."""
        self.value += amount


class Histogram:
    """How many durations fell between which bounds, and their sum."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)  # the last for what is over all bounds
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration. A bound belongs to its own bucket, as `le` (less or equal) has it."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def cumulated(self) -> list[tuple[str, float]]:
        """Return for each bound how many were not over it, as Prometheus wants it."""
        bounds = (*map(str, BUCKETS_S), "+Inf")
        return list(zip(bounds, itertools.accumulate(self.counts), strict=True))


class Numbers:
    """All counters and histograms of one app, or of the node (None): every series there can be, at zero.

    A series that first appears with its first failure hides that failure from `increase()`; and a series that is
    not here cannot be counted: it raises `KeyError`.
    """

    def __init__(self, app: str | None) -> None:
        mine = {name: metric for name, metric in METRICS.items() if ("app" in metric.labels) == (app is not None)}
        self.counters = {
            name: {labels: Count() for labels in metric.series(app)}
            for name, metric in mine.items()
            if metric.type == "counter"
        }
        self.histograms = {
            name: {labels: Histogram() for labels in metric.series(app)}
            for name, metric in mine.items()
            if metric.type == "histogram"
        }


class AppMeters:
    """What one app's requests and runners are counted with. One call a request, none an event."""

    def __init__(self, app: str) -> None:
        numbers = self.numbers = Numbers(app)
        self._app = app
        self._requests = numbers.counters["headrace_requests_total"]
        self._request_seconds = numbers.histograms["headrace_request_seconds"]
        self._runner_ends = numbers.counters["headrace_runner_ends_total"]
        own = (app,)
        self._events = numbers.counters["headrace_events_total"][own]
        self._first_event = numbers.histograms["headrace_first_event_seconds"][own]
        self._slot_wait = numbers.histograms["headrace_slot_wait_seconds"][own]
        self._work_after_leave = numbers.counters["headrace_work_after_leave_seconds_total"][own]
        self._runner_starts = numbers.counters["headrace_runner_starts_total"][own]
        self._output_dropped = numbers.counters["headrace_output_dropped_bytes_total"][own]
        self._readers_stalled = numbers.counters["headrace_readers_stalled_total"][own]

    # --- requests ---------------------------------------------------------------------------------------

    def request_ended(self, view: str, ending: str, seconds: float, events: int) -> None:
        """Count a request of one of `VIEWS` that ended as one of `ENDINGS`, `seconds` after its arrival.

        Raises `KeyError` for any other view or ending, and counts nothing then.
        """
        self._requests[self._app, view, ending].add(1)
        self._request_seconds[self._app, view].observe(seconds)
        self._events.add(events)

    def first_event(self, seconds: float) -> None:
        """A request has its first event, `seconds` after its arrival."""
        self._first_event.observe(seconds)

    def waited(self, seconds: float) -> None:
        """A request got its slot, `seconds` after its arrival."""
        self._slot_wait.observe(seconds)

    def worked_after_leave(self, seconds: float) -> None:
        """A request went on in its runner for `seconds` after its last reader had left."""
        self._work_after_leave.add(seconds)

    def reader_stalled(self) -> None:
        """A reader was cut off because it took nothing."""
        self._readers_stalled.add(1)

    # --- runners ----------------------------------------------------------------------------------------

    def runner_started(self) -> None:
        """A runner's process was started."""
        self._runner_starts.add(1)

    def runner_ended(self, reason: str) -> None:
        """A runner's process is gone, for one of `RUNNER_ENDS`. Raises `KeyError` for any other reason."""
        self._runner_ends[self._app, reason].add(1)

    def output_dropped(self, bytes_: int) -> None:
        """A runner printed `bytes_` more than the log takes."""
        self._output_dropped.add(bytes_)


class Meters:
    """All metrics of one node. Several nodes in one process do not meet: nothing here is global."""

    def __init__(self) -> None:
        self._node = Numbers(None)
        self._apps: dict[str, AppMeters] = {}
        self._watched: list[Callable[[], Iterable[Reading]]] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)
        # Under the names that every dashboard knows: process_resident_memory_bytes and so on. Linux only.
        ProcessCollector(registry=self._registry)

    def app(self, name: str) -> AppMeters:
        """Return the meters of the app `name`, the same ones each time.

        An app that is not served any more keeps its numbers until the node ends, as counters must.
        """
        if name not in self._apps:
            self._apps[name] = AppMeters(name)
        return self._apps[name]

    def shed(self, count: int) -> None:
        """`count` requests were ended or refused because the node's memory bounds were reached."""
        self._node.counters["headrace_requests_shed_total"][()].add(count)

    def watch(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Ask `read` for its gauges at each scrape.

        Readings of the same series add up: an app that is being reloaded has two pools for a while.
        """
        self._watched.append(read)

    def text(self) -> tuple[bytes, bytes]:
        """Return the content type and the body that answer a scrape."""
        return CONTENT_TYPE, generate_latest(self._registry)

    # --- what the registry asks -------------------------------------------------------------------------

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """Yield every metric of the table with all its series."""
        gauges = self._gauges()
        owners = [self._node, *(app.numbers for app in self._apps.values())]
        for name, metric in METRICS.items():
            match metric.type:
                case "counter":
                    counter = CounterMetricFamily(name, metric.meaning, labels=tuple(metric.labels))
                    for owner in owners:
                        for labels, count in owner.counters.get(name, {}).items():
                            counter.add_metric(labels, count.value)
                    yield counter
                case "histogram":
                    histogram = HistogramMetricFamily(name, metric.meaning, labels=tuple(metric.labels))
                    for owner in owners:
                        for labels, durations in owner.histograms.get(name, {}).items():
                            histogram.add_metric(labels, durations.cumulated(), durations.sum_s)
                    yield histogram
                case "gauge":
                    gauge = GaugeMetricFamily(name, metric.meaning, labels=tuple(metric.labels))
                    for labels, value in gauges[name].items():
                        gauge.add_metric(labels, value)
                    yield gauge

    def _gauges(self) -> dict[str, dict[Labels, float]]:
        gauges: dict[str, dict[Labels, float]] = {name: {} for name in METRICS}
        for reading in itertools.chain.from_iterable(read() for read in self._watched):
            series = gauges[reading.name]
            series[reading.series] = series.get(reading.series, 0.0) + reading.value
        return gauges
