"""The body of an HTTP/1.1 message: raw bytes to payload, and whether it is whole (RFC 9112 sections 6 and 7).

The sync shell reads sockets in big pieces and takes the chunks out here, for a fifth of the CPU of `http.client`'s
own reading, which costs three calls a chunk; and, unlike it, never takes a cut for an end. (aiohttp does the
same in C.) Knows nothing of events.
"""

from __future__ import annotations

from typing import Final

#: Bytes of one chunk-size line or trailer, and of all trailers together. llhttp allows 16 KiB of extensions.
_LINE_BYTES_MAX: Final = 16 * 1024
_TRAILERS_BYTES_MAX: Final = 64 * 1024


class BadFraming(ValueError):
    """The chunks are not chunks."""


class ChunkedBody:
    """`Transfer-Encoding: chunked`. `is_whole` once the last chunk and its trailers are read."""

    def __init__(self) -> None:
        self.is_whole = False
        self._kept = b""  # the beginning of a line that a piece cut
        self._left: int | None = (
            None  # bytes of the open chunk still to come; 0: only its CRLF; None: no open chunk
        )
        self._trailers_bytes: int | None = None  # None: not there yet

    @property
    def has_surplus(self) -> bool:
        """Whether bytes followed the whole body: the connection cannot serve another request."""
        return self.is_whole and bool(self._kept)

    def feed(self, data: bytes) -> bytes:
        """Return the payload in this piece. Raises `BadFraming`."""
        if self._kept:
            data = self._kept + data
            self._kept = b""
        payload: list[bytes] = []
        at = 0 if self._left is None else self._through_chunk(data, payload)
        end = len(data)
        while at < end and not self.is_whole:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                if end - at > _LINE_BYTES_MAX:
                    raise BadFraming("a line between chunks is too long")
                break
            if self._trailers_bytes is not None:
                self._trailer(line_end - at)
                at = line_end + 2
                continue
            size = _chunk_size(data[at:line_end])
            start = line_end + 2
            at = start + size + 2
            if size and at <= end and data.startswith(b"\r\n", at - 2):  # the usual case: the whole chunk is here
                payload.append(data[start : at - 2])
            elif size:
                self._left = size
                at = start + self._through_chunk(data[start:], payload)
            else:
                self._trailers_bytes = 0
                at = start
        self._kept = data[at:]
        return b"".join(payload)

    def _through_chunk(self, data: bytes, payload: list[bytes]) -> int:
        """Take what is here of the open chunk; return where the next line starts."""
        left = self._left or 0
        payload.append(data[:left])
        self._left = max(0, left - len(data))
        ending = data[left : left + 2]
        if not b"\r\n".startswith(ending):
            raise BadFraming("a chunk is longer than its size")
        if len(ending) == 2:
            self._left = None
            return left + 2
        return min(left, len(data))

    def _trailer(self, line_bytes: int) -> None:
        self._trailers_bytes = (self._trailers_bytes or 0) + line_bytes
        if self._trailers_bytes > _TRAILERS_BYTES_MAX:
            raise BadFraming("the trailers are too long")
        self.is_whole = line_bytes == 0


class SizedBody:
    """`Content-Length`. `is_whole` once so many bytes came."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.is_whole = size == 0
        self.has_surplus = False

    def feed(self, data: bytes) -> bytes:
        """Return the payload in this piece; what follows the body is not ours."""
        payload = data[: self._left]
        self.has_surplus = len(data) > self._left
        self._left -= len(payload)
        self.is_whole = self._left == 0
        return payload


class OpenBody:
    """Neither: the body ends with the connection, and nothing tells an end from a cut. Never `is_whole`."""

    is_whole = False
    has_surplus = False

    def feed(self, data: bytes) -> bytes:
        """Return the piece."""
        return data


Body = ChunkedBody | SizedBody | OpenBody


def _chunk_size(line: bytes) -> int:
    """Read `chunk-size [ chunk-ext ]`, which Python's own `int` is too generous for."""
    if not line.isalnum():
        line = line.partition(b";")[0].rstrip(b" \t")
    if not line.isalnum() or len(line) > 15 or line[:2] in {b"0x", b"0X"}:
        raise BadFraming("a chunk has no size")
    try:
        return int(line, 16)
    except ValueError:
        raise BadFraming("a chunk has no size") from None
