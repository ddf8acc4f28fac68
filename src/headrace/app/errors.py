"""What an author raises to tell the caller something, under fal's names.

Any other exception is an accident: the caller reads a fixed text, and the traceback goes to the server's log.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.errors import is_error_status


class AppException(Exception):
    """The app refuses, in its own words: `raise AppException("the GPU is too hot", status_code=503)`.

    `status_code` is the HTTP status while nothing was sent yet, and `status` in the error event afterwards;
    an int from 400 to 599, 500 by default. `ValueError` for any other.

    `needs_retry` says whether the same request may work another time: the caller is told (`X-Fal-Needs-Retry`),
    and a queued request is tried again. By default it may for 503 and 504, as fal has it.
    """

    # Also on the class: an author's subclass may forget to call our __init__.
    message: str = ""
    status_code: int = 500
    needs_retry: bool | None = None

    def __init__(self, message: str, status_code: int = 500, *, needs_retry: bool | None = None) -> None:
        super().__init__(message)
        if not is_error_status(status_code):
            raise ValueError(f"status_code={status_code!r}: an error's status is from 400 to 599")
        self.message = message
        self.status_code = status_code
        self.needs_retry = needs_retry


class FieldException(Exception):
    """One field of the input is wrong, as only the model can know: `raise FieldException("size", "not free")`.

    The caller gets 422 with `{"loc": ["body", field], "msg": message, "type": "value_error"}`, the shape of a
    failed validation.
    """

    field: str = ""
    message: str = ""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class FileException(FieldException):
    """A file of the input cannot be had, or is no picture: what `File` and `Image` raise, for an author to catch.

    Not a public name: `except FieldException` catches it.
    """

    type: str = "file_download_error"
    loc: tuple[str | int, ...] = ()

    def __init__(
        self,
        loc: tuple[str | int, ...],
        message: str,
        type: str,
        *,
        input: str,
        ctx: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(".".join(map(str, loc)), message)
        self.loc = loc
        self.type = type
        self.input = input
        self.ctx = dict(ctx or {})
