"""From an HTTP request to a live one: what the run and the stream view have in common."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.core import lifecycle
from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.request import RequestId
from headrace.core.routes import Route, View
from headrace.gateway.answers import Answer, Headers, Receive, Scope, error_answer
from headrace.gateway.body import ClientLeft, HeldBytes, check_media_type, check_object, read_body
from headrace.gateway.outlet import Outlet
from headrace.gateway.resends import Resends, Sent
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.streams import LiveRequest


@dataclass(slots=True)
class Call:
    """One HTTP request, with the id of the request it may become. Its owner is known once the door let it in."""

    id: RequestId
    headers: dict[str, str]  # lower-case names; of a repeated header, the last
    scope: Scope
    receive: Receive
    outlet: Outlet  # where the answer is written; tells also when the client leaves
    path: str  # percent-decoded, without the query; of a proxied call, its target's
    extra: Headers  # what every answer to this call carries beside its own headers
    base_url: str = ""  # this server as the caller knows it, without a slash at its end
    owner: KeyId | None = None  # whose key it came with
    is_file_coming: bool = False  # whether its body is a file
    sent: Sent | None = None  # what it is known by when it is sent again, if its request outlives its caller

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self.scope["method"])

    def allow(self, *methods: str) -> None:
        """Raise `RequestError` (405) for any other method."""
        if self.method not in methods:
            raise RequestError("method_not_allowed", "Method Not Allowed", headers={"Allow": ", ".join(methods)})

    def answer(self, answer: Answer) -> None:
        """Write a whole answer."""
        status, headers, body = answer
        self.outlet.answer((status, [*headers, *self.extra], body))

    def refuse(self, error: RequestError) -> None:
        """Answer with a failure; a body that stalls, is too large, or is a file's, is not waited for."""
        status, headers, body = error_answer(error, self.id)
        if error.status in {408, 413} or (self.is_file_coming and self.outlet.is_body_coming):
            self.outlet.answer_and_leave((status, [*headers, *self.extra], body))
        else:
            self.answer((status, headers, body))


async def open_request(
    call: Call, route: Route, dispatcher: Dispatcher, limits: Limits, resends: Resends
) -> tuple[LiveRequest, float | None]:
    """Read and check the body, then open the request; return it and its start timeout.

    With the `Idempotency-Key` of an earlier call, or when it is an unanswered one that is sent again, it is that
    call's request, whose id becomes this call's.

    Raises `RequestError` for every refusal, `ClientLeft` when nobody is there to be told.
    """
    start_timeout_s = start_timeout_of(call.headers)
    check_lifecycle(call.headers)
    held = HeldBytes(dispatcher.bodies, call.owner)
    try:
        has_come = not call.outlet.is_body_coming
        body = await read_body(call.receive, call.headers, limits, held, has_come=has_come)
        check_media_type(call.headers, body)
        text = check_object(body, limits)
        if call.outlet.is_lost:
            raise ClientLeft
        live = _sent_before(call, route, text, dispatcher, resends) or dispatcher.open(
            call.id,
            route,
            text,
            call.headers,
            owner=call.owner,
            base_url=call.base_url,
            start_timeout_s=start_timeout_s,
        )
    except BaseException:
        held.let_go()
        raise
    if live.id != call.id:  # an earlier call's
        call.id = live.id
        held.let_go()
    elif held.count:
        live.on_final.append(lambda _: held.let_go())
    if live.grace_s > 0:
        call.sent = _sent(call, text)
    return live, start_timeout_s


def _sent_before(
    call: Call, route: Route, body: bytes, dispatcher: Dispatcher, resends: Resends
) -> LiveRequest | None:
    """Return the request that a call was already, when nobody answered it, and all of it can still be told."""
    if resends.is_empty or (sent := _sent(call, body)) is None or (id_ := resends.take(sent)) is None:
        return None
    live = dispatcher.find(id_, call.owner)
    if live is None or (live.error is not None and live.error.type == "client_disconnected"):
        return None  # its grace is over
    return live if route.view is View.RUN or live.replay.first == 0 else None


def _sent(call: Call, body: bytes) -> Sent | None:
    if "idempotency-key" in call.headers:
        return None  # who has a key is known by it
    return Sent.of(call.owner, call.path, call.scope["query_string"], body)


def check_lifecycle(headers: dict[str, str]) -> None:
    """Refuse a wish for the files that a request will make which cannot be read, or will not be granted (400)."""
    try:
        lifecycle.lifetime_of(headers)
    except ValueError as error:
        raise RequestError("bad_request", f"{error}.") from None


def start_timeout_of(headers: dict[str, str]) -> float | None:
    """Return the seconds the caller gives us to find a slot, or None.

    `X-Fal-Request-Start-Timeout` wins over the older `X-Fal-Request-Timeout`; it must exceed 0.1 (fal's docs).
    """
    name = "x-fal-request-start-timeout"
    value = headers.get(name)
    if value is None:
        name = "x-fal-request-timeout"
        value = headers.get(name)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.1 < seconds <= 86_400:
        raise RequestError("bad_request", f"The header {name} must be seconds over 0.1, not {value!r}.")
    return seconds
