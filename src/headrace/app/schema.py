"""Types to JSON schemas: what an endpoint takes, what one item is, what its result is.

A schema is self-contained: what it refers to stands in its own `$defs`. This file knows types; it does not know
methods, nor where a type was written.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter

Schema = Mapping[str, Any]

#: What stands where an author says nothing.
ANY_OBJECT: Final[Schema] = {"type": "object"}

_UNTYPED: Final = (Any, object)


def input_adapter(annotation: Any) -> TypeAdapter[Any]:
    """Return what validates a body as `annotation`. Raises `ValueError` for a type that is no JSON object."""
    adapter: TypeAdapter[Any] = TypeAdapter(dict[str, Any] if annotation in _UNTYPED else annotation)
    schema = adapter.json_schema()
    if not _may_be_object(schema, schema.get("$defs", {})):
        raise ValueError("the input must be a pydantic model, a dataclass, a TypedDict or a dict")
    return adapter


def input_schema(adapter: TypeAdapter[Any] | None) -> Schema:
    """Return the schema of the body; any object for an endpoint without a parameter."""
    if adapter is None:
        return ANY_OBJECT
    schema = adapter.json_schema()
    return ANY_OBJECT if schema == {"type": "object", "additionalProperties": True} else schema


def item_schema(members: Sequence[Any]) -> Schema:
    """Return the schema of an item that is one of `members`, as it is on the wire."""
    if not members or any(member in _UNTYPED for member in members):
        return ANY_OBJECT
    if len(members) == 1:
        schema = TypeAdapter[Any](members[0]).json_schema(mode="serialization")
        defs = schema.pop("$defs", {})
        schema = dict(_as_object(schema, defs))
    else:
        mode: Literal["serialization"] = "serialization"
        inputs = [(at, mode, TypeAdapter[Any](member)) for at, member in enumerate(members)]
        by_member, shared = TypeAdapter.json_schemas(inputs)
        defs = shared.get("$defs", {})
        schema = {"anyOf": [_as_object(by_member[at, mode], defs) for at in range(len(members))]}
    return {**schema, "$defs": defs} if defs else schema


def members_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union in their order, without None; of any other type, itself."""
    is_union = get_origin(annotation) in {Union, types.UnionType}
    members = get_args(annotation) if is_union else (annotation,)
    return tuple(member for member in members if member not in (None, types.NoneType))


def _as_object(schema: Schema, defs: Schema) -> Schema:
    """Wrap the schema of what is not an object as the encoder wraps the value."""
    if _may_be_object(schema, defs):
        return schema
    return {"type": "object", "properties": {"output": schema}, "required": ["output"]}


def _may_be_object(schema: Schema, defs: Schema) -> bool:
    while "$ref" in schema:
        schema = defs[schema["$ref"].rsplit("/", 1)[1]]
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        return all(_may_be_object(branch, defs) for branch in branches)
    if "enum" in schema or "const" in schema:
        return False
    return bool(schema.get("type", "object") == "object")
