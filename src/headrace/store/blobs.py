"""The node's side of DATA_DIR/files: nothing of it on the event loop, what is too old or too much swept away.

    BlobStore     the files
    PartFolder    parts of those that are still on their way

What lies in the folder, and how, is `headrace.files`'; runners write there, too.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from headrace.core.limits import Limits
from headrace.core.media import BYTES
from headrace.core.stored_file import NewFile, StoredFile, StoredPart
from headrace.files import folder as folder_
from headrace.files.folder import FileBounds, FileFolder, FilesUnavailable, Incoming
from headrace.files.sweep import Swept, sweep
from headrace.store.file_port import FileTooLarge
from headrace.store.port import StoreBusy, StoreUnavailable
from headrace.store.threads import DiskThreads

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Threads that wait for the disk. Four keep a solid one busy; the rest of the node is not theirs to disturb.
THREADS: Final = 4

#: Jobs that may wait for a thread. A reader has one at a time, so it is the number of those who wait.
JOBS_MAX: Final = 4_096

#: Seconds the disk may take for one step.
ANSWER_TIMEOUT_S: Final = 30.0

#: Bytes of an upload that are gathered before a thread is asked to write them.
WRITE_BYTES: Final = 256 * 1024


class BlobStore:
    """The files of one node."""

    def __init__(self, root: Path, limits: Limits) -> None:
        """Raise `FilesUnavailable` when the folder cannot be made, or cleared of the parts in it."""
        self._limits = limits
        bounds = FileBounds(limits.file_bytes_max, limits.files_keep_s, limits.files_spare_bytes)
        self.folder = FileFolder(root, bounds)
        with folder_.translated():
            self.folder.made(root)
        self.swept = Swept()  # what the last round found
        self._threads = DiskThreads(THREADS, waiting_max=JOBS_MAX, name="files")
        self._ending = threading.Event()
        self.parts = PartFolder(self)

    async def put(
        self, pieces: AsyncIterator[bytes], new: NewFile, *, now: float, bytes_max: int | None = None
    ) -> StoredFile:
        """See `FileStore.put`."""
        most = self._limits.file_bytes_max if bytes_max is None else bytes_max
        return await self.take(pieces, new, most, lambda incoming: incoming.keep(now=now, durably=True))

    async def take(
        self, pieces: AsyncIterator[bytes], new: NewFile, most: int, keep: Callable[[Incoming], T]
    ) -> T:
        """Take in what `pieces` yields, up to `most` bytes, and do with it in the end what `keep` does."""
        incoming = await self.do(lambda: self.folder.taking(new, most))
        try:
            gathered: list[bytes] = []
            size = 0
            async for piece in pieces:
                gathered.append(piece)
                size += len(piece)
                if size >= WRITE_BYTES:
                    await self._write(incoming, gathered)
                    gathered, size = [], 0
            await self._write(incoming, gathered)
            return await self.do(lambda: keep(incoming))
        finally:
            self.later(incoming.close)  # it waits for a step that nobody waits for any more

    async def _write(self, incoming: Incoming, gathered: list[bytes]) -> None:
        await self.do(lambda: incoming.write(b"".join(gathered)))

    async def find(self, id_: str, *, now: float) -> StoredFile | None:
        """See `FileStore.find`."""
        return await self.do(lambda: self.folder.find(id_, now=now))

    async def open(self, id_: str, *, now: float) -> OpenBlob | None:
        """See `FileStore.open`."""
        opened = await self.do(lambda: self.folder.open(id_, now=now))
        return OpenBlob(opened, self) if opened is not None else None

    async def remove(self, id_: str) -> bool:
        """See `FileStore.remove`."""
        return await self.do(lambda: self.folder.remove(id_))

    async def run(self) -> None:
        """Sweep now and then, until cancelled."""
        while True:
            try:
                self.swept = await self.do(self._sweep, timeout_s=None)
            except (StoreUnavailable, StoreBusy) as fault:
                _log.warning("old files were not swept away: %s", fault)
            else:
                if self.swept.crowded_out:
                    _log.warning("%d files went before their time: there were too many", self.swept.crowded_out)
            await asyncio.sleep(self._limits.files_sweep_every_s)

    def _sweep(self) -> Swept:
        limits = self._limits
        return sweep(
            self.folder,
            now=time.time(),
            bytes_max=limits.files_bytes_max,
            files_max=limits.files_max,
            rest=self._ending.wait,
        )

    async def close(self) -> None:
        """Take nothing new."""
        self._ending.set()
        self._threads.close(finishes=False)

    async def do(self, job: Callable[[], T], timeout_s: float | None = ANSWER_TIMEOUT_S) -> T:
        """Do a step in a thread. Raises `StoreBusy`, `StoreUnavailable` and `FileTooLarge`."""
        try:
            return await self._threads.do(job, timeout_s)
        except FilesUnavailable as fault:
            raise StoreUnavailable(f"files: {fault}") from fault
        except folder_.FileTooLarge as fault:
            raise FileTooLarge(fault.bytes_max) from None

    def later(self, job: Callable[[], object]) -> None:
        """Have a step done that nobody waits for."""
        self._threads.later(job)


class OpenBlob:
    """See `OpenFile` in the port."""

    __slots__ = ("_opened", "_store", "file")

    def __init__(self, opened: folder_.OpenFile, store: BlobStore) -> None:
        self.file = opened.file
        self._opened = opened
        self._store = store

    async def read(self, start: int, count: int) -> bytes:
        """See `OpenFile.read`."""
        opened = self._opened
        piece = await self._store.do(lambda: opened.read(start, count))
        if len(piece) != min(count, self.file.size - start):
            raise StoreUnavailable("files: a file has become shorter")
        return piece

    def close(self) -> None:
        """See `OpenFile.close`."""
        self._opened.close()


class PartFolder:
    """Parts of files that are still on their way, in DATA_DIR/files/parts/<upload>/<number>-<serial>.

    Each try at a part is a file of its own: of two with one number, or one whose sender has left, no thread can
    put its bytes behind the other's etag. Which of them counts is decided on the loop, as its etag is told.

    Which uploads there are, the gateway knows. A node that starts again has none, so the folder begins empty.
    """

    def __init__(self, blobs: BlobStore) -> None:
        """Raise `FilesUnavailable` when what an earlier node left cannot be removed."""
        self._blobs = blobs
        self._root = blobs.folder.root / "parts"
        self._serials = itertools.count(1)
        self._kept: dict[str, dict[int, Path]] = {}  # by upload and number: the one that counts
        _remove(self._root)

    async def put(self, upload: str, number: int, pieces: AsyncIterator[bytes]) -> StoredPart:
        """See `PartStore.put`."""
        path = self._root / upload / f"{number}-{next(self._serials)}"
        new, most = NewFile(content_type=BYTES), self._blobs.folder.bounds.file_bytes_max
        part = await self._blobs.take(pieces, new, most, lambda incoming: incoming.move(path))
        kept = self._kept.setdefault(upload, {})
        if (earlier := kept.get(number)) is not None:
            self._blobs.later(partial(earlier.unlink, missing_ok=True))
        kept[number] = path
        return part  # nothing was waited for since: who notes the etag next is who counts here

    def read(self, upload: str, numbers: Sequence[int]) -> AsyncIterator[bytes]:
        """See `PartStore.read`."""
        kept = self._kept.get(upload, {})
        return self._read([kept.get(number) for number in numbers])

    async def _read(self, paths: Sequence[Path | None]) -> AsyncIterator[bytes]:
        for path in paths:
            if path is None:
                raise StoreUnavailable("files: there is no such part")
            at = 0
            while piece := await self._blobs.do(partial(_read, path, at)):
                yield piece
                at += len(piece)

    async def drop(self, upload: str) -> None:
        """See `PartStore.drop`."""
        self._kept.pop(upload, None)
        await self._blobs.do(lambda: _remove(self._root / upload))


def _read(path: Path, at: int) -> bytes:
    with folder_.translated(), path.open("rb") as file:
        file.seek(at)
        return file.read(WRITE_BYTES)


def _remove(folder: Path) -> None:
    with folder_.translated():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
