"""The ledger of promises tells the truth about the tests."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.promises import Claim, LastRun, full_of, promises, render, smoke_of
from tests.support.recorder import spread_ms

ROOT = Path(__file__).parents[2]

# Each lists all tests there are in a process of its own, which is seconds of work on a free machine.
pytestmark = pytest.mark.timeout(250)

ROWS = [
    f"{letter}{number}"
    for letter, last in [("S", 13), ("R", 8), ("G", 7), ("Q", 10), ("P", 7), ("H", 10), ("A", 14), ("C", 3)]
    for number in range(1, last + 1)
]


def python(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


# --- the table and the tests ----------------------------------------------------------------------------------


def test_every_row_is_there_once_and_in_order():
    assert list(promises()) == ROWS


@pytest.mark.parametrize("promise", promises().values(), ids=list(promises()))
def test_a_row_is_told_in_a_line_each(promise):
    for text in (promise.fault, promise.promise, promise.target):
        assert 0 < len(text) <= 120
        assert text == text.strip()
        assert text.isprintable()
    assert len(promise.promise) <= 90
    assert promise.full >= 1


def test_every_claim_is_for_a_row_that_exists_and_every_row_of_streams_and_runners_has_one():
    program = "import tests.support.promises as p; print([row for it in p.collected().claims for row in it.rows])"
    told = python("-c", program)

    assert told.returncode == 0, told.stdout + told.stderr
    claimed = set(re.findall(r"\w\d+", told.stdout))
    assert claimed <= set(ROWS)
    assert [row for row in ROWS if row[0] in "SR" and row not in claimed] == []


# --- what a run does with them --------------------------------------------------------------------------------


def project(folder: Path, test: str) -> list[str]:
    """A fault test in a project of its own, and how to run it with our plugins and settings."""
    (folder / "tests/fault").mkdir(parents=True)
    (folder / "tests/fault/test_it.py").write_text(f"import pytest\n\n{test}")
    return ["-m", "pytest", "-q", "-p", "tests.conftest", "-p", "tests.fault.conftest", "-c", str(ROOT / "pyproject.toml"),
            "--rootdir", str(folder), "-o", "cache_dir=cache", str(folder)]  # fmt: skip


def test_a_claim_for_a_row_that_does_not_exist_stops_the_run(tmp_path):
    ran = python(*project(tmp_path, '@pytest.mark.promise("Z9")\ndef test_it(): pass\n'))

    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "tests/fault/test_it.py::test_it claims the promise 'Z9'" in ran.stderr


def test_an_ordinary_run_is_remembered_test_by_test(tmp_path):
    args = project(
        tmp_path,
        '@pytest.mark.promise("S1")\n@pytest.mark.parametrize("i", [1, 2])\ndef test_it(i): assert i == 1\n',
    )
    ran = python(*args)

    assert ran.returncode == pytest.ExitCode.TESTS_FAILED
    known = json.loads((tmp_path / "cache/v/headrace/promises").read_text())
    assert {test: seen["outcome"] for test, seen in known.items()} == {
        "tests/fault/test_it.py::test_it[1]": "passed",
        "tests/fault/test_it.py::test_it[2]": "failed",
    }


def test_a_full_run_is_entered_in_the_ledger_row_by_row(tmp_path):
    args = project(
        tmp_path,
        """
@pytest.mark.promise("S1")
@pytest.mark.parametrize("way", ["fin", "rst"])
def test_it(way, count, figures):
    figures("S1", n=count(smoke=1, full=100), p99_ms=1.23456)

@pytest.mark.promise("S3", "H10")
def test_that_fails(): assert False

@pytest.mark.promise("S13")
@pytest.mark.parametrize("part", ["taken", "left"])
def test_in_part(part): pass
""",
    )
    ledger = tmp_path / "tests/fault/ledger.json"
    old = {"date": "2020-01-01", "count": 7, "tests": 1, "passed": True, "figures": []}
    ledger.write_text(json.dumps({"S3": old, "S13": old}))

    ran = python(*args, "--full", "-k", "not left")

    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout + ran.stderr
    rows = json.loads(ledger.read_text())
    today = rows["S1"].pop("date")
    assert rows["S1"] == {
        "count": 200, "tests": 2, "passed": True,
        "figures": [{"test": f"test_it[{way}]", "n": 100, "p99_ms": 1.235} for way in ("fin", "rst")],
    }  # fmt: skip
    assert rows["S3"] == rows["H10"] == {"date": today, "count": 1, "tests": 1, "passed": False, "figures": []}
    assert rows["S13"] == old  # of its two tests one was left out
    assert list(rows) == ["S1", "S3", "S13", "H10"]
    assert re.search(
        r"figures of a full run.*\nrow +test.*\nS1 +test_it\[fin\]  n=100  p99_ms=1.23  p99 <= 100 ms", ran.stdout
    )


# --- the page -------------------------------------------------------------------------------------------------

CLAIMS = [
    Claim("tests/fault/test_x.py::test_one", ("S1",)),
    Claim("tests/fault/test_x.py::test_two", ("S1", "S3")),
    Claim("tests/unit/test_y.py::test_three", ("S1",)),
]
PASSED, FAILED = {"outcome": "passed", "date": ""}, {"outcome": "failed", "date": ""}
ONE, TWO, THREE = (claim.test for claim in CLAIMS)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({}, "-"),
        ({ONE: PASSED}, "1 of 3"),
        ({ONE: PASSED, TWO: PASSED, THREE: PASSED}, "passed"),
        ({ONE: PASSED, TWO: FAILED}, "FAILED"),
        ({ONE: {"outcome": "skipped", "date": ""}}, "-"),
        ({"tests/gone.py::test_gone": FAILED}, "-"),
    ],
)
def test_smoke_has_passed_when_all_tests_of_the_row_have(outcomes, expected):
    assert smoke_of(CLAIMS, outcomes) == expected


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, "-"),
        (LastRun("2026-01-02", 200, 2, True, []), "200 of 200 on 2026-01-02, passed"),
        (LastRun("2026-01-02", 5, 2, False, []), "5 of 200 on 2026-01-02, FAILED"),
        (LastRun("2026-01-02", 100, 1, True, []), "100 of 200 on 2026-01-02, passed, 1 of 2 tests"),
    ],
)
def test_a_full_run_is_told_with_its_count_its_date_and_what_it_left_out(last, expected):
    assert full_of(promises()["S1"], CLAIMS, last) == expected


def test_the_page_has_a_line_for_every_promise_and_says_which_have_no_test():
    lines = render(CLAIMS, {TWO: PASSED}, {}).splitlines()

    assert [line.split()[0] for line in lines[1:-2]] == ROWS
    assert lines[1].split()[-5:] == ["3", "1", "of", "3", "-"]
    assert lines[2].endswith("  no test")
    assert lines[-1] == "72 promises, 2 with a test, 70 without"


def test_a_spread_tells_the_middle_the_99th_and_the_worst():
    expected = {"n": 200, "p50_ms": 100.5, "p99_ms": 198.0, "worst_ms": 200.0}

    assert spread_ms([i / 1000 for i in range(200, 0, -1)]) == pytest.approx(expected)
