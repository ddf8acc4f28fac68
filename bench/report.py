"""Rows, ratios and bars: as text for the terminal, as JSON for later, as the page docs/reference/performance.md.

It computes nothing but medians and ratios, and knows nothing of how a figure was come by.
"""

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

OURS = "Headrace"
LITSERVE = "LitServe 0.2.19"
FASTAPI = "FastAPI + StreamingResponse"
RAW = "raw uvloop (bound)"
HTTPX_SSE = "httpx + httpx-sse"

PAGE = Path(__file__).parent / "page.md"

#: The measures of each table, in its columns' order, as rows name them.
TABLES = {
    "servers": ("tick", "step", "paced", "sync", "request"),
    "first_event": ("p50, 1 at a time", "p99, 1 at a time", "p50, 16 at a time", "p99, 16 at a time"),
    "memory": ("memory",),
    "sdk": ("SDK sync", "SDK async"),
    "submits": (
        "a sync, p50",
        "submits",
        "64 submits, p50",
        "64 submits, p99",
        "CPU of a submit",
        "submits beside work",
        "work ended",
    ),
    "queued_first_event": (
        "a sync, p50",
        "a sync, p99",
        "one submit, p50",
        "one submit, p99",
        "its first event, p50",
        "its first event, p99",
        "of it syncs",
    ),
    "attach": (
        "200/s, each",
        "200/s, own reader",
        "flat out, each",
        "flat out, own reader",
        "flat out, all",
        "flat out, there to the end",
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what was measured of whom, the median of the windows and their extremes."""

    measure: str
    subject: str
    value: float
    low: float
    high: float
    unit: str
    events_per_receive: float | None = None  # the load generator's regime

    @classmethod
    def of(
        cls, measure: str, subject: str, values: Sequence[float], unit: str, regime: float | None = None
    ) -> Self:
        """Return the row for a figure that was taken several times."""
        return cls(measure, subject, statistics.median(values), min(values), max(values), unit, regime)


@dataclass(frozen=True, slots=True)
class Bar:
    """How many times our cost the other's has to be: `least` for a release, `goal` for the project."""

    measure: str
    against: str
    least: float | None
    goal: float | None


BARS = (
    Bar("tick", LITSERVE, 30, 50),
    Bar("tick", FASTAPI, 1.5, 2),
    Bar("sync", LITSERVE, 50, 100),
    Bar("sync", FASTAPI, None, 25),
    Bar("step", LITSERVE, None, 10),
    Bar("paced", LITSERVE, None, 3),
    Bar("request", LITSERVE, None, 12),
    Bar("request", FASTAPI, None, 2),
    Bar("SDK sync", HTTPX_SSE, 3, 4),
    Bar("SDK async", HTTPX_SSE, 4, 6),
)


def text(rows: Sequence[Row]) -> str:
    """Return every table there are rows for, fit for a terminal."""
    tables = [cost_table(rows, measures) for measures in TABLES.values()] + [bars_table(rows)]
    return "\n\n".join(table for table in tables if table)


def page(rows: Sequence[Row]) -> str:
    """Return the Markdown page."""
    tables = {name: cost_table(rows, measures) or "Not in this run." for name, measures in TABLES.items()}
    return PAGE.read_text().format(**tables, bars=bars_table(rows), machine=machine(), regime=regime_table(rows))


def write_json(rows: Sequence[Row], directory: Path) -> Path:
    """Write the rows with the machine and the time, and return the file's path."""
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = directory / f"{now:%Y%m%dT%H%M%SZ}.json"
    document = {"at": now.isoformat(), "machine": machine(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False))
    return path


def machine() -> str:
    """Return in one line what the figures were taken on."""
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    cores = int(facts["processor"]) + 1
    model = facts.get("model name", platform.machine())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{cores} cores of {model}, {kernel}, {python}, {datetime.now(UTC):%Y-%m-%d}"


def cost_table(rows: Sequence[Row], measures: Sequence[str]) -> str:
    """Return a table of subjects by measures: the figure, and how many times ours it is."""
    chosen = {(row.subject, row.measure): row for row in rows if row.measure in measures}
    if not chosen:
        return ""
    subjects = list(dict.fromkeys(subject for subject, _ in chosen))
    units = {row.measure: row.unit for row in chosen.values()}
    header = ["", *(f"{measure}, {units[measure]}" for measure in measures if measure in units)]
    lines = [
        [subject, *(_cell(chosen, subject, name) for name in measures if name in units)] for subject in subjects
    ]
    return _table(header, lines)


def _cell(rows: dict[tuple[str, str], Row], subject: str, measure: str) -> str:
    row, ours = rows.get((subject, measure)), rows.get((OURS, measure))
    if row is None:
        return "–"
    if ours is None or subject == OURS:
        return figure(row.value)
    return f"{figure(row.value)} ({figure(row.value / ours.value)}×)"


def figure(value: float) -> str:
    """Return about three digits, and never an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def regime_table(rows: Sequence[Row]) -> str:
    """Return how many events came with each receive of the load generator, and the spread of the windows."""
    return _table(
        ["workload", "server", "median", "lowest", "highest", "events per receive"],
        [
            [row.measure, row.subject, figure(row.value), figure(row.low), figure(row.high), f"{regime:.1f}"]
            for row in rows
            if (regime := row.events_per_receive) is not None
        ],
    )


def bars_table(rows: Sequence[Row]) -> str:
    """Return the bars with what was reached, for the measures there are rows for."""
    values = {(row.subject, row.measure): row.value for row in rows}
    lines = []
    for bar in BARS:
        ours, theirs = values.get((OURS, bar.measure)), values.get((bar.against, bar.measure))
        if ours is None or theirs is None:
            continue
        reached = theirs / ours
        least, goal = (f"≥ {bound:g}×" if bound else "–" for bound in (bar.least, bar.goal))
        lines.append([bar.measure, bar.against, f"{figure(reached)}×", least, goal, _verdict(bar, reached)])
    return _table(["measure", "against", "reached", "bar", "goal", ""], lines) if lines else ""


def _verdict(bar: Bar, reached: float) -> str:
    if bar.goal is not None and reached >= bar.goal:
        return "goal"
    if bar.least is not None:
        return "bar" if reached >= bar.least else "below the bar"
    return "below the goal"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns, which a terminal shows as well."""
    cells = [header, *lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    ruler = ["-" * width for width in widths]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths)] for line in [header, ruler, *cells[1:]]]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
