"""The runner's end of the socket to its node.

All frames of one loop turn leave in one write: that is what makes one decoding step of a language model, an
event for each of N streams, cheap. A message over `frame_bytes_max` leaves in pieces that take turns, so that
nobody waits long behind somebody's image (see `rotation`).

What stands in the outbox is bounded by the streams' windows of credit (see `call`), not here. This file knows
frames and streams' numbers; it does not know what a message means.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, cast

from headrace.core.frames import BadFrame, FrameReader, encode
from headrace.core.limits import Limits
from headrace.runner.rotation import LargeMessage, Outgoing, Rotation

#: Takes one message: kind, stream, payload. Raises `BadFrame` for one that the link's contract does not have.
Receive = Callable[[int, int, bytes], None]


class Link(asyncio.Protocol):
    """One open link. `post` may be called from any thread, everything else on the loop's alone.

    `receive` gets every message; `lost` is called once, when the node has hung up or broken the contract.
    """

    def __init__(self, receive: Receive, lost: Callable[[], None], limits: Limits) -> None:
        self._receive = receive
        self._lost = lost
        self._frame_bytes_max: Final = limits.frame_bytes_max
        self._message_bytes_max: Final = limits.message_bytes_max
        self._reader = FrameReader(
            frame_bytes_max=limits.frame_bytes_max, message_bytes_max=limits.message_bytes_max
        )
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._posted: list[Outgoing] = []
        self._rotation = Rotation(limits.message_bytes_max)
        self._flush_is_due = False
        self._is_paused = False
        self._is_hanging_up = False
        self.closed = self._loop.create_future()
        self.loop_thread: Final = threading.get_ident()
        #: The number of the loop's turn, as far as it can be told from outside: flushes so far.
        self.turn = 0
        self.turn_began = monotonic()

    # --- what goes out --------------------------------------------------------------------------------------

    def post(self, kind: int, stream: int, payload: bytes = b"") -> None:
        """Put one message into the outbox; it leaves with this turn's write. After the end it is dropped."""
        # Threads and the loop race here without a lock. A message is appended BEFORE the flag is read, and the
        # flush lowers the flag BEFORE it takes the messages: so whoever reads a raised flag has a flush still
        # to come that will see the message. Two threads may both find it lowered; the second flush finds nothing.
        if len(payload) <= self._frame_bytes_max:
            # Made into a frame at once: it is a compact copy, and orjson's buffer of 1 KiB is free for the next
            # event. Kept until the flush, those buffers cost ten times the encoding (measured: 1.9 µs, not 0.2).
            self._posted.append(encode(kind, stream, payload))
        else:
            message = LargeMessage(kind, stream, payload, self._frame_bytes_max)
            assert message.weight <= self._message_bytes_max, "whoever made it keeps to a lower bound"
            self._posted.append(message)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._wake()

    def _wake(self) -> None:
        if threading.get_ident() == self.loop_thread:
            self._loop.call_soon(self._flush)
            return
        try:
            self._loop.call_soon_threadsafe(self._flush)
        except RuntimeError:
            self._posted.clear()  # the loop is closed: a thread outlived the process's work

    def _flush(self) -> None:
        self._flush_is_due = False
        self.turn += 1
        self.turn_began = monotonic()
        if self._is_paused:
            return
        # Copy and delete, never swap: a thread may hold the list it is about to append to.
        taken = self._posted[:]
        del self._posted[: len(taken)]
        if self._transport is None or self._transport.is_closing():
            return
        if not self._rotation.streams:
            try:
                self._transport.write(b"".join(taken))  # type: ignore[arg-type]
            except TypeError:
                pass  # a large message is among them
            else:
                return
        if out := self._rotation.take(taken) + self._rotation.next_frames():
            self._transport.write(b"".join(out))
        if self._rotation.streams and not self._flush_is_due:
            self._flush_is_due = True
            self._wake()

    def close(self) -> None:
        """Send what is in the outbox and hang up; `closed` is done once that has happened."""
        self._is_hanging_up = True
        self._flush()
        if self._is_paused or self.closed.done():
            return
        if self._rotation.streams:
            self._loop.call_soon(self.close)
        elif self._transport is not None:
            self._transport.close()

    # --- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; messages posted before now leave with the next turn."""
        self._transport = cast("asyncio.WriteTransport", transport)  # a socket's always is; uvloop's says not so

    def data_received(self, data: bytes) -> None:
        """Hand on the messages that `data` completes. A broken contract ends the link."""
        try:
            for kind, stream, payload in self._reader.feed(data):
                self._receive(kind, stream, payload)
        except BadFrame:
            # Nothing of this peer can be trusted any more. The node finds the EOF, and replaces this runner.
            if self._transport is not None:
                self._transport.abort()

    def pause_writing(self) -> None:
        """The node is behind with reading: keep the outbox. The windows of credit bound it."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Send what has gathered."""
        self._is_paused = False
        if self._is_hanging_up:
            self.close()
        else:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # EOF and error mean the same here
        """The node hung up, or died."""
        if not self.closed.done():
            self.closed.set_result(None)
        self._lost()
