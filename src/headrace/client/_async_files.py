"""The files' part of `AsyncClient`: uploads for programs with asyncio.

A thin shell. What is sent, what comes back and what is tried again stands in `_uploads`; here is only the order of
things. `_sync_files` has the same shape, and a test compares the two.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

from headrace.client import errors
from headrace.client._content import Content, FileContent, OnProgress, Picture, content_of, picture_of
from headrace.client._request import Patience, Request, Target
from headrace.client._storage import StorageSettings
from headrace.client._uploads import Upload


class AsyncFileCalls:
    """What `AsyncClient` can do with the server's files.

    The URL that comes back goes into the input of a model, like any other. Whoever has it can read the file.
    """

    _target: Target

    if TYPE_CHECKING:  # what `AsyncClient` brings

        async def _fetch(self, request: Request, patience: Patience) -> Any: ...
        def _queue_patience(self) -> Patience: ...

    async def upload(
        self,
        data: str | bytes,
        content_type: str,
        file_name: str | None = None,
        *,
        lifecycle: StorageSettings | None = None,
        on_progress: OnProgress | None = None,
    ) -> str:
        """Upload bytes, or a text as UTF-8, and return the file's URL.

        - `content_type`: the media type, such as "image/png"
        - `file_name`: what the URL ends in; by default a name that the server makes
        - `lifecycle`: for how long the file is kept, and who may read it; by default the server decides
        - `on_progress`: called with the bytes sent so far and the bytes in all

        Over 90 MiB it goes in parts of 10 MiB. Each step is tried up to three times. Raises `TypeError` for other
        data, `ValueError` for a `content_type` that no header can have, `APIError` (413 over the server's limit,
        503 when its disk is full) and the rest of `headrace.client.errors`.
        """
        return await self._upload(content_of(data, content_type, file_name), lifecycle, on_progress)

    async def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        lifecycle: StorageSettings | None = None,
        on_progress: OnProgress | None = None,
    ) -> str:
        """Upload a file and return its URL. It is read as it is sent, in a thread, never in memory as a whole.

        Its name tells the media type. Raises `OSError` for one that cannot be read, and for a pipe or a folder;
        the rest is as for `upload`.
        """
        return await self._upload(await asyncio.to_thread(FileContent.of, path), lifecycle, on_progress)

    async def upload_image(
        self, image: Picture, format: str = "jpeg", *, lifecycle: StorageSettings | None = None
    ) -> str:
        """Upload an image, such as one of Pillow's, as a file of that format; return its URL. See `upload`."""
        return await self._upload(await asyncio.to_thread(picture_of, image, format), lifecycle, None)

    async def _upload(
        self, content: Content, lifecycle: StorageSettings | None, on_progress: OnProgress | None
    ) -> str:
        upload = Upload(self._target, content, settings=lifecycle, on_progress=on_progress)
        while not upload.is_over:
            try:
                value = await self._fetch(upload.request, self._queue_patience())
            except errors.HeadraceError as error:
                pause_s = upload.failed(error, random.random())  # noqa: S311
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            else:
                upload.answered(value)
        return upload.url
