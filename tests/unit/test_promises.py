"""The ledger of promises tells the truth about the tests."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.promises import Claim, LastRun, collected, full_of, promises, render, smoke_of
from tests.support.recorder import spread_ms

ROOT = Path(__file__).parents[2]

ROWS = [
    f"{letter}{number}"
    for letter, last in [("S", 13), ("R", 8), ("G", 7), ("Q", 10), ("P", 7), ("H", 10), ("A", 14), ("C", 3)]
    for number in range(1, last + 1)
]

#: Promises about streams, readers and runners that no test holds yet. Whoever writes one takes its row out of here.
WITHOUT_A_TEST = []


@pytest.fixture(scope="module")
def claims():
    """Every test that claims a promise, as a collection of all tests finds them."""
    program = "from tests.support.promises import collected; print(collected().claims)"
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert told.returncode == 0, told.stderr
    return eval(told.stdout, {"Claim": Claim})
