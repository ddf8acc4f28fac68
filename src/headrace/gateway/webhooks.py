"""Webhooks that could not be delivered: which there are, and another try.

GET   /v1/webhooks               those of this key that were given up, the latest first
POST  /v1/webhooks/{id}/retry    try one again, from the beginning
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any, Final

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.request import RequestId
from headrace.gateway.answers import value_answer
from headrace.gateway.calls import Call
from headrace.store.port import Delivery, Record, RequestStore
from headrace.supervisor.outbox import Outbox

PATH: Final = "/v1/webhooks"

#: Dead letters in one answer.
LISTED_MAX: Final = 100

_RETRY: Final = re.compile(rf"{PATH}/([^/]+)/retry")


@dataclass(frozen=True, slots=True)
class WebhookView:
    """What the owner of a request may ask about its webhook."""

    store: RequestStore
    outbox: Outbox

    async def answer(self, call: Call) -> None:
        """Answer a call to a path that begins with `PATH`. Raises `RequestError`."""
        match = _RETRY.fullmatch(call.path)
        if match is not None:
            call.allow("POST")
            await self._retry(RequestId(match[1]), call)
        elif call.path == PATH:
            call.allow("GET")
            call.answer(value_answer(200, {"dead": await self._dead(call.owner)}, call.id))
        else:
            raise RequestError("not_found", f"Path {call.path} not found; there is {PATH}")

    async def _dead(self, owner: KeyId | None) -> list[dict[str, Any]]:
        dead = []
        for delivery in await self.store.dead_deliveries(limit=LISTED_MAX):
            record = await self.store.get(delivery.request)
            if record is not None and record.owner == owner:
                dead.append(_told(delivery, record))
        return dead

    async def _retry(self, id_: RequestId, call: Call) -> None:
        record = await self.store.get(id_)
        if (
            record is None
            or record.owner != call.owner
            or not await self.store.revive_delivery(id_, at=self.outbox.now())
        ):
            raise RequestError("request_not_found", "There is no request with a webhook that was given up.")
        self.outbox.look()
        call.answer(value_answer(202, {"status": "TRIED_AGAIN"}, call.id))


def _told(delivery: Delivery, record: Record) -> dict[str, Any]:
    return {
        "request_id": delivery.request,
        "app": record.app,
        "url": delivery.url,
        "tries": delivery.tries,
        "error": delivery.error,
        "given_up_at": _iso(delivery.buried_at),
    }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
