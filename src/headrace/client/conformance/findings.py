"""What a check finds: kept, broken, or not to be told from what was recorded."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

#: The clients that the damages speak of, in the versions whose faults they are.
PYTHON: Final = "fal-client (Python)"
JS: Final = "@fal-ai/client (JS)"


class Verdict(enum.Enum):
    """The outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, what was seen (for UNCHECKED: why there is none), and, for FAILED, what a client suffers."""

    verdict: Verdict
    seen: str
    damage: str = ""


def passed(seen: str) -> Finding:
    """Return that the promise was kept."""
    return Finding(Verdict.PASSED, seen)


def failed(seen: str, damage: str) -> Finding:
    """Return that it was broken, and who suffers."""
    return Finding(Verdict.FAILED, seen, damage)


def unchecked(why: str) -> Finding:
    """Return that it cannot be told."""
    return Finding(Verdict.UNCHECKED, why)
