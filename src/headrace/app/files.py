"""`File` and `Image`: what models give out behind URLs, and take in by them (protocol section 17.5).

As a field of an input they take a URL (http, https or data) or an object with one; as an item they are written in
fal's shape. What a model makes is kept by its runner and served by its node. This file knows neither where nor by
what way: that is the keeper's (`app.keeper`).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, BaseModel, GetJsonSchemaHandler, PrivateAttr, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from headrace.app.errors import FileException
from headrace.app.keeper import Keeper, Unreadable, keep, keeper
from headrace.core.media import BYTES, clean_type, picture_size, picture_type, type_of_name
from headrace.core.stored_file import name_for

if TYPE_CHECKING:
    from PIL import Image as PillowImage

#: Where a value stands in an input: names of fields and positions in lists.
Loc = tuple[str | int, ...]

_DATA_URI: Final = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),(.*)", re.IGNORECASE | re.DOTALL)

#: Bytes of a file that are read from a disk at a time.
_PIECE_BYTES: Final = 1024 * 1024

_NO_PILLOW: Final = "Image needs Pillow for this: pip install pillow"


def _check_scheme(url: str) -> str:
    if not url.lower().startswith(("http://", "https://", "data:")):
        raise PydanticCustomError("url_scheme", "URL scheme should be 'http', 'https' or 'data'")
    return url


class File(BaseModel):
    """A file behind a URL.

    In an input: `url`, as a plain string or in an object; the other fields as the caller gave them, if at all.
    Made by `from_bytes` or `from_path`: kept by the server and served at `url`, for a while, to whoever has it.
    """

    url: Annotated[str, AfterValidator(_check_scheme)]
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None  # bytes

    _loc: Loc = PrivateAttr(default=())

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: Any) -> Any:
        # Judged here, too: what is wrong with a plain string is said of the field, not of a `url` below it.
        return {"url": _check_scheme(value)} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        if handler.mode == "serialization":
            return schema
        return {"anyOf": [{"type": "string", "format": "uri"}, schema], "title": cls.__name__}

    @classmethod
    def from_bytes(
        cls, data: bytes, content_type: str | None = None, *, file_name: str | None = None, data_uri: bool = False
    ) -> Self:
        """Make a file of `data`.

        `content_type` is a media type or a word like "png"; without one, the end of `file_name` says it. With
        `data_uri` the URL holds the bytes themselves, and nothing is kept: fal's `sync_mode`. Outside of a request
        it always does.

        Raises `RequestError`: `file_too_large` over `limits.file_bytes_max`, `files_unavailable` when the disk
        cannot take it.
        """
        return cls._made(data, content_type, file_name, data_uri=data_uri)

    @classmethod
    def from_path(cls, path: str | Path, content_type: str | None = None, *, file_name: str | None = None) -> Self:
        """Make a file of a copy of the one at `path`, whose name it has unless `file_name` says another.

        Raises `OSError` for a path that cannot be read, and as `from_bytes` does.
        """
        path = Path(path)
        name = name_for(file_name or path.name, BYTES)
        type_ = _type_of(content_type, name)
        url = keep(_pieces_of(path), type_, name)
        if url is None:
            return cls._made(path.read_bytes(), type_, name, data_uri=True)
        return cls(url=url, content_type=type_, file_name=name, file_size=path.stat().st_size)

    @classmethod
    def _made(
        cls, data: bytes, content_type: str | None, file_name: str | None, *, data_uri: bool, **fields: Any
    ) -> Self:
        type_ = _type_of(content_type, file_name)
        name = name_for(file_name, type_)
        url = None if data_uri else keep([data], type_, name)
        if url is None:
            url = f"data:{type_};base64,{base64.b64encode(data).decode('ascii')}"
        return cls(url=url, content_type=type_, file_name=name, file_size=len(data), **fields)

    def as_bytes(self) -> bytes:
        """Return the content: of a data URL, of a file of this server, or fetched.

        Fetching waits, so on the event loop it is a `RuntimeError`: use `as_bytes_async` there. Nothing is kept
        for a second call. What cannot be had is the caller's fault: a `FieldException`, which becomes fal's 422
        (`file_download_error`, `file_too_large`) unless it is caught.
        """
        try:
            if (content := _content_of(self.url)) is not None:
                return content
            return self._keeper().read(self.url)
        except Unreadable as fault:
            raise self._exception(fault.type, fault.message, fault.ctx) from None

    async def as_bytes_async(self) -> bytes:
        """Return the content, as `as_bytes`, without holding up the event loop."""
        try:
            if (content := _content_of(self.url)) is not None:
                return content
            return await self._keeper().read_async(self.url)
        except Unreadable as fault:
            raise self._exception(fault.type, fault.message, fault.ctx) from None

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the content to `path`, or under the file's own name into the folder `path`; return where it is.

        Raises `FileExistsError` for a path that is taken, and as `as_bytes` does.
        """
        path, content = Path(path), self.as_bytes()
        if path.is_dir():
            path /= name_for(self.file_name, clean_type(self.content_type))
        with path.open("wb" if overwrite else "xb") as file:
            file.write(content)
        return path

    def _keeper(self) -> Keeper:
        its_keeper = keeper()
        if its_keeper is None:
            raise RuntimeError(f"{self.url[:80]!r} is fetched only where an app is served; here, give a data URL")
        return its_keeper

    def _exception(self, type_: str, message: str, ctx: dict[str, object] | None = None) -> FileException:
        return FileException(self._loc, message, type_, input=self.url, ctx=ctx)


class Image(File):
    """A picture behind a URL: a `File` with `width` and `height` in pixels, where they are known.

    Only `from_pil` and `to_pil` need Pillow.
    """

    width: int | None = None
    height: int | None = None

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        content_type: str | None = None,
        *,
        file_name: str | None = None,
        data_uri: bool = False,
    ) -> Self:
        """Make an image of an encoded picture, whose head says what it is; else as `File.from_bytes`."""
        type_ = content_type or picture_type(data)
        width, height = picture_size(data) or (None, None)
        return cls._made(data, type_, file_name, data_uri=data_uri, width=width, height=height)

    @classmethod
    def from_path(cls, path: str | Path, content_type: str | None = None, *, file_name: str | None = None) -> Self:
        """Make an image of a copy of the picture at `path`; as `File.from_path`."""
        with Path(path).open("rb") as file:
            head = file.read(_PIECE_BYTES)
        image = super().from_path(path, content_type or picture_type(head), file_name=file_name)
        image.width, image.height = picture_size(head) or (None, None)
        return image

    @classmethod
    def from_pil(
        cls,
        image: PillowImage.Image,
        format: str | None = None,
        *,
        file_name: str | None = None,
        quality: int = 90,
        data_uri: bool = False,
    ) -> Self:
        """Encode a Pillow image and make an image of that.

        `format` is "png" (by default, unless the image was opened from another), "jpeg", "webp" or what else
        Pillow writes. `quality`, from 1 to 100, is for those that lose some. A JPEG has no alpha channel. Encoding
        keeps its thread busy: in an `async def`, leave it to `asyncio.to_thread`.
        """
        kind = (format or image.format or "png").lower()
        kind = {"jpg": "jpeg"}.get(kind, kind)
        if kind == "jpeg" and image.mode not in {"RGB", "L", "CMYK"}:
            image = image.convert("RGB")
        # A preview is looked at once: PNG's first step of compression takes a quarter of the usual one's time.
        options: dict[str, Any] = {"compress_level": 1} if kind == "png" else {"quality": quality}
        encoded = io.BytesIO()
        image.save(encoded, kind, **options)
        data, type_ = encoded.getvalue(), type_of_name(kind)
        return cls._made(data, type_, file_name, data_uri=data_uri, width=image.width, height=image.height)

    def to_pil(self, mode: str | None = "RGB") -> PillowImage.Image:
        """Return the picture as a Pillow image, converted to `mode` unless that is None.

        Raises as `as_bytes` does; for what is no picture a `FieldException` that becomes `image_load_error`.
        """
        return self._opened(self.as_bytes(), mode)

    async def to_pil_async(self, mode: str | None = "RGB") -> PillowImage.Image:
        """Return the picture, as `to_pil`, without waiting for it on the event loop. It is decoded there."""
        return self._opened(await self.as_bytes_async(), mode)

    def _opened(self, data: bytes, mode: str | None) -> PillowImage.Image:
        try:
            from PIL import Image as pillow  # noqa: N813 - a module
        except ImportError:
            raise RuntimeError(_NO_PILLOW) from None
        try:
            image = pillow.open(io.BytesIO(data))
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError, pillow.DecompressionBombError):
            raise self._exception(
                "image_load_error", "The image could not be loaded: it is damaged, or of a kind that is not known."
            ) from None
        return image if mode is None or image.mode == mode else image.convert(mode)


def _type_of(said: str | None, name: str | None) -> str:
    if said is None:
        return type_of_name(name)
    return clean_type(said) if "/" in said else type_of_name(said)


def _pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _content_of(url: str) -> bytes | None:
    """Return what a data URL holds (RFC 2397); None for any other. Raises `Unreadable`."""
    if url[:5].lower() != "data:":
        return None
    match = _DATA_URI.fullmatch(url)
    if match is None:
        raise Unreadable("file_download_error", "The data URL has no comma before its content.")
    content = unquote_to_bytes(match[3])
    if not match[2].lower().endswith(";base64"):
        return content
    try:
        content = content.translate(None, b" \t\r\n")
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except binascii.Error:
        raise Unreadable("file_download_error", "The data URL is not the base64 that it says.") from None


def locate(value: Any, loc: Loc = ()) -> None:
    """Tell every file in an input where it stands, so that what is wrong with it can be said of its field."""
    if isinstance(value, File):
        value._loc = loc  # noqa: SLF001 - our own
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            alias = field.validation_alias if isinstance(field.validation_alias, str) else name
            locate(getattr(value, name, None), (*loc, alias))
    elif dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            locate(getattr(value, one.name, None), (*loc, one.name))
    elif isinstance(value, dict):
        for key, inner in value.items():
            locate(inner, (*loc, str(key)))
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            locate(inner, (*loc, at))
