"""What is uploaded, and how it goes over the wire: in pieces, again from the first one if it is sent again.

    Content       bytes in memory, or a file that is read as it is sent
    Body          a stretch of one, as both HTTP libraries take it

This is the only file of the SDK that reads what a caller wants to send.
"""

from __future__ import annotations

import errno
import io
import mimetypes
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from headrace.client._request import PIECE_BYTES
from headrace.client._storage import encode

DEFAULT_TYPE = "application/octet-stream"

#: Called with the bytes sent so far and the bytes in all, as they go.
OnProgress = Callable[[int, int], object]


class Picture(Protocol):
    """What `upload_image` and `encode_image` need of an image: a Pillow image has it."""

    def save(self, fp: Any, format: str) -> object:
        """Write the image to a file."""
        ...


class Content(Protocol):
    """Bytes to send, with what is said of them."""

    @property
    def content_type(self) -> str:
        """The media type."""
        ...

    @property
    def file_name(self) -> str | None:
        """The name that ends the file's URL, if it has one."""
        ...

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def read(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes from `at` on. May block, for as long as a disk does."""
        ...


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Bytes in memory."""

    data: bytes = field(repr=False)
    content_type: str
    file_name: str | None = None

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def read(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes from `at` on."""
        return self.data[at : at + count]


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file, of the size that it has when it is opened for this. It is never in memory as a whole."""

    path: Path
    content_type: str
    file_name: str
    size: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileContent:
        """Look at a file. Raises `OSError` for one that is not there, and for what is none."""
        where = Path(path)
        found = where.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe has no size, and would be an empty file
            code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
            raise OSError(code, "not a file: read what is in it, and give that to upload()", str(where))
        return cls(where, type_of(where), where.name, found.st_size)

    def read(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes from `at` on. Raises `OSError`."""
        with self.path.open("rb") as file:
            file.seek(at)
            return file.read(count)


def content_of(data: str | bytes, content_type: str, file_name: str | None) -> BytesContent:
    """Return what `upload` is given, a text as UTF-8.

    Raises `TypeError` for anything else, `ValueError` for a type that no header can have.
    """
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"upload() takes bytes or a text, not {type(data).__name__}; a path goes to upload_file()")
    if not isinstance(content_type, str):
        raise TypeError(f"content_type is a text such as 'image/png', not {type(content_type).__name__}")
    if not content_type.isascii() or not content_type.isprintable():
        raise ValueError(f"content_type={content_type!r} has characters that a header cannot have")
    return BytesContent(bytes(data), content_type, file_name)


def picture_of(image: Picture, format: str) -> BytesContent:
    """Return an image as the bytes of a file of that format, such as "jpeg" or "png"."""
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return BytesContent(buffer.getvalue(), f"image/{format}")


def type_of(path: Path) -> str:
    """Return the media type that a file's name suggests."""
    return mimetypes.guess_type(path.name)[0] or DEFAULT_TYPE


def encode_file(path: str | os.PathLike[str]) -> str:
    """Return a file as a data URL, with the media type that its name suggests. Raises `OSError`."""
    return encode(Path(path).read_bytes(), type_of(Path(path)))


def encode_image(image: Picture, format: str = "jpeg") -> str:
    """Return an image, such as one of Pillow's, as a data URL of that format."""
    picture = picture_of(image, format)
    return encode(picture.data, picture.content_type)


class Body:
    """`size` bytes of a content from `at` on. Each iteration, of either colour, begins at the first of them.

    An HTTP library takes what goes wrong in here for a fault of the connection: `fault` has it as it was.
    """

    __slots__ = ("_at", "_content", "_on_progress", "fault", "size")

    def __init__(self, content: Content, at: int, size: int, on_progress: OnProgress | None = None) -> None:
        self.size = size
        self.fault: Exception | None = None
        self._content = content
        self._at = at
        self._on_progress = on_progress

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        while sent < self.size:
            piece = self._read(sent)
            yield piece
            sent += len(piece)
            self._tell(sent)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        from asyncio import to_thread  # only here: a program without asyncio need not load it

        is_in_memory = isinstance(self._content, BytesContent)
        sent = 0
        while sent < self.size:
            piece = self._read(sent) if is_in_memory else await to_thread(self._read, sent)
            yield piece
            sent += len(piece)
            self._tell(sent)

    def _read(self, sent: int) -> bytes:
        with self._noting_faults():
            piece = self._content.read(self._at + sent, min(PIECE_BYTES, self.size - sent))
            if not piece:
                raise OSError(f"{self._content.file_name} became shorter while it was sent")
            return piece

    def _tell(self, sent: int) -> None:
        if self._on_progress is not None:
            with self._noting_faults():
                self._on_progress(self._at + sent, self._content.size)

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the disk's and the callback's own: they are for the caller to see
            self.fault = error
            raise
