"""Files of the author's code: what it makes goes to the disk at once, what it is given by URL is read or fetched.

Keeping and reading happen in the thread that asks: a preview takes two small writes and no hop. What must be
fetched goes by `headrace.outbound`, under the node's policy, on the runner's loop; a thread waits for it, and
stops waiting when its request is cancelled.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.app.context import CURRENT, Call, Cancelled
from headrace.app.keeper import Unreadable
from headrace.core import lifecycle
from headrace.core.errors import RequestError
from headrace.core.file_room import FileRoom
from headrace.core.limits import Limits
from headrace.core.netguard import UrlRefused
from headrace.core.stored_file import PATH, NewFile, id_in_url
from headrace.files.folder import FileBounds, FileFolder, FilesUnavailable, FileTooLarge
from headrace.runner.blame import log
from headrace.runner.threads import in_own_thread

if TYPE_CHECKING:
    from headrace.outbound.exchange import Outbound

#: Seconds between two looks of a waiting thread at whether its request is still wanted.
LOOK_EVERY_S: Final = 0.1

#: Bytes read from the disk at a time.
_PIECE_BYTES: Final = 1024 * 1024


class RunnerFiles:
    """The `app.keeper.Keeper` of a runner."""

    def __init__(self, room: FileRoom, limits: Limits) -> None:
        """Belong to the running loop."""
        self._room = room
        self._limits = limits
        bounds = FileBounds(limits.file_bytes_max, limits.files_keep_s, limits.files_spare_bytes)
        self._folder = FileFolder(Path(room.folder), bounds)
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._outbound: Outbound | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Load what fetching needs. It takes a while, so not on the loop if it can be helped."""
        from headrace.outbound.exchange import Outbound

        with self._lock:
            if self._outbound is None:
                self._outbound = Outbound(self._room.outbound)

    # --- what is made -----------------------------------------------------------------------------------

    def keep(self, call: Call, pieces: Iterable[bytes], content_type: str, name: str | None) -> str | None:
        """See `app.keeper.Keeper`."""
        if not call.base_url:
            return None
        lifetime_s = None
        with contextlib.suppress(ValueError):  # the gateway has refused what cannot be read
            lifetime_s = lifecycle.lifetime_of(call.request.headers)
        new = NewFile(content_type=content_type, name=name, lifetime_s=lifetime_s)
        try:
            with self._folder.incoming(new, self._limits.file_bytes_max) as incoming:
                for piece in pieces:
                    incoming.write(piece)
                file = incoming.keep(now=time.time())
        except FileTooLarge as fault:
            message = f"The app made a file of more than {fault.bytes_max} bytes."
            raise RequestError("file_too_large", message) from None
        except FilesUnavailable as fault:
            log(f"request {call.request.request_id}: a file could not be kept", fault)
            raise RequestError("files_unavailable", f"A file could not be kept: {fault}.") from None
        return call.base_url + file.path

    # --- what is given ----------------------------------------------------------------------------------

    def read(self, url: str) -> bytes:
        """See `app.keeper.Keeper`."""
        if (content := self._own(url)) is not None:
            return content
        if threading.get_ident() == self._loop_thread:
            raise RuntimeError("fetching a file would hold up every request here; await …_async() instead")
        self.prepare()
        fetching = asyncio.run_coroutine_threadsafe(self._fetch(url), self._loop)
        try:
            return _wait_for(fetching)
        finally:
            fetching.cancel()

    async def read_async(self, url: str) -> bytes:
        """See `app.keeper.Keeper`."""
        if id_in_url(url) is not None and (content := await in_own_thread(lambda: self._own(url))) is not None:
            return content
        if self._outbound is None:
            await in_own_thread(self.prepare)
        return await self._fetch(url)

    def _own(self, url: str) -> bytes | None:
        """Return a file of this node; None when the URL is another's. Raises `Unreadable`.

        Its id says whose it is, on whatever name the node was called by: whoever knows the id may read the file.
        """
        id_ = id_in_url(url)
        if id_ is None:
            return None
        try:
            opened = self._folder.open(id_, now=time.time())
            if opened is None:
                call = CURRENT.get()
                if call is not None and call.base_url and url.startswith(call.base_url + PATH):
                    raise Unreadable("file_download_error", "There is no such file here, or not any more.")
                return None
            try:
                size = opened.file.size
                return b"".join(opened.read(at, _PIECE_BYTES) for at in range(0, size, _PIECE_BYTES))
            finally:
                opened.close()
        except FilesUnavailable as fault:
            raise RequestError("files_unavailable", f"A file could not be read: {fault}.") from None

    async def _fetch(self, url: str) -> bytes:
        from headrace.outbound.exchange import CallFailed
        from headrace.outbound.fetch import FetchPatience, fetched

        assert self._outbound is not None  # prepared
        bytes_max = self._limits.file_bytes_max
        patience = FetchPatience(total_s=self._limits.file_fetch_timeout_s)
        try:
            async with fetched(self._outbound, url, patience) as answer:
                if answer.status != 200:
                    raise Unreadable(
                        "file_download_error",
                        f"The file could not be downloaded: {answer.target.origin} answered with {answer.status}.",
                    )
                return b"".join([piece async for piece in answer.pieces(bytes_max)])
        except UrlRefused as refused:
            message = f"The file was not downloaded: {refused.message} (rule {refused.rule})."
            raise Unreadable("file_download_error", message) from None
        except CallFailed as failed:
            if failed.kind == "too-large":
                message = f"The file has more than {bytes_max} bytes."
                raise Unreadable("file_too_large", message, {"max_size": bytes_max}) from None
            raise Unreadable("file_download_error", f"The file could not be downloaded: {failed}.") from None


def _wait_for(fetching: concurrent.futures.Future[bytes]) -> bytes:
    """Wait in a thread, for as long as its request is wanted. Raises what the fetch raised, and `Cancelled`."""
    call = CURRENT.get()
    while True:
        done, _ = concurrent.futures.wait([fetching], timeout=LOOK_EVERY_S)
        if done:
            return fetching.result()
        if call is not None and call.is_cancelled:
            raise Cancelled
