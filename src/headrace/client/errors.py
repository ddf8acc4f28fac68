"""What can go wrong for a caller. This is the whole tree; nothing else is raised for a request that failed.

    HeadraceError
    ├── APIError                     the server answered with an HTTP status that is not success
    │   ├── AuthenticationError      401: no key, or not a good one
    │   ├── PermissionDenied         403: the key may not do this
    │   ├── NotFound                 404: no such app, endpoint or view
    │   ├── InvalidInput             422: `errors` lists each wrong field
    │   ├── Overloaded               429, 503: try later; `retry_after_s` says when, if the server knows
    │   └── DeadlinePassed           504: a deadline on the server's side
    ├── StreamError                  the stream ended with an error event, after the items that came before it
    ├── StreamCut                    the connection ended before the answer did: what came is not all
    ├── ConnectionFailed             refused, reset, or no such host: no answer began
    │   └── ConnectTimeout           no connection in time (also a Timeout)
    ├── TLSFailed                    the certificate or the handshake
    ├── Timeout                      we stopped waiting (also a builtin TimeoutError)
    │   ├── ReadTimeout              no byte for `timeout` seconds
    │   └── EventTimeout             no event for `event_timeout` seconds, though heartbeats may have come
    ├── ProtocolError                the answer is not what this SDK reads: not an event stream, not JSON, not HTTP
    └── BadCredentials               the credentials file cannot be read (also a ValueError)

Wrong arguments are `TypeError` and `ValueError`, before anything is sent. No run is ever sent twice, nor a
stream unless it is to be resumed: whether to try again is the caller's decision, and `retryable` says whether the
same request may work. Which calls to the queue are sent again, `headrace.client._queue` tells; what a resumed
stream does, `headrace.client._resume`.

The names of error types on the wire are in `headrace.core.errors.ERROR_TYPES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HeadraceError(Exception):
    """A request failed. `request_id` finds it in the server's log; None when no answer named it.

    `retryable` says whether the same request may work if it is sent again, unchanged.
    """

    retryable: bool = False

    def __init__(self, text: str, *, request_id: str | None = None) -> None:
        super().__init__(text)
        self.request_id = request_id


class APIError(HeadraceError):
    """The server answered with an HTTP status that is not success, before the first item.

    `status_code`; `detail`, as the body has it (a text, or fal's list of wrong fields); `message`, the same as one
    text; `error_type`, from the body or `X-Fal-Error-Type`, or None; `response_headers`, names in lower case;
    `body`, the parsed JSON or the text.
    """

    def __init__(
        self,
        text: str,
        *,
        status_code: int,
        message: str,
        detail: str | list[dict[str, Any]],
        error_type: str | None,
        request_id: str | None,
        response_headers: Mapping[str, str],
        retryable: bool,
        body: Any,
    ) -> None:
        super().__init__(text, request_id=request_id)
        self.status_code = status_code
        self.message = message
        self.detail = detail
        self.error_type = error_type
        self.response_headers = response_headers
        self.retryable = retryable
        self.body = body


class AuthenticationError(APIError):
    """401. The text says which key was sent, and where one was looked for."""


class PermissionDenied(APIError):
    """403."""


class NotFound(APIError):
    """404. The text names what the app does have, if the server says so."""


class InvalidInput(APIError):
    """422. The arguments do not fit the endpoint's input."""

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Each wrong field, as fal's and pydantic's `{"loc", "msg", "type", …}`."""
        if isinstance(self.detail, list):
            return self.detail
        return [{"loc": ["body"], "msg": self.message, "type": "value_error"}]


class Overloaded(APIError):
    """429 or 503. There is no room, or no runner, right now."""

    @property
    def retry_after_s(self) -> float | None:
        """Seconds the server asked to wait (`Retry-After`, RFC 9110 section 10.2.3), None if it did not say."""
        return _retry_after_s(self.response_headers)


class DeadlinePassed(APIError):
    """504. A deadline of the server, of a proxy, or the start timeout that the request carried."""


class StreamError(HeadraceError):
    """The stream ended with an error event. Every item before it was handed over.

    `type`, from a Headrace server a name of `headrace.core.errors.ERROR_TYPES`; `message`; `status`, the HTTP
    status it would have been before the first event, or None.
    """

    def __init__(
        self,
        text: str,
        *,
        type: str,
        message: str,
        request_id: str | None,
        retryable: bool,
        status: int | None,
    ) -> None:
        super().__init__(text, request_id=request_id)
        self.type = type
        self.message = message
        self.retryable = retryable
        self.status = status


class StreamCut(HeadraceError):
    """The connection ended before the answer did. Items that were handed over are good; there were to be more."""

    retryable = True


class ConnectionFailed(HeadraceError):
    """There was no answer: refused, reset, unreachable, or no such host.

    After a reset the server may have seen the request and may be working on it.
    """

    retryable = True


class TLSFailed(HeadraceError):
    """The certificate was not accepted, or there was no agreement on TLS."""


class Timeout(HeadraceError, TimeoutError):
    """We stopped waiting, and the connection is closed. `timeout` is the limit that passed, in seconds.

    Itself, it is a `subscribe` whose `client_timeout` passed.
    """

    retryable = True

    def __init__(self, text: str, *, timeout: float, request_id: str | None = None) -> None:
        super().__init__(text, request_id=request_id)
        self.timeout = timeout


class ConnectTimeout(ConnectionFailed, Timeout):
    """There was no connection in time. The request was not sent."""


class ReadTimeout(Timeout):
    """No byte came for `timeout` seconds; heartbeats count as bytes."""


class EventTimeout(Timeout):
    """No event came for `event_timeout` seconds; heartbeats do not count."""


class ProtocolError(HeadraceError):
    """The answer is not what this SDK reads. Usually the address or the path is another service's."""


class BadCredentials(HeadraceError, ValueError):
    """The file that keeps keys cannot be read. The text names it."""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After`: seconds, or a date. A date counts from the answer's own `Date`, so no clock is asked."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    then, now = _http_date_s(text), _http_date_s(headers.get("date", ""))
    return None if then is None or now is None else max(0.0, then - now)


def _http_date_s(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
