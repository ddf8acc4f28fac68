"""What one simulated process is like, and what one call in it will do: the whole of its future, drawn at its start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from headrace.core.limits import Limits


@dataclass(frozen=True, slots=True)
class Nature:
    """What will become of one process. All seconds count from its start, or from READY where its life is meant."""

    birth: str = "well"  # or mute, dies, foreign, other app, faulty file, faulty setup
    hello_s: float = 0.01
    ready_s: float = 0.01
    dies_s: float = math.inf
    babbles_s: float = math.inf  # when it sends bytes that are no frame
    swells_s: float = math.inf  # when it takes more memory than it may
    freezes: tuple[tuple[float, float, bool], ...] = ()  # when, for how long, whether by SIGSTOP
    leave_s: float = 0.01  # from the word to leave to its exit
    heeds_eof: bool = True
    heeds_term: bool = True
    stray_s: float = 0.0  # for so long something it started outlives it, unless it is killed with the group
    orphan_keeps_pipes: bool = False
    orphan_keeps_link: bool = False

    @classmethod
    def draw(cls, dice: Random, rough: float) -> Nature:
        """Return a nature: the best there is for a `rough` of 0, mostly bad ones for 1."""

        def happens(likely: float) -> bool:
            return dice.random() < likely * rough

        def sometime(mean_s: float) -> float:
            return dice.expovariate(1 / mean_s)

        bad_births = ("mute", "dies", "foreign", "other app", "faulty file", "faulty setup")
        return cls(
            birth=dice.choice(bad_births) if happens(0.4) else "well",
            hello_s=dice.choice((0.0, 0.02, 0.5, 3.0 if rough else 0.5)),
            ready_s=dice.choice((0.0, 0.02, 1.0, 4.0 if rough else 1.0)) if not happens(0.1) else 100.0,
            dies_s=sometime(20) if happens(0.6) else math.inf,
            babbles_s=sometime(20) if happens(0.2) else math.inf,
            swells_s=sometime(10) if happens(0.4) else math.inf,
            freezes=tuple((sometime(10), dice.choice((0.5, 4, 90)), dice.random() < 0.4) for _ in range(2))
            if happens(0.9)
            else (),
            leave_s=dice.choice((0.0, 0.01, 0.8)),
            heeds_eof=not happens(0.2),
            heeds_term=not happens(0.2),
            stray_s=dice.choice((0.1, 3.0, 60.0)) if happens(0.2) else 0.0,
            orphan_keeps_pipes=happens(0.1),
            orphan_keeps_link=happens(0.1),
        )


@dataclass(frozen=True, slots=True)
class Course:
    """What one call will do."""

    events: int = 3
    text_bytes_max: int = 100
    first_s: float = 0.0
    gap_s: float = 0.0
    burst: int = 1  # events without a pause between them
    end: str = "done"  # or error, never, dies
    on_cancel: str = "prompt"  # or late, deaf, stuck
    is_greedy: bool = False  # it heeds no credit

    @classmethod
    def draw(cls, dice: Random, rough: float, limits: Limits) -> Course:
        """Return a course: a good one for a `rough` of 0."""
        is_rough = dice.random() < rough
        ends = ("done",) * 6 + (("error",) * 3 + ("never", "dies") if is_rough else ("error",))
        return cls(
            events=dice.choice((0, 1, 1, 3, 8, 20, 60)) if is_rough else dice.choice((1, 2, 5, 12, 40)),
            text_bytes_max=dice.choice((60, 60, 200, limits.event_bytes_max)),
            first_s=dice.choice((0.0, 0.0, 0.01, 0.3, 2.0)),
            gap_s=dice.choice((0.0, 0.001, 0.01, 0.05)) if dice.random() < 0.9 else dice.choice((0.5, 3.0)),
            burst=dice.choice((1, 1, 4, 32)),
            end=dice.choice(ends),
            on_cancel=dice.choice(("prompt", "late", "deaf", "stuck")) if is_rough else "prompt",
            is_greedy=is_rough and dice.random() < 0.03,
        )
