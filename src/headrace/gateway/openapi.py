"""An app's OpenAPI document: inputs, results, and the schema of its streams' items.

OpenAPI 3.2 describes server-sent events by `itemSchema` (section 4.14.3): the schema of one event's data, which
no earlier version can say. Pure: values in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headrace.core.spec import AppSpec, EndpointSpec

Json = dict[str, Any]

_STATUSES: Final = {
    "401": "No key, or one that is not known here.",
    "422": "The input is wrong; `detail` says where.",
    "429": "Too many requests wait already.",
    "500": "The app failed; the server's log has the request id.",
    "503": "No runner of the app is up.",
    "504": "No slot was free in time, or the request ran too long.",
}

_ERROR_SCHEMA: Final[Json] = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["loc", "msg", "type"],
                        "properties": {
                            "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                            "msg": {"type": "string"},
                            "type": {"type": "string"},
                        },
                    },
                },
            ]
        },
        "error_type": {"type": "string"},
        "request_id": {"type": "string"},
    },
}

#: What a submit is answered (protocol section 7.2).
_SUBMITTED_SCHEMA: Final[Json] = {
    "type": "object",
    "required": ["status", "request_id", "response_url", "status_url", "cancel_url", "queue_position"],
    "properties": {
        "status": {"const": "IN_QUEUE"},
        "request_id": {"type": "string"},
        "response_url": {"type": "string", "format": "uri"},
        "status_url": {"type": "string", "format": "uri"},
        "cancel_url": {"type": "string", "format": "uri"},
        "queue_position": {"type": "integer", "minimum": 0},
    },
}


def openapi(app: AppSpec, server: str) -> Json:
    """Return the document of one app, served at `{server}/{owner}/{alias}/openapi.json`."""
    schemas: Json = {"Error": _ERROR_SCHEMA, "Submitted": _SUBMITTED_SCHEMA}
    paths: Json = {}
    for endpoint in app.endpoints:
        if endpoint.run_path is not None:
            paths[f"/{app.name}{endpoint.run_path}"] = {"post": _run(app, endpoint, schemas)}
        if endpoint.stream_path is not None:
            paths[f"/{app.name}{endpoint.stream_path}"] = {"post": _stream(app, endpoint, schemas)}
        paths[f"/queue/{app.name}{endpoint.queue_path}"] = {"post": _queue(app, endpoint, schemas)}
    return {
        "openapi": "3.2.0",
        "info": {"title": app.name, "description": app.doc, "version": "1"},
        "servers": [{"url": server}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`Key <key>`, as fal's clients send it.",
                }
            },
        },
    }


def _run(app: AppSpec, endpoint: EndpointSpec, schemas: Json) -> Json:
    answer = {"application/json": {"schema": _hoist(endpoint.result_schema, schemas)}}
    return _operation(app, endpoint, "run", "The last item, as one answer.", answer, schemas)


def _stream(app: AppSpec, endpoint: EndpointSpec, schemas: Json) -> Json:
    answer = {"text/event-stream": {"itemSchema": _hoist(endpoint.item_schema, schemas)}}
    meaning = "Every item as it is made, one `data:` line of JSON each. The end of the body is the end."
    return _operation(app, endpoint, "stream", meaning, answer, schemas)


def _queue(app: AppSpec, endpoint: EndpointSpec, schemas: Json) -> Json:
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Submitted"}}}
    meaning = "The request is on the disk and in line. Its result is at `response_url`, once it is over."
    return _operation(app, endpoint, "queue", meaning, answer, schemas)


def _operation(app: AppSpec, endpoint: EndpointSpec, view: str, meaning: str, answer: Json, schemas: Json) -> Json:
    errors = {
        status: {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, text in _STATUSES.items()
    }
    return {
        "operationId": f"{view}:{app.name}{endpoint.path}",
        "summary": endpoint.doc.split("\n", 1)[0],
        "description": endpoint.doc,
        "requestBody": {
            "required": bool(endpoint.input_schema.get("required")),
            "content": {"application/json": {"schema": _hoist(endpoint.input_schema, schemas)}},
        },
        "responses": {"200": {"description": meaning, "content": answer}, **errors},
    }


def _hoist(schema: Mapping[str, Any], schemas: Json) -> Json:
    """Move a schema's `$defs` to the document's components, where its `$ref`s then point."""
    names = {}
    for name, definition in schema.get("$defs", {}).items():
        names[name] = _free_name(name, _without_defs(definition), schemas)
    for name, definition in schema.get("$defs", {}).items():
        schemas[names[name]] = _rename(_without_defs(definition), names)
    moved: Json = _rename(_without_defs(schema), names)
    return moved


def _without_defs(schema: Mapping[str, Any]) -> Json:
    return {key: value for key, value in schema.items() if key != "$defs"}


def _free_name(name: str, definition: Json, schemas: Json) -> str:
    """Return a component name that is free, or already holds the same definition."""
    candidate, number = name, 2
    while candidate in schemas and schemas[candidate] != _rename(definition, {}):
        candidate, number = f"{name}{number}", number + 1
    return candidate


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        renamed = {key: _rename(item, names) for key, item in value.items()}
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            name = reference.removeprefix("#/$defs/")
            renamed["$ref"] = f"#/components/schemas/{names.get(name, name)}"
        return renamed
    if isinstance(value, list):
        return [_rename(item, names) for item in value]
    return value
