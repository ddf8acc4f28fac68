"""The other half of the SDK's thinking: what an answer means. The first half is `_request`.

    Head          the head of an answer; `is_success`, `check_stream` and `api_error` judge it
    Items         the body of a stream to its items, and how it ended
    result_of     the body of any other answer to its JSON

Values in, values out: no socket, no clock, no thread. `_sync` and `_async` are the two shells that act on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from headrace.client import errors
from headrace.client._request import STREAM_TYPE, Request, Target
from headrace.client.credentials import key_sources
from headrace.core.errors import ERROR_TYPES
from headrace.core.sse import Decoder

#: Bytes of one event and of one answer to `run`: far over what a server of ours sends (1 MiB), far under memory.
EVENT_BYTES_MAX: Final = 64 * 1024 * 1024
RESULT_BYTES_MAX: Final = 256 * 1024 * 1024
#: Of an HTTP error's body, so much is read and so long: the status alone is enough to raise.
ERROR_BODY_BYTES_MAX: Final = 64 * 1024
ERROR_BODY_WAIT_S: Final = 10.0
_MESSAGE_MAX: Final = 500  # characters of a foreign body that are quoted in a message

_ERRORS_BY_STATUS: Final[Mapping[int, type[errors.APIError]]] = {
    401: errors.AuthenticationError,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    422: errors.InvalidInput,
    429: errors.Overloaded,
    503: errors.Overloaded,
    504: errors.DeadlinePassed,
}
#: What a bare status says about trying again, where no error type of ours or header of fal's says more.
_RETRYABLE_STATUSES: Final = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. Header names are in lower case; of a doubled one, the last stands."""

    status: int
    headers: Mapping[str, str]

    @property
    def request_id(self) -> str | None:
        """The server's id of the request."""
        return self.headers.get("x-fal-request-id")

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_stream(request: Request, head: Head) -> None:
    """Accept the head of a stream, or raise. Only for a status that is success."""
    _refuse_compression(request, head)
    if head.status != 200 or head.content_type != STREAM_TYPE:
        raise errors.ProtocolError(
            f"{request}: expected a stream (200, {STREAM_TYPE}), got {head.status} with "
            f"{head.content_type or 'no content type'}. Is this endpoint a stream, and is this its address?",
            request_id=head.request_id,
        )


def result_of(request: Request, head: Head, body: bytes) -> Any:
    """Return the JSON of an answer that is success, or raise `ProtocolError`."""
    _refuse_compression(request, head)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = "; use stream() for this path" if head.content_type == STREAM_TYPE else ""
        raise errors.ProtocolError(
            f"{request}: expected JSON, got {head.content_type or 'no content type'}: "
            f"{error}: {_quoted(body)}{hint}",
            request_id=head.request_id,
        ) from None


def result_too_large(request: Request, head: Head) -> errors.ProtocolError:
    """Return the error for an answer over `RESULT_BYTES_MAX`."""
    return errors.ProtocolError(
        f"{request}: the answer is over {RESULT_BYTES_MAX:,} bytes", request_id=head.request_id
    )


def _refuse_compression(request: Request, head: Head) -> None:
    encoding = head.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise errors.ProtocolError(
            f"{request}: the answer is compressed ({encoding}) though we asked for identity; "
            "something between here and the server compresses, which holds events back",
            request_id=head.request_id,
        )


def is_success(head: Head) -> bool:
    """Whether the answer is what was asked for: not an error, and not a redirect, which a POST does not follow."""
    return 200 <= head.status <= 299


def api_error(target: Target, request: Request, head: Head, body: bytes) -> errors.APIError:
    """Return the error for an answer that is not success; `body` may be a part of the body, or nothing."""
    try:
        parsed: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = body.decode("utf-8", "replace")
    fields = parsed if isinstance(parsed, dict) else {}
    detail = _detail(fields, body) or f"HTTP {head.status}"
    message = detail if isinstance(detail, str) else _words(detail)
    error_type = fields.get("error_type") or head.headers.get("x-fal-error-type")
    error_type = error_type if isinstance(error_type, str) else None
    kind = f" ({error_type})" if error_type else ""
    return _ERRORS_BY_STATUS.get(head.status, errors.APIError)(
        f"{head.status} from {request}: {message}{kind}{_advice(target, head)}",
        status_code=head.status,
        message=message,
        detail=detail,
        error_type=error_type,
        request_id=head.request_id,
        response_headers=head.headers,
        retryable=_is_retryable(error_type, head),
        body=parsed,
    )


def _detail(fields: Mapping[str, Any], body: bytes) -> str | list[dict[str, Any]]:
    detail = fields.get("detail")
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list) and detail and all(isinstance(entry, dict) for entry in detail):
        return detail
    return _quoted(body)


def _words(detail: list[dict[str, Any]]) -> str:
    """Say fal's list of wrong fields in one line: `prompt: Field required; seed: …`."""
    words = []
    for entry in detail:
        loc = entry.get("loc")
        where = [str(part) for part in loc if part != "body"] if isinstance(loc, list) else []
        words.append(f"{'.'.join(where) or 'body'}: {entry.get('msg', entry.get('type', 'is wrong'))}")
    return "; ".join(words)


def _advice(target: Target, head: Head) -> str:
    if head.status == 401 and target.key is None:
        return f". No key was sent, for none was found in {key_sources()}"
    if head.status == 401 and target.key is not None:
        return f". The key sent came from {target.key.source}"
    if 300 <= head.status <= 399:
        where = head.headers.get("location", "nowhere").partition("?")[0]  # behind it can be a key
        return f". The server redirects to {where}; a POST is not sent twice, so give that address as the url"
    return ""


def _is_retryable(error_type: str | None, head: Head) -> bool:
    if error_type is not None and error_type in ERROR_TYPES:
        return ERROR_TYPES[error_type].retryable
    for name in ("x-fal-retryable", "x-fal-needs-retry"):
        if (said := head.headers.get(name)) is not None:
            return said.strip().lower() in {"1", "true", "yes"}
    return head.status in _RETRYABLE_STATUSES


def _quoted(body: bytes) -> str:
    text = body[: 4 * _MESSAGE_MAX].decode("utf-8", "replace").strip()
    return text if len(text) <= _MESSAGE_MAX else f"{text[:_MESSAGE_MAX]}…"


class Items:
    """The body of a stream: bytes to items, and how it ended.

    `feed` returns the items of a piece. If one of them was not an item, `failure` is the error to raise once those
    before it are handed over; nothing after it counts.
    """

    def __init__(self, request: Request, head: Head) -> None:
        self.failure: errors.HeadraceError | None = None
        self._request = request
        self._head = head
        self._decoder = Decoder()

    @property
    def last_event_id(self) -> str:
        """The id of the last event, "" if none had one."""
        return self._decoder.last_event_id

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the items that end in this piece."""
        items: list[dict[str, Any]] = []
        loads = orjson.loads
        for type_, text, _ in self._decoder.feed(data):
            try:
                item = loads(text)
            except orjson.JSONDecodeError as error:
                self.failure = self._bad(f"an event is not JSON: {error}: {_quoted(text.encode())}")
                return items
            if type_ == "error" or type(item) is not dict or "error" in item:
                self.failure = self._judge(type_, item)
                if self.failure is not None:
                    return items
            items.append(item)
        if self._decoder.unfinished > EVENT_BYTES_MAX:
            self.failure = self._bad(f"an event is over {EVENT_BYTES_MAX:,} bytes")
        return items

    def end(self) -> None:
        """Judge a clean end of the body: return if it is one, raise `StreamCut` if it hides a cut.

        A body without length and chunks ends with its connection (RFC 9112 section 6.3), and so does a cut
        one: that end is not believed.
        """
        if "transfer-encoding" not in self._head.headers and "content-length" not in self._head.headers:
            raise cut(
                self._request, self._head, "the answer has neither chunks nor a length, so its end proves nothing"
            )
        if self._decoder.unfinished:
            raise cut(self._request, self._head, "the body ended inside an event")

    def _judge(self, type_: str, item: Any) -> errors.HeadraceError | None:
        """Return the error that an unusual item is; None for an item that only has a field named `error`."""
        facts = item.get("error") if isinstance(item, dict) and next(iter(item), None) == "error" else None
        is_ours = isinstance(facts, dict) and "type" in facts and "message" in facts
        if isinstance(facts, dict) and (is_ours or type_ == "error"):
            return self._stream_error(facts)
        if type_ == "error":
            return self._stream_error(item if isinstance(item, dict) else {"message": item})
        if not isinstance(item, dict):
            return self._bad(f"an event is {_quoted(orjson.dumps(item))}, not a JSON object")
        return None

    def _stream_error(self, facts: Mapping[str, Any]) -> errors.StreamError:
        type_ = facts.get("type")
        type_ = type_ if isinstance(type_, str) else "unknown"
        message = str(facts.get("message", facts.get("error", "the stream failed")))
        request_id = facts.get("request_id", self._head.request_id)
        request_id = request_id if isinstance(request_id, str) else None
        status = facts.get("status")
        known = ERROR_TYPES.get(type_)
        return errors.StreamError(
            f"{self._request}: the stream failed: {message} ({type_}, request {request_id or 'without an id'})",
            type=type_,
            message=message,
            request_id=request_id,
            retryable=bool(facts.get("retryable", known is not None and known.retryable)),
            status=status if isinstance(status, int) else None,
        )

    def _bad(self, what: str) -> errors.ProtocolError:
        return errors.ProtocolError(f"{self._request}: {what}", request_id=self._head.request_id)


def cut(request: Request, head: Head, what: str) -> errors.StreamCut:
    """Return the error for an answer that ended too early."""
    id_ = f" (request {head.request_id})" if head.request_id else ""
    return errors.StreamCut(
        f"{request}: the answer was cut off: {what}{id_}. What came before is good, but not all",
        request_id=head.request_id,
    )


def not_http(request: Request, error: object) -> errors.ProtocolError:
    """Return the error for what an HTTP library could not read as HTTP."""
    return errors.ProtocolError(f"{request}: the answer is not HTTP as we know it: {error}")
