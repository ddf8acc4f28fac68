"""The ledger of promises: what `tests/fault/promises.toml` says, which tests hold it, and what they last showed.

`python -m tests.support.promises` (or `make promises`) prints one line a promise. It runs no test: it collects them, and
reads what `tests/support/recorder.py` wrote down in their last runs.
"""

from __future__ import annotations

import contextlib
import io
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests/fault/promises.toml"
#: Where full runs are entered, below the root of the run.
LEDGER = Path("tests/fault/ledger.json")
#: Where in pytest's cache the outcomes of ordinary runs lie, by test.
SMOKE = "headrace/promises"


@dataclass(frozen=True, slots=True)
class Promise:
    """A row of the table."""

    row: str
    fault: str
    promise: str
    target: str
    full: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A test that claims to hold promises."""

    test: str
    rows: tuple[str, ...]

    @property
    def is_fault(self) -> bool:
        """Whether `make fault` runs it."""
        return self.test.startswith("tests/fault/")


@dataclass(frozen=True, slots=True)
class LastRun:
    """What the last full run of a row showed."""

    date: str
    count: int
    tests: int
    passed: bool
    figures: list[dict[str, Any]]


def promises() -> dict[str, Promise]:
    """Every promise there is, by its row."""
    rows = tomllib.loads(TABLE.read_text())
    return {row: Promise(row, **fields) for row, fields in rows.items()}


def last_runs(root: Path) -> dict[str, LastRun]:
    """The last full run of each row that had one."""
    if not (root / LEDGER).exists():
        return {}
    return {row: LastRun(**fields) for row, fields in json.loads((root / LEDGER).read_text()).items()}


def claims_of(items: Sequence[pytest.Item]) -> list[Claim]:
    """The tests that claim a promise. Raises `pytest.UsageError` when one claims a row that does not exist."""
    claims = [
        Claim(item.nodeid, tuple(sorted({row for mark in item.iter_markers("promise") for row in mark.args})))
        for item in items
    ]
    known = promises()
    unknown = [
        f"{claim.test} claims the promise {row!r}" for claim in claims for row in claim.rows if row not in known
    ]
    if unknown:
        raise pytest.UsageError(*unknown, f"there is no such row in {TABLE.relative_to(ROOT)}")
    return [claim for claim in claims if claim.rows]


class Collector:
    """A plugin that keeps what a collection found."""

    claims: list[Claim]
    smoke: Mapping[str, Mapping[str, str]]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.claims = claims_of(session.items)
        cache = getattr(session.config, "cache", None)
        self.smoke = cache.get(SMOKE, {}) if cache else {}


def collected(*args: str) -> Collector:
    """Collect the tests, in this process. Raises `SystemExit` with pytest's own words when that fails."""
    collector, words = Collector(), io.StringIO()
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        status = pytest.main(["--collect-only", "-q", *args], plugins=[collector])
    if status != pytest.ExitCode.OK:
        raise SystemExit(words.getvalue()[-4_000:])
    return collector


def smoke_of(claims: Sequence[Claim], outcomes: Mapping[str, Mapping[str, str]]) -> str:
    """What ordinary runs last showed of a row, by the tests that claim it."""
    seen = [outcomes[claim.test]["outcome"] for claim in claims if claim.test in outcomes]
    passed = seen.count("passed")
    if "failed" in seen:
        return "FAILED"
    return "-" if passed == 0 else "passed" if passed == len(claims) else f"{passed} of {len(claims)}"


def full_of(promise: Promise, claims: Sequence[Claim], last: LastRun | None) -> str:
    """What the last full run showed of a row."""
    if last is None:
        return "-"
    tests = sum(claim.is_fault for claim in claims)
    which = "" if last.tests == tests else f", {last.tests} of {tests} tests"
    return f"{last.count} of {promise.full} on {last.date}, {'passed' if last.passed else 'FAILED'}{which}"


def render(claims: Sequence[Claim], smoke: Mapping[str, Mapping[str, str]], full: Mapping[str, LastRun]) -> str:
    """The table, one line a promise."""
    lines = [("row", "promise", "tests", "smoke", "last full run")]
    held = 0
    for promise in promises().values():
        its = [claim for claim in claims if promise.row in claim.rows]
        held += bool(its)
        found = (
            (str(len(its)), smoke_of(its, smoke), full_of(promise, its, full.get(promise.row)))
            if its
            else ("no test", "", "")
        )
        lines.append((promise.row, promise.promise, *found))
    total = f"{len(lines) - 1} promises, {held} with a test, {len(lines) - 1 - held} without"
    return f"{columns(lines)}\n\n{total}"


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Text in columns as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


if __name__ == "__main__":
    found = collected()
    print(render(found.claims, found.smoke, last_runs(ROOT)))
