"""`AsyncRequestHandle`, and the queue's part of `AsyncClient`: the SDK's queue for programs with asyncio.

A thin shell. What is sent, what comes back and what is tried again stands in `_queue` and `_watch`; here is only
the order of things. `_sync_queue` has the same shape, and a test compares the two. A deadline is asyncio's own
here: it ends whatever is awaited, callbacks included.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Self

from headrace.client import errors
from headrace.client._queue import (
    ASKING,
    CANCEL_WAIT_S,
    CANCELLING,
    FETCHING,
    INTERVAL_S,
    ONCE,
    QUEUE_TIMEOUT_S,
    SUBMITTING,
    Deadline,
    Links,
    Priority,
    Retries,
    Status,
    build_submit,
    cancel_request,
    links_in,
    links_to,
    result_request,
    start_timeout_of,
    status_in,
    status_request,
    status_stream_request,
    timed_out,
)
from headrace.client._request import Patience, Request, Target
from headrace.client._watch import SILENCE_S, Watch

if TYPE_CHECKING:
    from headrace.client._aiohttp import Exchange
    from headrace.client._async import AsyncClient


@dataclass(frozen=True, slots=True)
class AsyncRequestHandle(Links):
    """A request in a server's queue: `request_id`, `response_url`, `status_url`, `cancel_url`, and its `client`.

    Made by `submit` and `get_handle`. It keeps nothing open and can be thrown away: the id is enough to come back.
    """

    client: AsyncClient = field(repr=False)

    #: Whether statuses are handed over as they change, log lines once, or as often as they are asked for.
    _tells_changes: ClassVar[bool] = True

    @classmethod
    def from_request_id(cls, client: AsyncClient, application: str, request_id: str) -> Self:
        """Return the handle of a request whose id is known. Raises `ValueError` for what cannot be an id."""
        return cls._of(links_to(client._target, application, request_id), client)  # noqa: SLF001

    @classmethod
    def _of(cls, links: Links, client: Any) -> Self:
        return cls(links.request_id, links.response_url, links.status_url, links.cancel_url, client)

    async def status(self, *, with_logs: bool = False) -> Status:
        """Return what the request is doing: `Queued`, `InProgress` or `Completed`, with all log lines so far."""
        request = status_request(self._target, self, with_logs=with_logs)
        return status_in(request, self.request_id, await self.client._ask(request, ASKING))  # noqa: SLF001

    def iter_events(self, *, with_logs: bool = False, interval: float = INTERVAL_S) -> AsyncIterator[Status]:
        """Yield each change of the status, up to `Completed`, each log line once.

        The server's stream of them is read where it has one, and opened again if it is cut; else the server is
        asked every `interval` seconds.
        """
        return self._statuses(with_logs, interval, is_known=False)

    async def get(self, *, interval: float = INTERVAL_S) -> Any:
        """Wait for the end and return the result, the JSON of the answer.

        Raises the model's own `APIError` if it failed, with its status, `detail` and `error_type`.
        """
        async for _ in self.iter_events(interval=interval):
            pass
        return await self._result()

    async def cancel(self) -> None:
        """Ask the server to stop the request. Raises `APIError`: 400 if it is over, 404 if it is unknown."""
        await self._cancel(CANCELLING)

    @property
    def _target(self) -> Target:
        return self.client._target  # noqa: SLF001

    async def _result(self) -> Any:
        return await self.client._ask(result_request(self._target, self), FETCHING)  # noqa: SLF001

    async def _cancel(self, retries: Retries) -> None:
        await self.client._ask(cancel_request(self._target, self), retries)  # noqa: SLF001

    async def _statuses(self, with_logs: bool, interval: float, *, is_known: bool) -> AsyncGenerator[Status, None]:
        watch = Watch(self.request_id, interval=interval, changes=self._tells_changes, is_known=is_known)
        request = status_request(self._target, self, with_logs=with_logs)
        while not watch.is_over:
            await asyncio.sleep(watch.pause_s)
            if not watch.is_streamed:
                for status in watch.asked(request, await self.client._ask(request, watch.retries)):  # noqa: SLF001
                    yield status
                continue
            try:
                async with aclosing(self._streamed(watch, with_logs)) as statuses:
                    async for status in statuses:
                        yield status
            except errors.HeadraceError as error:
                watch.failed(error, random.random())  # noqa: S311

    async def _streamed(self, watch: Watch, with_logs: bool) -> AsyncGenerator[Status, None]:
        """Yield what one status stream brings. Raises `HeadraceError` if it ends before the request does."""
        request = status_stream_request(self._target, self, with_logs=with_logs)
        patience = Patience(self.client._default.connect_s, SILENCE_S)  # noqa: SLF001
        exchange = await self.client._open(request, patience, 0.0)  # noqa: SLF001
        try:
            watch.opened(request, exchange.head)
            while not watch.is_over:
                for status in watch.fed(await exchange.read(patience, 0.0)):
                    yield status
        finally:
            exchange.close()


class AsyncQueueCalls:
    """What `AsyncClient` can do with the server's queue.

    The waiting is the server's: a request that was accepted goes on without its caller, and any client with the
    same key can ask for it by its id.
    """

    _target: Target
    _default: Patience
    _handle_class: ClassVar[type[AsyncRequestHandle]] = AsyncRequestHandle
    _queue_timeout_s: float = QUEUE_TIMEOUT_S

    if TYPE_CHECKING:  # what `AsyncClient` brings

        async def _fetch(self, request: Request, patience: Patience) -> Any: ...
        async def _open(self, request: Request, patience: Patience, waited_s: float) -> Exchange: ...

    async def submit(
        self,
        application: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        path: str = "",
        hint: str | None = None,
        webhook_url: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
    ) -> AsyncRequestHandle:
        """Put a call into the server's queue and return its handle, as soon as the server has accepted it.

        - `application`, `arguments`, `path`, `headers`: as for `run`
        - `hint`: the runner that is preferred, by the hint that it gave
        - `webhook_url`: where the server posts the result
        - `priority`: "normal" or "low"
        - `start_timeout`: seconds, over 1, that the request may wait before it runs; then it fails with a 504

        It is sent up to three times, under an `Idempotency-Key` of its own, so that one call is one request. (A
        server that does not know the header may run it twice, as with fal's client.) Raises `TypeError` or
        `ValueError` for what cannot be sent, `APIError` and the rest of `headrace.client.errors`.
        """
        request = build_submit(
            self._target,
            application,
            arguments,
            idempotency_key=str(uuid.uuid4()),
            path=path,
            hint=hint,
            webhook_url=webhook_url,
            priority=priority,
            headers=headers,
            start_timeout=start_timeout,
        )
        return await self._submitted(request)

    async def subscribe(
        self,
        application: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        path: str = "",
        hint: str | None = None,
        with_logs: bool = False,
        interval: float = INTERVAL_S,
        on_enqueue: Callable[[str], object] | None = None,
        on_queue_update: Callable[[Status], object] | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
    ) -> Any:
        """Put a call into the server's queue, wait for its result and return it.

        - `on_enqueue`: called with the request's id once it is accepted; awaited if it returns an awaitable
        - `on_queue_update`: called with each change of its status, as `iter_events` gives them; the same
        - `with_logs`: whether these have log lines
        - `interval`: as for `iter_events`
        - `client_timeout`: seconds for everything together. When they have passed, the request is cancelled and
          `Timeout` raised. It is the `start_timeout` as well, if there is none

        The rest is as for `submit`, also what is raised; and a failed request raises the model's own `APIError`.
        """
        timeout_s = Deadline.after(client_timeout, 0.0).timeout_s
        request = build_submit(
            self._target,
            application,
            arguments,
            idempotency_key=str(uuid.uuid4()),
            path=path,
            hint=hint,
            webhook_url=None,
            priority=priority,
            headers=headers,
            start_timeout=start_timeout_of(start_timeout, client_timeout),
        )
        handle: AsyncRequestHandle | None = None
        try:
            async with asyncio.timeout(timeout_s) as scope:
                handle = await self._submitted(request)
                if on_enqueue is not None:
                    await _awaited(on_enqueue(handle.request_id))
                has_logs = with_logs and on_queue_update is not None
                async with aclosing(handle._statuses(has_logs, interval, is_known=True)) as statuses:  # noqa: SLF001
                    async for status in statuses:
                        if on_queue_update is not None:
                            await _awaited(on_queue_update(status))
                return await handle._result()  # noqa: SLF001
        except TimeoutError as error:
            if not scope.expired():  # it was one of ours
                raise
            if handle is not None:
                with suppress(errors.HeadraceError, TimeoutError):
                    async with asyncio.timeout(CANCEL_WAIT_S):
                        await handle._cancel(ONCE)  # noqa: SLF001
            raise timed_out(client_timeout, None if handle is None else handle.request_id) from error

    def get_handle(self, application: str, request_id: str) -> AsyncRequestHandle:
        """Return the handle of a request whose id is known. Nothing is sent, and nothing to await."""
        return self._handle_class._of(links_to(self._target, application, request_id), self)  # noqa: SLF001

    async def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Return what a request is doing; see `AsyncRequestHandle.status`."""
        return await self.get_handle(application, request_id).status(with_logs=with_logs)

    async def result(self, application: str, request_id: str) -> Any:
        """Wait for a request's end and return its result; see `AsyncRequestHandle.get`."""
        return await self.get_handle(application, request_id).get()

    async def cancel(self, application: str, request_id: str) -> None:
        """Ask the server to stop a request; see `AsyncRequestHandle.cancel`."""
        await self.get_handle(application, request_id).cancel()

    async def _submitted(self, request: Request) -> AsyncRequestHandle:
        value = await self._ask(request, SUBMITTING)
        return self._handle_class._of(links_in(self._target, request, value), self)  # noqa: SLF001

    async def _ask(self, request: Request, retries: Retries) -> Any:
        """Return the JSON of the answer, after as many tries as it takes. Raises `HeadraceError`."""
        for tried in count(1):
            try:
                return await self._fetch(request, self._queue_patience())
            except errors.HeadraceError as error:
                pause_s = retries.pause_s(error, tried, random.random())  # noqa: S311
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("count() has no end")

    def _queue_patience(self) -> Patience:
        return Patience(self._default.connect_s, self._default.bytes_s or self._queue_timeout_s)


async def _awaited(returned: object) -> None:
    """Wait for what a callback returned, if there is something to wait for."""
    if inspect.isawaitable(returned):
        await returned
