"""What is served here, as Markdown for machines: `/llms.txt` and `/{owner}/{alias}/llms.txt` (llmstxt.org).

A model that is to call another needs little: where, with what key, what goes in, what comes out, and how an end is
told from a failure. Pure: values in, text out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from headrace.core.spec import AppSpec, EndpointSpec

Schema = Mapping[str, Any]

#: Bounds of JSON Schema, and how a line says them.
_BOUNDS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "over {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matching `{}`",
}

_HOW: Final = """\
Send `Authorization: Key <key>` and `Content-Type: application/json`; the body is one JSON object, the input.

- run: POST; waits, then answers with the last item as JSON
- stream: POST; server-sent events, one `data:` line of JSON each. A clean end of the body means success, and the
  last event is the result. A failure is one event `event: error` with `{"error": {"type", "message",
  "request_id", "retryable", "status"}}`, and then the connection is cut.
- queue: POST; answers at once with `request_id`, `status_url`, `response_url` and `cancel_url`. GET the status
  (202 until it is over, then 200), GET the response for the result, PUT the cancel URL to end it.

A failure before the first event is an HTTP status with `{"detail", "error_type"}`; 422 lists the wrong fields."""


def server_text(apps: Iterable[AppSpec], url: str) -> str:
    """Return the Markdown of `/llms.txt`: the server at `url`, and a line for each app."""
    lines = [
        "# Headrace",
        "",
        f"> A server of models at {url}. Each app takes JSON and gives what it makes as it makes it.",
        "",
        _HOW,
        "",
        "## Apps",
        "",
    ]
    for app in apps:
        told = f": {_one_line(app.doc)}" if app.doc else ""
        lines.append(f"- [{app.name}]({url}/{app.name}/llms.txt){told}")
    return "\n".join(lines) + "\n"


def app_text(app: AppSpec, url: str) -> str:
    """Return the Markdown of `/{owner}/{alias}/llms.txt`: every endpoint, its views, its input and its items."""
    lines = [f"# {app.name}", ""]
    if app.doc:
        lines += [f"> {_one_line(app.doc)}", ""]
    lines += [_HOW, "", f"Schemas: {url}/{app.name}/openapi.json", ""]
    for endpoint in app.endpoints:
        lines += _endpoint(app, endpoint, url)
    return "\n".join(lines).rstrip() + "\n"


def _endpoint(app: AppSpec, endpoint: EndpointSpec, url: str) -> Iterator[str]:
    yield f"## {endpoint.path}"
    yield ""
    if endpoint.doc:
        yield _one_line(endpoint.doc)
        yield ""
    if endpoint.run_path is not None:
        yield f"- run: `POST {url}/{app.name}{endpoint.run_path}`"
    if endpoint.stream_path is not None:
        yield f"- stream: `POST {url}/{app.name}{endpoint.stream_path}`"
    yield f"- queue: `POST {url}/queue/{app.name}{endpoint.queue_path}`"
    for title, schema in (
        ("Input", endpoint.input_schema),
        ("One event of the stream", endpoint.item_schema if endpoint.stream_path is not None else None),
        ("Result, the last event", endpoint.result_schema),
    ):
        if schema is not None:
            yield ""
            yield f"### {title}"
            yield ""
            yield from _fields(schema)
    yield ""


def _fields(schema: Schema) -> Iterator[str]:
    """Tell an object's fields, a line each; of a union, one object after the other."""
    defs = schema.get("$defs", {})
    shapes = [_resolved(shape, defs) for shape in schema.get("anyOf", [schema])]
    for shape in shapes:
        if len(shapes) > 1:
            yield f"{shape.get('title', 'object')}:"
            yield ""
        properties = shape.get("properties", {})
        if not properties:
            yield "Any JSON object."
        for name, field in properties.items():
            yield _field(name, field, defs, is_required=name in shape.get("required", ()))
        if len(shapes) > 1:
            yield ""


def _field(name: str, field: Schema, defs: Schema, *, is_required: bool) -> str:
    facts = [_type(field, defs), *_bounds(field, defs)]
    if is_required:
        facts.append("required")
    elif "default" in field:
        facts.append(f"default {json.dumps(field['default'])}")
    told = _one_line(str(field.get("description", "")))
    return f"- `{name}` ({', '.join(facts)})" + (f": {told}" if told else "")


def _bounds(field: Schema, defs: Schema) -> Iterator[str]:
    for part in (field, *(_resolved(branch, defs) for branch in field.get("anyOf", ()))):
        for bound, words in _BOUNDS.items():
            if bound in part:
                yield words.format(part[bound])


def _type(field: Schema, defs: Schema) -> str:
    """Name a field's type: `string`, `integer or null`, `one of "a", "b"`, `array of string`, `object {…}`."""
    # Within itself a definition is any: of one that holds itself, as JSON does, there would be no end.
    entered = field["$ref"].rsplit("/", 1)[1] if "$ref" in field else None
    field = _resolved(field, defs)
    defs = {name: schema for name, schema in defs.items() if name != entered}
    if branches := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(_type(branch, defs) for branch in branches)
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return "one of " + ", ".join(json.dumps(value) for value in field["enum"])
    type_ = field.get("type", "any")
    if type_ == "array":
        return f"array of {_type(field.get('items', {}), defs)}"
    if type_ == "object" and field.get("properties"):
        inner = ", ".join(f"{name}: {_type(part, {})}" for name, part in field["properties"].items())
        return f"object {{{inner}}}"
    return str(type_)


def _resolved(schema: Schema, defs: Schema) -> Schema:
    # A reference and its description stand side by side (JSON Schema 2020-12): what is beside it stays.
    if "$ref" not in schema:
        return schema
    target: Schema = defs.get(schema["$ref"].rsplit("/", 1)[1], {})
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def _one_line(text: str) -> str:
    return " ".join(text.split())
