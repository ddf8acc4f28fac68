"""What must hold of a whole simulated world at once: behind every turn of the loop, whenever time is about to pass, after
the storm, and when the node is gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.core.limits import EVENT_OVERHEAD_BYTES
from headrace.core.request import State
from headrace.supervisor.queue import Queue
from headrace.supervisor.shared_timer import SharedTimer
from tests.sim.checks import WatchedRequest

if TYPE_CHECKING:
    from headrace.supervisor.pool import Pool
    from tests.sim.clients import Client
    from tests.sim.node import Node
    from tests.sim.runners import Call
    from tests.sim.world import World

#: Seconds by which a deadline may be late: what is looked for is looked for once a second.
_LATE_S = 1.1

#: Virtual seconds between two looks at the deadlines of all requests: they are good to a second only.
_LOOK_EVERY_S = 0.25


class Looks:
    """Looks at a world from outside, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._checks = world.checks
        self._that, self._fail = world.checks.that, world.checks.fail
        self._next_look = 0.0
        self._short_since: dict[Pool, float] = {}

    @property
    def now(self) -> float:
        return self._world.loop.time()

    # --- asked behind every turn ------------------------------------------------------------------------

    def after_turn(self) -> None:
        """No slot is counted twice."""
        if self._checks.violation is not None:
            raise self._checks.violation
        for pool in self._world.pools:
            slots = pool.app.max_multiplexing
            for runner in pool.fleet.runners:
                busy = runner.link.busy
                if busy > slots:
                    self._fail(f"runner {runner.process.pid} has {busy} requests and {slots} slots")

    # --- asked when time is about to pass ---------------------------------------------------------------

    def at_rest(self) -> None:
        """Whatever was due is done: now everything must be in order."""
        if self._checks.violation is not None:
            raise self._checks.violation
        if not self._world.node.is_up:
            return
        self._world.look_for_pools()
        for pool in self._world.pools:
            self._check_pool(pool)
        self._check_links()
        if self.now >= self._next_look:
            self._next_look = self.now + _LOOK_EVERY_S
            for live in tuple(self._world.node.dispatcher._live.values()):
                self._check_request(live)
            for live in (live for pool in self._world.pools for live in pool._waiting):
                self._that(live.state is State.QUEUED, f"{live.id} waits, and is {live.state.value}")
            for client in self._world.active_clients:
                self._check_that_it_moves(client)
            self._world.queue_looks.look()
        if self._checks.violation is not None:
            raise self._checks.violation

    def _check_pool(self, pool: Pool) -> None:
        fleet, slots = pool.fleet, pool.app.max_multiplexing
        if pool._waiting:
            for runner in fleet.runners:
                has_room = runner.takes_work and runner.link.busy < slots and pool._free > pool._reserved
                self._that(
                    not has_room, f"{pool.waiting} requests wait, and runner {runner.process.pid} has a free slot"
                )
        there = len(fleet.runners) + fleet._starting
        allowed = pool.app.runners_max
        leaving = sum(not runner.takes_work for runner in fleet.runners)
        self._that(
            there - leaving <= allowed, f"{there - leaving} runners of {pool.app.name}, {allowed} are allowed"
        )
        self._check_that_runners_come(pool)

    def _check_that_runners_come(self, pool: Pool) -> None:
        """A runner that is wanted is started within the time that its predecessor's end may take."""
        fleet = pool.fleet
        short = fleet._wanted - fleet.working - fleet._starting
        if short <= 0 or fleet._retry is not None or fleet._tasks is None:
            self._short_since.pop(pool, None)
            return
        since = self._short_since.setdefault(pool, self.now)
        bound_s = self._world.limits.kill_grace_s + 1.0 + _LATE_S
        self._that(
            self.now - since <= bound_s, f"{short} runners of {pool.app.name} are missing since {since:.3f} s"
        )

    def _check_links(self) -> None:
        """Node and runner agree on what runs; they may differ by what is on the wire."""
        holders: set[str] = set()
        for child in self._world.kernel.children.values():
            on_node = child.link._streams
            if child.life != self._world.node.life or (child.is_dead and not on_node):
                continue
            for live in on_node.values():
                self._that(live.id not in holders, f"{live.id} is at two runners")
                self._that(not live.is_final, f"{live.id} holds a slot and is {live.state.value}")
                holders.add(live.id)
                self._check_log(live)
            if child.is_dead or child.link.closed.done() or child.inside.end.other.is_closing():
                continue
            at_runner = child.inside.calls
            self._that(at_runner.keys() <= on_node.keys(), f"runner {child.pid} works on what the node forgot")
            is_quiet = child.inside.end.is_idle and child.inside.end.other.is_idle and not child.inside.is_frozen
            if is_quiet:
                self._that(
                    at_runner.keys() == on_node.keys(), f"runner {child.pid} does not work on what it was given"
                )
                for stream, call in at_runner.items():
                    self._that(call.id == on_node[stream].id, f"stream {stream} is two requests")
                    self._check_credit(call, on_node[stream])

    def _check_credit(self, call: Call, live: WatchedRequest) -> None:
        """Nobody waits for credit when three quarters of the window were taken: it comes a quarter at a time."""
        if call.waits_for_credit and not live.is_over:
            taken = live.told_cost if live.replay.pace is not None else live.replay.cost
            ahead, window = call.spent - taken, self._world.limits.window_bytes
            self._that(ahead >= window * 3 // 4, f"{call.id} waits for credit, {ahead} bytes ahead of its reader")

    def _check_request(self, live: WatchedRequest) -> None:
        app, limits, now = live.route.app, self._world.limits, self.now
        assert self._world.node.is_up
        if live.ending is not None:
            return  # which waits for the disk
        if live.state is State.CANCELLING:
            # Told to stop, its runner retired, waited for, ended by force.
            bound_s = limits.cancel_grace_s + app.request_timeout + 4 * limits.kill_grace_s + 1 + _LATE_S
            self._that(now - live.over_since <= bound_s, f"{live.id} was cancelled and does not end")
            return
        if live.is_queued:
            self._check_time(live)
            return
        if not live._readers:
            self._that(live.left_at is not None, f"nobody reads {live.id}, and nobody left it")
            assert live.left_at is not None
            self._that(now - live.left_at <= live.grace_s + _LATE_S, f"{live.id} goes on without a reader")
        if live.state is State.QUEUED:
            waited_s = now - live.opened_at
            self._that(waited_s <= self._checks.wait_s(live) + _LATE_S, f"{live.id} waits for {waited_s:.3f} s")
            return
        self._check_time(live)

    def _check_time(self, live: WatchedRequest) -> None:
        """One that runs keeps to its deadlines."""
        if live.state is not State.RUNNING or live.ending is not None:
            return
        app, now = live.route.app, self.now
        running_s = now - (live.started_at or 0.0)
        self._that(running_s <= app.request_timeout + _LATE_S, f"{live.id} runs for {running_s:.3f} s")
        if live.route.endpoint.stream_path is None:
            return
        if app.first_event_timeout and not live.replay.end:
            self._that(running_s <= app.first_event_timeout + _LATE_S, f"{live.id} has no first event")
        if app.event_gap_timeout and live.replay.end:
            quiet_s = now - live.quiet_since
            self._that(
                quiet_s <= app.event_gap_timeout * 1.25 + _LATE_S, f"{live.id} is silent for {quiet_s:.3f} s"
            )

    def _check_that_it_moves(self, client: Client) -> None:
        """A reader who takes nothing is cut off."""
        limits = self._world.limits
        if client.is_moving:
            client.moved_at = self.now
        bound_s = max(limits.stall_timeout_s, limits.flush_timeout_s) + 2 * _LATE_S
        self._that(
            self.now - client.moved_at <= bound_s,
            f"client {client.number} takes nothing since {client.moved_at:.3f} s",
        )

    def _check_log(self, live: WatchedRequest) -> None:
        """The log of a running request is within its bounds. What changed in it is noted, for its deadlines."""
        limits, replay = self._world.limits, live.replay
        if replay.end != live.seen_end or live.is_held_by_reader:
            live.seen_end, live.quiet_since = replay.end, self.now
        count = replay.end - replay.first
        bytes_max, events_max = limits.replay_bytes_max, limits.replay_events_max
        # What the reader who sets the pace has not taken stays; so does what it had taken until the next event.
        bytes_max += limits.ahead_bytes_max
        events_max += limits.ahead_bytes_max // EVENT_OVERHEAD_BYTES
        self._that(replay.kept <= bytes_max, f"{live.id} keeps {replay.kept} bytes, {bytes_max} are allowed")
        if not self._checks.is_from_rogue(live):  # whose events are bounded by their bytes alone
            self._that(count <= events_max, f"{live.id} keeps {count} events, {events_max} are allowed")
        if live.rested_unpaced and replay.cost != live.rested_cost and count > 1:
            self._that(replay.kept <= limits.replay_bytes_max, f"{live.id} keeps {replay.kept} bytes for nobody")
        live.rested_unpaced, live.rested_cost = replay.pace is None, replay.cost

    # --- asked at the end -------------------------------------------------------------------------------

    def after_the_storm(self) -> None:
        """All has ended, and as many runners are there as are wanted."""
        world, node = self._world, self._world.node
        alive = [live.id for live in node.dispatcher._live.values() if world.is_served(live.route.app.name)]
        self._that(not alive, f"these requests are still alive: {alive}")
        world.queue_looks.after_the_storm()
        for pool in node.catalog.pools.values():
            fleet = pool.fleet
            self._that(not pool._reserved, f"{pool._reserved} slots of {pool.app.name} are kept for nobody")
            self._that(not pool.waiting, f"{pool.waiting} requests wait for ever")
            self._that(
                fleet.working == len(fleet.runners) == pool.app.min_concurrency,
                f"{pool.app.name} has {fleet.working} runners",
            )
            for runner in fleet.runners:
                self._that(not runner.link.busy, f"runner {runner.process.pid} is busy with nothing")

    def nothing_is_left(self) -> None:
        """The node is gone: no request without an end, no process, no device, no byte, no task, no timer."""
        world = self._world
        stopped = [node for node in world.lives if not node.is_killed and node.fault is None]
        for node in stopped:
            ours = [
                live for live in self._checks.requests.values() if live.life == node.life and not live.is_queued
            ]
            for live in ours:
                self._that(live.is_final or live.state is State.QUEUED, f"{live.id} ended as {live.state.value}")
            unended = sum(not live.is_final for live in ours)
            self._that(unended <= node.refused, f"{unended} requests have no end; {node.refused} were refused")
            self._check_meters(node)
        if stopped:
            held = stopped[-1].dispatcher.bodies.taken
            self._that(not held, f"{held} bytes of bodies are held for nobody")
        self._nothing_of_the_machine_is_left()

    def _nothing_of_the_machine_is_left(self) -> None:
        world = self._world
        self._that(
            not world.kernel.alive, f"runners {[child.pid for child in world.kernel.alive]} are still there"
        )
        if not world.node.is_killed:
            devices = world.node.launcher.devices
            leased = devices.total - devices.free
            self._that(not leased, f"{leased} devices are leased to nobody")
        for task in world.loop.tasks:
            self._that(task.done(), f"a task is left: {task!r}")
            if not task.cancelled() and task._log_traceback:
                self._fail(f"nobody asked how {task.get_name()} ended: {task.exception()!r}")
        timers = [timer for timer in world.loop.timers if not _ends_with_its_process(timer)]
        self._that(not timers, f"timers are left: {timers}")

    def _check_meters(self, node: Node) -> None:
        numbers = [app.numbers.counters for app in node.meters._apps.values()]

        def total(name: str) -> float:
            return sum(count.value for counters in numbers for count in counters[name].values())

        ended = self._checks.ended_in[node.life]
        counted = total("headrace_requests_total")
        self._that(
            counted == ended + node.refused,
            f"{counted:g} requests counted, {ended} ended, {node.refused} refused",
        )
        starts, ends = total("headrace_runner_starts_total"), total("headrace_runner_ends_total")
        self._that(starts == ends, f"{starts:g} runners started, {ends:g} ended")


def _ends_with_its_process(timer: asyncio.TimerHandle) -> bool:
    """Whether a timer is one of a queue's, or a shared one that nobody waits for."""
    owner = getattr(timer._callback, "__self__", None)
    return isinstance(owner, Queue) or (isinstance(owner, SharedTimer) and not owner._due_at)
