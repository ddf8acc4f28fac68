"""`AsyncStream`: the items of a stream, for programs with asyncio.

A thin shell. What an answer means stands in `_answer`, what a cut means in `_resume`; here is only the order of
things. `_sync_stream` has the same shape, and a test compares the two.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headrace.client import errors
from headrace.client._aiohttp import Exchange
from headrace.client._answer import Items, check_stream
from headrace.client._request import Patience, Request
from headrace.client._resume import Resumption, patient

if TYPE_CHECKING:
    from headrace.client._async import AsyncClient


class AsyncStream:
    """The items of one stream: an asynchronous iterator of dicts, and a context manager that closes it.

    `request_id`, `status_code` and `headers` are there from the first item on, or from the error that came in its
    place; None and empty before. Of a resumed stream, they are those of its last connection.
    """

    def __init__(
        self, client: AsyncClient, request: Request, patience: Patience, resumption: Resumption | None = None
    ) -> None:
        """Made by `AsyncClient.stream` and `AsyncClient.attach`."""
        self.request_id: str | None = None
        self.status_code: int | None = None
        self.headers: Mapping[str, str] = {}
        self._client = client
        self._request = request
        self._patience = patience if resumption is None else patient(patience)
        self._resumption = resumption
        self._exchange: Exchange | None = None
        self._items: Items | None = None
        self._ready: Iterator[dict[str, Any]] = iter(())
        self._is_over = False
        self._farewell: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._request}, request {self.request_id}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        for item in self._ready:
            return item
        try:
            self._ready = iter(await self._receive())
        except BaseException as error:
            if self._resumption is not None:
                self._resumption.ended(error)
            self.close()
            raise
        for item in self._ready:
            return item
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the stream: the connection is closed at once, and the iteration ends. Nothing to await.

        That a resumed stream was left on purpose, the server is told by a thread, which takes about a second at
        most; the program does not end before. `aclose` and `async with` wait for it.
        """
        self._is_over = True
        self._ready = iter(())
        if self._exchange is not None:
            self._exchange.close()
        if self._resumption is not None and (request := self._resumption.farewell()) is not None:
            self._say_farewell(request, self._resumption)

    async def aclose(self) -> None:
        """Leave the stream, as `close` does, and wait until the server was told; also what `aclosing` calls."""
        self.close()
        if self._farewell is not None:
            await asyncio.to_thread(self._farewell.join)

    def _say_farewell(self, request: Request, resumption: Resumption) -> None:
        """Tell the server in a thread: a task would be cancelled by a loop that ends, and that may come next."""
        from headrace.client._sync_stream import say_farewell  # only then urllib3 is needed

        words = self._client._target, request, resumption  # noqa: SLF001
        farewell = threading.Thread(target=say_farewell, args=words, name="headrace farewell", daemon=False)
        with suppress(RuntimeError):  # at the interpreter's end no thread can begin
            farewell.start()
            self._farewell = farewell

    async def _receive(self) -> list[dict[str, Any]]:
        """Wait for items and return those that came; none at the end. Raises `HeadraceError`."""
        began = time.monotonic()
        while not self._is_over:
            try:
                ready = await self._read(began)
            except errors.HeadraceError as error:
                await self._wait_after(error, began)
                continue
            if ready:
                return ready
        return []

    async def _read(self, began: float) -> list[dict[str, Any]]:
        """Return the items of the next piece; note whether it was the last."""
        opened = await self._opened(began)
        if opened is None:
            self._end()
            return []
        exchange, items = opened
        if items.failure is not None:
            raise items.failure
        data = await exchange.read(self._patience, time.monotonic() - began)
        if data:
            ready = items.feed(data)
            return ready if self._resumption is None else self._resumption.passed(ready, items.last_event_id)
        if not self._is_over:  # or close() was called from elsewhere
            items.end()
            self._end()
        return []

    def _end(self) -> None:
        self._is_over = True
        if self._resumption is not None:
            self._resumption.ended()

    async def _wait_after(self, error: errors.HeadraceError, began: float) -> None:
        """Wait until a lost connection is to be made again, or raise."""
        now = time.monotonic()
        pause_s = None if self._resumption is None else self._resumption.pause_s(error, now, random.random())  # noqa: S311
        if pause_s is None:
            raise error
        if self._exchange is not None:
            self._exchange.close()
        self._exchange = self._items = None
        await asyncio.sleep(self._patience.left_of(pause_s, now - began))

    async def _opened(self, began: float) -> tuple[Exchange, Items] | None:
        """Return the connection, made now if there is none; None if it says that nothing more will come."""
        if self._exchange is None or self._items is None:
            request = self._request if self._resumption is None else self._resumption.sending()
            try:
                self._exchange = await self._client._open(request, self._patience, time.monotonic() - began)  # noqa: SLF001
            except errors.APIError as error:
                self._told(error.status_code, error.response_headers, error.request_id)
                raise
            if self._is_over:  # close() was called from elsewhere meanwhile
                self._exchange.close()
            head = self._exchange.head
            self._told(head.status, head.headers, head.request_id)
            if self._resumption is not None:
                self._resumption.opened(head)
                if self._resumption.ends_with(head):
                    return None
            check_stream(request, head)
            self._items = Items(request, head)
        return self._exchange, self._items

    def _told(self, status: int, headers: Mapping[str, str], request_id: str | None) -> None:
        self.status_code, self.headers, self.request_id = status, headers, request_id
