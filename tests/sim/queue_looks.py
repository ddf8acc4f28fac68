"""What must hold of all queued requests at once: nobody is forgotten, passed over, late, or stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.supervisor.queue import Queue
from headrace.supervisor.tickets import Ticket

if TYPE_CHECKING:
    from tests.sim.records import Record
    from tests.sim.world import World

#: Seconds for which memory and disk may differ: what failed is asked again after one.
_LATE_S = 3.0


class QueueLooks:
    """Looks at the queue from outside, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._that = world.checks.that
        self._unknown_since: dict[str, float] = {}
        self._spare_since: dict[str, float] = {}

    def is_next(self, queue: Queue, ticket: Ticket) -> None:
        """Somebody's turn has come: nobody in line is before it, by priority and then by age."""
        if self._world.disk.calm_s < 60:
            return  # who was told late that it is stored stands behind those who came meanwhile
        all_ = self._world.records.all
        mine = _rank(all_[ticket.new.id])
        for _, other in queue._lines[ticket.new.app]._entries.values():
            theirs = all_[other.new.id]
            self._that(_rank(theirs) > mine, f"{ticket.new.id} is taken, and {theirs.id} is before it")

    def look(self) -> None:
        """Everything that can be seen of the queue of a node that is up."""
        world, node = self._world, self._world.node
        now = world.loop.time()
        calm_s = world.disk.calm_s
        is_calm = calm_s > 5
        for record in world.records.open:
            self._check_known(record, is_calm)
            if not is_calm:
                continue
            # A node that leaves keeps nobody's deadlines while it sees its last runners off: the next one does.
            if record.attempt == 0 and node.queue._is_open and world.records._is_by_same_clock(record):
                late_s = now - max(record.due, node.began_at) - _LATE_S
                self._that(late_s <= 0, f"{record.id} should have started {late_s:.3f} s ago, and nobody is told")
            if record.state != "queued" and not node.is_stopping and calm_s > world.limits.lease_s / 3 + _LATE_S:
                self._check_lease(record)
        if not node.is_stopping:
            self._check_lines(now)

    def _check_known(self, record: Record, is_calm: bool) -> None:
        """What has not ended on the disk is known to the node."""
        if self._world.node.queue.ticket(record.id) is not None or not is_calm:
            self._unknown_since.pop(record.id, None)
            return
        since = self._unknown_since.setdefault(record.id, self._world.loop.time())
        for_s = self._world.loop.time() - since
        self._that(for_s <= _LATE_S, f"{record.id} is {record.state}, and nobody knows of it since {since:.3f} s")

    def _check_lease(self, record: Record) -> None:
        """An attempt that runs is its node's own."""
        node = self._world.node
        lapsed_s = self._world.wall_s(node) - record.lease_until
        self._that(lapsed_s <= _LATE_S, f"the lease of {record.id} has lapsed for {lapsed_s:.3f} s")

    def _check_lines(self, now: float) -> None:
        """Nobody stands in line while there is a slot to spare, unless the store has just failed, and is let be."""
        node = self._world.node
        for app, pool in node.catalog.pools.items():
            stands = node.queue.queued(app)
            has_room = not pool._waiting and pool._free > pool._reserved and self._world.disk.calm_s > _LATE_S
            self._that(not (stands and has_room), f"{stands} stand in line for {app}, which has a slot to spare")
        self._that(
            sum(map(len, node.queue._lines.values())) <= len(node.queue._tickets),
            "more stand in line than there are",
        )

    def after_the_storm(self) -> None:
        """Every request has ended; nobody holds anything of it."""
        world, node = self._world, self._world.node
        left = [(record.id, record.state) for record in world.records.open if world.is_served(record.app)]
        self._that(not left, f"these requests do not end: {left}")
        kept = [ticket.new.id for ticket in node.queue._tickets.values() if world.is_served(ticket.new.app)]
        self._that(not kept, f"these are kept in mind, and have ended: {kept}")
        for record in world.records.all.values():
            if record.id not in world.records.gone:
                kept = world.disk.events_of(record.id)
                made = world.checks.made_by((record.id, record.attempt))
                is_of_it = all(number < len(made) and text == made[number] for number, text in kept)
                self._that(is_of_it, f"{record.id} keeps other events than attempt {record.attempt} made")
            stopped = not record.is_to_stop or (record.ending is not None and record.ending.state == "cancelled")
            self._that(stopped, f"{record.id} ended as {record.ending}, and its cancelling was promised")


def _rank(record: Record) -> tuple[int, int]:
    return record.priority, record.number
