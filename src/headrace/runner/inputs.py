"""A request's body to the value that an endpoint takes, and what is wrong with it in fal's shape.

This file knows no stream: CHECK and START ask the same question.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from headrace.app.files import File, locate
from headrace.core.errors import RequestError
from headrace.runner.blame import legible

#: Wrong fields that one answer lists, and characters of a wrong value, or a field's name, that it shows.
ERRORS_MAX: Final = 100
SHOWN_CHARS_MAX: Final = 1_000


class InputReader:
    """Reads the bodies of one endpoint."""

    def __init__(self, adapter: TypeAdapter[Any] | None) -> None:
        self._adapter = adapter
        #: Whether reading runs no Python of the author's, and so may happen on the event loop.
        self.is_quick: Final = adapter is None or not _runs_python(adapter.core_schema)
        self.has_files: Final = adapter is not None and _has_files(adapter.core_schema)

    def read(self, body: bytes) -> tuple[Any, ...]:
        """Return the arguments for the endpoint: one, or none if it takes no input.

        An empty body is `{}`. Raises `RequestError` (`validation_error`, with fal's list of wrong fields), or
        whatever a validator of the author's raises besides.
        """
        if self._adapter is None:
            return ()
        try:
            value = self._adapter.validate_json(body or b"{}")
        except ValidationError as error:
            detail = _detail_of(error, body)
            message = f"{len(detail)} wrong field{'s' * (len(detail) != 1)}: {detail[0]['msg']}"
            raise RequestError("validation_error", message, detail=detail) from None
        if self.has_files:
            locate(value)
        return (value,)


def _detail_of(error: ValidationError, body: bytes) -> list[dict[str, Any]]:
    return [_wrong_field(wrong, body) for wrong in error.errors(include_url=False)[:ERRORS_MAX]]


def _wrong_field(wrong: ErrorDetails, body: bytes) -> dict[str, Any]:
    type_, message = wrong["type"], legible(wrong["msg"])
    if type_ == "json_invalid":
        return {"loc": ["body", _json_error_at(body)], "msg": message, "type": type_}
    loc = [step if isinstance(step, int) else legible(step, SHOWN_CHARS_MAX) for step in wrong["loc"]]
    shown: dict[str, Any] = {key: value for key, value in wrong.items() if key in {"input", "ctx"}}
    return {"loc": ["body", *loc], "msg": message, "type": type_, **_showable(shown)}


def _showable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are short enough, as JSON has them; a validator's exception is its text."""
    safe = {}
    for key, value in values.items():
        with contextlib.suppress(orjson.JSONEncodeError):  # what JSON cannot hold is left out
            text = orjson.dumps(value, str)
            if len(text) <= SHOWN_CHARS_MAX:
                safe[key] = orjson.loads(text)
    return safe


def _json_error_at(body: bytes) -> int:
    """Return the offset at which the body stops being JSON; fal's answers have it in `loc`."""
    try:
        json.loads(body)
    except json.JSONDecodeError as error:
        return error.pos
    except (UnicodeDecodeError, RecursionError):
        return 0
    return 0


def _runs_python(schema: Any) -> bool:
    """Whether a core schema calls a validator of the author's (`function-before`, `function-plain`, …)."""
    if isinstance(schema, Mapping):
        is_function = str(schema.get("type", "")).startswith("function-") and not _is_ours(schema)
        return is_function or any(map(_runs_python, schema.values()))
    return isinstance(schema, Sequence) and not isinstance(schema, str) and any(map(_runs_python, schema))


def _is_ours(schema: Mapping[str, Any]) -> bool:
    """Whether the validator is one of `headrace.app`'s, which are quick."""
    function = schema.get("function")
    called = function.get("function") if isinstance(function, Mapping) else None
    return str(getattr(called, "__module__", "")).startswith("headrace.app.")


def _has_files(schema: Any) -> bool:
    """Whether a value of a core schema may hold a `File`."""
    if isinstance(schema, Mapping):
        cls = schema.get("cls")
        return (isinstance(cls, type) and issubclass(cls, File)) or any(map(_has_files, schema.values()))
    return isinstance(schema, Sequence) and not isinstance(schema, str) and any(map(_has_files, schema))
