"""The `@endpoint` decorator. It marks a method and leaves it as it is: called by hand, it is still itself.

What the mark means (views, schemas, how the method is run) is read later, by `describe`, when every name in an
annotation can be resolved.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace.core.errors import FileFault

Method = TypeVar("Method", bound=Callable[..., Any])

MARK = "__headrace_endpoint__"


@dataclass(frozen=True, slots=True)
class EndpointMark:
    """What an author wrote in the decorator's parentheses."""

    path: str
    stream: str | None
    emits: Any


def endpoint(path: str = "/", *, stream: str | None = None, emits: Any = None) -> Callable[[Method], Method]:
    """Make a method an endpoint of its app.

    `path` is below the app's name; "/" is the app itself. The method is a `def`, `async def`, generator or
    async generator, and takes nothing or one input. A generator has a stream view at `path` + "/stream",
    or where `stream` says. A plain function has one if `emits` names the type of the items that it
    sends with `headrace.emit`.

    Raises `FileFault` for what is not a method; anything else wrong is told when the file is served.
    """

    def mark(method: Method) -> Method:
        if not inspect.isfunction(method):
            raise FileFault(*caller(), f"@endpoint is for methods; this is a {type(method).__name__}")
        setattr(method, MARK, EndpointMark(path, stream, emits))
        return method

    if not isinstance(path, str):  # @endpoint without parentheses: `path` is the method itself
        raise FileFault(*caller(), 'write @headrace.endpoint("/path"), with the parentheses')
    return mark


def caller() -> tuple[str, int]:
    """Return file and line of the nearest code outside `headrace.app`."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("headrace.app"):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 1)


def line_of(method: Callable[..., Any]) -> int:
    """Return the line of a method's `def`, below its decorators (where `co_firstlineno` points)."""
    code = inspect.unwrap(method).__code__
    line: int = code.co_firstlineno
    while text := linecache.getline(code.co_filename, line):
        if text.lstrip().startswith(("def ", "async def ")):
            return line
        line += 1
    return int(code.co_firstlineno)
