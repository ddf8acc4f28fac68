"""The life of one request, as a table, and the making of its id.

    QUEUED ──start──> RUNNING ──finish──> COMPLETED
     │ ^                 │────fail──────> FAILED
     │ │                 │───cancel──> CANCELLING ──finish, fail──> CANCELLED
     │ └──────retry──────┴────────────────┘
     └─cancel──> CANCELLED, fail ──> FAILED

Run and stream views create the same kind of request. A final state never changes. Everything that decides about
a request's state looks it up here; nothing here knows runners, readers or time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NewType

RequestId = NewType("RequestId", str)


class State(enum.Enum):
    """Where a request is."""

    __hash__ = object.__hash__  # in C: an enum's own costs more than the look-up that it is for

    QUEUED = "queued"  # waits for a slot
    RUNNING = "running"  # a runner works on it
    CANCELLING = "cancelling"  # told to stop; its slot is not free yet
    COMPLETED = "completed"  # its last event is its result
    FAILED = "failed"  # ended with an error
    CANCELLED = "cancelled"  # nobody wanted the rest


class Move(enum.Enum):
    """What can happen to a request."""

    __hash__ = object.__hash__

    START = "start"  # a slot was found
    FINISH = "finish"  # the runner said DONE
    FAIL = "fail"  # the runner said ERROR or died, or a deadline passed
    CANCEL = "cancel"  # the last reader left, or somebody stopped it
    RETRY = "retry"  # its attempt was given up, and there will be another


FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})

MOVES: Final[Mapping[tuple[State, Move], State]] = {
    (State.QUEUED, Move.START): State.RUNNING,
    (State.QUEUED, Move.FAIL): State.FAILED,
    (State.QUEUED, Move.CANCEL): State.CANCELLED,
    (State.RUNNING, Move.FINISH): State.COMPLETED,
    (State.RUNNING, Move.FAIL): State.FAILED,
    (State.RUNNING, Move.CANCEL): State.CANCELLING,
    (State.RUNNING, Move.RETRY): State.QUEUED,
    (State.CANCELLING, Move.FINISH): State.CANCELLED,
    (State.CANCELLING, Move.FAIL): State.CANCELLED,
    (State.CANCELLING, Move.CANCEL): State.CANCELLING,
    (State.CANCELLING, Move.RETRY): State.QUEUED,
}


class IllegalMove(Exception):
    """A fault of ours: something happened to a request that cannot happen in its state."""


def after(state: State, move: Move) -> State:
    """Return the state that follows. Raises `IllegalMove` for a pair the table does not have."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise IllegalMove(f"{move.value} cannot happen to a request that is {state.value}") from None


def new_request_id(random: bytes, node: int, now: float) -> RequestId:
    """Make a UUID-shaped id from 16 random bytes; it begins with the minute it is made in and ends with its node.

    94 bits stay random (RFC 9562, version 4 as fal's are: six bits are fixed), so an id cannot be guessed, and any
    node of several can tell from an id alone whom to ask. Ids of one time lie side by side in the store's index,
    however many old ones it holds (docs/adr/0011): 12 bits for 64 seconds each go round in three days.
    """
    value = int.from_bytes(random, "big") & ((1 << 116) - 1)
    value |= (int(now) // 64 & 0xFFF) << 116
    value = (value & ~0xFFFF) | (node & 0xFFFF)
    value = (value & ~(0xF << 76)) | (4 << 76)  # version 4
    value = (value & ~(0x3 << 62)) | (0x2 << 62)  # the RFC's variant
    text = f"{value:032x}"
    return RequestId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
