"""The body of a request: read within its bounds and deadline, and JSON of a shape that can go further.

What the JSON means is the app's to say: the runner validates it. Here it must be an object, not too deep for
whatever parses it next, and said to be JSON. The body of a file is passed on as it comes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any, Final

import orjson

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.memory import Budget
from headrace.core.uploads import too_large
from headrace.gateway.answers import Receive

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_OPENING = ord("[")


#: Bodies up to this many bytes are bounded by the number of requests alone.
UNCOUNTED_BYTES: Final = 64 * 1024


class ClientLeft(Exception):
    """The client is gone before its request was complete: there is nobody to answer."""


class HeldBytes:
    """What one request holds of the node's memory for large bodies and results."""

    __slots__ = ("_budget", "_owner", "count")

    def __init__(self, budget: Budget, owner: KeyId | None) -> None:
        self._budget = budget
        self._owner = owner
        self.count = 0

    def grow_to(self, count: int) -> None:
        """Hold `count` bytes in all. Raises `RequestError` (429) when its key's, or all, hold too many."""
        if count > UNCOUNTED_BYTES:
            if not self._budget.take(self._owner, count - self.count):
                message = "Other requests' bodies and results hold all the memory there is for them; try again."
                raise RequestError("overloaded", message, headers={"Retry-After": "1"})
            self.count = count

    def let_go(self) -> None:
        """Hold nothing any more."""
        self._budget.give_back(self._owner, self.count)
        self.count = 0


async def read_body(
    receive: Receive,
    headers: Mapping[str, str],
    limits: Limits,
    held: HeldBytes,
    *,
    has_come: bool = False,
    bytes_max: int | None = None,
) -> bytes:
    """Return the body, whose bytes are counted in `held` as they come; `has_come` says that they all have.

    `bytes_max` is `limits.body_bytes_max` by default. Raises `RequestError` (413, 408 when it stalls, 429 when the
    node's memory is taken) or `ClientLeft`.
    """
    limit = limits.body_bytes_max if bytes_max is None else bytes_max
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await _next_message(receive, limits, has_come=has_come)
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise _too_large(limit)
        held.grow_to(size)
        if not message.get("more_body", False):
            return b"".join(pieces)


async def arriving(receive: Receive, headers: Mapping[str, str], limits: Limits) -> AsyncIterator[bytes]:
    """Yield the body of a file as it comes; none of it is kept.

    Raises `RequestError` (413, 400 when it stalls, 415 when it is compressed) or `ClientLeft`.
    """
    _refuse_compression(headers)
    length = headers.get("content-length", "0")
    size = int(length) if length.isdecimal() else 0
    if size > limits.file_bytes_max:
        raise too_large(limits.file_bytes_max)
    size, more = 0, True
    while more:
        message = await _next_message(receive, limits)
        more = message.get("more_body", False)
        piece = message.get("body", b"")
        size += len(piece)
        if size > limits.file_bytes_max:
            raise too_large(limits.file_bytes_max)
        if piece:
            yield piece


async def _next_message(receive: Receive, limits: Limits, *, has_come: bool = False) -> MutableMapping[str, Any]:
    """Return the next piece of a body as ASGI has it. Raises `RequestError` (408) or `ClientLeft`."""
    try:
        if has_come:  # as most have: what waits for nothing needs no deadline
            message = await receive()
        else:
            async with asyncio.timeout(limits.body_timeout_s):
                message = await receive()
    except TimeoutError:
        message_text = f"No byte of the body came within {limits.body_timeout_s:g} s."
        raise RequestError("bad_request", message_text, status=408) from None
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message


def _too_large(limit: int) -> RequestError:
    return RequestError("payload_too_large", f"A body may have {limit} bytes; send files as uploads or URLs.")


def check_media_type(headers: Mapping[str, str], body: bytes) -> None:
    """Refuse a body that is compressed or does not say that it is JSON (415)."""
    _refuse_compression(headers)
    if not body:
        return
    media_type = headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise RequestError(
            "unsupported_media_type",
            f"The body must be JSON and say so: send 'Content-Type: application/json', not {media_type!r}.",
        )


def _refuse_compression(headers: Mapping[str, str]) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise RequestError("unsupported_media_type", f"Content-Encoding {encoding!r} is not taken; send it plain.")


def check_object(body: bytes, limits: Limits) -> bytes:
    """Return the body as the JSON text of an object, `{}` for none. Raises `RequestError` (422)."""
    if not body.strip():
        return b"{}"
    if is_too_deep(body, limits.body_depth_max):
        raise _invalid(f"JSON nested deeper than {limits.body_depth_max} levels", "json_too_deep", [])
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"JSON decode error: {error.msg}", "json_invalid", [error.pos]) from None
    if not isinstance(value, dict):
        raise _invalid(f"the body must be a JSON object, not {_json_type(value)}", "dict_type", [])
    return body


def is_too_deep(body: bytes, depth_max: int) -> bool:
    """Whether brackets nest deeper than `depth_max`, without recursion and in time linear in the bytes."""
    if body.count(b"[") + body.count(b"{") <= depth_max:
        return False
    # One kind of bracket will do: a mismatch is no JSON, which the parser says better.
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, _NOT_BRACKETS)
    # Each round peels the innermost level off everywhere.
    for _ in range(depth_max):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    # What is left is deeper where it balances; where it does not, only its openings count.
    return b"[]" in brackets or _opens_deeper(brackets, depth_max)


def _opens_deeper(brackets: bytes, depth_max: int) -> bool:
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket == _OPENING else -1
        if depth > depth_max:
            return True
    return False


def _json_type(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _invalid(message: str, type_: str, loc: list[int]) -> RequestError:
    # fal's shape: protocol.md 9.3, with the offset of the fault behind "body".
    detail = [{"loc": ["body", *loc], "msg": message, "type": type_}]
    return RequestError("validation_error", message, detail=detail)
