"""What the SDK thinks of the server's queue: what to send, what a status says, when to try again, when to stop.

    build_submit, Links           a submit, and the addresses that come back for it
    Status and what it can be     what a request is doing
    Retries, Deadline             how often, and how long

Values in, values out: no socket, no clock, no chance of its own. `_watch` follows one request's status;
`_sync_queue` and `_async_queue` are the two shells that act on both.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from headrace.client import errors
from headrace.client._request import STREAM_TYPE, Patience, Request, Target, build, build_at, own_url
from headrace.core.routes import parse_endpoint_id

Priority = Literal["normal", "low"]

#: Seconds without a byte after which a call to the queue gives up, where the client names none; fal-client's too.
QUEUE_TIMEOUT_S: Final = 120.0
#: Seconds between two looks at the status where the server has no stream of it; fal-client's too.
INTERVAL_S: Final = 0.1
#: Seconds that the cancel of a request whose `client_timeout` passed may take: the caller waited long enough.
CANCEL_WAIT_S: Final = 5.0

_PRIORITIES: Final = ("normal", "low")
#: fal-client refuses start timeouts of so many seconds and less.
_START_TIMEOUT_TOO_SHORT_S: Final = 1.0
#: The first pause before a call is sent again, and the longest; they double in between, times 0.5 to 1.5.
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0
#: A longer `Retry-After` than this is for the caller to wait: the error says it.
_RETRY_AFTER_MAX_S: Final = 30.0

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,255}")


# --- what to send -------------------------------------------------------------------------------------------


def build_submit(
    target: Target,
    application: str,
    arguments: Mapping[str, Any] | None,
    *,
    idempotency_key: str,
    path: str,
    hint: str | None,
    webhook_url: str | None,
    priority: Priority | None,
    headers: Mapping[str, str] | None,
    start_timeout: float | None,
) -> Request:
    """Make the request that puts a call into the queue. Raises what `build` raises.

    The key makes it safe to send again: a server that has seen it answers with the first one's request. One
    that the caller has among the headers goes before ours.
    """
    options = {"Idempotency-Key": idempotency_key} | with_options(
        headers, hint=hint, priority=priority, start_timeout=start_timeout
    )
    request = build(target, application, arguments, path=path, headers=options, base=target.queue_url)
    if webhook_url is None:
        return request
    return replace(request, url=f"{request.url}?{urlencode({'fal_webhook': webhook_url})}")


def with_options(
    headers: Mapping[str, str] | None,
    *,
    hint: str | None = None,
    priority: Priority | None = None,
    start_timeout: float | None = None,
) -> dict[str, str]:
    """Put fal's options where its protocol has them: in headers. Raises `ValueError` for one that cannot be."""
    extended = dict(headers or {})
    if hint is not None:
        extended["X-Fal-Runner-Hint"] = hint
    if priority is not None:
        if priority not in _PRIORITIES:
            raise ValueError(f"priority={priority!r} must be one of {_PRIORITIES}")
        extended["X-Fal-Queue-Priority"] = priority
    if start_timeout is not None:
        if not start_timeout > _START_TIMEOUT_TOO_SHORT_S:
            raise ValueError(
                f"start_timeout={start_timeout!r} must be over {_START_TIMEOUT_TOO_SHORT_S:g} seconds"
            )
        extended["X-Fal-Request-Timeout"] = str(float(start_timeout))
    return extended


def start_timeout_of(start_timeout: float | None, client_timeout: float | None) -> float | None:
    """Return the start timeout of a `subscribe`: what nobody waits for any more need not begin."""
    if client_timeout is None or start_timeout is None:
        return client_timeout if start_timeout is None else start_timeout
    if start_timeout > client_timeout:
        warnings.warn(
            f"start_timeout={start_timeout:g} is over client_timeout={client_timeout:g}: "
            "the caller leaves before the server may give up",
            UserWarning,
            stacklevel=3,
        )
    return start_timeout


@dataclass(frozen=True, slots=True)
class Links:
    """A queued request's id and addresses, as the server gave them."""

    request_id: str
    response_url: str = field(repr=False)
    status_url: str = field(repr=False)
    cancel_url: str = field(repr=False)


def is_request_id(value: object) -> bool:
    """Whether this can be a request's id, and so stand in a path."""
    return isinstance(value, str) and _REQUEST_ID.fullmatch(value) is not None


def links_to(target: Target, application: str, request_id: str) -> Links:
    """Return the addresses of a request whose id is known. Raises `ValueError` for what cannot be one.

    They are the app's: an endpoint's path below it does not stand in them (fal's clients leave it out too).
    """
    if not is_request_id(request_id):
        raise ValueError(f"{request_id!r} is not a request's id")
    base = f"{target.queue_url}/{parse_endpoint_id(application).app}/requests/{request_id}"
    return Links(request_id, base, f"{base}/status", f"{base}/cancel")


def links_in(target: Target, request: Request, value: Any) -> Links:
    """Read the answer to a submit. Raises `ProtocolError`, also for addresses that the key must not go to."""
    names = ("request_id", "response_url", "status_url", "cancel_url")
    texts = [value.get(name) if isinstance(value, dict) else None for name in names]
    found = [text for text in texts if isinstance(text, str) and text]
    if len(found) < len(names):
        raise errors.ProtocolError(
            f"{request}: the answer is not a queue's: expected {', '.join(names)}. Is this its address?",
            request_id=texts[0] if isinstance(texts[0], str) else None,
        )
    links = Links(*found)
    for url in (links.response_url, links.status_url, links.cancel_url):
        _own(target, links, url)
    return links


def status_request(target: Target, links: Links, *, with_logs: bool) -> Request:
    """Ask what a request is doing."""
    return build_at(target, "GET", _with_query(_own(target, links, links.status_url), with_logs=with_logs))


def status_stream_request(target: Target, links: Links, *, with_logs: bool) -> Request:
    """Ask to be told what a request is doing, until it is over."""
    parts = urlsplit(_own(target, links, links.status_url))
    url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/stream"))
    return build_at(target, "GET", _with_query(url, with_logs=with_logs), accept=STREAM_TYPE)


def result_request(target: Target, links: Links) -> Request:
    """Ask for the result."""
    return build_at(target, "GET", _own(target, links, links.response_url))


def cancel_request(target: Target, links: Links) -> Request:
    """Ask to stop."""
    return build_at(target, "PUT", _own(target, links, links.cancel_url))


def _own(target: Target, links: Links, url: str) -> str:
    """Return a server's URL at the address that this client was given; refuse one that leads elsewhere."""
    if (own := own_url(target, url)) is not None:
        return own
    raise errors.ProtocolError(
        f"request {links.request_id} has the address {url!r}, which is not on {target.queue_url}; the key is not "
        "sent there. Call the server by the address that it gives itself, or set its public address to the one "
        "you call",
        request_id=links.request_id,
    )


def _with_query(url: str, *, with_logs: bool) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}logs={int(with_logs)}"


# --- what a status says -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status:
    """What a queued request is doing: `Queued`, `InProgress` or `Completed`."""


@dataclass(frozen=True, slots=True)
class Queued(Status):
    """It waits. `position` counts those before it; 0 is next."""

    position: int


@dataclass(frozen=True, slots=True)
class InProgress(Status):
    """It runs. `logs` are lines `{"message", "timestamp", "level", "source"}`; None unless asked for."""

    logs: list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Completed(Status):
    """It is over, well or not: `error` and `error_type` are set if it failed or was cancelled.

    `metrics` has `inference_time`, in seconds, where the server knows it.
    """

    logs: list[dict[str, Any]] | None
    metrics: dict[str, Any]
    error: str | None = None
    error_type: str | None = None


def status_in(request: Request, request_id: str, value: Any) -> Status:
    """Read a status. Raises `ProtocolError` for what is none."""
    fields = value if isinstance(value, dict) else {}
    logs = fields.get("logs")
    lines = [line for line in logs if isinstance(line, dict)] if isinstance(logs, list) else None
    match fields.get("status"):
        case "IN_QUEUE":
            position = fields.get("queue_position")
            return Queued(position if isinstance(position, int) else 0)
        case "IN_PROGRESS":
            return InProgress(lines)
        case "COMPLETED":
            metrics = fields.get("metrics")
            error = fields.get("error")
            return Completed(
                lines,
                metrics if isinstance(metrics, dict) else {},
                None if error is None else str(error),
                None if fields.get("error_type") is None else str(fields["error_type"]),
            )
    raise errors.ProtocolError(
        f"{request}: expected a status (IN_QUEUE, IN_PROGRESS, COMPLETED), got {fields.get('status')!r}",
        request_id=request_id,
    )


# --- how often, and how long --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retries:
    """Which failures of a call are answered with the same call again, and how often.

    A connection that was refused or lost always is, and so is a gateway's 502, 503 or 504: it has no request id.
    """

    tries_max: int
    #: Whether a server that took the request and stayed silent is asked again.
    of_silence: bool = False
    #: Whether the server's own 429 and 503 are; a result's status is the model's and never is.
    of_answers: bool = False

    def pause_s(self, error: errors.HeadraceError, tried: int, chance: float) -> float | None:
        """Return the seconds until the next try after `tried` of them, None for no more.

        `chance`, from 0 to 1, spreads callers who failed together. A `Retry-After` is the least of it.
        """
        if tried >= self.tries_max or not self._covers(error):
            return None
        pause = backoff_s(tried, chance)
        asked = error.retry_after_s if isinstance(error, errors.Overloaded) else None
        if asked is None:
            return pause
        return asked + pause if asked <= _RETRY_AFTER_MAX_S else None

    def _covers(self, error: errors.HeadraceError) -> bool:
        if isinstance(error, errors.APIError):
            is_callers_own = "x-fal-request-timeout-type" in error.response_headers
            return error.retryable and not is_callers_own and (self.of_answers or error.request_id is None)
        if isinstance(error, (errors.ConnectionFailed, errors.StreamCut)):
            return True
        return self.of_silence and isinstance(error, errors.ReadTimeout)


#: A submit: safe to send again under its `Idempotency-Key`.
SUBMITTING: Final = Retries(3, of_silence=True, of_answers=True)
#: A look at a request's status, once, and again and again: then a server that restarts is waited for, some 18 s.
ASKING: Final = Retries(3, of_answers=True)
FOLLOWING: Final = Retries(8, of_answers=True)
#: What comes from the model itself.
FETCHING: Final = Retries(8)
CANCELLING: Final = Retries(3)
ONCE: Final = Retries(1)


def backoff_s(failures: int, chance: float) -> float:
    """Return the seconds to wait after so many failures in a row: doubling, spread by `chance` (0 to 1)."""
    return min(_FIRST_PAUSE_S * 2.0 ** (failures - 1), _LONGEST_PAUSE_S) * (0.5 + chance)


class Expired(Exception):
    """A `Deadline` passed. Never seen by a caller, who gets `Deadline.told`."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a caller's patience with everything together, on the shell's clock. Without `timeout_s`, none."""

    timeout_s: float | None = None
    at_s: float = 0.0

    @classmethod
    def after(cls, timeout_s: float | None, now_s: float) -> Deadline:
        """Return the deadline so many seconds from now. Raises `ValueError` for a number that is no time."""
        if timeout_s is None:
            return cls()
        if not (isfinite(timeout_s) and timeout_s > 0):
            raise ValueError(f"client_timeout={timeout_s!r} must be a number of seconds over 0, or None")
        return cls(timeout_s, now_s + timeout_s)

    def left_of(self, seconds: float, now_s: float) -> float:
        """Return `seconds`, or what is left if that is less. Raises `Expired` if nothing is."""
        if self.timeout_s is None:
            return seconds
        if (left := self.at_s - now_s) <= 0:
            raise Expired
        return min(seconds, left)

    def limit(self, patience: Patience, now_s: float) -> Patience:
        """Return the patience with one exchange that begins now. Raises `Expired` if there is none left."""
        return (
            patience if self.timeout_s is None else replace(patience, event_s=self.left_of(self.timeout_s, now_s))
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tell an exchange that the deadline ended (`limit` makes it an event's) from one that failed itself."""
        try:
            yield
        except errors.EventTimeout as error:
            raise Expired from error


def timed_out(timeout_s: float | None, request_id: str | None) -> errors.Timeout:
    """Return what a caller is told whose `client_timeout` passed."""
    seconds = timeout_s or 0.0
    what = "it was not accepted yet" if request_id is None else f"request {request_id} was cancelled"
    return errors.Timeout(
        f"no result within {seconds:g} s (client_timeout); {what}", timeout=seconds, request_id=request_id
    )
