"""What the rest of the node may ask of the files: the other half of `store.port`, whose failures are these too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from headrace.core.stored_file import NewFile, StoredFile, StoredPart
from headrace.store.port import StoreRefusal


class FileTooLarge(StoreRefusal):
    """More bytes than one file may have."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"a file may have {bytes_max} bytes")
        self.bytes_max = bytes_max


class OpenFile(Protocol):
    """A stored file that is being read. It stays readable though it expires meanwhile."""

    @property
    def file(self) -> StoredFile:
        """What is known of it."""
        ...

    async def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on. Raises `StoreUnavailable` and `StoreBusy`; also for too few."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class FileStore(Protocol):
    """Files that models made and callers sent, each under a random id (`core.stored_file`). Nothing here blocks.

    Every method raises `StoreUnavailable` when the disk cannot do it now, `StoreBusy` when too much waits for it.
    """

    async def put(
        self, pieces: AsyncIterator[bytes], new: NewFile, *, now: float, bytes_max: int | None = None
    ) -> StoredFile:
        """Keep what `pieces` yields, on the disk before this returns.

        The bound is `limits.file_bytes_max`, or `bytes_max` if that is less: `FileTooLarge`. Whatever `pieces`
        raises goes through; then, as after a cancellation, nothing is left behind. It waits for `pieces` without a
        deadline of its own.
        """
        ...

    async def find(self, id_: str, *, now: float) -> StoredFile | None:
        """Return what is known of a file; None when there is none, or not any more. Any text will do for an id."""
        ...

    async def open(self, id_: str, *, now: float) -> OpenFile | None:
        """Open a file to read it, as `find` finds it. Whoever opens it closes it."""
        ...

    async def remove(self, id_: str) -> bool:
        """Let go of a file before its time; False when there is none."""
        ...


class PartStore(Protocol):
    """Parts of files that are still on their way. Nothing here blocks; it raises what `FileStore` raises.

    A node that starts again has none of them.
    """

    async def put(self, upload: str, number: int, pieces: AsyncIterator[bytes]) -> StoredPart:
        """Keep a part, in the place of an earlier one with its number. As with a file, whole or not at all."""
        ...

    def read(self, upload: str, numbers: Sequence[int]) -> AsyncIterator[bytes]:
        """Yield the bytes of these parts, as they are now, one part after another."""
        ...

    async def drop(self, upload: str) -> None:
        """Let go of all parts of an upload."""
        ...
