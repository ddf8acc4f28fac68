"""Large messages on their way out: in pieces that take turns, and no more of them begun than the node may hold.

A node breaks the link to a runner whose unfinished messages pass `message_bytes_max` together, and with the link
fall all its streams. So a large message begins only while it fits beside those begun; until then it waits in
line. Within a stream nothing overtakes, and a stream without a large message waits for none.

This file knows frames and streams' numbers; it knows no socket, no loop, and not what a message means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, TypeAlias

from headrace.core.frames import pieces, stream_of, weight_of

#: Pieces of 64 KiB that leave in one write: about what a socket's buffer takes. Whoever posts an event next waits
#: for them; a piece of each of the 39 messages that may have begun would be 2.4 MiB to wait for.
PIECES_PER_TURN: Final = 4


class LargeMessage:
    """A message over `frame_bytes_max`, in pieces."""

    __slots__ = ("frames", "stream", "weight")

    def __init__(self, kind: int, stream: int, payload: bytes, piece_bytes_max: int) -> None:
        self.stream: Final = stream
        self.frames: Final = deque(pieces(kind, stream, payload, piece_bytes_max))
        #: Bytes that it counts in the node's reader while it is unfinished.
        self.weight: Final = weight_of(len(payload), piece_bytes_max)


#: What the outbox holds: an encoded frame, or a message in pieces.
Outgoing: TypeAlias = bytes | LargeMessage


class Rotation:
    """The large messages of one link. Those begun weigh at most `unfinished_bytes_max` together, as must each."""

    def __init__(self, unfinished_bytes_max: int) -> None:
        #: The streams with a large message, and what stands behind it. Empty: every frame may leave at once.
        self.streams: Final[dict[int, deque[Outgoing]]] = {}
        self._waiting: Final[deque[LargeMessage]] = deque()
        self._begun: Final[deque[LargeMessage]] = deque()
        self._room_bytes = unfinished_bytes_max

    def take(self, messages: Iterable[Outgoing]) -> list[bytes]:
        """Return the frames that may leave at once; keep large messages, and what must not overtake them."""
        out: list[bytes] = []
        for message in messages:
            stream = message.stream if isinstance(message, LargeMessage) else stream_of(message)
            behind = self.streams.get(stream)
            if behind is not None:
                behind.append(message)
            elif isinstance(message, LargeMessage):
                self.streams[stream] = deque()
                self._waiting.append(message)
            else:
                out.append(message)
        return out

    def next_frames(self) -> list[bytes]:
        """Return the next pieces, each of another message in turn, and the frames that their last ones held up."""
        # The first in line waits for its room, and the rest behind it: else small ones could keep it for ever.
        while self._waiting and self._waiting[0].weight <= self._room_bytes:
            message = self._waiting.popleft()
            self._room_bytes -= message.weight
            self._begun.append(message)
        out: list[bytes] = []
        for _ in range(min(PIECES_PER_TURN, len(self._begun))):
            message = self._begun.popleft()
            out.append(message.frames.popleft())
            if message.frames:
                self._begun.append(message)
            else:
                self._room_bytes += message.weight
                out += self.take(self.streams.pop(message.stream))
        return out
