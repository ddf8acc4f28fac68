"""A socket pair without sockets: what one end writes arrives at the other, later, cut anew, in order.

The ends are transports as asyncio's: what a full wire does not take is kept by its writer, `close` sends that first,
and when a process dies its kernel hangs up for it. It does not know what the bytes say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context, copy_context
from dataclasses import dataclass
from random import Random
from typing import Final

_END: Final = b""  # on the wire: the writer has hung up


@dataclass(frozen=True, slots=True)
class Pace:
    """How a wire treats bytes."""

    delay_s_max: float  # of one piece; 0: it arrives in the next turn of the loop
    cut: float  # how likely a write arrives in pieces
    room_bytes: int  # that may be on the wire in one direction


class End(asyncio.Transport):
    """One end of a wire. A frozen one reads nothing of what has arrived."""

    def __init__(self, dice: Random, pace: Pace, context: Context) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol | None = None
        self.other: End = self
        self._loop = asyncio.get_running_loop()
        self._context = context  # of whoever reads at this end
        self._dice = dice
        self._pace = pace
        self._coming: deque[tuple[float, bytes]] = deque()  # and when
        self._coming_bytes = 0
        self._unsent: deque[bytes] = deque()
        self._due: asyncio.Handle | None = None
        self._is_frozen = False
        self._is_closing = False
        self._is_gone = False

    @property
    def is_idle(self) -> bool:
        """Whether all that was sent to this end has been read."""
        return not self._coming and not self.other._unsent

    # --- out --------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send `data`; what the wire has no room for waits here."""
        if data and not self._is_closing:
            self._unsent.append(bytes(data))
            self._send()

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._is_closing

    def close(self) -> None:
        """Read no more, and hang up as soon as all is sent."""
        if not self._is_closing:
            self._is_closing = True
            self._send()

    def abort(self) -> None:
        """Hang up at once."""
        self._is_closing = True
        self._unsent.clear()
        self._hang_up()

    def die(self) -> None:
        """The process at this end is gone. Its kernel hangs up; nobody here is told."""
        self.protocol = None
        self.abort()

    def _send(self) -> None:
        while self._unsent and self.other._coming_bytes < self._pace.room_bytes:
            self.other._expect(self._unsent.popleft())
        if self._is_closing and not self._unsent:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._is_gone:
            return
        self._is_gone = True
        self._coming.clear()
        self._disarm()
        self._loop.call_soon(self._lose, context=self._context)
        other = self.other
        other._expect(_END)
        other._unsent.clear()  # nobody reads it any more
        if other._is_closing:
            other._hang_up()

    def _lose(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connection_lost(None)

    # --- in ---------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Read nothing until `thaw`."""
        self._is_frozen = True
        self._disarm()

    def thaw(self) -> None:
        """Read again."""
        self._is_frozen = False
        self._arm()

    def _expect(self, data: bytes) -> None:
        if self._is_gone:
            return
        for piece in self._cut(data):
            delay_s = self._dice.random() ** 4 * self._pace.delay_s_max if self._pace.delay_s_max else 0.0
            at = self._loop.time() + delay_s
            if self._coming:
                at = max(at, self._coming[-1][0])
            self._coming.append((at, piece))
            self._coming_bytes += len(piece)
        self._arm()

    def _cut(self, data: bytes) -> list[bytes]:
        if len(data) < 2 or self._dice.random() >= self._pace.cut:
            return [data]
        # Often within the first frame's head, where a reader is easily wrong.
        at = self._dice.randrange(1, len(data) if self._dice.random() < 0.5 else min(len(data), 24))
        return [data[:at], data[at:]]

    def _arm(self) -> None:
        if self._due is None and self._coming and not self._is_frozen:
            at = self._coming[0][0]
            if at <= self._loop.time():
                self._due = self._loop.call_soon(self._arrive, context=self._context)
            else:
                self._due = self._loop.call_at(at, self._arrive, context=self._context)

    def _disarm(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _arrive(self) -> None:
        self._due = None
        data = self._next()
        if self._is_closing or self.protocol is None:
            pass  # it reads no more
        elif data:
            self.protocol.data_received(data)
        elif not self.protocol.eof_received():
            self.close()
        self.other._send()
        self._arm()

    def _next(self) -> bytes:
        """Return what one read brings: often all that has arrived, sometimes a piece."""
        now = self._loop.time() + 1e-9
        data = b""
        while self._coming and self._coming[0][0] <= now and not (data and self._coming[0][1] == _END):
            _, piece = self._coming.popleft()
            self._coming_bytes -= len(piece)
            data += piece
            if piece == _END or self._dice.random() < 0.2:
                break
        return data


def wire(dice: Random, pace: Pace, outside: Context) -> tuple[End, End]:
    """Return the two ends of a new wire: that of the life which makes it, and one outside. Each needs its protocol."""
    ours, theirs = End(dice, pace, copy_context()), End(dice, pace, outside)
    ours.other, theirs.other = theirs, ours
    return ours, theirs
