"""Calls that are sent again because nobody answered them.

fal's clients do that after a network failure, without a key. Such a call is the first one again and starts
nothing, if the connection of the first died before any byte of its answer was written, at most `RESEND_S` ago, and
caller, target and body are the same. Of two equal calls that both got an answer, each is a request.

That is so for every submit, and for the direct calls whose work goes on when their caller leaves. Where leaving
stops the work (`core.disconnect`, the default), nothing of the first is left to go on with: ADR 0009.

What cannot be known here is whether an answer that was written arrived: who must be sure sends `Idempotency-Key`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

from headrace.core.keys import KeyId
from headrace.core.request import RequestId

#: Seconds for which an unanswered call may be sent again. The JavaScript client waits 1 s, then 2, then 4.
RESEND_S: Final = 10.0

#: Unanswered calls that are remembered at once; of more, the oldest is forgotten.
REMEMBERED_MAX: Final = 1_000


class Connection(Protocol):
    """What must be known of the connection that a call came by."""

    @property
    def is_gone(self) -> bool:
        """Whether what is written now goes nowhere."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What makes two calls the same one."""

    owner: KeyId | None
    target: str  # path and query
    body_hash: bytes

    @classmethod
    def of(cls, owner: KeyId | None, path: str, query: bytes, body: bytes) -> Sent:
        """Return what a call is known by."""
        return cls(owner, f"{path}?{query.decode('latin-1')}", hashlib.sha256(body).digest())


@dataclass(frozen=True, slots=True)
class _Pending:
    """A call that is being worked on."""

    connection: Connection
    is_over: asyncio.Event


@dataclass(frozen=True, slots=True)
class _Unanswered:
    """A call that became a request, and whose caller does not know."""

    sent: Sent
    id: RequestId
    until: float


class Resends:
    """The calls that were not answered, for a while."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._pending: dict[Sent, list[_Pending]] = {}
        self._unanswered: deque[_Unanswered] = deque(maxlen=REMEMBERED_MAX)  # oldest first

    async def once(
        self, sent: Sent, connection: Connection, begin: Callable[[], Awaitable[RequestId]]
    ) -> RequestId:
        """Return the id of the request that a call is: an unanswered one's, else what `begin` returns.

        The answer must be written before the next await: the call counts as answered if it can be.
        """
        id_ = await self._first(sent)
        if id_ is None:
            id_ = await self._begin(sent, connection, begin)
        if connection.is_gone:
            self.remember(sent, id_)
        return id_

    def remember(self, sent: Sent, id_: RequestId) -> None:
        """A call's connection has died before its answer; the request that it became goes on."""
        self._unanswered.append(_Unanswered(sent, id_, self._clock() + RESEND_S))

    @property
    def is_empty(self) -> bool:
        """Whether there is none, so that nobody needs to look."""
        return not self._unanswered

    def take(self, sent: Sent) -> RequestId | None:
        """Return the unanswered request that a call is, if there is one: this call is its answer."""
        now = self._clock()
        while self._unanswered and self._unanswered[0].until <= now:
            self._unanswered.popleft()
        for first in self._unanswered:
            if first.sent == sent:
                self._unanswered.remove(first)
                return first.id
        return None

    async def _first(self, sent: Sent) -> RequestId | None:
        """Return the unanswered request that this call is, when there is one; wait for it while it is accepted."""
        for pending in tuple(self._pending.get(sent, ())):
            if pending.connection.is_gone:
                await pending.is_over.wait()
                break
        return self.take(sent)

    async def _begin(
        self, sent: Sent, connection: Connection, begin: Callable[[], Awaitable[RequestId]]
    ) -> RequestId:
        pending = _Pending(connection, asyncio.Event())
        self._pending.setdefault(sent, []).append(pending)
        try:
            return await begin()
        finally:
            self._pending[sent].remove(pending)
            if not self._pending[sent]:
                del self._pending[sent]
            pending.is_over.set()
