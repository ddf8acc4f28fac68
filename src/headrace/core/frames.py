"""The bytes between a node and a runner: typed frames with a stream number, on one socket.

    0        4      5        9
    | length | kind | stream | payload (length bytes) |      integers big-endian, length at most 64 KiB

A message longer than one frame travels in pieces: every piece but the last has the `MORE` bit set in its kind.
The reader puts them together, so nobody above this file sees a piece. Stream 0 is the link itself.

This file knows the format and its bounds. It does not know who is on which end, nor what an event means.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

#: Raised by one with every change of the format; a runner of another version is refused at HELLO.
VERSION: Final = 2

_HEAD: Final = struct.Struct(">IBI")
HEAD_BYTES: Final = _HEAD.size
MORE: Final = 0x80

#: What a waiting piece costs beyond its bytes. Counting it keeps a peer from filling memory with empty ones.
_PIECE_OVERHEAD_BYTES: Final = 128


class Kind(enum.IntEnum):
    """Every message of the link. The second word of each comment is its payload."""

    # --- node to runner
    SETUP = 1  # JSON {"app": name}: be this app of those told in HELLO; run setup();
    #            with "output_token" where what it prints shall be marked (see core.marks),
    #            and "files" where it may keep some (see core.file_room)
    CHECK = 2  # HEAD + body, as START: validate the input, take no slot; answered by CHECKED
    START = 3  # JSON {"request_id", "path", "headers", "attempt", "window"}, a newline, then the raw JSON body;
    #            with "is_queued" and "log_items" true where its words and its items' are kept (see core.marks),
    #            and "base_url", the server as the caller knows it
    WINDOW = 4  # u32: this many more bytes of events (core.limits.cost_of) may be made on the stream
    CANCEL = 5  # text: the reason (an error type); the stream still ends with DONE or ERROR
    PING = 6  # any bytes, answered by PONG
    # --- runner to node
    HELLO = 64  # JSON {"version", "pid", "apps": [AppSpec]}: the file is loaded
    FAULT = 65  # JSON {"file", "line", "message", "traceback"}: loading or setup() failed; the runner leaves
    READY = 66  # empty: setup() returned
    CHECKED = 67  # empty when the input is good, else JSON: RequestError.to_wire()
    EVENT = 68  # one JSON object as ASCII text
    DONE = 69  # empty: the request ended well; its last EVENT is its result
    ERROR = 70  # JSON: RequestError.to_wire()
    PONG = 71  # the bytes of PING


class BadFrame(Exception):
    """The peer sent what this format does not allow. Its link is closed; nothing of it can be trusted."""


def encode(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame. `payload` must fit (`limits.frame_bytes_max`); larger messages go through `pieces`."""
    return _HEAD.pack(len(payload), kind, stream) + payload


def stream_of(frame: bytes) -> int:
    """Return the stream number of an encoded frame."""
    number: int = _HEAD.unpack_from(frame)[2]
    return number


def pieces(kind: int, stream: int, payload: bytes, piece_bytes_max: int) -> Iterator[bytes]:
    """Yield the frames of one message of any length, each with at most `piece_bytes_max` of payload."""
    last = max(0, (len(payload) - 1) // piece_bytes_max) * piece_bytes_max
    for at in range(0, last, piece_bytes_max):
        yield encode(kind | MORE, stream, payload[at : at + piece_bytes_max])
    yield encode(kind, stream, payload[last:])


def weight_of(message_bytes: int, piece_bytes_max: int) -> int:
    """Return what a message of so many bytes, sent in pieces, counts at most among its reader's unfinished ones.

    A reader never waits with the last piece in hand, and so counts one piece less: that is the sender's margin.
    """
    return message_bytes + _PIECE_OVERHEAD_BYTES * -(-message_bytes // piece_bytes_max)


class FrameReader:
    """Cuts whatever bytes arrive into whole messages.

    Memory is bounded: one unfinished frame, plus unfinished messages of at most `message_bytes_max` in all, by
    `weight_of`. A sender that interleaves the pieces of several messages must keep to it.
    """

    def __init__(self, *, frame_bytes_max: int, message_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._message_bytes_max = message_bytes_max
        self._rest = b""
        self._unfinished: dict[tuple[int, int], list[bytes]] = {}
        self._unfinished_bytes = 0

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the messages that `data` completes, as (kind, stream, payload).

        Raises `BadFrame` for a length over the limit or pieces over theirs. Unknown kinds are the caller's
        to refuse: this class only cuts.
        """
        buffer = self._rest + data if self._rest else data
        messages: list[tuple[int, int, bytes]] = []
        at, end = 0, len(buffer)
        unpack, frame_bytes_max = _HEAD.unpack_from, self._frame_bytes_max
        while end - at >= HEAD_BYTES:
            length, kind, stream = unpack(buffer, at)
            if length > frame_bytes_max:
                raise BadFrame(f"a frame of {length} bytes; at most {frame_bytes_max} are allowed")
            stop = at + HEAD_BYTES + length
            if stop > end:
                break
            payload = buffer[at + HEAD_BYTES : stop]
            at = stop
            if kind & MORE or self._unfinished:
                whole = self._join(kind, stream, payload)
                if whole is None:
                    continue
                payload = whole
            messages.append((kind, stream, payload))
        self._rest = buffer[at:]
        return messages

    def _join(self, kind: int, stream: int, payload: bytes) -> bytes | None:
        key = (kind & ~MORE, stream)
        if kind & MORE:
            self._unfinished_bytes += len(payload) + _PIECE_OVERHEAD_BYTES
            if self._unfinished_bytes > self._message_bytes_max:
                raise BadFrame(f"unfinished messages of more than {self._message_bytes_max} bytes")
            self._unfinished.setdefault(key, []).append(payload)
            return None
        parts = self._unfinished.pop(key, None)
        if parts is None:
            return payload
        self._unfinished_bytes -= sum(map(len, parts)) + len(parts) * _PIECE_OVERHEAD_BYTES
        parts.append(payload)
        return b"".join(parts)
