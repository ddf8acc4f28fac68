"""An author's exceptions to errors on the wire, and their tracebacks to the log.

The caller reads what an author said on purpose (`AppException`, `FieldException`) and nothing else: an
unexpected exception's text can hold a path, a prompt or a password.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from typing import Any, Final

from headrace.app.context import Cancelled
from headrace.app.errors import AppException, FieldException, FileException
from headrace.core.errors import ERROR_TYPES, RequestError, is_error_status
from headrace.runner import output

#: Characters of one traceback in the log: the ends of a deep one tell enough.
TRACEBACK_CHARS_MAX: Final = 16_384
#: Characters of what an author tells the caller in one error.
MESSAGE_CHARS_MAX: Final = 4_096
#: Characters of a URL that is wrong.
SHOWN_CHARS_MAX: Final = 1_000


def error_of(raised: BaseException, request_id: str) -> RequestError:
    """Return what the caller is told about an exception out of an author's code; log what was not meant."""
    told = None
    with contextlib.suppress(BaseException):  # an author's exception can raise when it is looked at
        told = _told_on_purpose(raised)
    if told is None:
        log(f"request {request_id} failed in the app's code", raised)
        told = RequestError("runner_server_error", "Internal Server Error")
    return told


def _told_on_purpose(raised: BaseException) -> RequestError | None:
    if isinstance(raised, RequestError):
        return raised
    if isinstance(raised, AppException):
        status = raised.status_code if is_error_status(raised.status_code) else None  # a subclass may say anything
        again = raised.needs_retry
        if again is None:  # as fal has it: what is busy or late may work another time
            again = status in {503, 504}
        return RequestError("app_error", legible(raised.message), status=status, retryable=bool(again))
    if isinstance(raised, FileException):
        return _of_file(raised)
    if isinstance(raised, FieldException):
        field, message = legible(raised.field), legible(raised.message)
        detail = [{"loc": ["body", field], "msg": message, "type": "value_error"}]
        return RequestError("validation_error", message, detail=detail)
    if isinstance(raised, Cancelled):  # raised by hand: nobody had cancelled the request
        return RequestError("client_cancelled", "The app stopped the request.")
    return None


def _of_file(raised: FileException) -> RequestError:
    loc = [step if isinstance(step, int) else legible(step) for step in ("body", *raised.loc)]
    wrong: dict[str, Any] = {"loc": loc, "msg": legible(raised.message), "type": raised.type}
    if len(raised.input) <= SHOWN_CHARS_MAX:  # a data URL may have megabytes
        wrong["input"] = legible(raised.input)
    if raised.ctx:
        wrong["ctx"] = raised.ctx
    return RequestError("validation_error", wrong["msg"], detail=[wrong])


def ending_of(reason: str) -> RequestError:
    """Return the error that ends a request cancelled for `reason`, a type of the table."""
    type_ = reason if reason in ERROR_TYPES else "client_cancelled"
    return RequestError(type_, ERROR_TYPES[type_].meaning)


def log(what: str, raised: BaseException) -> None:
    """Write one traceback, of bounded length, to the runner's log: the request's own is its caller's to read."""
    # The author may have closed the stream, or replaced it by anything, and the exception is the author's, too:
    # a log line is no reason to lose a request.
    with contextlib.suppress(BaseException):
        text = f"{what}\n{traceback_of(raised)}"
        if not output.tell(text):
            sys.stderr.write(text)
            sys.stderr.flush()


def traceback_of(raised: BaseException) -> str:
    """Return the traceback, with the middle left out if it is long."""
    try:
        text = legible("".join(traceback.format_exception(raised)), None)
    except (
        BaseException
    ):  # an author's exception can raise when it is looked at; where it came from is safe to tell
        text = "".join([*traceback.format_tb(raised.__traceback__), f"{type(raised).__name__}\n"])
    if len(text) <= TRACEBACK_CHARS_MAX:
        return text
    half = TRACEBACK_CHARS_MAX // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def legible(text: object, chars_max: int | None = MESSAGE_CHARS_MAX) -> str:
    """Return text that any JSON parser takes: without halves of surrogate pairs, and of bounded length."""
    return str(text)[:chars_max].encode("utf-8", "replace").decode("utf-8")


def error_payload(error: RequestError) -> bytes:
    """Return the payload of ERROR or CHECKED: ASCII JSON."""
    return json.dumps(error.to_wire()).encode("ascii")
