"""The queue view: submit a request, follow it, fetch its result, stop it (protocol section 7).

    POST  /queue/{endpoint id}                            submit
    GET   /queue/{app}/requests/{id}/status[/stream]      how it is; as events, until it has ended
    GET   /queue/{app}/requests/{id}[/response]           the model's own answer
    PUT   /queue/{app}/requests/{id}/cancel               stop it

The same without `/queue` on a host that begins with `queue.`. What the store has said yes to is never lost, so a
submit is answered when it is on the disk. Another key's request is as unknown as any.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.line import Priority
from headrace.core.netguard import Policy, UrlRefused, check_url
from headrace.core.request import FINAL, RequestId
from headrace.core.routes import Route, RouteTable, UnknownPath, parse_endpoint_id
from headrace.gateway.answers import Answer, request_id_header, value_answer
from headrace.gateway.attach import last_seen, watch
from headrace.gateway.body import HeldBytes, check_media_type, check_object, read_body
from headrace.gateway.calls import Call, check_lifecycle, start_timeout_of
from headrace.gateway.resends import Resends, Sent
from headrace.gateway.status import StatusTeller, Urls
from headrace.store.port import (
    Cancelling,
    IdempotencyConflict,
    NewRequest,
    QueueFull,
    RequestStore,
    StoreBusy,
    StoreUnavailable,
)
from headrace.supervisor.dispatch import HEADERS_FOR_APPS, Dispatcher
from headrace.supervisor.idempotency import idempotency_key_of
from headrace.supervisor.queue import Queue
from headrace.supervisor.streams import LiveRequest
from headrace.supervisor.tickets import past_of

PREFIX: Final = "/queue"

#: The query parameters of a submit.
WEBHOOK: Final = "fal_webhook"
QUEUE_MAX: Final = "fal_max_queue_length"

_REQUEST: Final = re.compile(r"/(.+?)/requests/([^/]+)(?:/(status/stream|status|response|cancel|stream))?/*")
_YES: Final = frozenset({"1", "true"})


@dataclass(frozen=True, slots=True)
class QueueView:
    """Everything below `/queue`."""

    queue: Queue
    store: RequestStore
    dispatcher: Dispatcher
    outbound: Policy  # where webhooks may go
    limits: Limits
    resends: Resends = field(default_factory=Resends)

    async def answer(self, call: Call, path: str, own_url: str) -> None:
        """Answer a call to `path`, which stands below `/queue`; `own_url` is the queue as the caller knows it."""
        match = _REQUEST.fullmatch(path)
        with store_faults_told():
            await (self._submit(call, path, own_url) if match is None else self._request(call, match, own_url))

    async def find(self, id_: str, owner: KeyId | None) -> LiveRequest | None:
        """Return a queued request as readers know it, from memory or from the store. Raises as the store does."""
        ticket = self.queue.ticket(id_)
        if ticket is not None:
            return self.queue.live_of(ticket) if ticket.new.owner == owner else None
        record = await self.store.get(RequestId(id_))
        if record is None or record.owner != owner:
            return None
        if record.state not in FINAL:  # its submit is not answered yet, and nobody here drives it
            await self.queue.take_up(record.id)
            return await self.find(id_, owner)
        # All that is kept of it: whoever reads a part to its end would take it for the whole.
        page = await self.store.events(record.id, 0, limit=max(1, record.events_end))
        route = self.queue.route_of(record.app, record.endpoint, record.view)
        return past_of(record, page, route, self.limits) if page is not None and route is not None else None

    # --- submit -----------------------------------------------------------------------------------------

    async def _submit(self, call: Call, path: str, own_url: str) -> None:
        call.allow("POST")
        if self.dispatcher.is_draining:
            raise RequestError("shutting_down", "The server is stopping.", headers={"Retry-After": "5"})
        try:
            route = self.dispatcher.catalog.routes.find(path)
        except UnknownPath as unknown:
            raise RequestError("not_found", str(unknown)) from None
        held = HeldBytes(self.dispatcher.bodies, call.owner)
        try:
            body = await read_body(call.receive, call.headers, self.limits, held)
            check_media_type(call.headers, body)
            self.dispatcher.catalog.pool_of(route.app.name)  # it may be gone: the body took its time
            new = self._new_request(call, route, check_object(body, self.limits))
            id_ = await self._accept_once(call, new)
        finally:
            held.let_go()
        call.id = id_
        call.answer(value_answer(200, self._submitted(id_, new.app, own_url), id_))

    def _new_request(self, call: Call, route: Route, body: bytes) -> NewRequest:
        now = self.queue.now()
        start_timeout_s = start_timeout_of(call.headers)
        check_lifecycle(call.headers)
        return NewRequest(
            id=RequestId(call.id),
            app=route.app.name,
            endpoint=route.endpoint.path,
            view=route.view.value,
            body=body,
            created_at=now,
            owner=call.owner,
            headers={name: value for name, value in call.headers.items() if name in HEADERS_FOR_APPS},
            priority=_priority_of(call),
            start_deadline=now + start_timeout_s if start_timeout_s is not None else None,
            may_retry=call.headers.get("x-fal-no-retry", "").lower() not in _YES,
            runner_hint=call.headers.get("x-fal-runner-hint"),
            webhook=self._webhook_of(call),
            idempotency_key=idempotency_key_of(call.headers),
            queue_length_max=self._queue_max_of(call),
            base_url=call.base_url,
        )

    def _webhook_of(self, call: Call) -> str | None:
        url = _query(call, WEBHOOK)
        if not url:
            return None
        try:
            check_url(url, self.outbound)
        except UrlRefused as refused:
            raise RequestError("bad_request", f"{WEBHOOK}: {refused.message} (rule {refused.rule})") from None
        return url

    def _queue_max_of(self, call: Call) -> int:
        text = _query(call, QUEUE_MAX)
        if text is None:
            return self.limits.queue_max
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
            raise RequestError("bad_request", f"{QUEUE_MAX} must be a whole number, not {text[:40]!r}.")
        return min(int(text), self.limits.queue_max)

    async def _accept_once(self, call: Call, new: NewRequest) -> RequestId:
        if new.idempotency_key is not None:
            return await self._accept(new)
        sent = Sent.of(call.owner, call.path, call.scope["query_string"], new.body)
        return await self.resends.once(sent, call.outlet, lambda: self._accept(new))

    async def _accept(self, new: NewRequest) -> RequestId:
        try:
            return await self.queue.submit(new)
        except QueueFull as full:
            raise RequestError("overloaded", f"{full}; try again later.", headers={"Retry-After": "5"}) from None
        except IdempotencyConflict as conflict:
            raise RequestError("idempotency_conflict", f"{conflict}.") from None

    def _submitted(self, id_: RequestId, app: str, own_url: str) -> dict[str, object]:
        ticket = self.queue.ticket(id_)
        position = self.queue.position(ticket) if ticket is not None else None
        return {"status": "IN_QUEUE", "request_id": id_, "queue_position": position or 0} | Urls(
            own_url, app, id_
        ).told()

    # --- a request that was submitted -------------------------------------------------------------------

    async def _request(self, call: Call, match: re.Match[str], own_url: str) -> None:
        app, id_, action = _app_of(match[1], self.dispatcher.catalog.routes), RequestId(match[2]), match[3]
        call.allow(*_METHODS.get(action, ("GET", "HEAD")))
        if app is None or not await self._is_theirs(id_, app, call):
            raise RequestError("request_not_found", "There is no such request, or not any more.")
        teller = StatusTeller(self.queue, self.store, Urls(own_url, app, id_))
        with_logs = (_query(call, "logs") or "").lower() in _YES
        match action:
            case "cancel":
                await self.cancel(id_, call)
            case "stream":
                live = await self.find(id_, call.owner)
                if live is None:
                    raise RequestError("request_not_found", "There is no such request, or not any more.")
                await watch(live, last_seen(call), call, self.dispatcher, self.limits)
            case "status":
                told = await teller.tell(with_logs=with_logs)
                status = 200 if told["status"] == "COMPLETED" else 202
                call.answer(value_answer(status, told, call.id))
            case "status/stream":
                await teller.stream(call, self.limits, with_logs=with_logs)
            case _:
                call.answer(await self._result(id_))

    async def cancel(self, id_: RequestId, call: Call) -> None:
        """Stop a request and answer with what that met."""
        call.answer(value_answer(*_CANCELLED[await self.queue.cancel(id_)], call.id))

    async def _is_theirs(self, id_: RequestId, app: str, call: Call) -> bool:
        ticket = self.queue.ticket(id_)
        if ticket is not None:
            return ticket.new.owner == call.owner and ticket.new.app == app
        record = await self.store.get(id_)
        return record is not None and record.owner == call.owner and record.app == app

    async def _result(self, id_: RequestId) -> Answer:
        outcome = await self.store.result(id_)
        if outcome is None:
            raise RequestError("still_in_progress", "Request is still in progress")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(outcome.body)),
            request_id_header(id_),
            *((name.lower().encode("ascii"), value.encode("latin-1")) for name, value in outcome.headers.items()),
        ]
        return outcome.status, headers, outcome.body


@contextlib.contextmanager
def store_faults_told() -> Iterator[None]:
    """Tell callers what the store cannot do now."""
    try:
        yield
    except StoreBusy:
        message = "More than the store can take waits for it; try again."
        raise RequestError("overloaded", message, headers={"Retry-After": "1"}) from None
    except StoreUnavailable:
        message = "The store cannot be written now: it did not say yes. The server's log says why."
        raise RequestError("store_unavailable", message, headers={"Retry-After": "5"}) from None


_METHODS: Final = {"cancel": ("PUT",), "stream": ("GET", "POST")}

_CANCELLED: Final = {
    Cancelling.DEQUEUED: (202, {"status": "CANCELLATION_REQUESTED"}),
    Cancelling.REQUESTED: (202, {"status": "CANCELLATION_REQUESTED"}),
    Cancelling.TOO_LATE: (400, {"status": "ALREADY_COMPLETED"}),
    Cancelling.UNKNOWN: (404, {"status": "NOT_FOUND"}),
}


def _app_of(text: str, routes: RouteTable) -> str | None:
    """Return the app that a path before `/requests/` names; an endpoint's own path may stand behind it.

    It may be one that is not served any more: what was queued for it can be followed and stopped all the same.
    """
    try:
        app = parse_endpoint_id(f"/{text}").app
    except ValueError:
        return None
    return routes.aliases.get(app, app)


def _query(call: Call, name: str) -> str | None:
    values = parse_qs(call.scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name)
    return values[-1] if values else None


def _priority_of(call: Call) -> Priority:
    text = call.headers.get("x-fal-queue-priority", "normal").lower()
    try:
        return Priority[text.upper()]
    except KeyError:
        message = f"The header X-Fal-Queue-Priority must be normal or low, not {text[:40]!r}."
        raise RequestError("bad_request", message) from None
