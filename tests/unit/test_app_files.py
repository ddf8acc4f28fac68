"""`File` and `Image` by themselves: their shapes in and out, their bytes, and what they say where no server is."""

import base64
import builtins
import dataclasses

import PIL.Image as pillow
import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator

import headrace
from headrace.app import keeper
from headrace.app.errors import FileException
from headrace.app.keeper import Unreadable
from headrace.core.errors import RequestError
from headrace.runner.blame import error_of
from headrace.runner.encode import encode_item
from headrace.runner.inputs import InputReader
from tests.support.pictures import png

DATA_URL = "data:image/png;base64," + base64.b64encode(png()).decode()


class Input(BaseModel):
    image_url: headrace.Image
    files: list[headrace.File] = []
    by_name: dict[str, headrace.File] = {}
    mask: headrace.Image | None = Field(default=None, alias="mask_url")


# --- in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://example.com/a.png", "http://example.com/a.png", "HTTPS://x/", DATA_URL])
def test_an_input_is_a_url_or_an_object_with_one(url):
    plain = Input.model_validate({"image_url": url})
    whole = Input.model_validate_json(Input(image_url={"url": url, "width": 3}).model_dump_json(by_alias=True))

    assert plain.image_url.url == whole.image_url.url == url
    assert (plain.image_url.width, whole.image_url.width) == (None, 3)


@pytest.mark.parametrize(
    ("value", "loc", "type_"),
    [
        ("ftp://x/", ("image_url",), "url_scheme"),
        ({"url": "ftp://x/"}, ("image_url", "url"), "url_scheme"),
        ({}, ("image_url", "url"), "missing"),
        (5, ("image_url",), "model_type"),
        (None, ("image_url",), "model_type"),
        ({"url": DATA_URL, "width": "wide"}, ("image_url", "width"), "int_parsing"),
    ],
)
def test_what_is_neither_is_said_of_its_field(value, loc, type_):
    with pytest.raises(ValidationError) as caught:
        Input.model_validate({"image_url": value})

    (wrong,) = caught.value.errors()
    assert (wrong["loc"], wrong["type"]) == (loc, type_)


def test_the_schema_of_an_input_has_both_and_of_an_item_the_object():
    taken = TypeAdapter(headrace.Image).json_schema()
    given = TypeAdapter(headrace.Image).json_schema(mode="serialization")

    assert [one["type"] for one in taken["anyOf"]] == ["string", "object"]
    assert taken["anyOf"][0]["format"] == "uri"
    assert list(given["properties"]) == ["url", "content_type", "file_name", "file_size", "width", "height"]
    assert given["required"] == ["url"]


def test_reading_files_is_quick_and_they_know_their_fields():
    reader = InputReader(TypeAdapter(Input))
    body = b"""{"image_url": "data:,a", "mask_url": "data:,b", "files": ["data:,c", {"url": "data:,d"}],
                "by_name": {"x": "data:,e"}}"""

    (value,) = reader.read(body)

    assert reader.is_quick
    assert reader.has_files
    assert [file._loc for file in (value.image_url, value.mask, *value.files, value.by_name["x"])] == [
        ("image_url",), ("mask_url",), ("files", 0), ("files", 1), ("by_name", "x"),
    ]  # fmt: skip


def test_an_input_without_files_is_not_searched_for_them():
    class Plain(BaseModel):
        n: int

    assert not InputReader(TypeAdapter(Plain)).has_files


def test_files_in_dataclasses_and_deeper_know_their_places_too():
    @dataclasses.dataclass
    class Inner:
        files: tuple[headrace.File, ...]

    class Outer(BaseModel):
        inner: list[Inner]

    (value,) = InputReader(TypeAdapter(Outer)).read(b'{"inner": [{"files": ["data:,x"]}]}')

    assert value.inner[0].files[0]._loc == ("inner", 0, "files", 0)


def test_an_authors_own_validator_is_still_not_quick():
    class Slow(BaseModel):
        file: headrace.File
        n: int = 0

        @field_validator("n")
        @classmethod
        def look(cls, n: int) -> int:
            return n

    assert not InputReader(TypeAdapter(Slow)).is_quick


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("data:,", b""),
        ("data:,a%20b", b"a b"),
        ("data:text/plain,a+b", b"a+b"),
        ("data:;base64,YQ==", b"a"),
        ("data:;base64,YQ", b"a"),
        ("data:;base64,Y%51%3D%3D", b"a"),
        ("data:;base64,Y\nQ = =", b"a"),
        ("Data:text/plain;charset=utf-8;Base64,YQ==", b"a"),
        ("data:text/plain;base64;x=y,YQ==", b"YQ=="),
        ("data:a,b,c", b"b,c"),
    ],
)
def test_a_data_url_holds_bytes(url, content):
    assert headrace.File(url=url).as_bytes() == content


@pytest.mark.parametrize("url", ["data:", "data:text/plain", "data:;base64,Y", "data:;base64,!!!!"])
def test_a_data_url_that_cannot_be_read_is_a_field_exception(url):
    file = headrace.File(url=url)
    file._loc = ("a", 1)

    with pytest.raises(headrace.FieldException) as caught:
        file.as_bytes()

    told = error_of(caught.value, "id")
    assert (told.type, told.status) == ("validation_error", 422)
    assert told.detail == [
        {"loc": ["body", "a", 1], "msg": caught.value.message, "type": "file_download_error", "input": url}
    ]


def test_a_long_url_is_not_told_back():
    told = error_of(FileException(("a",), "no", "file_too_large", input="data:" + "x" * 2_000, ctx={"n": 1}), "id")

    assert told.detail == [{"loc": ["body", "a"], "msg": "no", "type": "file_too_large", "ctx": {"n": 1}}]


# --- out ------------------------------------------------------------------------------------------------------


def test_outside_of_a_server_a_file_carries_its_bytes():
    file = headrace.File.from_bytes(b"hi", file_name="a.txt")

    assert file.model_dump() == {
        "url": "data:text/plain;base64,aGk=", "content_type": "text/plain", "file_name": "a.txt", "file_size": 2,
    }  # fmt: skip
    assert file.as_bytes() == b"hi"


def test_an_image_in_an_item_has_fals_shape():
    image = headrace.Image.from_bytes(png(4, 5))

    assert encode_item({"images": [image], "seed": 1}, 10_000) == (
        b'{"images":[{"url":"%b","content_type":"image/png","file_name":"image.png","file_size":%d,'
        b'"width":4,"height":5}],"seed":1}' % (image.url.encode(), len(png(4, 5)))
    )


def test_what_an_image_is_made_of_says_what_it_is():
    assert headrace.Image.from_bytes(png()).content_type == "image/png"
    assert headrace.Image.from_bytes(png(), "image/x-own").content_type == "image/x-own"
    assert headrace.Image.from_bytes(b"?", "webp").content_type == "image/webp"
    unknown = headrace.Image.from_bytes(b"?")
    assert (unknown.content_type, unknown.width, unknown.height) == ("application/octet-stream", None, None)


def test_a_file_on_the_disk_keeps_its_name_and_a_picture_its_size(tmp_path):
    path = tmp_path / "a lake.dat"
    path.write_bytes(png(7, 8))

    file, image = headrace.File.from_path(path), headrace.Image.from_path(str(path), file_name="x.png")

    assert (file.file_name, file.content_type, file.file_size) == (
        "a lake.dat", "application/octet-stream", len(png(7, 8)),
    )  # fmt: skip
    assert (image.file_name, image.content_type, image.width, image.height) == ("x.png", "image/png", 7, 8)
    assert file.as_bytes() == png(7, 8)


def test_a_file_is_saved_under_a_path_or_its_own_name(tmp_path):
    file = headrace.File.from_bytes(b"hi", file_name="../../a.txt")

    assert file.save(tmp_path / "b.txt") == tmp_path / "b.txt"
    assert file.save(tmp_path) == tmp_path / "a.txt"
    with pytest.raises(FileExistsError):
        file.save(tmp_path)
    assert file.save(str(tmp_path), overwrite=True).read_bytes() == b"hi"


@pytest.mark.promise("A7")
@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "..", "a/../../evil", "..\\evil", "C:\\evil", ""])
def test_a_callers_name_for_its_file_never_leads_out_of_the_folder(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()

    saved = headrace.File(url="data:,x", file_name=name).save(folder)

    assert saved.parent == folder
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_failed_save_leaves_no_empty_file(tmp_path):
    with pytest.raises(headrace.FieldException):
        headrace.File(url="data:;base64,!").save(tmp_path / "x")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["https://example.com/a.png", "http://127.0.0.1:8080/files/" + "0" * 32])
def test_outside_of_a_server_nothing_is_fetched(url):
    with pytest.raises(RuntimeError, match="only where an app is served"):
        headrace.File(url=url).as_bytes()


# --- Pillow ---------------------------------------------------------------------------------------------------


def test_a_pillow_image_goes_out_and_comes_back():
    picture = pillow.new("RGB", (6, 4), (250, 0, 0))

    for format, type_ in (
        (None, "image/png"),
        ("jpg", "image/jpeg"),
        ("JPEG", "image/jpeg"),
        ("webp", "image/webp"),
    ):
        image = headrace.Image.from_pil(picture, format)
        back = image.to_pil()

        assert (image.content_type, image.width, image.height) == (type_, 6, 4)
        assert (back.size, back.mode) == ((6, 4), "RGB")
        assert back.getpixel((1, 1))[0] > 230


def test_an_image_keeps_the_format_that_it_was_opened_from():
    jpeg = headrace.Image.from_pil(headrace.Image.from_bytes(png()).to_pil(), "jpeg")

    assert headrace.Image.from_pil(jpeg.to_pil(None)).content_type == "image/jpeg"


def test_an_alpha_channel_stays_where_the_format_has_one():
    picture = pillow.new("RGBA", (2, 2), (1, 2, 3, 128))

    assert headrace.Image.from_pil(picture).to_pil(None).mode == "RGBA"
    assert headrace.Image.from_pil(picture, "jpeg").to_pil(None).mode == "RGB"
    assert headrace.Image.from_pil(picture).to_pil("L").mode == "L"


@pytest.mark.parametrize("content", [b"", b"no picture", png()[:40], b"<svg/>", b"\xff\xd8\xff" + b"\0" * 100])
def test_what_is_no_picture_is_an_image_load_error(content):
    with pytest.raises(headrace.FieldException) as caught:
        headrace.Image.from_bytes(content).to_pil()

    assert error_of(caught.value, "id").detail[0]["type"] == "image_load_error"


def test_a_picture_that_would_fill_the_memory_is_an_image_load_error():
    bomb = png(1, 1).replace((1).to_bytes(4, "big") * 2, (60_000).to_bytes(4, "big") * 2, 1)

    with pytest.raises(headrace.FieldException):
        headrace.Image.from_bytes(bomb).to_pil()


def test_without_pillow_the_message_says_what_to_do(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(RuntimeError, match="pip install pillow"):
        headrace.Image.from_bytes(png()).to_pil()


# --- a keeper -------------------------------------------------------------------------------------------------


class PretendKeeper:
    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def keep(self, call, pieces, content_type, name):
        return "https://here/files/x"

    def read(self, url):
        if self.fault is not None:
            raise self.fault
        return b"fetched"

    async def read_async(self, url):
        return self.read(url)


@pytest.fixture
def installed():
    yield keeper.install
    keeper.install(None)


def test_reading_is_the_keepers(installed):
    installed(PretendKeeper())

    assert headrace.File(url="https://x/").as_bytes() == b"fetched"


@pytest.mark.parametrize(
    "fault", [Unreadable("file_too_large", "no", {"max_size": 1}), RequestError("not_found", "x")]
)
def test_what_the_keeper_cannot_read_is_told(installed, fault):
    installed(PretendKeeper(fault))

    with pytest.raises(FileException if isinstance(fault, Unreadable) else RequestError):
        headrace.File(url="https://x/").as_bytes()


def test_a_file_of_no_request_is_not_kept(installed):
    installed(PretendKeeper())

    assert headrace.File.from_bytes(b"x").url.startswith("data:")
