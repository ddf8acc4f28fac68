"""Files that are served as they lie in the package: which path has which, read once, with ETags.

Those of `PUBLIC` are scripts that any page may load, as from anybody's CDN: they need no key and are not asked
where the page is from. They hold nothing that is not in the package itself.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.core.ranges import is_known
from headrace.gateway.answers import Headers, request_id_header
from headrace.gateway.calls import Call

_FOLDER: Final = Path(__file__).parent / "static"

#: In an `Accept-Encoding`: gzip or anything, unless refused by a weight of nought (RFC 9110, section 12.5.3).
_GZIP: Final = re.compile(
    r"(?:^|,)\s*(?:gzip|\*)\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[^,]*)?(?:,|$)", re.IGNORECASE
)

#: Any page may take it and read it, also one that isolates itself (`Cross-Origin-Embedder-Policy`).
_OPEN: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, and the headers that it always has."""

    body: bytes
    etag: bytes
    headers: Headers

    @classmethod
    def read(cls, name: str, media_type: bytes, *extra: tuple[bytes, bytes]) -> StaticFile:
        """Read a file of the folder `static`."""
        body = (_FOLDER / name).read_bytes()
        # Weak: packed or not, it is the same file.
        etag = b'W/"%b"' % hashlib.sha256(body).hexdigest()[:32].encode("ascii")
        headers = [
            (b"content-type", media_type),
            (b"etag", etag),
            (b"cache-control", b"no-cache"),  # kept, but asked about each time: it may be newer
            (b"vary", b"accept-encoding"),
            (b"x-content-type-options", b"nosniff"),
            *extra,
        ]
        return cls(body, etag, headers)


#: What any page may load.
PUBLIC: Final[Mapping[str, StaticFile]] = {
    "/sdk/headrace.js": StaticFile.read("headrace.js", b"text/javascript; charset=utf-8", *_OPEN),
    "/sdk/headrace.d.ts": StaticFile.read("headrace.d.ts", b"text/plain; charset=utf-8", *_OPEN),
}


@functools.cache
def _packed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def answer(file: StaticFile, call: Call) -> None:
    """Answer with a file, or with 304 to who has it. Raises `RequestError` (405)."""
    call.allow("GET", "HEAD")
    headers = [*file.headers, request_id_header(call.id)]
    if is_known(call.headers.get("if-none-match"), file.etag.decode("ascii")):
        call.answer((304, headers, b""))
        return
    body = file.body
    if _GZIP.search(call.headers.get("accept-encoding", "")):
        body = _packed(body)
        headers.append((b"content-encoding", b"gzip"))
    call.answer((200, [*headers, (b"content-length", b"%d" % len(body))], body))
