"""`SyncRequestHandle`, and the queue's part of `Client`: the SDK's queue for programs without asyncio.

A thin shell. What is sent, what comes back and what is tried again stands in `_queue` and `_watch`; here is only
the order of things. `_async_queue` has the same shape, and a test compares the two.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
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
    Expired,
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
    from headrace.client._sync import Client
    from headrace.client._urllib3 import Exchange

_NEVER = Deadline()


@dataclass(frozen=True, slots=True)
class SyncRequestHandle(Links):
    """A request in a server's queue: `request_id`, `response_url`, `status_url`, `cancel_url`, and its `client`.

    Made by `submit` and `get_handle`. It keeps nothing open and can be thrown away: the id is enough to come back.
    """

    client: Client = field(repr=False)

    #: Whether statuses are handed over as they change, log lines once, or as often as they are asked for.
    _tells_changes: ClassVar[bool] = True

    @classmethod
    def from_request_id(cls, client: Client, application: str, request_id: str) -> Self:
        """Return the handle of a request whose id is known. Raises `ValueError` for what cannot be an id."""
        return cls._of(links_to(client._target, application, request_id), client)  # noqa: SLF001

    @classmethod
    def _of(cls, links: Links, client: Any) -> Self:
        return cls(links.request_id, links.response_url, links.status_url, links.cancel_url, client)

    def status(self, *, with_logs: bool = False) -> Status:
        """Return what the request is doing: `Queued`, `InProgress` or `Completed`, with all log lines so far."""
        request = status_request(self._target, self, with_logs=with_logs)
        return status_in(request, self.request_id, self.client._ask(request, ASKING, _NEVER))  # noqa: SLF001

    def iter_events(self, *, with_logs: bool = False, interval: float = INTERVAL_S) -> Iterator[Status]:
        """Yield each change of the status, up to `Completed`, each log line once.

        The server's stream of them is read where it has one, and opened again if it is cut; else the server is
        asked every `interval` seconds.
        """
        return self._statuses(with_logs, interval, _NEVER, is_known=False)

    def get(self, *, interval: float = INTERVAL_S) -> Any:
        """Wait for the end and return the result, the JSON of the answer.

        Raises the model's own `APIError` if it failed, with its status, `detail` and `error_type`.
        """
        for _ in self.iter_events(interval=interval):
            pass
        return self._result(_NEVER)

    def cancel(self) -> None:
        """Ask the server to stop the request. Raises `APIError`: 400 if it is over, 404 if it is unknown."""
        self._cancel(CANCELLING, _NEVER)

    @property
    def _target(self) -> Target:
        return self.client._target  # noqa: SLF001

    def _result(self, deadline: Deadline) -> Any:
        return self.client._ask(result_request(self._target, self), FETCHING, deadline)  # noqa: SLF001

    def _cancel(self, retries: Retries, deadline: Deadline) -> None:
        self.client._ask(cancel_request(self._target, self), retries, deadline)  # noqa: SLF001

    def _statuses(
        self, with_logs: bool, interval: float, deadline: Deadline, *, is_known: bool
    ) -> Generator[Status, None, None]:
        watch = Watch(self.request_id, interval=interval, changes=self._tells_changes, is_known=is_known)
        request = status_request(self._target, self, with_logs=with_logs)
        while not watch.is_over:
            time.sleep(deadline.left_of(watch.pause_s, time.monotonic()))
            if not watch.is_streamed:
                yield from watch.asked(request, self.client._ask(request, watch.retries, deadline))  # noqa: SLF001
                continue
            try:
                yield from self._streamed(watch, with_logs, deadline)
            except errors.HeadraceError as error:
                watch.failed(error, random.random())  # noqa: S311

    def _streamed(self, watch: Watch, with_logs: bool, deadline: Deadline) -> Iterator[Status]:
        """Yield what one status stream brings. Raises `HeadraceError` if it ends before the request does."""
        request = status_stream_request(self._target, self, with_logs=with_logs)
        patience = Patience(self.client._default.connect_s, SILENCE_S)  # noqa: SLF001
        with deadline.watched():
            exchange = self.client._open(request, deadline.limit(patience, time.monotonic()), 0.0)  # noqa: SLF001
        try:
            watch.opened(request, exchange.head)
            while not watch.is_over:
                with deadline.watched():
                    data = exchange.read(deadline.limit(patience, time.monotonic()), 0.0)
                yield from watch.fed(data)
        finally:
            exchange.close()


class QueueCalls:
    """What `Client` can do with the server's queue.

    The waiting is the server's: a request that was accepted goes on without its caller, and any client with the
    same key can ask for it by its id.
    """

    _target: Target
    _default: Patience
    _handle_class: ClassVar[type[SyncRequestHandle]] = SyncRequestHandle
    _queue_timeout_s: float = QUEUE_TIMEOUT_S

    if TYPE_CHECKING:  # what `Client` brings

        def _fetch(self, request: Request, patience: Patience) -> Any: ...
        def _open(self, request: Request, patience: Patience, waited_s: float) -> Exchange: ...

    def submit(
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
    ) -> SyncRequestHandle:
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
        return self._submitted(request, _NEVER)

    def subscribe(
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

        - `on_enqueue`: called with the request's id once it is accepted
        - `on_queue_update`: called with each change of its status, as `iter_events` gives them
        - `with_logs`: whether these have log lines
        - `interval`: as for `iter_events`
        - `client_timeout`: seconds for everything together. When they have passed, the request is cancelled and
          `Timeout` raised. A callback is not interrupted. It is the `start_timeout` as well, if there is none

        The rest is as for `submit`, also what is raised; and a failed request raises the model's own `APIError`.
        """
        deadline = Deadline.after(client_timeout, time.monotonic())
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
        handle: SyncRequestHandle | None = None
        try:
            handle = self._submitted(request, deadline)
            if on_enqueue is not None:
                on_enqueue(handle.request_id)
            has_logs = with_logs and on_queue_update is not None
            with closing(handle._statuses(has_logs, interval, deadline, is_known=True)) as statuses:  # noqa: SLF001
                for status in statuses:
                    if on_queue_update is not None:
                        on_queue_update(status)
            return handle._result(deadline)  # noqa: SLF001
        except Expired as error:
            if handle is not None:
                with suppress(errors.HeadraceError, Expired):
                    handle._cancel(ONCE, Deadline.after(CANCEL_WAIT_S, time.monotonic()))  # noqa: SLF001
            raise timed_out(client_timeout, None if handle is None else handle.request_id) from error

    def get_handle(self, application: str, request_id: str) -> SyncRequestHandle:
        """Return the handle of a request whose id is known. Nothing is sent."""
        return self._handle_class._of(links_to(self._target, application, request_id), self)  # noqa: SLF001

    def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Return what a request is doing; see `SyncRequestHandle.status`."""
        return self.get_handle(application, request_id).status(with_logs=with_logs)

    def result(self, application: str, request_id: str) -> Any:
        """Wait for a request's end and return its result; see `SyncRequestHandle.get`."""
        return self.get_handle(application, request_id).get()

    def cancel(self, application: str, request_id: str) -> None:
        """Ask the server to stop a request; see `SyncRequestHandle.cancel`."""
        self.get_handle(application, request_id).cancel()

    def _submitted(self, request: Request, deadline: Deadline) -> SyncRequestHandle:
        value = self._ask(request, SUBMITTING, deadline)
        return self._handle_class._of(links_in(self._target, request, value), self)  # noqa: SLF001

    def _ask(self, request: Request, retries: Retries, deadline: Deadline) -> Any:
        """Return the JSON of the answer, after as many tries as it takes. Raises `HeadraceError`, `Expired`."""
        patience = self._queue_patience()
        for tried in count(1):
            try:
                with deadline.watched():
                    return self._fetch(request, deadline.limit(patience, time.monotonic()))
            except errors.HeadraceError as error:
                pause_s = retries.pause_s(error, tried, random.random())  # noqa: S311
                if pause_s is None:
                    raise
            time.sleep(deadline.left_of(pause_s, time.monotonic()))
        raise AssertionError("count() has no end")

    def _queue_patience(self) -> Patience:
        return Patience(self._default.connect_s, self._default.bytes_s or self._queue_timeout_s)
