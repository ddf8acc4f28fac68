"""Uploads: what fal's clients do to get a file to the server, and what the SDK does (protocol section 13).

    POST  /storage/upload/initiate             a promise: where the bytes go, and where the file will be
    POST  /storage/upload/initiate-multipart   the same for a file that comes in parts
    PUT   /storage/upload/{upload}?key=…       the bytes; the address is the key, no other is asked for
    PUT   /storage/upload/{upload}/{n}?key=…   a part of them, in any order
    POST  /storage/upload/{upload}/complete?key=…   these were the parts

    POST  /storage/auth/token                  a token for what follows; a key will do as well
    POST  /files/upload                        the bytes, at once
    POST  /files/upload/multipart              a promise of a file in parts
    PUT   {file}/multipart/{upload}/{n}        a part
    POST  {file}/multipart/{upload}/complete   these were the parts

The first half is fal's JavaScript client's and ours, the second its Python client's. Bodies go to the disk as they
come. What is promised and what is refused stands in `core.uploads`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import re
import secrets
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from headrace.core import lifecycle
from headrace.core.errors import RequestError
from headrace.core.keys import KeyId, parse_authorization
from headrace.core.limits import Limits
from headrace.core.media import clean_type
from headrace.core.stored_file import PATH as FILES
from headrace.core.stored_file import FileId, NewFile, name_for
from headrace.core.upload_token import LIFE_S, UploadToken, read_token, token_text
from headrace.core.uploads import (
    RANDOM_BYTES,
    Upload,
    Uploads,
    not_found,
    part_number,
    parts_in_order,
    too_large,
)
from headrace.gateway.answers import value_answer
from headrace.gateway.auth import Authenticator
from headrace.gateway.body import HeldBytes, arriving, check_media_type, check_object, read_body
from headrace.gateway.calls import Call
from headrace.store.file_port import FileStore, FileTooLarge, PartStore
from headrace.store.port import StoreBusy, StoreUnavailable
from headrace.supervisor.dispatch import Dispatcher

_log = logging.getLogger(__name__)

PATH_INITIATE: Final = "/storage/upload/initiate"
PATH_INITIATE_MULTIPART: Final = "/storage/upload/initiate-multipart"
PATH_TOKEN: Final = "/storage/auth/token"  # noqa: S105 - a path
PATH_UPLOAD: Final = "/files/upload"
PATH_UPLOAD_MULTIPART: Final = "/files/upload/multipart"

#: What stands in front of every path of a file, out or in.
PREFIXES: Final = ("/storage/", FILES)

_SIGNED: Final = re.compile(r"/storage/upload/([0-9a-f]{32})(?:/([0-9]+|complete))?")
_OF_FILE: Final = re.compile(r"/files/([0-9a-f]{32})/[^/]+/multipart/([0-9a-f]{32})/([0-9]+|complete)")

#: Bytes that a body which goes to the disk takes of the node's memory: gathered, and being written.
_HELD_BYTES: Final = 512 * 1024


def is_signed(path: str) -> bool:
    """Whether a path is one that takes bytes from whoever has it: the address is the key."""
    return _SIGNED.fullmatch(path) is not None


def is_upload(method: str, path: str) -> bool:
    """Whether a call is one of the others."""
    return path.startswith("/storage/") or (path.startswith(FILES) and method in {"POST", "PUT"})


def brings_file(method: str, path: str) -> bool:
    """Whether the body of a call can be a file, or a part of one: so large that nobody waits for it in vain."""
    return is_signed(path) or (path.startswith(FILES) and method in {"POST", "PUT"})


class UploadView:
    """Everything below `/storage/`, and what is sent below `/files/`."""

    def __init__(
        self, files: FileStore, parts: PartStore, dispatcher: Dispatcher, limits: Limits, *, secret: bytes
    ) -> None:
        self.uploads = Uploads(limits)
        self._files = files
        self._parts = parts
        self._dispatcher = dispatcher
        self._limits = limits
        self._secret = secret
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def run(self) -> None:
        """Clear away, now and then, what nobody finished; until cancelled."""
        while True:
            for upload in self.uploads.too_old(time.time()):
                if upload.is_over or upload.users:  # the clock was set back while the one before it went
                    continue
                self.uploads.end(upload, is_finished=False)
                await self._drop(upload)
            await asyncio.sleep(min(self._limits.files_sweep_every_s, self._limits.upload_idle_s))

    def owner(self, call: Call, authenticator: Authenticator) -> KeyId | None:
        """Return who sends a file, by a token of ours or by a key. Raises `RequestError` (401)."""
        if authenticator.is_open:
            return None
        text = parse_authorization(call.headers.get("authorization", ""))
        token = None if text is None else read_token(text, self._secret)
        if token is None:
            return authenticator.authenticate(call.headers)
        if token.expires_at <= time.time():
            raise RequestError("unauthorized", "This token has expired; fetch another.")
        if not authenticator.knows(token.owner):
            raise RequestError("unauthorized", "The key that made this token was revoked.")
        return token.owner

    async def answer(self, call: Call) -> None:
        """Answer a call whose owner is known. Raises `RequestError`, and what the store raises."""
        if (match := _OF_FILE.fullmatch(call.path)) is not None:
            upload = self.uploads.find(match[2], time.time())
            if upload.owner != call.owner or upload.new.id != match[1] or not upload.has_parts:
                raise not_found()
            await self._step(call, upload, match[3])
            return
        path = call.path.rstrip("/")
        if path not in {PATH_INITIATE, PATH_INITIATE_MULTIPART, PATH_TOKEN, PATH_UPLOAD, PATH_UPLOAD_MULTIPART}:
            raise RequestError("not_found", f"Path {call.path} not found")
        call.allow("POST")
        if path == PATH_TOKEN:
            self._tell_token(call)
        elif path == PATH_UPLOAD:
            await self._take_whole(call)
        elif path == PATH_UPLOAD_MULTIPART:
            upload = self._begin(call, self._new_by_headers(call), has_parts=True)
            self._tell(call, {"access_url": call.base_url + upload.file_path, "uploadId": upload.id})
        else:
            await self._initiate(call, has_parts=path == PATH_INITIATE_MULTIPART)

    async def answer_signed(self, call: Call) -> None:
        """Answer a call to an address that is a key; whatever else it brings for one is not looked at."""
        match = _SIGNED.fullmatch(call.path)
        assert match is not None, "is_signed was asked"
        upload = self.uploads.find(match[1], time.time())
        if not upload.opens(_query(call, "key")) or upload.has_parts == (match[2] is None):
            raise not_found()
        await self._step(call, upload, match[2])

    async def _step(self, call: Call, upload: Upload, step: str | None) -> None:
        call.allow("POST" if step == "complete" else "PUT")
        with self._used(upload):
            if step is None:
                await self._take_promised(call, upload)
            elif step == "complete":
                await self._complete(call, upload)
            else:
                await self._take_part(call, upload, part_number(step, self._limits))

    # --- promises ---------------------------------------------------------------------------------------

    async def _initiate(self, call: Call, *, has_parts: bool) -> None:
        fields = await self._object(call)
        content_type, name = fields.get("content_type"), fields.get("file_name")
        for field, value in (("content_type", content_type), ("file_name", name)):
            if not isinstance(value, str | None):
                detail = [{"loc": ["body", field], "msg": "Input should be a string", "type": "string_type"}]
                raise RequestError("validation_error", f"{field} must be a string", detail=detail)
        upload = self._begin(call, self._new(call, content_type, name), has_parts=has_parts)
        address = f"{call.base_url}/storage/upload/{upload.id}?key={upload.key}"
        self._tell(call, {"upload_url": address, "file_url": call.base_url + upload.file_path})

    def _begin(self, call: Call, new: NewFile, *, has_parts: bool) -> Upload:
        random, now = secrets.token_bytes(RANDOM_BYTES), time.time()
        return self.uploads.begin(call.owner, new, has_parts=has_parts, random=random, now=now)

    def _new_by_headers(self, call: Call) -> NewFile:
        name = call.headers.get("x-fal-file-name")
        if name is not None:  # a header is Latin-1 to us, and UTF-8 to many who write one
            with contextlib.suppress(UnicodeError):
                name = name.encode("latin-1").decode()
        return self._new(call, call.headers.get("content-type"), name)

    def _new(self, call: Call, content_type: str | None, name: str | None) -> NewFile:
        if self._dispatcher.is_draining:
            raise RequestError("shutting_down", "The server is stopping.", headers={"Retry-After": "5"})
        try:
            lifetime_s = lifecycle.lifetime_of(call.headers)
        except ValueError as fault:
            raise RequestError("bad_request", f"{fault}.") from None
        id_ = FileId(secrets.token_hex(16))
        # As they will be, not as they were said: they are kept until the upload ends, and may have been megabytes.
        content_type = clean_type(content_type)
        return NewFile(content_type=content_type, name=name_for(name, content_type), lifetime_s=lifetime_s, id=id_)

    def _tell_token(self, call: Call) -> None:
        expires_at = int(time.time()) + LIFE_S
        self._tell(
            call,
            {
                "token": token_text(UploadToken(expires_at, call.owner), self._secret),
                "token_type": "Bearer",
                "base_url": call.base_url,
                "expires_at": dt.datetime.fromtimestamp(expires_at, dt.UTC).isoformat(),
            },
        )

    # --- bytes ------------------------------------------------------------------------------------------

    async def _take_whole(self, call: Call) -> None:
        new = self._new_by_headers(call)
        path = await self._take(call, call.owner, new)
        self._tell(call, {"access_url": call.base_url + path})

    async def _take_promised(self, call: Call, upload: Upload) -> None:
        async with self._turn(upload):  # who comes second waits, and finds that the file is there
            if upload.is_over:
                raise not_found()
            path = await self._take(call, upload.owner, upload.new)
            self.uploads.end(upload, is_finished=True)
        self._tell(call, {"access_url": call.base_url + path})

    async def _take(self, call: Call, owner: KeyId | None, new: NewFile) -> str:
        """Make a file of a body; return its path."""
        with self._arrival(call, owner) as body, _faults_logged(call):
            file = await self._files.put(body.pieces(), new, now=time.time())
        return file.path

    async def _take_part(self, call: Call, upload: Upload, number: int) -> None:
        least = self.uploads.cost_of(0)
        with self._arrival(call, upload.owner, least=least) as body, _faults_logged(call):
            part = await self._parts.put(upload.id, number, body.pieces())
            if upload.is_over:
                await self._drop(upload)
                raise not_found()
            body.is_kept = True
            self.uploads.keep_part(upload, number, part)
        call.extra.append((b"etag", f'"{part.etag}"'.encode("ascii")))
        self._tell(call, {"partNumber": number, "etag": part.etag})

    async def _complete(self, call: Call, upload: Upload) -> None:
        fields = await self._object(call)
        async with self._turn(upload):
            if not upload.is_over:  # else it is asked again by who did not hear the answer
                numbers = parts_in_order(fields.get("parts"), upload, self._limits)
                with _faults_logged(call):
                    await self._files.put(self._parts.read(upload.id, numbers), upload.new, now=time.time())
                self.uploads.end(upload, is_finished=True)
                await self._drop(upload)
        self._tell(call, {"access_url": call.base_url + upload.file_path})

    # --- what they share --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _used(self, upload: Upload) -> Iterator[None]:
        """Keep an upload from being cleared away while something is done for it."""
        upload.users += 1
        try:
            yield
        finally:
            upload.users -= 1
            upload.idle_since = time.time()

    def _turn(self, upload: Upload) -> asyncio.Lock:
        return self._turns.setdefault(upload.id, asyncio.Lock())

    @contextlib.contextmanager
    def _arrival(self, call: Call, owner: KeyId | None, *, least: int = 0) -> Iterator[_Arrival]:
        """Have room for a body that comes in, on the disk and in memory, as long as it comes in."""
        self.uploads.arrive(owner)
        held = HeldBytes(self._dispatcher.bodies, owner)
        body = _Arrival(call, self.uploads, owner, self._limits)
        try:
            body.take(least)
            held.grow_to(_HELD_BYTES)
            yield body
        except FileTooLarge as fault:
            raise too_large(fault.bytes_max) from None
        finally:
            held.let_go()
            self.uploads.leave(owner)
            if not body.is_kept:
                self.uploads.give_back(owner, body.taken)

    async def _object(self, call: Call) -> dict[str, Any]:
        """Return the JSON object that a call brings."""
        held = HeldBytes(self._dispatcher.bodies, call.owner)
        try:
            body = await read_body(call.receive, call.headers, self._limits, held)
            check_media_type(call.headers, body)
            fields: dict[str, Any] = orjson.loads(check_object(body, self._limits))
        finally:
            held.let_go()
        return fields

    async def _drop(self, upload: Upload) -> None:
        try:
            await self._parts.drop(upload.id)
        except (StoreBusy, StoreUnavailable) as fault:  # the next start clears all away
            _log.warning("the parts of an upload that is over could not be removed: %s", fault)

    def _tell(self, call: Call, value: dict[str, Any]) -> None:
        call.extra.append((b"cache-control", b"no-store"))  # addresses and tokens are keys
        call.answer(value_answer(200, value, call.id))


class _Arrival:
    """A body as it comes in: counted, bounded, and handed on."""

    def __init__(self, call: Call, uploads: Uploads, owner: KeyId | None, limits: Limits) -> None:
        self.taken = 0  # bytes that it counts as
        self.is_kept = False  # whether they still count when it is over
        self._call = call
        self._uploads = uploads
        self._owner = owner
        self._limits = limits

    def take(self, count: int) -> None:
        """Count so many bytes more. Raises `RequestError` (429)."""
        self._uploads.take(self._owner, count)
        self.taken += count

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises `RequestError` and `ClientLeft`."""
        size = 0
        async for piece in arriving(self._call.receive, self._call.headers, self._limits):
            size += len(piece)
            if size > self.taken:
                self.take(size - self.taken)
            yield piece


@contextlib.contextmanager
def _faults_logged(call: Call) -> Iterator[None]:
    """Tell the operator what the disk says; the caller is told less."""
    try:
        yield
    except StoreUnavailable as fault:
        _log.warning("request %s: a file cannot be taken: %s", call.id, fault)
        raise


def _query(call: Call, name: str) -> str:
    values = parse_qs(call.scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name)
    return values[-1] if values else ""
