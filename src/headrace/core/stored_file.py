"""A stored file as node and runners agree on it: its id, its name, its address, its card.

An id is 128 random bits, and whoever has it may read the file: the address is the permission. A name is data: it
stands at the end of an address and in a download's head, and never means a place on a disk. A card is what is
written beside the bytes; it may be a stranger's, so it is read strictly. Pure.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Final, NewType
from urllib.parse import quote, unquote, urlsplit

from headrace.core.media import clean_type, suffix_of

FileId = NewType("FileId", str)

#: Where files are served.
PATH: Final = "/files/"

#: Letters of a name. With their UTF-8 they fit into any file system that a download goes to.
NAME_LETTERS_MAX: Final = 80

#: Letters of what somebody says that are looked at, the last ones. A letter can become eighteen when it is
#: normalised, and whoever asks for a name is not to wait for more than that.
_SAID_LETTERS_MAX: Final = 1_024

#: Bytes of a card; ours have some 300.
CARD_BYTES_MAX: Final = 4_096

_ID: Final = re.compile(r"[0-9a-f]{32}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ADDRESS: Final = re.compile(rf"{PATH}([0-9a-f]{{32}})(?:/([^/]+))?/*")

#: What some system takes for more than a letter of a name.
_SPECIAL: Final = frozenset('<>:"|?*%;')
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Names that are devices to Windows, whatever stands behind their first dot.
_DEVICES: Final = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file that shall be kept."""

    content_type: str  # as somebody said it
    name: str | None = None  # as somebody said it
    lifetime_s: float | None = None  # at most what the node allows; None: that
    id: FileId | None = None  # where its address was told before it was there; None: a new one


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that is kept."""

    id: FileId
    digest: str  # SHA-256 of its bytes, in hexadecimal digits
    content_type: str
    name: str
    size: int  # bytes
    created_at: float
    expires_at: float

    @property
    def path(self) -> str:
        """Its address below the node's own."""
        return path_of(self.id, self.name)

    def to_card(self) -> bytes:
        """Return what is written beside the bytes."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def from_card(cls, text: bytes, id_: FileId) -> StoredFile:
        """Read the card of the file `id_`. Raises `ValueError` for anything but a card of ours."""
        try:
            fields: Mapping[str, Any] = json.loads(text)
            size, created_at, expires_at = fields["size"], float(fields["created_at"]), float(fields["expires_at"])
            digest, content_type = str(fields["digest"]), clean_type(str(fields["content_type"]))
            name = name_for(str(fields["name"]), content_type)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a card: {error!r}") from None
        is_whole = isinstance(size, int) and size >= 0 and isfinite(created_at) and isfinite(expires_at)
        if not is_whole or not _DIGEST.fullmatch(digest):
            raise ValueError("a card with values that are none of ours")
        return cls(
            id=id_,
            digest=digest,
            content_type=content_type,
            name=name,
            size=size,
            created_at=created_at,
            expires_at=expires_at,
        )


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of a file that is still on its way."""

    size: int  # bytes
    etag: str  # SHA-256 of its bytes


def is_id(text: str) -> bool:
    """Whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def path_of(id_: FileId, name: str) -> str:
    """Return the path of a file's address."""
    return f"{PATH}{id_}/{quote(name, safe='')}"


def read_path(path: str) -> tuple[FileId, str | None] | None:
    """Return the id in the path of an address, decoded, and the name behind it; None for any other path."""
    match = _ADDRESS.fullmatch(path)
    return (FileId(match[1]), match[2]) if match else None


def id_in_url(url: str) -> FileId | None:
    """Return the id in a URL that has the form of our addresses, on whatever host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    found = read_path(unquote(parts.path)) if parts.scheme.lower() in {"http", "https"} else None
    return found[0] if found else None


def name_for(name: str | None, content_type: str) -> str:
    """Return a name that is good anywhere: the last part of what somebody said, or one made from the type."""
    # NFKC first: it makes plain dots and slashes of letters that look like them.
    last = re.split(r"[/\\]", unicodedata.normalize("NFKC", (name or "")[-_SAID_LETTERS_MAX:]))[-1]
    kept = "".join(letter for letter in last if unicodedata.category(letter) not in _UNSEEN)
    kept = unicodedata.normalize("NFKC", kept)  # what came together just now may be one letter
    kept = "".join("_" if letter in _SPECIAL else letter for letter in kept).strip(" .")
    kept = _shortened(kept)
    if not kept:
        kind = content_type.partition("/")[0]
        return (kind if kind in {"image", "audio", "video", "text"} else "file") + suffix_of(content_type)
    # Shortened once more, so that a name stays as it is when its card is read.
    return _shortened(f"_{kept}") if kept.partition(".")[0].strip().lower() in _DEVICES else kept


def _shortened(name: str) -> str:
    if len(name) <= NAME_LETTERS_MAX:
        return name
    stem, dot, suffix = name.rpartition(".")
    tail = f".{suffix}" if dot and len(suffix) <= 12 else ""
    return f"{(stem if tail else name)[: NAME_LETTERS_MAX - len(tail)].rstrip(' .')}{tail}"
