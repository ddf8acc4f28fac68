"""Who is at fault, and what the caller is told: the one table of error types on our wire.

A failure before the first event is an HTTP status with `{"detail", "error_type"}` (fal's request errors) or
`{"detail": [...]}` (its validation errors); after it, the same facts travel in one `event: error`. Types that
fal documents keep fal's names; ours are snake_case beside them. The type equals `X-Fal-Error-Type`.

This file knows no HTTP library and no client: the SDK has its own tree of exceptions (`headrace.client.errors`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard


class Fault(enum.Enum):
    """Whose doing a failure is, so that the right person reads about it."""

    CALLER = "caller"  # the request: it will fail again until it is changed
    APP = "app"  # the model's own code
    RUNNER = "runner"  # the process that held the model
    LOAD = "load"  # too much at once: the same request can work later
    US = "headrace"  # Headrace itself


@dataclass(frozen=True, slots=True)
class ErrorType:
    """One row of the table."""

    status: int  # the HTTP status while headers are held; `status` in the error event afterwards
    fault: Fault
    retryable: bool  # may the same request work if it is sent again, unchanged?
    meaning: str


_CALLER, _APP, _RUNNER, _LOAD, _US = Fault.CALLER, Fault.APP, Fault.RUNNER, Fault.LOAD, Fault.US

ERROR_TYPES: Mapping[str, ErrorType] = {
    # The caller's
    "bad_request": ErrorType(400, _CALLER, False, "The request cannot be read as HTTP, or its Host is not ours."),
    "unauthorized": ErrorType(401, _CALLER, False, "No key, an unknown key, or a revoked one."),
    "forbidden": ErrorType(403, _CALLER, False, "The key or the page's origin may not do this."),
    "not_found": ErrorType(404, _CALLER, False, "No such app, endpoint, view, request or file."),
    "request_not_found": ErrorType(404, _CALLER, False, "No such queued request of this key, or not any more."),
    "upload_not_found": ErrorType(404, _CALLER, False, "No such unfinished upload, or not any more: begin again."),
    "still_in_progress": ErrorType(400, _CALLER, True, "The result is not there yet."),
    "method_not_allowed": ErrorType(405, _CALLER, False, "The path exists; `Allow` names its methods."),
    "payload_too_large": ErrorType(413, _CALLER, False, "The body is over the limit that the message names."),
    "unsupported_media_type": ErrorType(415, _CALLER, False, "The body must be JSON and say so, uncompressed."),
    "range_not_satisfiable": ErrorType(416, _CALLER, False, "The range begins behind the end of the file."),
    "validation_error": ErrorType(422, _CALLER, False, "`detail` lists each wrong field: loc, msg, type."),
    "idempotency_conflict": ErrorType(422, _CALLER, False, "The `Idempotency-Key` was used with another body."),
    "request_header_fields_too_large": ErrorType(431, _CALLER, False, "A header, or all of them, over the limit."),
    "uri_too_long": ErrorType(414, _CALLER, False, "The request target is over the limit."),
    "replay_gone": ErrorType(412, _CALLER, False, "The events asked for are not kept any more, or never were."),
    "client_disconnected": ErrorType(499, _CALLER, False, "Every reader left before the end."),
    "client_cancelled": ErrorType(499, _CALLER, False, "The request was stopped on purpose."),
    # The model's code
    "runner_server_error": ErrorType(500, _APP, False, "The app raised; its traceback is in the server's log."),
    "app_error": ErrorType(500, _APP, False, "The app refused, in its own words (AppException), its own status."),
    "no_result": ErrorType(500, _APP, False, "The app ended without producing one item."),
    "unserializable_item": ErrorType(500, _APP, False, "The app yielded what JSON cannot hold."),
    "event_too_large": ErrorType(500, _APP, False, "The app yielded one item over `event_bytes_max`."),
    "result_too_large": ErrorType(500, _APP, False, "The app returned a result over `result_bytes_max`."),
    "file_too_large": ErrorType(500, _APP, False, "The app made a file over `file_bytes_max`."),
    "first_event_timeout": ErrorType(504, _APP, True, "No first event within the app's `first_event_timeout`."),
    "event_gap_timeout": ErrorType(504, _APP, True, "No further event within the app's `event_gap_timeout`."),
    "request_timeout": ErrorType(504, _APP, True, "The request ran longer than the app's `request_timeout`."),
    # The process that held the model
    "runner_disconnected": ErrorType(503, _RUNNER, True, "The runner's process died while it held the request."),
    "attempt_restarted": ErrorType(503, _RUNNER, True, "The request begins again; a reader without ids cannot."),
    "runner_scheduling_failure": ErrorType(
        503, _RUNNER, True, "No runner of the app is up: it is starting or failing."
    ),
    # Too much at once
    "overloaded": ErrorType(429, _LOAD, True, "The app's waiting room is full; `Retry-After` says when to try."),
    "startup_timeout": ErrorType(504, _LOAD, True, "No slot was free within the caller's start timeout, or ours."),
    "reader_stalled": ErrorType(499, _CALLER, False, "The reader took no byte for `stall_timeout_s`."),
    "store_unavailable": ErrorType(503, _LOAD, True, "The store cannot be written: it did not say yes."),
    "files_unavailable": ErrorType(503, _LOAD, True, "A file cannot be kept or read: the disk is full, or fails."),
    "shutting_down": ErrorType(503, _LOAD, True, "The server is stopping; another or the next one will answer."),
    # Ours
    "internal_error": ErrorType(500, _US, True, "A fault in Headrace; the request id finds it in the log."),
}


def is_error_status(status: object) -> TypeGuard[int]:
    """Whether it is the HTTP status of an error, named or not."""
    return isinstance(status, int) and 400 <= status <= 599


class RequestError(Exception):
    """A request that failed, in the words of the table.

    `type` is a key of `ERROR_TYPES`. `status` and `retryable` default to the table's and may be overridden
    where an app chose its own status. `detail` is what the body shows: the message, or a list of
    `{"loc", "msg", "type"}` for a validation error. `headers` are added to an HTTP answer.
    """

    def __init__(
        self,
        type: str,
        message: str,
        *,
        status: int | None = None,
        retryable: bool | None = None,
        detail: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Raise `KeyError` for a type that the table does not have: a wire type is never made up on the spot."""
        super().__init__(message)
        row = ERROR_TYPES[type]
        self.type = type
        self.message = message
        self.status = row.status if status is None else status
        self.retryable = row.retryable if retryable is None else retryable
        self.detail: str | list[dict[str, Any]] = message if detail is None else detail
        self.headers = dict(headers or {})

    @classmethod
    def from_wire(cls, fields: Mapping[str, Any]) -> RequestError:
        """Rebuild the error that `to_wire` wrote; an unknown type becomes `internal_error`.

        A runner holds a stranger's code: what is no error's status, say, is the table's instead.
        """
        type_ = str(fields.get("type"))
        status, retryable, detail = fields.get("status"), fields.get("retryable"), fields.get("detail")
        return cls(
            type_ if type_ in ERROR_TYPES else "internal_error",
            str(fields.get("message", "")),
            status=status if is_error_status(status) else None,
            retryable=retryable if isinstance(retryable, bool) else None,
            detail=detail if isinstance(detail, list) else None,
        )

    def to_body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON body of an HTTP answer that tells it, in fal's shape."""
        body: dict[str, Any] = {"detail": self.detail, "error_type": self.type}
        if self.status >= 500:
            body["request_id"] = request_id
        return body

    def to_wire(self) -> dict[str, Any]:
        """Return the error as a runner sends it to its node."""
        fields: dict[str, Any] = {
            "type": self.type,
            "message": self.message,
            "status": self.status,
            "retryable": self.retryable,
        }
        if isinstance(self.detail, list):
            fields["detail"] = self.detail
        return fields


class FileFault(Exception):
    """A fault in a file that somebody serves, told as `FILE:LINE: message` before anything listens."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}")
        self.file = file
        self.line = line
        self.message = message
