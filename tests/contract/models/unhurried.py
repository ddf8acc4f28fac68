"""The models of tests/support/mortal.py, each with the one deadline that is to pass, if any: none passes by mistake.

There, one app has several, of half a second: a machine that is held up for longer meets one in place of the ending
that was asked for.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "support"))

from mortal import EVENT_GAP_S, FIRST_EVENT_S, REQUEST_S, Mortal

NEVER_S = 600


class Unhurried(
    Mortal, name="mortal/any", max_multiplexing=16, first_event_timeout=NEVER_S, event_gap_timeout=NEVER_S
): ...


class Crash(Unhurried, name="mortal/crash", max_multiplexing=1, min_concurrency=2): ...


class Single(Unhurried, name="mortal/single", max_multiplexing=1): ...


class First(Unhurried, name="mortal/first", first_event_timeout=FIRST_EVENT_S): ...


class Gap(Unhurried, name="mortal/gap", event_gap_timeout=EVENT_GAP_S): ...


class Total(Unhurried, name="mortal/total", request_timeout=REQUEST_S): ...


class Clean(Unhurried, name="mortal/clean", max_multiplexing=1, stream_error_end="clean"): ...


class CleanFirst(First, name="mortal/clean-first", stream_error_end="clean"): ...


class CleanGap(Gap, name="mortal/clean-gap", stream_error_end="clean"): ...


class CleanTotal(Total, name="mortal/clean-total", stream_error_end="clean"): ...
