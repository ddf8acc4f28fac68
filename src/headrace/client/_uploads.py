"""What the SDK thinks of an upload: what to send next, and what an answer or a failure means.

    POST  /storage/upload/initiate     the server names two URLs: where the bytes go, and where the file will be
    PUT   the first one                the bytes; of a large file, part after part, to …/<number>
    POST  …/complete                   of a large file: these were its parts

The URL that takes the bytes is a key itself, so ours goes to the first step alone. Values in, values out;
`_sync_files` and `_async_files` are the two shells that act on it.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from headrace.client import errors
from headrace.client._content import Body, Content, OnProgress
from headrace.client._queue import Retries
from headrace.client._request import Target, build_json, build_put, own_url
from headrace.client._storage import StorageSettings, lifecycle_headers

#: A file of more bytes than this goes in parts, as from fal's JavaScript client; so does the size of a part.
MULTIPART_BYTES: Final = 90 * 1024 * 1024
PART_BYTES: Final = 10 * 1024 * 1024

#: A step that failed is tried again: the same bytes come to the same file, or to a second one that nobody names.
_RETRIES: Final = Retries(3, of_silence=True, of_answers=True)

_QUERY: Final = "storage_type=fal-cdn-v3"


class Upload:
    """One file on its way.

    Send `request`, and tell what came of it: `answered` or `failed`. Once `is_over`, the file is at `url`.
    """

    def __init__(
        self,
        target: Target,
        content: Content,
        *,
        settings: StorageSettings | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.is_over = False
        self.url = ""
        self._target = target
        self._content = content
        self._headers = lifecycle_headers(settings)
        self._on_progress = on_progress
        self._has_parts = content.size > MULTIPART_BYTES
        self._upload_url = ""
        self._parts: list[dict[str, Any]] = []
        self._body: Body | None = None  # what `request` sends of the file
        self._tried = 0
        self._begin()

    def answered(self, value: Any) -> None:
        """Take the JSON of the answer to `request`. Raises `ProtocolError` for one that does not fit."""
        if not self._upload_url:
            self._upload_url, self.url = self._urls_in(value)
            self._send_next()
        elif not self._has_parts or self._body is None:
            self.is_over = True
        else:
            self._parts.append({"partNumber": len(self._parts) + 1, "etag": self._text_in(value, "etag")})
            self._tried = 0
            self._send_next()

    def failed(self, error: errors.HeadraceError, chance: float) -> float | None:
        """Return the seconds until `request`, which may be another one now, is to be sent; None to give up.

        Raises what went wrong on our side of the connection: with the file itself, or in the caller's callback.
        """
        if self._body is not None and self._body.fault is not None:
            raise self._body.fault from error
        self._tried += 1
        pause_s = _RETRIES.pause_s(error, self._tried, chance)
        if pause_s is not None and self._body is not None and not self._has_parts:
            # The URL takes the bytes once, and may have them: nobody can tell. So there will be another.
            self._begin()
        return pause_s

    def _begin(self) -> None:
        kind = "initiate-multipart" if self._has_parts else "initiate"
        name = self._content.file_name
        if name is not None:  # a name on a disk may be no text, which JSON must be
            name = name.encode(errors="replace").decode()
        said = {"content_type": self._content.content_type, "file_name": name}
        self._upload_url = ""
        self._body = None
        self.request = build_json(
            self._target,
            f"{self._target.url}/storage/upload/{kind}?{_QUERY}",
            {name: text for name, text in said.items() if text is not None},
            headers=self._headers,
        )

    def _send_next(self) -> None:
        """Make the request with the next bytes, or the one that says that they are all there."""
        at = len(self._parts) * PART_BYTES
        if self._has_parts and at >= self._content.size:
            self._body = None
            self.request = build_json(
                self._target, self._below("complete"), {"parts": self._parts}, with_key=False
            )
            return
        size = min(PART_BYTES, self._content.size - at) if self._has_parts else self._content.size
        url = self._below(str(len(self._parts) + 1)) if self._has_parts else self._upload_url
        self._body = Body(self._content, at, size, self._on_progress)
        self.request = build_put(url, self._body, size=size, content_type=self._content.content_type)

    def _below(self, name: str) -> str:
        parts = urlsplit(self._upload_url)
        return urlunsplit(parts._replace(path=f"{parts.path}/{name}"))

    def _urls_in(self, value: Any) -> tuple[str, str]:
        given = self._text_in(value, "upload_url")
        url = own_url(self._target, given)
        if url is None:
            where = given.partition("?")[0]  # behind it stands the key
            raise errors.ProtocolError(
                f"{self.request}: the file is to go to {where!r}, which is not on {self._target.url}. Call the "
                "server by the address that it gives itself, or set its public address to the one you call"
            )
        return url, self._text_in(value, "file_url")

    def _text_in(self, value: Any, name: str) -> str:
        text = value.get(name) if isinstance(value, dict) else None
        if not isinstance(text, str) or not text:
            raise errors.ProtocolError(f"{self.request}: the answer has no {name!r}. Does this server take files?")
        return text
