"""Uploads that are not finished: what was promised to whom, what has come of it, and what is too much or too old.

An upload begins with a promise: an address to send the bytes to, which is a key itself, and the address at which
the file will be. It ends when the file is there, or when nothing came of it for too long. A node that restarts
forgets the unfinished ones, and their clients begin again.

Values in, values out: this file knows no disk and no clock. Its refusals are `RequestError`s.
"""

from __future__ import annotations

import base64
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NewType

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.memory import Budget
from headrace.core.stored_file import NewFile, StoredPart, path_of

UploadId = NewType("UploadId", str)

#: Whose uploads are where authentication is off: like a key, they have half of the room.
_NOBODY: Final = KeyId("")

#: Random bytes that `begin` needs: an id, which may be seen, and a key, which may not.
RANDOM_BYTES: Final = 48
_ID_BYTES: Final = 16

#: Uploads whose end is remembered, so that a client that lost the answer may ask for it again.
FINISHED_MAX: Final = 1_024


@dataclass(slots=True)
class Upload:
    """One file on its way."""

    id: UploadId
    key: str = field(repr=False)
    owner: KeyId | None
    new: NewFile
    has_parts: bool
    idle_since: float
    parts: dict[int, StoredPart] = field(default_factory=dict)
    users: int = 0  # bodies that come in now; while there are any, it is not idle
    is_over: bool = False

    @property
    def file_path(self) -> str:
        """The path of the file's address, known before there is a file."""
        assert self.new.id is not None, "it was chosen with the promise"
        assert self.new.name is not None, "it was made good when the upload began"
        return path_of(self.new.id, self.new.name)

    def opens(self, key: str) -> bool:
        """Whether `key` is this upload's, compared in constant time."""
        return hmac.compare_digest(self.key.encode(), key.encode("utf-8", "surrogatepass"))


class Uploads:
    """All unfinished uploads of a node."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[UploadId, Upload] = {}
        self._finished: dict[UploadId, Upload] = {}  # oldest first
        self._count_by_owner: Counter[KeyId | None] = Counter()
        self._coming_by_owner: Counter[KeyId | None] = Counter()
        self._bytes = Budget(limits.uploads_bytes_max)  # what has come, and is no file yet

    def __len__(self) -> int:
        return len(self._open)

    @property
    def bytes_taken(self) -> int:
        """Bytes of all of them: what has come, and is no file yet."""
        return self._bytes.taken

    def begin(self, owner: KeyId | None, new: NewFile, *, has_parts: bool, random: bytes, now: float) -> Upload:
        """Promise a file. Raises `RequestError` (429) where its owner has too many unfinished ones."""
        if self._count_by_owner[owner] >= self._limits.uploads_max:
            raise _overloaded(
                f"{self._limits.uploads_max} uploads of this key are not finished; finish them first."
            )
        key = base64.urlsafe_b64encode(random[_ID_BYTES:]).decode("ascii").rstrip("=")
        upload = Upload(UploadId(random[:_ID_BYTES].hex()), key, owner, new, has_parts, now)
        self._open[upload.id] = upload
        self._count_by_owner[owner] += 1
        return upload

    def find(self, id_: str, now: float) -> Upload:
        """Return an upload by its id, also one that is over. Raises `RequestError` (404) where there is none."""
        upload = self._open.get(UploadId(id_)) or self._finished.get(UploadId(id_))
        if upload is None or self._is_too_old(upload, now):
            raise not_found()
        return upload

    def arrive(self, owner: KeyId | None) -> None:
        """Count a body that comes in. Raises `RequestError` (429) where its owner has too many that do."""
        if self._coming_by_owner[owner] >= self._limits.uploads_coming_max:
            raise _overloaded(f"{self._limits.uploads_coming_max} files of this key come in already; try again.")
        self._coming_by_owner[owner] += 1

    def leave(self, owner: KeyId | None) -> None:
        """Count a body that comes in no more."""
        self._coming_by_owner[owner] -= 1
        if not self._coming_by_owner[owner]:
            del self._coming_by_owner[owner]

    def take(self, owner: KeyId | None, count: int) -> None:
        """Count bytes that come in. Raises `RequestError` (429) when there are too many unfinished ones.

        One key may have half of all there may be, so that no caller can keep the others out.
        """
        if not self._bytes.take(owner or _NOBODY, count):
            raise _overloaded("Unfinished uploads take all the room there is for them; try again.")

    def give_back(self, owner: KeyId | None, count: int) -> None:
        """Count bytes that are a file now, or are gone."""
        self._bytes.give_back(owner or _NOBODY, count)

    def keep_part(self, upload: Upload, number: int, part: StoredPart) -> None:
        """Note a part that is on the disk, in the place of an earlier one with its number.

        What it counts as (`cost_of`) is taken already.
        """
        earlier = upload.parts.get(number)
        if earlier is not None:
            self.give_back(upload.owner, self.cost_of(earlier.size))
        upload.parts[number] = part

    def cost_of(self, size: int) -> int:
        """Return the bytes that a part of that size counts as."""
        return max(size, self._limits.upload_part_bytes_min)

    def end(self, upload: Upload, *, is_finished: bool) -> None:
        """Let go of an upload; with `is_finished`, remember that there is a file."""
        del self._open[upload.id]
        self._count_by_owner[upload.owner] -= 1
        if not self._count_by_owner[upload.owner]:
            del self._count_by_owner[upload.owner]
        upload.is_over = True
        for part in upload.parts.values():
            self.give_back(upload.owner, self.cost_of(part.size))
        upload.parts.clear()
        if is_finished:
            self._finished[upload.id] = upload
            if len(self._finished) > FINISHED_MAX:
                del self._finished[next(iter(self._finished))]

    def too_old(self, now: float) -> list[Upload]:
        """Return the unfinished uploads of which nothing came for too long, and forget the end of others."""
        self._finished = {id_: one for id_, one in self._finished.items() if not self._is_too_old(one, now)}
        return [upload for upload in self._open.values() if self._is_too_old(upload, now)]

    def _is_too_old(self, upload: Upload, now: float) -> bool:
        return not upload.users and now - upload.idle_since > self._limits.upload_idle_s


def part_number(text: str, limits: Limits) -> int:
    """Return a part's number, from 1 on. Raises `RequestError` (400)."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 6 else 0
    if not 1 <= number <= limits.upload_parts_max:
        raise RequestError("bad_request", f"A part's number is one from 1 to {limits.upload_parts_max}.")
    return number


def parts_in_order(said: Any, upload: Upload, limits: Limits) -> Sequence[int]:
    """Return the numbers of the parts that a file is to be made of, in their order.

    `said` is fal's list of `{"partNumber", "etag"}`, in whatever order. Raises `RequestError`: 422 for a part that
    did not come, came anew, or is named twice; 413 for too large a file.
    """
    if not isinstance(said, list) or not said:
        raise _wrong("a list of parts is needed", "list_type", "parts")
    numbers: list[int] = []
    for place, entry in enumerate(said):
        fields: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
        number, etag = fields.get("partNumber"), fields.get("etag")
        stored = upload.parts.get(number) if type(number) is int else None
        if stored is None or number is None:
            raise _wrong(f"there is no part {number!r}", "part_unknown", "parts", place)
        if not isinstance(etag, str) or etag.strip('"') != stored.etag:
            raise _wrong(f"part {number} has another etag", "part_changed", "parts", place)
        numbers.append(number)
    if len(set(numbers)) < len(numbers):
        raise _wrong("a part is named twice", "part_twice", "parts")
    size = sum(upload.parts[number].size for number in numbers)
    if size > limits.file_bytes_max:
        raise too_large(limits.file_bytes_max)
    return sorted(numbers)


def too_large(bytes_max: int) -> RequestError:
    """Return what is told of a file over the limit."""
    return RequestError("payload_too_large", f"A file may have {bytes_max} bytes.")


def not_found() -> RequestError:
    """Return what is told of an upload that there is not, whether there ever was one or not."""
    message = "There is no such upload, or not any more: it has its file, or was not finished in time."
    return RequestError("upload_not_found", message)


def _overloaded(message: str) -> RequestError:
    return RequestError("overloaded", message, headers={"Retry-After": "5"})


def _wrong(message: str, type_: str, *loc: str | int) -> RequestError:
    detail = [{"loc": ["body", *loc], "msg": message, "type": type_}]
    return RequestError("validation_error", message, detail=detail)
