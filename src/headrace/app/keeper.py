"""Who keeps the files that a model makes, and fetches those that it is given: the runner, where there is one.

This file knows no runner, only the `Keeper` that it implements. Without one (a model's own tests, a notebook) a
file carries its bytes in its URL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from headrace.app.context import CURRENT, RUNNING, Call, current_call


class Unreadable(Exception):
    """A URL whose content cannot be had. `type` is one of fal's for a field of an input."""

    def __init__(self, type: str, message: str, ctx: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.type = type
        self.message = message
        self.ctx = dict(ctx or {})


class Keeper(Protocol):
    """The runner's side of this file."""

    def keep(self, call: Call, pieces: Iterable[bytes], content_type: str, name: str | None) -> str | None:
        """Keep a file that `call` made, and return its URL; None where its caller could reach none.

        Raises `RequestError` when it is too large or the disk cannot take it.
        """

    def read(self, url: str) -> bytes:
        """Return what an http or https URL leads to, waiting in this thread.

        Raises `Unreadable`, `Cancelled`, and `RuntimeError` on the event loop where it would have to wait.
        """

    async def read_async(self, url: str) -> bytes:
        """Return the same without holding up the loop."""


_installed: list[Keeper] = []


def install(keeper: Keeper | None) -> None:
    """Have a keeper for this process from now on, or none."""
    _installed[:] = [] if keeper is None else [keeper]


def keeper() -> Keeper | None:
    """Return this process's keeper."""
    return _installed[0] if _installed else None


def keep(pieces: Iterable[bytes], content_type: str, name: str | None) -> str | None:
    """Keep a file that this code's request made, and return its URL.

    None where there is no request (in `setup`, say) or no keeper. Raises as `Keeper.keep` does, and `RuntimeError`
    in a thread that belongs to none of several running requests.
    """
    its_keeper = keeper()
    if its_keeper is None or (CURRENT.get() is None and not RUNNING):
        return None
    return its_keeper.keep(current_call("a file"), pieces, content_type, name)
