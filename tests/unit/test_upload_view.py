"""The routes of uploads over pretended calls: what is kept of what was said, and how much one key may have at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.memory import Budget
from headrace.core.request import RequestId
from headrace.core.uploads import Upload
from headrace.gateway.calls import Call
from headrace.gateway.uploads import PATH_INITIATE, UploadView

ADA, BOB = KeyId("hr_aaaaaaaaaaaa"), KeyId("hr_bbbbbbbbbbbb")


class Outlet:
    """Keeps the answer."""

    def answer(self, answer: tuple[int, list[tuple[bytes, bytes]], bytes]) -> None:
        self.status, _, body = answer
        self.json = json.loads(body)


class Room:
    """An `UploadView` on a disk that takes everything."""

    def __init__(self) -> None:
        limits = Limits()
        dispatcher = SimpleNamespace(is_draining=False, bodies=Budget(limits.bodies_bytes_max))
        self.view = UploadView(self, self, dispatcher, limits, secret=b"s" * 32)  # type: ignore[arg-type]

    def call(self, path: str, pieces: AsyncIterator[bytes], headers: dict[str, str], owner: KeyId = ADA) -> Call:
        async def receive() -> dict[str, Any]:
            piece = await anext(pieces, None)
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        scope = {"method": "POST", "query_string": b""}
        outlet: Any = Outlet()
        return Call(RequestId("r"), headers, scope, receive, outlet, path=path, extra=[], owner=owner)

    async def initiate(self, **fields: str) -> Upload:
        """What is kept of a promise."""
        headers = {"content-type": "application/json"}
        await self.view.answer(self.call(PATH_INITIATE, coming(json.dumps(fields).encode()), headers))
        [upload] = self.view.uploads._open.values()
        return upload


async def coming(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def test_of_megabytes_that_a_file_is_called_its_name_is_kept_alone():
    megabytes = "\ufdfa" * 500_000
    upload = asyncio.run(Room().initiate(file_name=f"{megabytes}.png", content_type=f"image/png;{megabytes}"))

    assert upload.new.content_type == "image/png"
    assert upload.new.name is not None
    assert len(upload.new.name) <= 80
    assert upload.new.name.endswith(".png")
