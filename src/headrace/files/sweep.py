"""What is too old, too much or half written goes.

A round looks at every id and every blob once. It is judged by what the cards say and by what the disk says of
sizes; a card that cannot be read is none, and what has no card is half written. Ids go first, the oldest before
the others; a blob goes when no id links to it any more. Races with whoever writes are harmless: a blob that is
linked in the very instant loses its name, not its bytes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.core.stored_file import CARD_BYTES_MAX, FileId, StoredFile, is_id
from headrace.files.folder import FileFolder, translated

#: Seconds after which what has no card, or was never finished, is taken for left behind. An upload, however slow,
#: has its file touched with every piece.
ORPHAN_S: Final = 3_600.0

#: Files looked at between two short rests: others want the disk and the interpreter.
STEP: Final = 256
REST_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Swept:
    """What a round found and did."""

    files: int = 0  # that are left
    bytes: int = 0  # of blobs that are left
    expired: int = 0
    crowded_out: int = 0  # too many, or too many bytes: the oldest


@dataclass(frozen=True, slots=True, order=True)
class _Seen:
    created_at: float
    id: FileId
    bytes: int  # that go with it if it has them to itself; of shared ones, its share


def sweep(
    folder: FileFolder,
    *,
    now: float,
    bytes_max: int,
    files_max: int,
    rest: Callable[[float], object] = time.sleep,
) -> Swept:
    """Do one round; `rest` says with True that it is to stop early. Raises `FilesUnavailable`."""
    with translated():
        seen: list[_Seen] = []
        expired = 0
        for path in _entries_below(folder.root / "ids", rest):
            if path.suffix == ".json" and is_id(path.stem):
                file = _card(path)
                if file is not None and now < file.expires_at:
                    seen.append(_Seen(file.created_at, file.id, _share_of(folder.path_of(file.id))))
                else:
                    expired += folder.remove(path.stem)
            elif not path.with_suffix(".json").exists():
                _remove_if_old(path, now)
        crowded_out = _make_room(folder, seen, bytes_max=bytes_max, files_max=files_max)
        _remove_all_old(folder.root / "new", now)
        left = sum(one.bytes for one in seen)
        _remove_unused(folder.root / "blobs", rest)
    return Swept(len(seen), left, expired, crowded_out)


def _make_room(folder: FileFolder, seen: list[_Seen], *, bytes_max: int, files_max: int) -> int:
    """Remove the oldest from `seen`, and from the disk, until the rest is within its bounds."""
    total = sum(one.bytes for one in seen)
    if len(seen) <= files_max and total <= bytes_max:
        return 0
    seen.sort(reverse=True)
    before = len(seen)
    while seen and (len(seen) > files_max or total > bytes_max):
        oldest = seen.pop()
        total -= oldest.bytes
        folder.remove(oldest.id)
    return before - len(seen)


def _entries(folder: Path) -> Iterator[Path]:
    """Yield whatever lies in a folder and is not a folder itself."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield folder / entry.name


def _entries_below(folder: Path, rest: Callable[[float], object]) -> Iterator[Path]:
    """Yield what lies in the folders of a folder, with a rest now and then, until one of them says to stop."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as inner:
        shards = sorted(entry.name for entry in inner if entry.is_dir(follow_symlinks=False))
        for count, path in enumerate(path for shard in shards for path in _entries(folder / shard)):
            if count % STEP == STEP - 1 and rest(REST_S):
                return
            yield path


def _card(path: Path) -> StoredFile | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return StoredFile.from_card(os.read(descriptor, CARD_BYTES_MAX), FileId(path.stem))
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def _share_of(data: Path) -> int:
    """Return the bytes of a file, divided among those that share them."""
    try:
        found = data.lstat()
    except OSError:
        return 0
    return found.st_size // max(1, found.st_nlink - 1)  # one of the links is the blob's own name


def _remove_all_old(folder: Path, now: float) -> None:
    for path in _entries(folder):
        _remove_if_old(path, now)


def _remove_if_old(path: Path, now: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if now - max(found.st_mtime, found.st_ctime) > ORPHAN_S:  # a new link counts as a change (inode(7))
            path.unlink()


def _remove_unused(folder: Path, rest: Callable[[float], object]) -> None:
    for path in _entries_below(folder, rest):
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_nlink == 1:
                path.unlink()
