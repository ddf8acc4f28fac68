"""Reads a finished `App` class: its endpoints, how each is run, and the `AppSpec` that the node gets.

Everything wrong with a class is a `FileFault` that names the line of the `def` or `class` at fault.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from headrace.app.base import App
from headrace.app.endpoint import MARK, EndpointMark, line_of
from headrace.app.schema import input_adapter, input_schema, item_schema, members_of
from headrace.core.errors import FileFault
from headrace.core.routes import view_paths
from headrace.core.spec import AppSpec, EndpointSpec


class EndpointKind(enum.Enum):
    """How a method gives its items, and so how a runner runs it."""

    FUNCTION = "def"
    COROUTINE = "async def"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"


_GENERATORS: Final = (EndpointKind.GENERATOR, EndpointKind.ASYNC_GENERATOR)

#: A plain `def` with one of these return annotations hands out a generator, and is run as one.
_ITERATOR_TYPES: Final = {
    collections.abc.Iterator: EndpointKind.GENERATOR,
    collections.abc.Generator: EndpointKind.GENERATOR,
    collections.abc.AsyncIterator: EndpointKind.ASYNC_GENERATOR,
    collections.abc.AsyncGenerator: EndpointKind.ASYNC_GENERATOR,
}

#: What a generator's own return annotation may be.
_ITEM_TYPES: Final = {*_ITERATOR_TYPES, collections.abc.Iterable, collections.abc.AsyncIterable}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as a runner sees it."""

    spec: EndpointSpec
    method: str  # the attribute of the app that answers it
    kind: EndpointKind
    input: TypeAdapter[Any] | None  # None: it takes no input


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """One app as a runner sees it: its class, and what was read from it."""

    cls: type[App]
    spec: AppSpec
    endpoints: Mapping[str, Endpoint]  # by path, as the decorator has it


def describe(cls: type[App]) -> LoadedApp:
    """Read an app's class. Raises `FileFault` for the first thing that is wrong with it."""
    said = cls.__headrace__
    endpoints = [_describe_endpoint(name, method) for name, method in _marked(cls).items()]
    if not endpoints:
        raise FileFault(
            said.file, said.line, f"{cls.__name__} has no endpoint; mark a method @headrace.endpoint()"
        )
    spec = AppSpec(
        name=said.name,
        cls=cls.__name__,
        file=said.file,
        line=said.line,
        doc=_first_paragraph(cls.__doc__),
        endpoints=tuple(endpoint.spec for endpoint in endpoints),
        **said.knobs,  # type: ignore[arg-type]  # their types were checked by base._check_knob
    )
    return LoadedApp(cls, spec, {endpoint.spec.path: endpoint for endpoint in endpoints})


def has_endpoints(cls: type[App]) -> bool:
    """Whether a class has an endpoint, of its own or inherited."""
    return bool(_marked(cls))


def _marked(cls: type[App]) -> dict[str, Callable[..., Any]]:
    """Return the marked methods, inherited ones first; an override without a mark hides the one below."""
    members: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        members.update(vars(base))
    marked = {name: member for name, member in members.items() if isinstance(_mark(member), EndpointMark)}
    for member in marked.values():
        if not inspect.isfunction(member):
            function = inspect.unwrap(member)
            raise FileFault(
                function.__code__.co_filename,
                line_of(function),
                f"an endpoint is a plain method, not a {type(member).__name__}",
            )
    return marked


def _mark(member: object) -> object:
    return getattr(getattr(member, "__wrapped__", member), MARK, None)


def _describe_endpoint(name: str, method: Callable[..., Any]) -> Endpoint:
    mark: EndpointMark = getattr(method, MARK)
    function = inspect.unwrap(method)
    line = line_of(function)
    try:
        hints = get_type_hints(function, include_extras=True)
        returns = hints.get("return", Any)
        kind = _kind_of(method, returns)
        run_path, stream_path = view_paths(
            mark.path, streams=kind in _GENERATORS or mark.emits is not None, stream=mark.stream
        )
        adapter = _input_of(function, hints)
        items, result = _items_of(kind, returns, mark.emits)
        spec = EndpointSpec(
            path=mark.path,
            run_path=run_path,
            stream_path=stream_path,
            doc=_first_paragraph(method.__doc__),
            line=line,
            input_schema=input_schema(adapter),
            item_schema=item_schema(items),
            result_schema=item_schema(result),
        )
    except NameError as error:
        message = f"an annotation of {name} cannot be resolved: {error}"
        raise FileFault(function.__code__.co_filename, line, message) from None
    except (ValueError, TypeError, PydanticUserError) as error:
        message = f"{name}: {str(error).splitlines()[0]}"
        raise FileFault(function.__code__.co_filename, line, message) from error
    return Endpoint(spec, name, kind, adapter)


def _kind_of(method: Callable[..., Any], returns: Any) -> EndpointKind:
    if inspect.isasyncgenfunction(method):
        return EndpointKind.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(method):
        return EndpointKind.COROUTINE
    if inspect.isgeneratorfunction(method):
        return EndpointKind.GENERATOR
    return _ITERATOR_TYPES.get(get_origin(returns) or returns, EndpointKind.FUNCTION)


def _input_of(function: Callable[..., Any], hints: Mapping[str, Any]) -> TypeAdapter[Any] | None:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if not parameters:
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) > 1 or parameters[0].kind not in positional:
        names = ", ".join(map(str, parameters))
        raise ValueError(
            f"an endpoint takes nothing or one input besides self, not ({names}); put them into one model"
        )
    return input_adapter(hints.get(parameters[0].name, Any))


def _items_of(kind: EndpointKind, returns: Any, emits: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the members of the items' union, and of the result: both empty where nothing is said."""
    if kind in _GENERATORS:
        if emits is not None:
            raise ValueError("emits=… is for plain functions; a generator's return annotation names its items")
        return _yielded(returns)
    result = members_of(returns)
    if emits is None:
        return result, result
    items = members_of(emits)
    # A function that returns None has its last emitted item for a result.
    return (*items, *result), result or items[-1:]


def _yielded(returns: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    if returns is Any:
        return (), ()
    if (get_origin(returns) or returns) not in _ITEM_TYPES:
        raise ValueError(
            f"the return annotation of a generator is Iterator[…] or AsyncIterator[…], not {returns!r}"
        )
    yields, *rest = get_args(returns) or (Any,)
    items = members_of(yields)
    # Generator[Y, S, R]: what the generator returns is its last item.
    returned = members_of(rest[1]) if len(rest) == 2 and rest[1] is not Any else ()
    items = (*items, *returned)
    return items, items[-1:]


def _first_paragraph(doc: str | None) -> str:
    return inspect.cleandoc(doc or "").split("\n\n", 1)[0]
