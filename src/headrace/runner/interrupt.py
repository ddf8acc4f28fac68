"""The last word to an author's code in a thread that neither yields nor emits: `Cancelled`, where it stands.

Python lets one thread raise an exception in another between two bytecodes. A busy loop ends that way; a long call
into C does not see it until it returns, and the node then replaces the runner. The exception may land in the
middle of anything, so it comes late, at most once, and never where the author's code already knows.
"""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType
from typing import Final, Protocol

from headrace.app.context import Cancelled

#: Seconds that a cancelled thread has to notice by itself. Well under `cancel_grace_s`, so that a busy loop ends
#: before its runner is given up.
INTERRUPT_AFTER_S: Final = 1.0


class Interruptible(Protocol):
    """What a call has for this file."""

    @property
    def lock(self) -> threading.Lock:
        """Guards the other attribute."""

    #: The thread in which the author's code runs and does not know yet; None at all other times.
    author_thread: int | None


def interrupt(call: Interruptible) -> None:
    """Raise `Cancelled` in the author's code, if it is still running and was not told."""
    with call.lock:
        thread, call.author_thread = call.author_thread, None
        if thread is not None:
            _raise_in(thread, Cancelled)


class AuthorsCode:
    """`with AuthorsCode(call):` marks the stretch in which `interrupt` may strike this thread.

    It strikes at most once. So whatever stands outside this block is safe: if it struck inside, or in our own
    `__exit__`, it is spent; if it did not, `__exit__` has seen to it that it will not.
    """

    def __init__(self, call: Interruptible) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._call.author_thread = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._call.lock:
            self._call.author_thread = None
            _raise_in(threading.get_ident(), None)  # takes back one that has not landed yet


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(kind) if kind is not None else None
    )
