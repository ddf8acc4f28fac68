"""The eight toxics that Toxiproxy has names for, as decisions: what happens next to one direction of a connection.

They know no socket and no clock. `tests/support/toxic.py` does what they say.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(slots=True)
class Plan:
    """What happens next to one direction. Each toxic narrows it; their order does not matter."""

    is_end: bool  # the sender's FIN, and no byte
    size: int
    age_s: float  # since it arrived here
    wait_s: float = 0.0
    bytes_per_s: float = math.inf
    bytes_left: float = math.inf  # until the connection is closed
    is_dropped: bool = False


#: Two toxics that are alike are still two, each with its own count of bytes.
toxic = dataclass(frozen=True, slots=True, eq=False)


@toxic
class Effect:
    """A toxic at work. Unless its class says otherwise, it does nothing."""

    def shape(self, plan: Plan, passed: int, dice: random.Random) -> None:
        """Narrow the plan; `passed` is the bytes that went by on this connection since the toxic was added."""

    def ends_after_s(self) -> float | None:
        """When the whole connection ends, counted from its start or from the toxic's, the later."""

    @property
    def resets(self) -> bool:
        """Whether that end is an RST."""
        return False


@toxic
class Latency(Effect):
    """Everything arrives `ms` later, give or take `jitter_ms`, and in order."""

    ms: float
    jitter_ms: float = 0.0

    def shape(self, plan: Plan, passed: int, dice: random.Random) -> None:
        late_s = (self.ms + dice.uniform(-self.jitter_ms, self.jitter_ms)) / 1000
        plan.wait_s += max(0.0, late_s - plan.age_s)


@toxic
class Bandwidth(Effect):
    """At most so many bytes a second, in portions of a tenth of a second."""

    bytes_per_s: float

    def shape(self, plan: Plan, passed: int, dice: random.Random) -> None:
        plan.bytes_per_s = min(plan.bytes_per_s, self.bytes_per_s)
        plan.size = min(plan.size, max(1, int(self.bytes_per_s / 10)))


@toxic
class SlowClose(Effect):
    """The FIN arrives `ms` later; the bytes before it do not."""

    ms: float

    def shape(self, plan: Plan, passed: int, dice: random.Random) -> None:
        plan.wait_s += self.ms / 1000 if plan.is_end else 0.0


@toxic
class Timeout(Effect):
    """Bytes are taken and thrown away, and no FIN passes; after `ms`, if given, the connection is closed.

    With `vanished`, the kernel drops the packets before TCP has answered them, as when a cable is cut: the sender gets
    no ACK, and not even its resets and FINs are seen. (Linux: a socket filter that takes nothing.)
    """

    ms: float | None = None
    vanished: bool = False

    def shape(self, plan: Plan, passed: int, dice: random.Random) -> None:
        plan.is_dropped = True

    def ends_after_s(self) -> float | None:
        return None if self.ms is None else self.ms / 1000


@toxic
class ResetPeer(Effect):
    """Both ends get an RST, at once or after `ms`."""

    ms: float = 0.0

    def ends_after_s(self) -> float | None:
        return self.ms / 1000

    @property
    def resets(self) -> bool:
        return True


@toxic
class Slicer(Effect):
    """Bytes travel in slices of `size_bytes`, give or take `variation_bytes`, with `delay_ms` before each."""

    size_bytes: int = 1
    variation_bytes: int = 0
    delay_ms: float = 0.0

    def shape(self, plan: Plan, passed: int, dice: random.Random) -> None:
        size = self.size_bytes + dice.randint(-self.variation_bytes, self.variation_bytes)
        plan.size = min(plan.size, max(1, size))
        plan.wait_s += 0.0 if plan.is_end else self.delay_ms / 1000


@toxic
class LimitData(Effect):
    """The connection is closed behind the byte number `bytes_max`, counted from when the toxic was added."""

    bytes_max: int

    def shape(self, plan: Plan, passed: int, dice: random.Random) -> None:
        plan.bytes_left = min(plan.bytes_left, self.bytes_max - passed)


@toxic
class Down(Effect):
    """Nobody is there: open connections are closed, new ones refused. `clear()` opens the same port again."""

    def ends_after_s(self) -> float | None:
        return 0.0


TOXICS: dict[str, type[Effect]] = {
    "latency": Latency,
    "bandwidth": Bandwidth,
    "slow_close": SlowClose,
    "timeout": Timeout,
    "reset_peer": ResetPeer,
    "slicer": Slicer,
    "limit_data": LimitData,
    "down": Down,
}
