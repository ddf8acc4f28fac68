"""From a route and a body to a live request: the one door into the runners, whatever view a call came in by."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.request import RequestId, new_request_id
from headrace.core.routes import Route
from headrace.supervisor.catalog import Catalog
from headrace.supervisor.streams import LiveRequest

#: Request headers an app may see (`current_request.headers`). Never Authorization, never cookies.
HEADERS_FOR_APPS: Final = frozenset({
    "accept-language", "traceparent", "tracestate", "user-agent", "x-fal-object-lifecycle-preference",
    "x-fal-queue-priority", "x-fal-runner-hint",
})  # fmt: skip


class Dispatcher:
    """Starts requests in the pools of a catalog, and knows which are alive."""

    def __init__(self, catalog: Catalog, *, node: int, limits: Limits) -> None:
        self.catalog = catalog
        self._node = node
        self._limits = limits
        self._live: set[LiveRequest] = set()
        self.is_draining = False

    @property
    def live(self) -> int:
        """How many requests are not over yet."""
        return len(self._live)

    def new_id(self) -> RequestId:
        """Make the id of one more request."""
        return new_request_id(os.urandom(16), self._node)

    def open(
        self,
        id_: RequestId,
        route: Route,
        body: bytes,
        headers: Mapping[str, str],
        *,
        start_timeout_s: float | None = None,
    ) -> LiveRequest:
        """Start a request, or let it wait for its slot; what becomes of it is told to its readers.

        `headers` have lower-case names; the app sees only `HEADERS_FOR_APPS` of them. `start_timeout_s` is the
        longest wait for a slot (`X-Fal-Request-Timeout`); the default is `limits.slot_wait_s`.

        Raises `RequestError` when the node is stopping, the app cannot start, or its waiting room is full.
        """
        if self.is_draining:
            raise RequestError("shutting_down", "The server is stopping.", headers={"Retry-After": "5"})
        seen = {name: value for name, value in headers.items() if name in HEADERS_FOR_APPS}
        live = LiveRequest(id_, route, body, headers=seen, limits=self._limits)
        self._live.add(live)
        live.on_final.append(self._live.discard)
        try:
            self.catalog.pools[route.app.name].submit(live, start_timeout_s=start_timeout_s)
        except RequestError:
            self._live.discard(live)
            raise
        return live

    def end_all(self) -> None:
        """End every request that is still alive, with `shutting_down`."""
        for live in tuple(self._live):
            live.cancel("shutting_down", "The server is stopping.")
