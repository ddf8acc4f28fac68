"""Items to events: every one a JSON object in ASCII, or an error that names the type at fault."""

import dataclasses
import datetime
import enum
import json
import subprocess
import sys
import uuid

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, field_serializer

from headrace.core.errors import RequestError
from headrace.runner.encode import encode_item, result_too_large

MIB = 1 << 20


class Step(BaseModel):
    fraction: float = Field(0.5, serialization_alias="progress")


class Anything(BaseModel):
    value: object = None


class Constants(BaseModel, ser_json_inf_nan="constants"):
    """It asks for NaN and Infinity, which are no JSON."""

    value: float
    said: str = "NaN"


class Spiteful(BaseModel):
    value: int = 1

    @field_serializer("value")
    def write(self, value: int) -> str:
        raise KeyError("a secret")


@dataclasses.dataclass
class Frame:
    step: Step
    at: datetime.date


class Colour(enum.Enum):
    RED = "red"


class Matrix:
    """As an array library's: it knows `__array__` and `tolist`."""

    def __array__(self) -> None: ...

    def tolist(self) -> list[int]:
        return [1, 2]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"a": 1}, b'{"a":1}'),
        ({}, b"{}"),
        (Step(), b'{"progress":0.5}'),
        ({"steps": [Step()]}, b'{"steps":[{"progress":0.5}]}'),
        (Frame(Step(), datetime.date(2026, 1, 2)), b'{"step":{"progress":0.5},"at":"2026-01-02"}'),
        (RootModel[list[int]]([1]), b'{"output":[1]}'),
        ("text", b'{"output":"text"}'),
        ("{", b'{"output":"{"}'),
        (None, b'{"output":null}'),
        (3, b'{"output":3}'),
        ([1, (2, 3)], b'{"output":[1,[2,3]]}'),
        (Matrix(), b'{"output":[1,2]}'),
        ({"c": Colour.RED}, b'{"c":"red"}'),
        ({"id": uuid.UUID(int=3)}, b'{"id":"00000000-0000-0000-0000-000000000003"}'),
        ({"n": [float("nan"), float("inf"), -float("inf")]}, b'{"n":[null,null,null]}'),
        (Step(fraction=float("nan")), b'{"progress":null}'),
        ({"t": 'h\u00e9 "\u2028" \U0001f600'}, rb'{"t":"h\u00e9 \"\u2028\" \ud83d\ude00"}'),
        ({"\u00fc": "\x7f\n"}, b'{"\\u00fc":"\x7f\\n"}'),
        (Anything(value="\u00e9"), rb'{"value":"\u00e9"}'),
        (Anything(value=Matrix()), b'{"value":[1,2]}'),
        (Constants(value=float("nan")), b'{"value":null,"said":"NaN"}'),
        ({"n": Constants(value=-float("inf"))}, b'{"n":{"value":null,"said":"NaN"}}'),
        ({"t": "Infinity"}, b'{"t":"Infinity"}'),
        ({"a": orjson.Fragment(b'{\r\n  "b": 1\n}')}, b'{"a":{  "b": 1}}'),
    ],
)
def test_an_item_is_one_json_object_in_ascii(item, expected):
    assert expected == encode_item(item, MIB)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_reads_back_the_same(item):
    text = encode_item(item, MIB)

    assert item == json.loads(text)
    assert text.isascii()
    assert b"\n" not in text


def cyclic_dict() -> dict[str, object]:
    cycle: dict[str, object] = {}
    cycle["self"] = cycle
    return cycle


def deep_list() -> list[object]:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    return deep


def cyclic_model() -> Anything:
    model = Anything()
    model.value = model
    return model


@pytest.mark.parametrize(
    ("item", "named"),
    [
        (b"x", "type bytes"),
        ({"image": b"x"}, "type bytes"),
        ({1, 2}, "type set"),
        ({"tags": {1}}, "type set"),
        (object(), "type object"),
        (1j, "type complex"),
        (memoryview(b"x"), "type memoryview"),
        (Step, "ModelMetaclass"),
        ({"next": (step for step in ())}, "type generator"),
        (Anything(value=object()), "type object"),
        ([Anything(value=object())], "type object"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        (Anything(value="\ud800"), "surrogate"),
        (cyclic_dict(), "inside itself"),
        (cyclic_model(), "inside itself"),
        ({1: 2}, "key"),
        (2**64, "64 bits"),
        (Anything(value=b"\xff"), "bytes that are not UTF-8"),
        ({"a": Anything(value=b"\xff")}, "bytes that are not UTF-8"),
        (Anything(value=deep_list()), "nested too deeply"),
        (deep_list(), "nested too deeply"),
        (Spiteful(), "Spiteful"),
        ({"s": Spiteful()}, "Spiteful"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_type(item, named):
    with pytest.raises(RequestError) as caught:
        encode_item(item, MIB)

    assert "unserializable_item" == caught.value.type
    assert named in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("size", [999, 1000, 1001, 1002, 5000])
def test_an_event_may_be_as_large_as_the_bound_and_no_larger(size):
    item = {"t": "x" * (size - len('{"t":""}'))}
    if size <= 1000:
        assert size == len(encode_item(item, 1000))
        return
    with pytest.raises(RequestError, match=str(size)) as caught:
        encode_item(item, 1000)

    assert "event_too_large" == caught.value.type


def test_a_result_over_its_bound_has_an_error_of_its_own():
    with pytest.raises(RequestError) as caught:
        encode_item({"t": "x" * 1000}, 1000, result_too_large)

    assert ("result_too_large", 500) == (caught.value.type, caught.value.status)
    assert "1008 bytes; at most 1000 are allowed. Put files behind URLs" in caught.value.message


def test_the_bound_counts_what_is_on_the_wire():
    with pytest.raises(RequestError, match="68 bytes"):
        encode_item({"t": "\u00e9" * 10}, 60)


def test_what_cannot_be_written_loads_nothing_while_every_stream_waits():
    # orjson imports numpy, on the event loop, for the first value it does not know: a quarter of a second.
    script = (
        "import sys\nfrom headrace.core.errors import RequestError\nfrom headrace.runner.encode import encode_item\n"
        "try:\n    encode_item({'image': b'x'}, 1_000)\nexcept RequestError as error:\n    told = error.type\n"
        "print(told, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)

    assert "unserializable_item False\n" == done.stdout


def test_arrays_are_written_whatever_lies_in_them_and_however():
    numpy = pytest.importorskip("numpy")  # in the lock, so that CI has it
    every_second = numpy.arange(12).reshape(3, 4)[:, ::2]
    halves, nothing = numpy.array([0.5, 1.5], dtype="float16"), numpy.array([float("nan"), float("inf")])

    text = encode_item(
        {"a": numpy.arange(3), "b": every_second, "c": halves, "d": nothing, "e": numpy.float32(2)}, 1_000
    )

    assert b'{"a":[0,1,2],"b":[[0,2],[4,6],[8,10]],"c":[0.5,1.5],"d":[null,null],"e":2.0}' == text
    with pytest.raises(RequestError, match="a value of type object"):
        encode_item({"a": numpy.array([object()])}, 1_000)
