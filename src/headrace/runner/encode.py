"""Items to the text of events: one JSON object, on one line, in pure ASCII.

Why ASCII: it makes the text independent of every decoder on the way, and no line separator (U+2028) and no half
of a character can ever cut an event. This file knows no stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import Any, Final

import orjson
from pydantic_core import PydanticSerializationError

from headrace.core.errors import RequestError

_BRACE, _LF, _CR, _N, _I = b"{\n\rNI"  # looked for as numbers: that costs a seventh of a search for bytes
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")

#: How the serializers' messages begin, and what we say. Only types are named: what an item holds is not
#: ours to tell.
_REASONS: Final = (
    (re.compile(r"Type is not JSON serializable: (\S+)"), "a value of type {}"),
    (re.compile(r".*Unable to serialize unknown type: <class '([^']+)'>"), "a value of type {}"),
    (re.compile(r"Dict key must "), "a dict key that is not a str"),
    (re.compile(r"Integer exceeds"), "an int beyond 64 bits"),
    (re.compile(r".*surrogates not allowed"), "a str with half of a surrogate pair"),
    (re.compile(r".*invalid utf-8 sequence"), "bytes that are not UTF-8"),
    (
        re.compile(r"(?i).*(recursion|circular reference|depth exceeded)"),
        "a value inside itself, or nested too deeply",
    ),
)


def event_too_large(size: int, event_bytes_max: int) -> RequestError:
    """Return the error for an event over its bound."""
    message = f"The app made one item of {size} bytes; at most {event_bytes_max} are allowed."
    return RequestError("event_too_large", message)


def result_too_large(size: int, result_bytes_max: int) -> RequestError:
    """Return the error for a result over its bound, where no stream carries it."""
    message = (
        f"The app returned a result of {size} bytes; at most {result_bytes_max} are allowed. "
        "Put files behind URLs, and return those."
    )
    return RequestError("result_too_large", message)


def encode_item(
    item: object, bytes_max: int, too_large: Callable[[int, int], RequestError] = event_too_large
) -> bytes:
    """Return an item as the text of an event, or of a result.

    Pydantic models are written by their own serializers, by alias; dataclasses, numpy arrays and scalars,
    datetimes, UUIDs and enums as orjson does; NaN and infinities as null. What is no JSON object becomes
    `{"output": item}`.

    Raises `RequestError`: `unserializable_item`, naming the type of the value that JSON cannot hold, or what
    `too_large` makes of the text's size and its bound.
    """
    try:
        if type(item) is dict or not hasattr(type(item), "__pydantic_serializer__"):
            text = orjson.dumps(item, _default)
        else:
            text = _by_pydantic(item)
    except (orjson.JSONEncodeError, PydanticSerializationError, ValueError) as error:
        raise RequestError("unserializable_item", _what_is_wrong(item, error)) from error
    if text[0] != _BRACE:
        text = b'{"output":%b}' % text
    if _LF in text or _CR in text:  # an author's own orjson.Fragment; between tokens they mean nothing
        text = text.translate(None, b"\r\n")
    if not text.isascii():
        text = _NOT_ASCII.sub(_escape, text.decode()).encode("ascii")
    if len(text) > bytes_max:
        raise too_large(len(text), bytes_max)
    return text


def _by_pydantic(item: Any) -> bytes:
    text: bytes = item.__pydantic_serializer__.to_json(item, by_alias=True, fallback=_unknown_to_pydantic)
    if (_N in text and b"NaN" in text) or (_I in text and b"Infinity" in text):
        # In a string, perhaps; or because a model's own config asks for what is no JSON.
        return json.dumps(json.loads(text, parse_constant=lambda _: None), separators=(",", ":")).encode("ascii")
    return text


def _unknown_to_pydantic(value: Any) -> Any:
    if _is_array(value):
        return value.tolist()
    raise PydanticSerializationError(f"Unable to serialize unknown type: {type(value)}")


def _default(value: Any) -> Any:
    """Take what orjson leaves: models inside other values, and arrays of any kind."""
    if hasattr(type(value), "__pydantic_serializer__"):
        return orjson.Fragment(_by_pydantic(value))
    if _is_array(value):
        # Only here: with this option orjson imports numpy for the first value that it does not know, whatever it
        # is, and every stream of the runner waits for a quarter of a second. Who has an array has numpy.
        return orjson.Fragment(orjson.dumps(value, _listed, orjson.OPT_SERIALIZE_NUMPY))
    raise TypeError


def _listed(value: Any) -> Any:
    """Take the arrays that orjson cannot write as they lie in memory: tensors, strides, other types of numbers."""
    if _is_array(value):
        return value.tolist()
    raise TypeError


def _is_array(value: Any) -> bool:
    """Whether it is a tensor, or one of numpy's scalars and arrays."""
    return hasattr(type(value), "__array__") and hasattr(value, "tolist")


def _escape(run: re.Match[str]) -> str:
    escaped: str = encode_basestring_ascii(run[0])
    return escaped[1:-1]


def _what_is_wrong(item: object, error: Exception) -> str:
    for link in (error.__cause__, error):
        for pattern, words in _REASONS:
            if link is not None and (found := pattern.match(str(link))):
                return f"The app made an item that JSON cannot hold: {words.format(*found.groups())}."
    return f"The app made an item of type {type(item).__name__} that could not be written as JSON."
