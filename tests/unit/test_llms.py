"""What `/llms.txt` tells a machine: every app, every view, every field with its bounds."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue
from typing_extensions import TypeAliasType

import headrace
from headrace.app.describe import describe
from headrace.gateway.llms import app_text, server_text


class Size(BaseModel):
    width: int
    height: int


class Prompt(BaseModel):
    prompt: Annotated[str, Field(description="What to\npaint.", min_length=1, max_length=500)]
    steps: int = Field(24, ge=1, le=50)
    size: Literal["small", "large"] | Size = "small"
    seeds: list[int] | None = None


class Preview(BaseModel):
    progress: float


class Picture(BaseModel):
    url: str


class Paint(headrace.App, name="me/paint"):
    """Paints.

    Slowly.
    """

    @headrace.endpoint("/schnell", emits=Preview)
    def schnell(self, input: Prompt) -> Picture:
        """Paint what is asked for."""
        return Picture(url="http://a/b")

    @headrace.endpoint("/raw")
    def raw(self, input: dict) -> dict:
        return {}


PAINT = describe(Paint).spec


def test_a_server_tells_where_each_app_is_described():
    text = server_text([PAINT], "http://gpu.test:8080")

    assert "> A server of models at http://gpu.test:8080." in text
    assert "- [me/paint](http://gpu.test:8080/me/paint/llms.txt): Paints.\n" in text
    assert "event: error" in text


def test_an_app_tells_the_views_of_each_endpoint():
    text = app_text(PAINT, "http://gpu.test")

    assert text.startswith("# me/paint\n\n> Paints.\n")
    assert "## /schnell\n\nPaint what is asked for.\n" in text
    assert "- run: `POST http://gpu.test/me/paint/schnell`\n" in text
    assert "- stream: `POST http://gpu.test/me/paint/schnell/stream`\n" in text
    assert "- queue: `POST http://gpu.test/queue/me/paint/schnell`\n" in text
    assert "/me/paint/raw/stream" not in text


def test_each_field_is_told_with_its_type_bounds_and_default():
    lines = app_text(PAINT, "http://gpu.test").splitlines()

    assert "- `prompt` (string, at least 1 characters, at most 500 characters, required): What to paint." in lines
    assert "- `steps` (integer, at least 1, at most 50, default 24)" in lines
    assert (
        '- `size` (one of "small", "large" or object {width: integer, height: integer}, default "small")' in lines
    )
    assert "- `seeds` (array of integer or null, default null)" in lines
    assert "- `progress` (number, required)" in lines
    assert "- `url` (string, required)" in lines
    assert "Any JSON object." in lines


Tree = TypeAliasType("Tree", "dict[str, Tree] | list[Tree] | str")


class Anything(BaseModel):
    tree: Tree
    value: JsonValue = None
    nested: list["Anything"] = []


class Recursive(headrace.App, name="me/recursive"):
    @headrace.endpoint("/")
    def grow(self, input: Anything) -> Anything:
        return input


class Streaming(headrace.App, name="me/streaming"):
    @headrace.endpoint("/stream")
    def preview(self, input: Prompt) -> Iterator[Preview]:
        yield Preview(progress=1)


def test_a_type_that_holds_itself_is_told_to_its_second_turn():
    lines = app_text(describe(Recursive).spec, "http://gpu.test").splitlines()

    assert "- `tree` (object or array of any or string, required)" in lines
    assert "- `value` (any, default null)" in lines


def test_an_endpoint_that_only_streams_can_be_queued_too():
    text = app_text(describe(Streaming).spec, "http://gpu.test")

    assert "- stream: `POST http://gpu.test/me/streaming/stream`\n" in text
    assert "- queue: `POST http://gpu.test/queue/me/streaming/stream`\n" in text
    assert "- run:" not in text.partition("## /stream")[2]
