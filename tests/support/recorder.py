"""A pytest plugin that writes down what the tests showed: how each promise fared, how often, and what was measured.

Ordinary runs go to pytest's cache, test by test; full ones (`--full`) of the fault tests go to `tests/fault/ledger.json`,
row by row. What was measured is printed at the end of the run. It judges nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.support.promises import LEDGER, SMOKE, Claim, LastRun, claims_of, columns, last_runs, promises

#: Days for which an outcome that nobody renews is remembered.
REMEMBERED_DAYS = 30

Value = float | str | bool


def spread_ms(seconds: Sequence[float]) -> dict[str, float]:
    """What to tell of many measured times: `figures("S1", **spread_ms(times_s))`."""
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(len(ordered) * 0.99) - 1]
    return {
        "n": len(ordered),
        "p50_ms": statistics.median(ordered) * 1000,
        "p99_ms": p99 * 1000,
        "worst_ms": ordered[-1] * 1000,
    }


#: What travels with a test's report: the rows it claims, and what it measured for them.
PROMISES, FIGURES = "promises", "figures"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one test measured for one row."""

    row: str
    test: str
    values: dict[str, Value]
    target: str

    @property
    def name(self) -> str:
        return self.test.rpartition("::")[2]

    @property
    def rounded(self) -> dict[str, Value]:
        return {
            name: round(value, 3) if isinstance(value, float) else value for name, value in self.values.items()
        }

    def __str__(self) -> str:
        return "  ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.values.items()
        )


class Recorder:
    """The plugin. `tests/conftest.py` registers it under the name "recorder"."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.is_full: bool = config.getoption("full")
        self.claims: dict[str, Claim] = {}
        self.left_out: set[str] = set()  # rows of which a test was deselected
        self.outcomes: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.figures: list[Figures] = []

    # --- what tests say -----------------------------------------------------------------------------------

    def count(self, test: str, repetitions: int) -> None:
        """A test repeats what it does so often."""
        self.counts[test] += repetitions

    def state(self, item: pytest.Item, row: str, values: dict[str, Value], target: str | None) -> None:
        """A test measured something for a row it claims."""
        claim = self.claims.get(item.nodeid)
        assert claim is not None and row in claim.rows, (
            f'{item.nodeid} states figures for {row} without @pytest.mark.promise("{row}")'
        )
        # With the test's report, which comes here from whatever process ran it.
        item.user_properties.append((FIGURES, [row, values, target or promises()[row].target]))

    # --- what pytest says ---------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.claims = {claim.test: claim for claim in claims_of(items)}
        for item in items:
            if claim := self.claims.get(item.nodeid):
                item.user_properties.append((PROMISES, list(claim.rows)))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            if claim := self.claims.pop(item.nodeid, None):
                self.left_out.update(claim.rows)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = [name for name, _ in report.user_properties]
        if PROMISES in told and (report.when == "call" or report.outcome != "passed"):
            if self.outcomes.get(report.nodeid) != "failed":
                self.outcomes[report.nodeid] = report.outcome
        if report.when == "call":
            for name, told_figures in report.user_properties:
                if name == FIGURES:
                    row, values, target = told_figures
                    self.figures.append(Figures(row, report.nodeid, values, target))

    def pytest_sessionfinish(self) -> None:
        if not self.outcomes or hasattr(
            self.config, "workerinput"
        ):  # one of several processes: it reports, no more
            return
        today = datetime.date.today()
        if self.is_full:
            root = self.config.rootpath
            runs = {**last_runs(root), **self._last_runs(today.isoformat())}
            rows = {row: dataclasses.asdict(runs[row]) for row in promises() if row in runs}
            (root / LEDGER).write_text(json.dumps(rows, indent=1) + "\n")
        elif cache := getattr(self.config, "cache", None):
            since = (today - datetime.timedelta(days=REMEMBERED_DAYS)).isoformat()
            known = {test: seen for test, seen in cache.get(SMOKE, {}).items() if seen["date"] >= since}
            seen = {
                test: {"outcome": outcome, "date": today.isoformat()} for test, outcome in self.outcomes.items()
            }
            cache.set(SMOKE, {**known, **seen})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.figures:
            return
        terminalreporter.section("figures of a full run" if self.is_full else "figures of a smoke run")
        lines = [(it.row, it.name, str(it), it.target) for it in self.figures]
        terminalreporter.write_line(columns([("row", "test", "figures", "target"), *lines]))

    def _last_runs(self, today: str) -> dict[str, LastRun]:
        """Of each row whose fault tests have all run."""
        claims = [claim for claim in self.claims.values() if claim.is_fault]
        runs = {}
        for row in {row for claim in claims for row in claim.rows} - self.left_out:
            tests = [claim.test for claim in claims if row in claim.rows]
            if all(test in self.outcomes for test in tests):
                runs[row] = LastRun(
                    date=today,
                    count=sum(self.counts.get(test, 1) for test in tests),
                    tests=len(tests),
                    passed=all(self.outcomes[test] == "passed" for test in tests),
                    figures=[{"test": it.name, **it.rounded} for it in self.figures if it.row == row],
                )
        return runs
