"""The real model for tests: pulled once, and never silently missing where tests must not skip."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from headrace.cli import weights
from headrace.cli.failures import Failure

EXAMPLE = Path(__file__).parents[2] / "examples/smollm2.py"


@functools.cache
def _pulled() -> Path | Failure:
    try:
        return weights.pull(weights.MODELS["smollm2"], print)
    except Failure as failure:
        return failure


def need_model() -> Path:
    """Return the model's path, pulling it if it is absent. Skips with the reason, but fails in CI."""
    pulled = _pulled()
    if isinstance(pulled, Path):
        return pulled
    if os.environ.get("CI") == "true":
        raise pulled
    pytest.skip(str(pulled))
