"""The clock of the queue: seconds since 1970 that never jump, whatever becomes of the machine's wall clock.

Deadlines, leases and ages are kept in the store as such seconds. Somebody who sets the clock, or a time server
that corrects it by an hour, must not end a request early or forget its result.
"""

from __future__ import annotations

import time
from time import monotonic


class SteadyClock:
    """The wall clock as it was when this was made, and the seconds since then by the monotonic one.

    A machine that sleeps does not count the seconds of its sleep; the next start of the node does.
    """

    def __init__(self) -> None:
        self._began = time.time() - monotonic()

    def __call__(self) -> float:
        """Return the time."""
        return self._began + monotonic()
