"""Which request is this code working for? The answer for `emit` and `App.current_request`.

The runner sets `CURRENT` around an author's code and lists every call it runs in `RUNNING`. This file knows no
runner: only the `Call` it implements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Protocol


class Cancelled(BaseException):
    """Nobody wants the rest of this request: raised by `emit`, to end the work below it.

    Not an `Exception`, for the reason that `asyncio.CancelledError` is not: an author's `except Exception`
    around a step must not swallow it by accident. `finally:` blocks and context managers run as always. Code
    that catches it on purpose should let it pass on: whatever is emitted or returned afterwards is dropped.
    """


@dataclass(frozen=True, slots=True)
class Request:
    """The request that an endpoint is answering: what `self.current_request` returns.

    `headers` are those that the server lets through, by lower-case name; never `authorization`. `attempt` is
    1 for the first try and rises when a queued request is tried again.
    """

    request_id: str
    endpoint: str  # the endpoint's path, as its decorator has it
    attempt: int
    headers: Mapping[str, str]
    _emit: Callable[[object], None] = field(repr=False, compare=False)

    def emit(self, item: object) -> None:
        """Send one item of this request, from any thread; see `headrace.emit` for what it raises."""
        self._emit(item)


class Call(Protocol):
    """One attempt at a request, while it runs: the runner's side of this file."""

    @property
    def request(self) -> Request:
        """The request it answers."""

    @property
    def base_url(self) -> str:
        """The server as the request's caller knows it, without a slash at its end; empty where nobody said."""

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants the rest."""

    def emit(self, item: object) -> None:
        """Send one item, from any thread; raises as `headrace.emit` does."""


#: The call that this task or thread works for. The runner carries it into threads started below a call.
CURRENT: Final[ContextVar[Call | None]] = ContextVar("headrace_call", default=None)

#: Every call that runs in this process, by identity.
RUNNING: Final[set[Call]] = set()


def current_call(asked: str) -> Call:
    """Return the call this code belongs to; `asked` names, for the message, what needs it.

    A thread that began outside every request (one of a native library's own, or one that `setup` started) has
    no context. With one call running, it can only mean that one. With several, a guess could send one caller's
    items to another: `RuntimeError`.
    """
    call = CURRENT.get()
    if call is not None:
        return call
    running = tuple(RUNNING)  # one step under the GIL: the set may change under our feet
    if len(running) == 1:
        return running[0]
    if not running:
        raise RuntimeError(f"{asked} works only while a request runs, and none does")
    raise RuntimeError(
        f"{asked} was used in a thread that belongs to none of the {len(running)} running requests; "
        "keep `request = self.current_request` in the endpoint and use that: self.current_request.emit works "
        "from any thread"
    )


def emit(item: object) -> None:
    """Send one item of the running request, from a callback or a thread below its endpoint.

    `item` is a pydantic model, a dataclass or a dict; anything else that JSON can hold arrives as
    `{"output": item}`. In a thread, `emit` waits while the readers are a window (256 KiB) behind.

    Raises `Cancelled` once nobody wants the rest; `RequestError` for an item that JSON cannot hold or that is
    over `event_bytes_max`; `RuntimeError` when no request can be meant, when the request is over, or, on the
    event loop, where it cannot wait, when it has run 4 MiB ahead of the readers: yield the items there instead.
    """
    current_call("emit()").emit(item)
