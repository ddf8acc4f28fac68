"""Media types: which one a name or a content means, how it may be told to a browser, and how large a picture is.

A file is a stranger's, and is served from the origin of the API. So a type is told only where a browser makes a
picture, a sound or a download of it; whatever could be a program, a style sheet or a page is just bytes. What is
not known to be harmless as a page of its own is a download (`is_inline`). This file opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: What nobody has said anything about.
BYTES: Final = "application/octet-stream"

#: Names' ends and what they mean. Our own table: the system's differs from machine to machine.
_BY_SUFFIX: Final[Mapping[str, str]] = {
    "avif": "image/avif", "bmp": "image/bmp", "gif": "image/gif", "jpeg": "image/jpeg", "jpg": "image/jpeg",
    "png": "image/png", "svg": "image/svg+xml", "tif": "image/tiff", "tiff": "image/tiff", "webp": "image/webp",
    "aac": "audio/aac", "flac": "audio/flac", "m4a": "audio/mp4", "mp3": "audio/mpeg", "oga": "audio/ogg",
    "ogg": "audio/ogg", "opus": "audio/ogg", "wav": "audio/wav", "weba": "audio/webm",
    "avi": "video/x-msvideo", "mkv": "video/x-matroska", "mov": "video/quicktime", "mp4": "video/mp4",
    "ogv": "video/ogg", "webm": "video/webm",
    "csv": "text/csv", "html": "text/html", "md": "text/markdown", "srt": "application/x-subrip",
    "txt": "text/plain", "vtt": "text/vtt", "js": "text/javascript", "css": "text/css", "xml": "application/xml",
    "glb": "model/gltf-binary", "obj": "model/obj", "ply": "model/ply", "stl": "model/stl",
    "gz": "application/gzip", "json": "application/json", "npy": "application/x-npy", "npz": "application/x-npz",
    "pdf": "application/pdf", "safetensors": "application/x-safetensors", "tar": "application/x-tar",
    "zip": "application/zip",
}  # fmt: skip

#: What a browser may show as a page of its own: nothing in these can run.
_INLINE: Final = frozenset({
    "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp",
    "audio/mpeg", "audio/mp4", "audio/aac", "audio/flac", "audio/ogg", "audio/wav", "audio/webm",
    "video/mp4", "video/webm", "video/ogg", "video/quicktime",
    "text/plain",
})  # fmt: skip

#: Kinds that a browser never runs, and single types beside them. An SVG is among the first: it runs only as a
#: page, which it cannot be, since it is a download.
_HARMLESS_KINDS: Final = ("image/", "audio/", "video/", "model/", "font/")
_HARMLESS: Final = frozenset({
    "text/plain", "text/csv", "text/markdown", "text/vtt", "application/json", "application/pdf",
    "application/zip", "application/gzip", "application/x-tar", "application/x-subrip", "application/x-npy",
    "application/x-npz", "application/x-safetensors",
})  # fmt: skip

_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")

#: How contents begin, and what they are then.
_BEGINNINGS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)

#: Markers of a JPEG that begin a frame: all of 0xC0 to 0xCF but the Huffman table, the extension, the arithmetic.
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Those without a length behind them.
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


def clean_type(text: str | None) -> str:
    """Return a media type in lower case without its parameters; `BYTES` for what is none."""
    bare = (text or "").partition(";")[0].strip().lower()
    return bare if _TYPE.fullmatch(bare) else BYTES


def type_of_name(name: str | None) -> str:
    """Return what the end of a file's name says; `BYTES` where it says nothing."""
    return _BY_SUFFIX.get((name or "").rpartition(".")[2].lower(), BYTES)


def suffix_of(content_type: str) -> str:
    """Return how a name of that type ends, with its dot; ".bin" where that is not known."""
    return next((f".{suffix}" for suffix, type_ in _SHORTEST_FIRST if type_ == content_type), ".bin")


_SHORTEST_FIRST: Final = sorted(_BY_SUFFIX.items(), key=lambda row: (len(row[0]), row[0]))


def told_type(content_type: str) -> str:
    """Return the type that a browser is told."""
    if content_type.startswith("text/") and content_type in _HARMLESS:
        return f"{content_type}; charset=utf-8"
    is_harmless = content_type in _HARMLESS or content_type.startswith(_HARMLESS_KINDS)
    return content_type if is_harmless else BYTES


def is_inline(content_type: str) -> bool:
    """Whether a browser may show it as a page of its own."""
    return content_type in _INLINE


def picture_type(content: bytes) -> str | None:
    """Return the type of a picture by how it begins: PNG, JPEG, GIF or WebP."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((type_ for beginning, type_ in _BEGINNINGS if content.startswith(beginning)), None)


def picture_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height as the head of a PNG, JPEG, GIF or WebP says; None where it says nothing."""
    match picture_type(content):
        case "image/png" if len(content) >= 24:
            return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        case "image/gif" if len(content) >= 10:
            return int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")
        case "image/jpeg":
            return _jpeg_size(content)
        case "image/webp" if len(content) >= 30:
            return _webp_size(content)
    return None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(content):
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker in _JPEG_FRAMES:
            return int.from_bytes(content[at + 7 : at + 9], "big"), int.from_bytes(content[at + 5 : at + 7], "big")
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None


def _webp_size(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        return (
            int.from_bytes(content[26:28], "little") & 0x3FFF,
            int.from_bytes(content[28:30], "little") & 0x3FFF,
        )
    return None
