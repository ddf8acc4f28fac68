"""What becomes of a request when its last reader leaves before the end: a policy, in one number.

    cancel          nobody is there, so the work stops (the default)
    finish          it runs to its end all the same
    grace:SECONDS   it runs on for a while, for a reader that comes back, and is cancelled then

An app states its policy as `on_disconnect=`; one call can ask for another with the header below. The number is the
seconds that the work may go on: 0, infinite, or what was said.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Final

#: The request header by which one call chooses; our own, like every header of that prefix.
HEADER: Final = "x-headrace-on-disconnect"

#: The longest grace, in seconds: a day. Whoever wants more says `finish`.
GRACE_S_MAX: Final = 86_400.0


def grace_of(policy: str) -> float:
    """Return the seconds that work may go on without a reader. Raises `ValueError`, naming what there is."""
    if policy == "cancel":
        return 0.0
    if policy == "finish":
        return inf
    kind, _, seconds = policy.partition(":")
    try:
        grace_s = float(seconds) if kind == "grace" else -1.0
    except ValueError:
        grace_s = -1.0
    if not (isfinite(grace_s) and 0.0 <= grace_s <= GRACE_S_MAX):
        raise ValueError(
            f"{policy!r}: expected 'cancel', 'finish' or 'grace:SECONDS' with at most {GRACE_S_MAX:g} seconds"
        )
    return grace_s
