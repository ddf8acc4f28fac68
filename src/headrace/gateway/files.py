"""`/files/{id}[/{name}]`: what models made and callers sent, to whoever has the address, as on fal's CDN.

The bytes are a stranger's and this is the API's own origin. So a browser is told a type that it can do no harm
with, is kept from guessing another, and takes everything but pictures, sound, film and plain text for a download.
The name in an address is the file's own or the address is wrong: nobody hands out our file under another name.

This file knows the store's port; it does not know where the bytes lie.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final
from urllib.parse import quote

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.media import is_inline, told_type
from headrace.core.ranges import NotSatisfiable, Part, is_known, part_of
from headrace.core.stored_file import StoredFile, read_path
from headrace.gateway.answers import Headers, request_id_header
from headrace.gateway.calls import Call
from headrace.gateway.outlet import Outlet
from headrace.store.file_port import FileStore, OpenFile
from headrace.store.port import StoreBusy, StoreUnavailable

_log = logging.getLogger(__name__)

#: Bytes read and written at a time: with as much in the transport, all that a slow reader costs.
PIECE_BYTES: Final = 64 * 1024

#: Seconds in a year, the longest that caches are told (RFC 9111 section 5.2.2.1 sets no bound; caches do).
_YEAR_S: Final = 365 * 24 * 3600


class FileView:
    """Everything below `/files/`."""

    def __init__(self, store: FileStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    async def answer(self, call: Call) -> None:
        """Answer a call for a file. Raises `RequestError`."""
        if "origin" not in call.headers:
            # Else the rules for pages say it. What a page only shows, as a picture, brings no Origin and is kept
            # for days; without this the page would be given that when it fetches the file, and might not read it.
            call.extra.append((b"vary", b"Origin"))
        call.allow("GET", "HEAD")
        now = time.time()
        try:
            opened = await self._open(call.path, now)
        except StoreBusy:
            message = "More readers than the disk can serve wait for it; try again."
            raise RequestError("files_unavailable", message, headers={"Retry-After": "1"}) from None
        except StoreUnavailable as fault:
            _log.warning("request %s: a file cannot be read: %s", call.id, fault)
            message = "The file cannot be read now; the server's log says why."
            raise RequestError("files_unavailable", message, headers={"Retry-After": "5"}) from None
        if opened is None:
            raise RequestError("not_found", "There is no such file, or not any more.")
        try:
            await self._answer(call, opened, now)
        finally:
            opened.close()

    async def _open(self, path: str, now: float) -> OpenFile | None:
        asked = read_path(path)
        opened = await self._store.open(asked[0], now=now) if asked is not None else None
        if opened is None or asked is None or asked[1] in {None, opened.file.name}:
            return opened
        opened.close()
        return None

    async def _answer(self, call: Call, opened: OpenFile, now: float) -> None:
        file = opened.file
        etag = f'"{file.digest}"'
        headers = [*_headers(file, etag, now), request_id_header(call.id)]
        if is_known(call.headers.get("if-none-match"), etag):
            call.answer((304, headers, b""))
            return
        is_get = call.method == "GET"
        try:
            # A range is a GET's alone (RFC 9110 section 14.2).
            asked = call.headers.get("range") if is_get else None
            part = part_of(asked, call.headers.get("if-range"), etag, file.size)
        except NotSatisfiable:
            message = f"The file has {file.size} bytes; the range asks for none of them."
            raise RequestError(
                "range_not_satisfiable", message, headers={"Content-Range": f"bytes */{file.size}"}
            ) from None
        if part is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (part.start, part.stop - 1, file.size)))
        status, part = (200, Part(0, file.size)) if part is None else (206, part)
        headers.append((b"content-length", b"%d" % part.length))
        if is_get and part.length:
            await self._write(call, status, headers, opened, part)
        else:
            call.answer((status, headers, b""))

    async def _write(self, call: Call, status: int, headers: Headers, opened: OpenFile, part: Part) -> None:
        """Write the head and a part of the bytes, at the client's pace."""
        outlet = call.outlet
        pace = _Pace(outlet, self._limits)
        try:
            for at in range(part.start, part.stop, PIECE_BYTES):
                piece = await opened.read(at, min(PIECE_BYTES, part.stop - at))
                if not outlet.has_started:
                    outlet.start(status, [*headers, *call.extra], has_length=True)
                outlet.write(piece)
                if not await pace.is_kept():
                    return
        except (StoreBusy, StoreUnavailable) as fault:
            _log.warning("request %s: a file cannot be read on: %s", call.id, fault)
            if not outlet.has_started:
                message = "The file cannot be read now; the server's log says why."
                raise RequestError("files_unavailable", message) from None
            await outlet.cut(self._limits)  # fewer bytes than its head said: the client knows
            return
        finally:
            pace.leave()
        outlet.end()
        if outlet.is_paused:
            await outlet.flushed(self._limits)


class _Pace:
    """How fast one client reads."""

    def __init__(self, outlet: Outlet, limits: Limits) -> None:
        self._outlet = outlet
        self._limits = limits
        self._changed = asyncio.Event()
        outlet.on_ready = outlet.on_lost = self._changed.set

    def leave(self) -> None:
        self._outlet.on_ready = self._outlet.on_lost = None

    async def is_kept(self) -> bool:
        """Wait until the client takes more; False when it is gone, or has taken no byte for `stall_timeout_s`."""
        outlet, limit_s = self._outlet, self._limits.stall_timeout_s
        clock = asyncio.get_running_loop().time
        taken, since = outlet.taken_bytes if outlet.is_paused else 0, clock()
        while outlet.is_paused and not outlet.is_gone:
            self._changed.clear()
            try:
                async with asyncio.timeout(min(1.0, limit_s / 4)):
                    await self._changed.wait()
            except TimeoutError:
                if outlet.taken_bytes != taken:
                    taken, since = outlet.taken_bytes, clock()
                elif clock() - since >= limit_s:
                    outlet.abort()
                    return False
        return not outlet.is_gone


def _headers(file: StoredFile, etag: str, now: float) -> Headers:
    """Return what every answer with a file says of it."""
    disposition = "inline" if is_inline(file.content_type) else "attachment"
    plain = "".join(letter if letter.isascii() and letter not in '"\\%' else "_" for letter in file.name)
    said = f"{disposition}; filename=\"{plain}\"; filename*=UTF-8''{quote(file.name, safe='')}"  # RFC 6266
    max_age_s = min(_YEAR_S, max(0, int(file.expires_at - now)))
    return [
        (b"content-type", told_type(file.content_type).encode("ascii")),
        (b"content-disposition", said.encode("ascii")),
        (b"etag", etag.encode("ascii")),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"private, max-age=%d, immutable" % max_age_s),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"sandbox; default-src 'none'"),
    ]
