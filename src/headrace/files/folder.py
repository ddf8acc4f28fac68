"""Files by content: the same bytes twice are one blob, each with an id, a name and a lifetime of its own.

    ids/ab/abcd…         the bytes of one id: a hard link to their blob
    ids/ab/abcd….json    its card (`core.stored_file`); without one there is no such file
    blobs/12/1234…       bytes by their SHA-256
    new/…                what is being written
    parts/…              parts of files that are still on their way, by upload (`store.blobs`)

The links are the count of who uses a blob: the kernel keeps it, and no two processes can disagree about it. A file
appears with its card, by a rename, whole or not at all. Where a file system has no hard links, every id has bytes
of its own.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.core.media import clean_type
from headrace.core.stored_file import CARD_BYTES_MAX, FileId, NewFile, StoredFile, StoredPart, is_id, name_for

#: What a file system says that has no hard links, or no more for this blob (ext4 has 65,000).
_NO_LINK: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.EACCES})

_WRITE_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would keep us waiting


class FileTooLarge(Exception):
    """More bytes than one file may have."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"a file may have {bytes_max} bytes")
        self.bytes_max = bytes_max


class FilesUnavailable(Exception):
    """The disk cannot take a file, or give one: full, read-only, broken. Nothing was kept."""


@dataclass(frozen=True, slots=True)
class FileBounds:
    """How much one file, and the whole folder, may take. See `core.limits` for the reasons."""

    file_bytes_max: int
    keep_s: float
    spare_bytes: int


class FileFolder:
    """The folder of one node, as one process sees it. Safe for many threads."""

    def __init__(self, root: Path, bounds: FileBounds) -> None:
        self.root = root
        self.bounds = bounds

    # --- keeping ----------------------------------------------------------------------------------------

    def put(self, content: bytes, new: NewFile, *, now: float) -> StoredFile:
        """Keep `content`. Raises `FileTooLarge` and `FilesUnavailable`."""
        with self.incoming(new, self.bounds.file_bytes_max) as incoming:
            incoming.write(content)
            return incoming.keep(now=now)

    @contextlib.contextmanager
    def incoming(self, new: NewFile, bytes_max: int) -> Iterator[Incoming]:
        """Take a file in pieces: `write` them, then `keep`. What was not kept by the end of the block is gone."""
        incoming = self.taking(new, bytes_max)
        try:
            yield incoming
        finally:
            incoming.close()

    def taking(self, new: NewFile, bytes_max: int) -> Incoming:
        """Begin to take a file in; whoever calls this calls `close`, too. Raises `FilesUnavailable`."""
        return Incoming(self, new, min(bytes_max, self.bounds.file_bytes_max))

    def remove(self, id_: str) -> bool:
        """Let go of a file; False when there is none. Its blob goes with the next sweep, unless others use it."""
        if not is_id(id_):
            return False
        path = self.path_of(id_)
        with translated():
            try:
                path.with_suffix(".json").unlink()  # first: from then on there is no such file
            except FileNotFoundError:
                return False
            path.unlink(missing_ok=True)
        return True

    # --- finding ----------------------------------------------------------------------------------------

    def find(self, id_: str, *, now: float) -> StoredFile | None:
        """Return what is known of a file; None when there is none, or not any more. Raises `FilesUnavailable`."""
        if not is_id(id_):
            return None
        with translated():
            descriptor = self._open_below("ids", id_[:2], f"{id_}.json")
            if descriptor is None:
                return None
            try:
                text = os.read(descriptor, CARD_BYTES_MAX)
            finally:
                os.close(descriptor)
        try:
            file = StoredFile.from_card(text, FileId(id_))
        except ValueError:  # a stranger's, or cut by a power loss
            return None
        return file if now < file.expires_at else None

    def open(self, id_: str, *, now: float) -> OpenFile | None:
        """Open a file; None when there is none, not any more, or not whole. Raises `FilesUnavailable`."""
        file = self.find(id_, now=now)
        if file is None:
            return None
        with translated():
            descriptor = self._open_below("ids", id_[:2], id_)
            if descriptor is None:
                return None
            opened = OpenFile(file, descriptor)
            if os.fstat(descriptor).st_size != file.size:
                opened.close()
                return None
        return opened

    def _open_below(self, *steps: str) -> int | None:
        """Open a regular file below the root for reading; None when there is none. Follows no link on the way."""
        folder = None
        try:
            for step in (str(self.root), *steps[:-1]):
                inner = os.open(step, _READ | os.O_DIRECTORY, dir_fd=folder)
                if folder is not None:
                    os.close(folder)
                folder = inner
            descriptor = os.open(steps[-1], _READ, dir_fd=folder)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}:
                return None
            raise
        finally:
            if folder is not None:
                os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return descriptor

    # --- places -----------------------------------------------------------------------------------------

    def path_of(self, id_: str) -> Path:
        """Return where the bytes of an id lie; its card lies beside them."""
        return self.root / "ids" / id_[:2] / id_

    def blob_of(self, digest: str) -> Path:
        """Return where the bytes of a digest lie."""
        return self.root / "blobs" / digest[:2] / digest

    def made(self, path: Path) -> Path:
        """Return a folder below the root that is there now, though somebody may have cleared all away."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


class Incoming:
    """A file that is being taken in, by one thread after another."""

    def __init__(self, folder: FileFolder, new: NewFile, bytes_max: int) -> None:
        self._folder = folder
        self._new = new
        self._bytes_max = bytes_max
        self._hash = hashlib.sha256()
        self._size = 0
        self._lock = threading.Lock()  # between the last write and a `close` that does not wait for it
        self._descriptor = -1
        with translated():
            new_folder = folder.made(folder.root / "new")
            self._temporary = new_folder / secrets.token_hex(16)
            self._leave_room()
            self._descriptor = os.open(self._temporary, _WRITE_NEW, 0o600)

    def write(self, piece: bytes) -> None:
        """Take one more piece. Raises `FileTooLarge` and `FilesUnavailable`."""
        self._size += len(piece)
        if self._size > self._bytes_max:
            raise FileTooLarge(self._bytes_max)
        self._hash.update(piece)
        with self._lock, translated():
            self._leave_room()
            view = memoryview(piece)
            while view:
                view = view[os.write(self._descriptor, view) :]

    def keep(self, *, now: float, durably: bool = False) -> StoredFile:
        """Keep what was written; with `durably` it survives a power loss. Raises `FilesUnavailable`."""
        content_type = clean_type(self._new.content_type)
        keep_s = self._folder.bounds.keep_s
        lifetime_s = keep_s if self._new.lifetime_s is None else min(self._new.lifetime_s, keep_s)
        file = StoredFile(
            id=self._new.id or FileId(secrets.token_hex(16)),
            digest=self._hash.hexdigest(),
            content_type=content_type,
            name=name_for(self._new.name, content_type),
            size=self._size,
            created_at=now,
            expires_at=now + lifetime_s,
        )
        with self._lock, translated():
            if durably:
                os.fsync(self._descriptor)
            return self._put_in_place(file, durably=durably)

    def move(self, path: Path) -> StoredPart:
        """Let a part of a file go to `path`. Raises `FilesUnavailable`.

        It need not outlive a power loss: the file that it becomes a part of does.
        """
        with self._lock, translated():
            self._folder.made(path.parent)
            self._temporary.replace(path)
        return StoredPart(self._size, self._hash.hexdigest())

    def _leave_room(self) -> None:
        """Raise `OSError` where the disk is all but full: what else lives on it, the queue above all, needs it."""
        disk = os.statvfs(self._temporary.parent)
        spare_bytes = self._folder.bounds.spare_bytes
        if disk.f_bavail * disk.f_frsize < spare_bytes:
            raise OSError(errno.ENOSPC, f"less than {spare_bytes} bytes are free")

    def _put_in_place(self, file: StoredFile, *, durably: bool) -> StoredFile:
        data = self._folder.path_of(file.id)
        self._folder.made(data.parent)
        if os.path.lexists(data):  # its id was chosen before, and an earlier try came through after all
            earlier = self._folder.find(file.id, now=file.created_at)
            if earlier is None or earlier.digest != file.digest:
                raise FileExistsError(errno.EEXIST, "there is another file with this id already")
            if durably:  # the earlier try may be at it still
                _sync_folder(data.parent)
            return earlier
        card = self._folder.root / "new" / secrets.token_hex(16)
        try:
            self._link(self._folder.blob_of(file.digest), data)
            _write_new(card, file.to_card(), durably=durably)
            card.rename(data.with_suffix(".json"))
        except BaseException:
            card.unlink(missing_ok=True)
            data.unlink(missing_ok=True)
            raise
        if durably:
            _sync_folder(data.parent)
        return file

    def _link(self, blob: Path, data: Path) -> None:
        """Put the bytes where their id's are looked for, and their blob where the next file finds it."""
        try:
            if _size_of(blob) == self._size:
                os.link(blob, data)
                return
        except OSError as error:
            if error.errno not in _NO_LINK | {errno.ENOENT}:  # it may have been swept in this instant
                raise
        # Ours becomes the blob: there is none, or a damaged one, or one with as many links as it may have.
        try:
            os.link(self._temporary, data)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            self._temporary.rename(data)  # no hard links here: the id has the bytes to itself
        else:
            self._folder.made(blob.parent)
            self._temporary.rename(blob)

    def close(self) -> None:
        """Let go of what was not kept."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
                self._temporary.unlink(missing_ok=True)

    def __del__(self) -> None:  # whoever began it may have stopped waiting
        self.close()


class OpenFile:
    """An open file. It stays readable though it is removed meanwhile."""

    __slots__ = ("_descriptor", "file")

    def __init__(self, file: StoredFile, descriptor: int) -> None:
        self.file = file
        self._descriptor = descriptor

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on, fewer only at the end. Raises `FilesUnavailable`."""
        with translated():
            return os.pread(self._descriptor, count, start)

    def close(self) -> None:
        """Close it, once or more often."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:  # whoever asked for it may have stopped waiting
        self.close()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Make every error of the disk a `FilesUnavailable`, in words without a path."""
    try:
        yield
    except OSError as error:
        raise FilesUnavailable(error.strerror or str(error)) from error


def _size_of(path: Path) -> int | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _write_new(path: Path, content: bytes, *, durably: bool) -> None:
    descriptor = os.open(path, _WRITE_NEW, 0o600)
    try:
        os.write(descriptor, content)
        if durably:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
