"""What fault tests ask for: how often to do it, and a place for what they measured. See docs/how-to/faults.md."""

from __future__ import annotations

import pathlib
from typing import Protocol

import pytest

from tests.support.recorder import Recorder, Value

#: Seconds a test of a full run may take. What a mark says is for a smoke run.
FULL_TIMEOUT_S = 3_600


class Count(Protocol):
    def __call__(self, *, smoke: int, full: int) -> int: ...


class StateFigures(Protocol):
    def __call__(self, row: str, *, target: str | None = None, **values: Value) -> None: ...


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("full"):
        for item in items:
            if item.path.is_relative_to(pathlib.Path(__file__).parent):
                item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_S), append=False)


@pytest.fixture(scope="session")
def recorder(request: pytest.FixtureRequest) -> Recorder:
    recorder = request.config.pluginmanager.get_plugin("recorder")
    assert isinstance(recorder, Recorder)
    return recorder


@pytest.fixture
def count(request: pytest.FixtureRequest, recorder: Recorder) -> Count:
    """How often to do it: `for turn in range(count(smoke=5, full=200))`."""

    def count(*, smoke: int, full: int) -> int:
        repetitions = full if recorder.is_full else smoke
        recorder.count(request.node.nodeid, repetitions)
        return repetitions

    return count


@pytest.fixture
def figures(request: pytest.FixtureRequest, recorder: Recorder) -> StateFigures:
    """State what was measured: `figures("S1", p99_ms=4.2, n=200)`. The target is the row's, unless told."""

    def figures(row: str, *, target: str | None = None, **values: Value) -> None:
        recorder.state(request.node, row, values, target)

    return figures
