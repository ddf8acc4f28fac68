"""What the SDK thinks of a stream that survives cuts: where to go on, whether, when, and how to leave on purpose.

    Resumption    one stream, from its first connection to its last
    begun         for a stream that this client starts; `attached` for one that is watched

A server of ours gives every event an id, knows a request by its caller's `Idempotency-Key`, and lets one whose
reader was lost go on for a while (docs/reference/http.md, "Watching a request"). So the first connection starts
the request, every other one goes on behind the last event that came, and none starts it again.

Values in, values out: no socket, no clock, no chance of its own. `_sync_stream` and `_async_stream` act on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from headrace.client import errors
from headrace.client._answer import Head
from headrace.client._queue import is_request_id
from headrace.client._request import STREAM_TYPE, Patience, Request, Target, build
from headrace.core.routes import parse_endpoint_id

#: Seconds that the server keeps a request going whose reader was lost: our whole time to come back.
GRACE_S: Final = 30.0
#: Seconds without a byte after which a connection is taken for dead, where the call names none. A heartbeat comes
#: every ten, but the head may take 30 where the caller set a start timeout. The server needs as long to notice a
#: reader that vanished, and its grace begins then.
SILENCE_S: Final = 45.0
#: So many connections in a row that brought no event, and we give up; fewer while no server has answered at all,
#: for then the address may be wrong.
TRIES_MAX: Final = 12
FIRST_TRIES_MAX: Final = 6
#: The first pause before another connection, and the longest; they double in between, times 0.5 to 1.5.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
#: What a word of farewell may take to connect, and again to be answered: the caller is leaving.
FAREWELL: Final = Patience(0.5, 0.5)

_CUTS: Final = (errors.StreamCut, errors.ConnectionFailed, errors.ReadTimeout)
#: What leaves nothing to stop: the request is over, or the server does not know it, or cannot be reached.
_ENDINGS: Final = (errors.APIError, errors.StreamError, errors.TLSFailed, *_CUTS)


class Resumption:
    """One stream and its connections.

    - `request`: what the next connection is opened with
    - `request_id`: known from the first head on
    """

    def __init__(
        self,
        first: Request,
        target: Target,
        application: str,
        headers: Mapping[str, str] | None,
        *,
        is_own: bool,
        resumes: bool = True,
        request_id: str | None = None,
        after: str = "",
    ) -> None:
        """Made by `begun` and `attached`."""
        self.request_id = request_id
        self._first = first
        self._target = target
        self._app = str(parse_endpoint_id(application).app)
        self._headers = headers
        self._is_own = is_own
        self._resumes = resumes
        self._last_id = after  # of the last event that was handed over
        self._has_items = False
        self._is_sent = False
        self._is_answered = False
        self._is_over = False
        self._failures = 0  # since the last event
        self._lost_at: float | None = None  # since when no server has answered
        self._told_attempt: object = None  # of the last rollback that was handed over
        self._is_resumed = False  # this connection has brought nothing yet, and is not the first

    @property
    def request(self) -> Request:
        """What to send next: the call itself until its request's id is known, then what watches that request."""
        request = self._first
        if self._is_own and self.request_id is not None:
            request = self._to_request("GET", "stream", accept=STREAM_TYPE)
        if self._last_id:
            request = replace(request, headers={**request.headers, "last-event-id": self._last_id})
        return request

    def sending(self) -> Request:
        """Return `request`; from now on there may be something to stop."""
        self._is_sent = True
        return self.request

    def opened(self, head: Head) -> None:
        """Take the head of an answer that is success."""
        self._is_resumed = self._is_answered
        self._is_answered = True
        self._lost_at = None
        if self.request_id is None and head.request_id is not None and is_request_id(head.request_id):
            self.request_id = head.request_id

    def ends_with(self, head: Head) -> bool:
        """Whether the answer says that nothing came after the last event: the request is over, and well."""
        return head.status == 204 and bool(self._last_id)

    def passed(self, items: list[dict[str, Any]], last_event_id: str) -> list[dict[str, Any]]:
        """Take the items that came, and the id of the last; return those to hand over.

        They are the same, but for the mark of a new attempt: it bears the id of the old attempt's last event, so a
        reader that is cut right behind it is told again.
        """
        if not items:
            return items
        marks = [item["attempt"] for item in items if _is_mark(item)]
        if self._is_resumed and _is_mark(items[0]) and marks[0] == self._told_attempt:
            items = items[1:]
        self._told_attempt = marks[-1] if marks else self._told_attempt
        self._is_resumed = False
        self._has_items = True
        self._last_id = last_event_id
        self._failures = 0
        return items

    def pause_s(self, error: errors.HeadraceError, now_s: float, chance: float) -> float | None:
        """Return the seconds until the next connection, None where `error` is the caller's to see.

        `chance`, from 0 to 1, spreads readers who were cut off together.
        """
        if not (self._resumes and _is_cut(error)) or (self._has_items and not self._last_id):
            return None
        self._failures += 1
        self._lost_at = now_s if self._lost_at is None else self._lost_at
        tries_max = TRIES_MAX if self._is_answered else FIRST_TRIES_MAX
        if self._failures >= tries_max or now_s - self._lost_at > GRACE_S:
            return None
        return min(_FIRST_PAUSE_S * 2.0 ** (self._failures - 1), _LONGEST_PAUSE_S) * (0.5 + chance)

    def ended(self, error: BaseException | None = None) -> None:
        """Take the end of the stream, or what is raised in its place: a farewell may have become needless."""
        is_no_server = isinstance(error, errors.ProtocolError) and not self._is_answered
        if error is None or is_no_server or isinstance(error, _ENDINGS):
            self._is_over = True

    def farewell(self) -> Request | None:
        """Return what tells the server that its caller left on purpose, once; None where it need not be told.

        Without it the server would wait for us. A request whose id is not known yet is asked for by its key, and
        told at once that its reader's leaving ends it. Nobody stops a request that somebody else began.
        """
        if self._is_over or not self._is_sent or not self._is_own:
            return None
        self._is_over = True
        if self.request_id is not None:
            return self._to_request("PUT", "cancel")
        if self._is_answered:  # by a server that is not ours
            return None
        return replace(self._first, headers={**self._first.headers, "x-headrace-on-disconnect": "cancel"})

    def second_farewell(self, head: Head) -> Request | None:
        """Return what is to be said after the first word, which was answered with `head`."""
        if self.request_id is not None or head.request_id is None or not is_request_id(head.request_id):
            return None
        self.request_id = head.request_id
        return self._to_request("PUT", "cancel")

    def _to_request(self, method: str, action: str, **options: Any) -> Request:
        path = f"requests/{self.request_id}/{action}"
        return build(self._target, self._app, None, path=path, headers=self._headers, method=method, **options)


def begun(
    target: Target,
    application: str,
    arguments: Mapping[str, Any] | None,
    *,
    idempotency_key: str,
    path: str,
    headers: Mapping[str, str] | None,
) -> Resumption:
    """Return the resumption of a stream that this client starts. Raises what `build` raises.

    What the caller has among the headers goes before ours.
    """
    options = {
        "Idempotency-Key": idempotency_key,
        "X-Headrace-On-Disconnect": f"grace:{GRACE_S:g}",
        "X-Headrace-Event-Ids": "1",
    } | dict(headers or {})
    first = build(target, application, arguments, path=path, headers=options, accept=STREAM_TYPE)
    return Resumption(first, target, application, headers, is_own=True)


def attached(
    target: Target,
    application: str,
    request_id: str,
    *,
    after: str | None,
    resumes: bool,
    headers: Mapping[str, str] | None,
) -> Resumption:
    """Return the resumption of a request that is watched. Raises `ValueError` for an id that cannot be one."""
    if not is_request_id(request_id):
        raise ValueError(f"{request_id!r} is not a request's id")
    options = dict(headers or {}) | ({} if after is None else {"Last-Event-ID": after})
    app = str(parse_endpoint_id(application).app)
    first = build(
        target, app, None, path=f"requests/{request_id}/stream", headers=options, accept=STREAM_TYPE, method="GET"
    )
    return Resumption(
        first,
        target,
        application,
        headers,
        is_own=False,
        resumes=resumes,
        request_id=request_id,
        after=after or "",
    )


def patient(patience: Patience) -> Patience:
    """Return the patience with one connection of several: it has an end, for silence is a cut too."""
    return patience if patience.bytes_s is not None else replace(patience, bytes_s=SILENCE_S)


def _is_mark(item: dict[str, Any]) -> bool:
    """Whether an item says that what came before it does not count: a queued request has begun again."""
    return item.get("type") == "rollback" and item.keys() == {"type", "attempt"}


def _is_cut(error: errors.HeadraceError) -> bool:
    if isinstance(
        error, errors.APIError
    ):  # of a gateway on the way: an answer of the server's has its request's id
        return error.request_id is None and error.status_code in {502, 503, 504}
    return isinstance(error, _CUTS)
