"""The files' part of fal-client's surface: uploads with its arguments, by the calls of our own clients.

Where fal has two places for files, and a second try in the other one, a server of ours has one: the names of the
places are checked, and lead there.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from headrace.client._content import Picture
from headrace.client._storage import StorageSettings

if TYPE_CHECKING:
    from headrace.client._async import AsyncClient
    from headrace.client._sync import Client

UploadRepositoryId = Literal["fal_v3", "cdn", "fal"]

_REPOSITORIES: Final = ("fal_v3", "fal", "cdn")


class FileCalls:
    """What `SyncClient` can do with files; `headrace.Client` can show the progress, too."""

    if TYPE_CHECKING:  # what `SyncClient` brings

        @property
        def _client(self) -> Client: ...

    def upload(
        self,
        data: str | bytes,
        content_type: str,
        file_name: str | None = None,
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | list[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload bytes and return the file's URL; see `headrace.Client.upload`."""
        _check_repositories(repository, fallback_repository)
        return self._client.upload(data, content_type, file_name, lifecycle=lifecycle)

    def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | list[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload a file and return its URL; see `headrace.Client.upload_file`."""
        _check_repositories(repository, fallback_repository)
        return self._client.upload_file(path, lifecycle=lifecycle)

    def upload_image(
        self,
        image: Picture,
        format: str = "jpeg",
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | list[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload a Pillow image and return its URL; see `headrace.Client.upload_image`."""
        _check_repositories(repository, fallback_repository)
        return self._client.upload_image(image, format, lifecycle=lifecycle)


class AsyncFileCalls:
    """What `AsyncClient` can do with files; `headrace.AsyncClient` can show the progress, too."""

    if TYPE_CHECKING:  # what `AsyncClient` brings

        @property
        def _client(self) -> AsyncClient: ...

    async def upload(
        self,
        data: str | bytes,
        content_type: str,
        file_name: str | None = None,
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | list[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload bytes and return the file's URL; see `headrace.AsyncClient.upload`."""
        _check_repositories(repository, fallback_repository)
        return await self._client.upload(data, content_type, file_name, lifecycle=lifecycle)

    async def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | list[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload a file and return its URL; see `headrace.AsyncClient.upload_file`."""
        _check_repositories(repository, fallback_repository)
        return await self._client.upload_file(path, lifecycle=lifecycle)

    async def upload_image(
        self,
        image: Picture,
        format: str = "jpeg",
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | list[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload a Pillow image and return its URL; see `headrace.AsyncClient.upload_image`."""
        _check_repositories(repository, fallback_repository)
        return await self._client.upload_image(image, format, lifecycle=lifecycle)


def _check_repositories(first: str | None, others: str | Sequence[str] | None) -> None:
    """Raise `ValueError` for a place that fal does not have, and warn of one that it had, as fal-client does."""
    for name in (first, *([others] if isinstance(others, str) else others or [])):
        if name == "cdn":
            warnings.warn(
                "the upload repository 'cdn' is an old name of 'fal_v3'", DeprecationWarning, stacklevel=3
            )
        elif name is not None and name not in _REPOSITORIES:
            raise ValueError(f"{name!r} is not an upload repository; expected one of {_REPOSITORIES}")
