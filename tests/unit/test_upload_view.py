"""The routes of uploads over pretended calls: what is kept of what was said, and how much one key may have at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.memory import Budget
from headrace.core.request import RequestId
from headrace.core.stored_file import StoredFile
from headrace.gateway.calls import Call
from headrace.gateway.uploads import PATH_INITIATE, PATH_INITIATE_MULTIPART, PATH_UPLOAD, UploadView, is_signed
from headrace.store.blobs import BlobStore
from headrace.store.port import StoreUnavailable

ADA, BOB = KeyId("hr_aaaaaaaaaaaa"), KeyId("hr_bbbbbbbbbbbb")
LIMITS = Limits(files_spare_bytes=0)


class Outlet:
    """Keeps the answer."""

    def answer(self, answer: tuple[int, list[tuple[bytes, bytes]], bytes]) -> None:
        self.status, _, body = answer
        self.json = json.loads(body)


class LateFiles(BlobStore):
    """A disk that keeps the first file, but not in time."""

    is_late = True

    async def put(self, *args: Any, **more: Any) -> StoredFile:
        file = await super().put(*args, **more)
        if self.is_late:
            self.is_late = False
            raise StoreUnavailable("the disk did not answer")
        return file


class Room:
    """An `UploadView`, and who calls it."""

    def __init__(self, files: BlobStore) -> None:
        dispatcher: Any = SimpleNamespace(is_draining=False, bodies=Budget(LIMITS.bodies_bytes_max))
        self.view = UploadView(files, files.parts, dispatcher, LIMITS, secret=b"s" * 32)

    def call(self, method: str, path: str, pieces: AsyncIterator[bytes], owner: KeyId = ADA) -> Call:
        async def receive() -> dict[str, Any]:
            piece = await anext(pieces, None)
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        path, _, query = path.partition("?")
        scope = {"method": method, "query_string": query.encode()}
        headers, outlet = {"content-type": "application/json"}, Outlet()
        return Call(RequestId("r"), headers, scope, receive, outlet, path=path, extra=[], owner=owner)

    async def post(self, path: str, **fields: Any) -> dict[str, Any]:
        call = self.call("POST", path, coming(json.dumps(fields).encode()))
        await (self.view.answer_signed(call) if is_signed(call.path) else self.view.answer(call))
        return call.outlet.json

    async def put(self, path: str, content: bytes) -> dict[str, Any]:
        call = self.call("PUT", path, coming(content))
        await self.view.answer_signed(call)
        return call.outlet.json


async def coming(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def with_files(files: BlobStore, scene: Callable[[Room], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        try:
            await scene(Room(files))
        finally:
            await files.close()

    asyncio.run(play())


def test_of_megabytes_that_a_file_is_called_its_name_is_kept_alone(tmp_path):
    megabytes = "\ufdfa" * 500_000

    async def scene(room: Room) -> None:
        await room.post(PATH_INITIATE, file_name=f"{megabytes}.png", content_type=f"image/png;{megabytes}")

        [upload] = room.view.uploads._open.values()
        assert upload.new.content_type == "image/png"
        assert upload.new.name is not None
        assert len(upload.new.name) <= 80
        assert upload.new.name.endswith(".png")

    with_files(BlobStore(tmp_path, LIMITS), scene)


def test_a_file_that_came_through_late_is_there_for_who_sends_it_again(tmp_path):
    async def scene(room: Room) -> None:
        urls = await room.post(PATH_INITIATE)
        with pytest.raises(StoreUnavailable):
            await room.put(urls["upload_url"], b"meow")

        assert await room.put(urls["upload_url"], b"meow") == {"access_url": urls["file_url"]}
        assert len(room.view.uploads) == 0

    with_files(LateFiles(tmp_path, LIMITS), scene)


def test_parts_that_were_put_together_late_are_there_for_who_asks_again(tmp_path):
    async def scene(room: Room) -> None:
        urls = await room.post(PATH_INITIATE_MULTIPART)
        path, _, key = urls["upload_url"].partition("?")
        parts = [await room.put(f"{path}/1?{key}", b"meow")]
        with pytest.raises(StoreUnavailable):
            await room.post(f"{path}/complete?{key}", parts=parts)

        assert await room.post(f"{path}/complete?{key}", parts=parts) == {"access_url": urls["file_url"]}
        assert len(room.view.uploads) == 0

    with_files(LateFiles(tmp_path, LIMITS), scene)


def test_bodies_that_one_key_sends_slowly_leave_room_for_those_of_another(tmp_path):
    async def scene(room: Room) -> None:
        ends = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"a little"
            await ends.wait()

        calls = [room.call("POST", PATH_UPLOAD, slow()) for _ in range(LIMITS.uploads_coming_max)]
        coming_in = [asyncio.create_task(room.view.answer(call)) for call in calls]
        await asyncio.sleep(0)

        with pytest.raises(RequestError, match="256 files of this key come in already"):
            await room.view.answer(room.call("POST", PATH_UPLOAD, coming(b"one more")))
        await room.view.answer(room.call("POST", PATH_UPLOAD, coming(b"another's"), BOB))
        ends.set()
        await asyncio.gather(*coming_in)
        await room.view.answer(room.call("POST", PATH_UPLOAD, coming(b"one more")))

    with_files(BlobStore(tmp_path, LIMITS), scene)
