"""What an author writes, and what is read from it."""

import dataclasses
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import headrace
from headrace.app.base import KNOBS
from headrace.app.describe import EndpointKind, describe
from headrace.core.errors import FileFault
from headrace.core.spec import AppSpec


class Prompt(BaseModel):
    prompt: str
    seed: int | None = None


class Progress(BaseModel):
    fraction: float


class Result(BaseModel):
    url: str = Field(serialization_alias="image_url")


@dataclasses.dataclass
class Size:
    width: int


class Options(TypedDict):
    fast: bool


def only_endpoint(cls: type[headrace.App]):
    (endpoint,) = describe(cls).endpoints.values()
    return endpoint


def names(schema: Any) -> list[str]:
    """The titles of a union's members, in order."""
    if "anyOf" not in schema:
        return [schema["$ref"].rsplit("/")[-1] if "$ref" in schema else schema["title"]]
    return [member["$ref"].rsplit("/")[-1] for member in schema["anyOf"]]


def test_the_knobs_are_those_of_the_app_spec():
    defaults = {field.name for field in dataclasses.fields(AppSpec) if field.default is not dataclasses.MISSING}

    assert defaults == set(KNOBS)


def test_class_keywords_become_the_spec():
    class Flux(headrace.App, name="fal-ai/flux", max_multiplexing=4, min_concurrency=0, request_timeout=9):
        """Draws.

        At length.
        """

        @headrace.endpoint("/schnell")
        def schnell(self, input: Prompt) -> Iterator[Progress | Result]:
            """Draw fast."""
            yield Progress(fraction=1)

    spec = describe(Flux).spec

    assert ("fal-ai/flux", "Flux", "Draws.", 4, 0, 600.0, 9) == (
        spec.name, spec.cls, spec.doc, spec.max_multiplexing, spec.min_concurrency,
        spec.startup_timeout, spec.request_timeout,
    )  # fmt: skip
    assert __file__ == spec.file
    assert AppSpec.from_wire(spec.to_wire()) == spec


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("Chat", "local/chat"),
        ("HelloWorld", "local/hello-world"),
        ("SDXLTurbo", "local/sdxl-turbo"),
        ("Flux2Pro", "local/flux2-pro"),
    ],
)
def test_an_app_without_a_name_is_local(class_name, expected):
    assert expected == type(class_name, (headrace.App,), {}).__headrace__.name


def test_knobs_are_inherited_and_the_name_is_not():
    class Base(headrace.App, name="me/base", max_multiplexing=4): ...

    class Derived(Base, min_concurrency=2): ...

    assert ("local/derived", {"max_multiplexing": 4, "min_concurrency": 2}) == (
        Derived.__headrace__.name,
        Derived.__headrace__.knobs,
    )


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"max_multiplex": 4}, "unknown class keyword 'max_multiplex'; there are name, max_multiplexing, min_c"),
        ({"machine_type": "GPU"}, "unknown class keyword 'machine_type'"),
        ({"max_multiplexing": 0}, "max_multiplexing=0: expected a whole number of at least 1"),
        ({"max_multiplexing": 2.5}, "max_multiplexing=2.5: expected a whole number"),
        ({"max_multiplexing": "4"}, "max_multiplexing='4': expected a whole number"),
        ({"max_multiplexing": True}, "max_multiplexing=True: expected a whole number"),
        ({"min_concurrency": -1}, "min_concurrency=-1: expected a whole number of at least 0"),
        ({"startup_timeout": 0}, "startup_timeout=0: expected a number of seconds above 0"),
        ({"request_timeout": float("inf")}, "request_timeout=inf: expected a number of seconds"),
        ({"request_timeout": None}, "request_timeout=None: expected a number of seconds"),
        ({"first_event_timeout": 0}, "first_event_timeout=0: expected a number of seconds above 0"),
        ({"first_event_timeout": -1}, "first_event_timeout=-1: expected a number of seconds above 0"),
        ({"first_event_timeout": "2"}, "first_event_timeout='2': expected a number of seconds above 0"),
        ({"event_gap_timeout": float("nan")}, "event_gap_timeout=nan: expected a number of seconds above 0"),
        ({"event_gap_timeout": None}, "event_gap_timeout=None: expected a number of seconds above 0"),
        ({"event_gap_timeout": False}, "event_gap_timeout=False: expected a number of seconds above 0"),
        ({"request_timeout": 1e-9}, "request_timeout=1e-09: expected a number of seconds above 0"),
        ({"stream_error_end": "close"}, "stream_error_end='close': expected 'cut' or 'clean'"),
        ({"stream_error_end": True}, "stream_error_end=True: expected 'cut' or 'clean'"),
        ({"on_disconnect": "stay"}, "on_disconnect='stay': expected 'cancel', 'finish' or 'grace:SECONDS'"),
        ({"on_disconnect": "grace:"}, "on_disconnect='grace:': expected 'cancel', 'finish' or 'grace:SECONDS'"),
        ({"on_disconnect": 5}, "on_disconnect=5: expected 'cancel', 'finish' or 'grace:SECONDS'"),
        ({"keep_alive": 0}, "keep_alive=0: expected a number of seconds above 0"),
        ({"max_concurrency": 0}, "max_concurrency=0: expected a whole number of at least 1"),
        ({"min_concurrency": 2, "max_concurrency": 1}, "max_concurrency=1 is below min_concurrency=2"),
        ({"num_gpus": -1}, "num_gpus=-1: expected a whole number of at least 0"),
        ({"memory_limit": 0}, "memory_limit=0: expected a whole number of at least 1"),
        ({"name": "flux"}, "must be 'owner/alias'"),
        ({"name": "queue/flux"}, "kept for the server"),
        ({"name": 5}, "must be 'owner/alias'"),
    ],
)
def test_a_wrong_class_keyword_is_one_clear_line(keywords, told):
    with pytest.raises(FileFault) as caught:
        type("Flux", (headrace.App,), {}, **keywords)

    assert told in caught.value.message
    assert __file__ == caught.value.file


def test_the_deadlines_of_events_and_the_end_behind_an_error_are_off_unless_asked_for():
    class Plain(headrace.App, name="t/plain"):
        @headrace.endpoint()
        def run(self): ...

    class Strict(
        Plain, name="t/strict", first_event_timeout=2, event_gap_timeout=0.5, stream_error_end="clean"
    ): ...

    seen = {
        cls: (spec.first_event_timeout, spec.event_gap_timeout, spec.stream_error_end)
        for cls, spec in ((cls, describe(cls).spec) for cls in (Plain, Strict))
    }

    assert {Plain: (0.0, 0.0, "cut"), Strict: (2, 0.5, "clean")} == seen


def test_a_knob_in_the_class_body_is_not_silently_ignored():
    with pytest.raises(FileFault, match=r"class Flux\(headrace\.App, max_multiplexing=…\)"):

        class Flux(headrace.App):
            max_multiplexing = 4


def test_the_four_kinds_and_their_views():
    class Kinds(headrace.App, name="t/kinds"):
        @headrace.endpoint("/a")
        def function(self) -> Result: ...

        @headrace.endpoint("/b")
        async def coroutine(self) -> Result: ...

        @headrace.endpoint("/c")
        def generator(self) -> Iterator[Result]:
            yield Result(url="")

        @headrace.endpoint("/d", stream="/live")
        async def async_generator(self) -> AsyncIterator[Result]:
            yield Result(url="")

        @headrace.endpoint("/e", emits=Progress)
        def with_items(self) -> Result: ...

        @headrace.endpoint("/f")
        def hands_out(self) -> Iterator[Result]:
            return self.generator()

    seen = {
        path: (endpoint.kind, endpoint.spec.run_path, endpoint.spec.stream_path)
        for path, endpoint in describe(Kinds).endpoints.items()
    }

    assert {
        "/a": (EndpointKind.FUNCTION, "/a", None),
        "/b": (EndpointKind.COROUTINE, "/b", None),
        "/c": (EndpointKind.GENERATOR, "/c", "/c/stream"),
        "/d": (EndpointKind.ASYNC_GENERATOR, "/d", "/live"),
        "/e": (EndpointKind.FUNCTION, "/e", "/e/stream"),
        "/f": (EndpointKind.GENERATOR, "/f", "/f/stream"),
    } == seen


def test_the_return_annotation_names_items_and_result():
    class Many(headrace.App, name="t/many"):
        @headrace.endpoint("/iterator")
        def one(self) -> Iterator[Progress | Result]:
            yield Progress(fraction=0)

        @headrace.endpoint("/iterable")
        def two(self) -> Iterable[Progress]:
            yield Progress(fraction=0)

        @headrace.endpoint("/generator")
        def three(self) -> Generator[Progress, None, Result]:
            yield Progress(fraction=0)
            return Result(url="")

        @headrace.endpoint("/emits", emits=Progress)
        def four(self) -> Result: ...

        @headrace.endpoint("/emits-alone", emits=Progress | Result)
        def five(self) -> None: ...

    specs = {path: endpoint.spec for path, endpoint in describe(Many).endpoints.items()}
    seen = {path: (names(spec.item_schema), names(spec.result_schema)) for path, spec in specs.items()}

    assert {
        "/iterator": (["Progress", "Result"], ["Result"]),
        "/iterable": (["Progress"], ["Progress"]),
        "/generator": (["Progress", "Result"], ["Result"]),
        "/emits": (["Progress", "Result"], ["Result"]),
        "/emits-alone": (["Progress", "Result"], ["Result"]),
    } == seen
    assert "image_url" in specs["/iterator"].result_schema["properties"]


def test_what_is_not_annotated_is_an_object():
    class Plain(headrace.App, name="t/plain"):
        @headrace.endpoint()
        def plain(self, input):
            yield {}

    spec = only_endpoint(Plain).spec

    assert {"type": "object"} == spec.input_schema == spec.item_schema == spec.result_schema


def test_a_schema_says_what_is_wrapped():
    class Words(headrace.App, name="t/words"):
        @headrace.endpoint()
        def words(self) -> Iterator[str]:
            yield ""

    expected = {"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]}

    assert expected == only_endpoint(Words).spec.item_schema


@pytest.mark.parametrize(
    "annotation", [Prompt, Size, Options, dict, dict[str, int], Any, Prompt | Size, Annotated[Prompt, "note"]]
)
def test_an_input_is_any_type_that_is_an_object(annotation):
    def run(self, input): ...

    run.__annotations__["input"] = annotation
    app = type("Any", (headrace.App,), {"run": headrace.endpoint()(run)})

    assert only_endpoint(app).input is not None


def line_after(text: str) -> int:
    """The line that follows the one line of this file that ends with `text`."""
    lines = Path(__file__).read_text().splitlines()
    return next(at for at, line in enumerate(lines, 2) if line.endswith(f"# {text}"))


def two_inputs():
    class Two(headrace.App, name="t/two"):
        @headrace.endpoint("/")  # two inputs
        def run(self, prompt: str, seed: int): ...

    return Two


def not_an_object():
    class Text(headrace.App, name="t/text"):
        @headrace.endpoint("/")  # not an object
        def run(self, input: str): ...

    return Text


def many_inputs():
    class Star(headrace.App, name="t/star"):
        @headrace.endpoint("/")  # many inputs
        def run(self, *inputs): ...

    return Star


def unknown_name():
    class Unknown(headrace.App, name="t/unknown"):
        @headrace.endpoint("/")  # unknown name
        def run(self, input: "Promt"): ...  # noqa: F821

    return Unknown


def not_an_iterator():
    class Wrong(headrace.App, name="t/wrong"):
        @headrace.endpoint("/")  # not an iterator
        def run(self) -> Result:
            yield Result(url="")

    return Wrong


class Opaque:
    """Nothing that a schema could say."""


def no_schema():
    class Wrong(headrace.App, name="t/wrong"):
        @headrace.endpoint("/")  # no schema
        def run(self) -> Iterator[Opaque]:
            yield Opaque()

    return Wrong


def bad_path():
    class Path(headrace.App, name="t/path"):
        @headrace.endpoint("no-slash")  # bad path
        async def run(self): ...

    return Path


def stream_of_nothing():
    class Nothing(headrace.App, name="t/nothing"):
        @headrace.endpoint("/", stream="/live")  # stream of nothing
        def run(self): ...

    return Nothing


def emitting_generator():
    class Both(headrace.App, name="t/both"):
        @headrace.endpoint("/", emits=Progress)  # emitting generator
        def run(self):
            yield {}

    return Both


def a_static_method():
    class Static(headrace.App, name="t/static"):
        @staticmethod
        @headrace.endpoint("/")  # a static method
        def run(): ...

    return Static


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (two_inputs, "not (prompt: str, seed: int); put them into one model"),
        (many_inputs, "not (*inputs)"),
        (not_an_object, "run: the input must be a pydantic model, a dataclass, a TypedDict or a dict"),
        (unknown_name, "an annotation of run cannot be resolved: name 'Promt' is not defined"),
        (not_an_iterator, "the return annotation of a generator is Iterator[…]"),
        (no_schema, "Opaque"),
        (bad_path, "must begin with '/'"),
        (stream_of_nothing, "this one has no items"),
        (emitting_generator, "emits=… is for plain functions"),
        (a_static_method, "an endpoint is a plain method, not a staticmethod"),
    ],
)
def test_a_wrong_endpoint_is_one_clear_line_that_names_its_def(make, told):
    with pytest.raises(FileFault) as caught:
        describe(make())

    assert told in caught.value.message
    assert "\n" not in caught.value.message
    assert (__file__, line_after(make.__name__.replace("_", " "))) == (caught.value.file, caught.value.line)


def test_the_decorator_wants_its_parentheses():
    with pytest.raises(FileFault, match="parentheses"):

        class Bare(headrace.App):
            @headrace.endpoint
            def run(self): ...


def test_the_decorator_is_for_methods():
    with pytest.raises(FileFault, match="for methods"):
        headrace.endpoint()(3)


def test_an_app_without_an_endpoint_is_a_fault_of_its_class():
    class Empty(headrace.App, name="t/empty"):  # an empty app
        pass

    with pytest.raises(FileFault, match="Empty has no endpoint") as caught:
        describe(Empty)

    assert line_after("an empty app") - 1 == caught.value.line


def test_endpoints_are_inherited_and_an_unmarked_override_hides_one():
    class Base(headrace.App, name="t/base"):
        @headrace.endpoint("/a")
        def a(self): ...

        @headrace.endpoint("/b")
        def b(self): ...

    class Derived(Base):
        def b(self): ...

        @headrace.endpoint("/c")
        def c(self): ...

    assert ["/a", "/c"] == list(describe(Derived).endpoints)


def test_a_marked_method_is_still_itself():
    class Direct(headrace.App, name="t/direct"):
        @headrace.endpoint()
        def words(self, input):
            yield input

    assert [1] == list(Direct().words(1))


def test_outside_a_request_emit_says_so():
    with pytest.raises(RuntimeError, match=r"emit\(\) works only while a request runs"):
        headrace.emit({})
    with pytest.raises(RuntimeError, match="current_request"):
        headrace.App().current_request


def test_cancelled_passes_an_except_exception():
    with pytest.raises(headrace.Cancelled):
        try:
            raise headrace.Cancelled
        except Exception:
            pytest.fail("swallowed")


@pytest.mark.parametrize("status", [200, 399, 600, 0, "500", None, 500.0])
def test_an_error_has_an_errors_status(status):
    with pytest.raises(ValueError, match="400 to 599"):
        headrace.AppException("no", status_code=status)
