"""A store that fails is asked again until it answers, and what it may have done meanwhile is found out."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from headrace.core.request import RequestId
from headrace.store.port import StoreBusy, StoreUnavailable

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds until a store that failed is asked again.
ASK_AGAIN_S: Final = 1.0


async def ask(step: Callable[[], Awaitable[T]], who: str = "a queued request") -> T:
    """Have the store do something, however often it must be asked. `who` waits for it, in words for the log."""
    while True:
        try:
            return await step()
        except (StoreUnavailable, StoreBusy) as fault:
            _log.warning("%s waits for the store: %s", who, fault)
            await asyncio.sleep(ASK_AGAIN_S)


class Unanswered:
    """Requests with which the store did what it was asked, or did not, and could not say which.

    One task looks after all of them: a store that is away for an hour is asked once a second, not once for each.
    """

    def __init__(
        self, fence: Callable[[], Awaitable[object]], decide: Callable[[RequestId], Awaitable[object]]
    ) -> None:
        """`fence` is a write: once it is done, so is whatever was on its way before. `decide` is asked then."""
        self._fence = fence
        self._decide = decide
        self._ids: set[RequestId] = set()
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, id_: RequestId) -> None:
        """Look after one more, soon."""
        self._ids.add(id_)
        self._news.set()

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            ids = tuple(self._ids)
            await ask(self._fence)
            for id_ in ids:
                await ask(functools.partial(self._decide, id_))
                self._ids.discard(id_)
