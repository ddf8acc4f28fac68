"""What one world is like: its limits, its app, how rough its runners and its clients are. All drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from headrace.core.limits import Limits
from headrace.core.retries import LONGEST_RETRY_S
from headrace.core.spec import AppSpec, EndpointSpec
from tests.sim.disk import DiskPlan
from tests.sim.wire import Pace

_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Plan:
    """One world. A roughness of 0 is a perfect party, 1 mostly a bad one."""

    limits: Limits
    apps: tuple[AppSpec, ...]
    devices: tuple[str, ...]
    pace: Pace
    clients: int  # of direct requests
    callers: int  # of the queue
    arrive_within_s: float
    reloads: int
    loads_rough: bool  # the first start is as rough as later ones
    stops_in_storm: bool  # SIGTERM while requests run
    restarts: tuple[tuple[float, bool], ...]  # when, and whether by kill -9
    jumps: tuple[tuple[float, float], ...]  # of the wall clock: when, and by how much
    disk: DiskPlan
    result_age_s: float  # how long an ended request is kept
    rough_births: float
    rough_calls: float
    rough_clients: float

    @classmethod
    def draw(cls, dice: Random, *, has_queue: bool) -> Plan:
        """Draw a world: one of direct requests alone, or one with a queue, and perhaps some of both."""
        needs_devices = dice.random() < 0.15
        apps = tuple(
            _app(dice, name, needs_devices) for name in ("sim/model", "sim/other")[: dice.choice((1, 1, 1, 2))]
        )
        # What is queued waits for ever where others keep all the devices.
        kept_up = sum(app.num_gpus * max(app.min_concurrency, has_queue) for app in apps)
        devices = tuple(map(str, range(max(kept_up, dice.randrange(1, 4))))) if needs_devices else ()
        roughness = (0.0, 0.3, 0.6, 1.0)
        within_s = dice.choice((0.0, 1.0, 10.0, 30.0))
        clients = dice.choice((2, 8, 8, 20, 20, 40, 60, 200))
        if has_queue:
            clients = dice.choice((0, 0, 4, 20))
        return cls(
            limits=_limits(dice),
            apps=apps,
            devices=devices,
            pace=Pace(dice.choice((0.0, 0.002, 0.2)), dice.choice((0.0, 0.1, 0.6)), dice.choice((4_096, 1 << 17))),
            clients=clients,
            callers=dice.choice((2, 5, 10, 10, 20, 20, 40, 100)) if has_queue else 0,
            arrive_within_s=within_s,
            reloads=dice.choice((0, 0, 0, 1, 2)),
            loads_rough=dice.random() < 0.05,
            stops_in_storm=dice.random() < 0.2,
            restarts=_restarts(dice, within_s) if has_queue else (),
            jumps=tuple(
                (dice.random() * (within_s + 10), dice.choice((-3_600.0, 3_600.0)))
                for _ in range(dice.choice((0, 0, 1, 2)) if has_queue else 0)
            ),
            disk=DiskPlan.draw(dice, within_s) if has_queue else DiskPlan(),
            result_age_s=dice.choice((90.0, 3_600.0)),
            rough_births=dice.choice((0.0, 0.0, 0.2, 0.5, 1.0)),
            rough_calls=dice.choice(roughness),
            rough_clients=dice.choice(roughness),
        )

    @property
    def ends_within_s(self) -> float:
        """Seconds after which whatever came last must have ended, and every runner wanted be there."""
        limits, slowest = self.limits, max(app.request_timeout for app in self.apps)
        waits = limits.slot_wait_s + 2 * slowest + limits.stall_timeout_s + limits.restart_backoff_max_s
        waits += self.callers * slowest / 4 + LONGEST_RETRY_S if self.callers else 0
        return 2 * waits + max(app.startup_timeout + app.keep_alive for app in self.apps) + 200


def _restarts(dice: Random, within_s: float) -> tuple[tuple[float, bool], ...]:
    count = dice.choice((0, 0, 1, 1, 2, 3))
    return tuple((dice.random() * (within_s + 10), dice.random() < 0.7) for _ in range(count))


def _limits(dice: Random) -> Limits:
    return replace(
        Limits(),
        body_bytes_max=100_000,
        result_bytes_max=100_000,
        event_bytes_max=dice.choice((300, 4_096)),
        window_bytes=dice.choice((1_000, 8_192, 65_536)),
        emit_ahead_bytes_max=1_000,
        replay_bytes_max=dice.choice((2_000, 16_384, 1 << 20)),
        replay_events_max=dice.choice((8, 64, 16_384)),
        replay_s=dice.choice((1.0, 20.0)),
        replays_max=dice.choice((4, 4_096)),
        replays_bytes_max=dice.choice((10_000, 1 << 28)),
        events_bytes_max=dice.choice((10_000, 1 << 30, 1 << 30, 1 << 30)),
        bodies_bytes_max=dice.choice((200_000, 1 << 28)),
        waiting_max=dice.choice((4, 1_000, 1_000)),
        slot_wait_s=dice.choice((2.0, 15.0, 60.0)),
        headers_hold_s=dice.choice((1.0, 10.0)),
        check_timeout_s=dice.choice((2.0, 30.0)),
        stall_timeout_s=dice.choice((3.0, 30.0)),
        frame_bytes_max=dice.choice((512, 4_096, 65_536)),
        message_bytes_max=dice.choice((200_000, 1 << 22)),
        load_timeout_s=20.0,
        cancel_grace_s=dice.choice((0.5, 5.0)),
        kill_grace_s=dice.choice((0.5, 5.0)),
        restart_backoff_max_s=dice.choice((2.0, 20.0)),
        crashes_max=dice.choice((2, 5)),
        runner_silence_s=dice.choice((12.0, 60.0)),
        drain_s=dice.choice((0.5, 10.0)),
        lease_s=dice.choice((9.0, 30.0)),
        queue_max=dice.choice((10, 100_000, 100_000)),
    )


def _app(dice: Random, name: str, needs_devices: bool) -> AppSpec:
    least = dice.choice((0, 1, 1, 2))
    return AppSpec(
        name=name,
        cls="Model",
        file="model.py",
        line=1,
        doc="",
        endpoints=(
            EndpointSpec("/", "", "/stream", "", 1, _OBJECT, _OBJECT, _OBJECT),
            EndpointSpec("/plain", "/plain", None, "", 1, _OBJECT, _OBJECT, _OBJECT),
        ),
        max_multiplexing=dice.choice((1, 2, 4, 8)),
        min_concurrency=least,
        max_concurrency=dice.choice((0, least, least + 1, 4)),
        keep_alive=dice.choice((1.0, 10.0)),
        num_gpus=int(needs_devices),
        memory_limit=dice.choice((0, 1_000_000)),
        startup_timeout=dice.choice((3.0, 20.0)),
        request_timeout=dice.choice((3.0, 15.0, 60.0)),
        first_event_timeout=dice.choice((0.0, 0.0, 1.0)),
        event_gap_timeout=dice.choice((0.0, 0.0, 2.0)),
        on_disconnect=dice.choice(("cancel", "cancel", "finish", "grace:2")),
        stream_error_end=dice.choice(("cut", "cut", "clean")),
    )


def changed(apps: tuple[AppSpec, ...], dice: Random) -> tuple[AppSpec, ...]:
    """Return the apps of the next version of their file. Sometimes one is gone."""
    kept = apps[: dice.choice((1, len(apps)))]
    return tuple(replace(app, max_multiplexing=dice.choice((1, 3, 8)), keep_alive=2.0) for app in kept)
