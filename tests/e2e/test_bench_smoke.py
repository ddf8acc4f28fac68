"""The benchmark rig runs from end to end, on a window too short to mean anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import TABLES

ROOT = Path(__file__).parents[2]

#: Every row a run without peers and SDK must bring.
ROWS = {
    *((measure, "Headrace") for measure in ("tick", "step", "paced", "sync", "request", "memory")),
    *((measure, "raw uvloop (bound)") for measure in ("tick", "step", "paced", "request", "memory")),
    *(
        (f"{percent}, {callers} at a time", server)
        for percent in ("p50", "p99")
        for callers in (1, 16)
        for server in ("Headrace", "raw uvloop (bound)")
    ),
    *((measure, "this disk") for measure in (*TABLES["submits"], *TABLES["queued_first_event"])),
    *(
        (f"{rate}, {figure}", f"{readers} beside")
        for rate in ("200/s", "flat out")
        for figure in ("each", "own reader", "all", "there to the end")
        for readers in (0, 1, 10, 100)
    ),
}


@pytest.mark.timeout(700)
def test_a_quick_bench_brings_every_row_and_a_page(tmp_path: Path) -> None:
    """A machine that is held up for all of a window spoils its row, or the bench; then the windows are longer."""
    for seconds in ("0.2", "1", "2"):
        folder = tmp_path / seconds
        page = folder / "page.md"
        command = [sys.executable, "bench/run.py", "--quick", "--seconds", seconds]
        command += ["--results", str(folder), "--write", str(page)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220)
        if ran.returncode == 0:
            [kept] = folder.glob("*.json")
            rows = json.loads(kept.read_text())["rows"]
            spoilt = [row for row in rows if row["measure"] != "memory" and not 0 < row["value"] < float("inf")]
            if not spoilt:
                break

    assert ran.returncode == 0, ran.stderr
    assert spoilt == []
    assert {(row["measure"], row["subject"]) for row in rows} == ROWS
    assert "| Headrace " in page.read_text()
    assert "| 100 beside " in page.read_text()
