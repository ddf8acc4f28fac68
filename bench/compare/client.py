"""A client down to the bytes: which events came, and how the connection ended.

Libraries decide for their users what a cut looks like; here nothing is decided, so that all servers are seen alike.
"""

import contextlib
import http.client
import json
import re
import socket
import time

#: Bytes taken from a socket at once.
RECEIVE_BYTES = 64 * 1024

#: How a stream can end. WHOLE is what HTTP says of a body that was sent completely.
WHOLE, CUT, OPEN = "whole", "cut", "open"


class Stream:
    """One POST and its answer, read as far as it is asked for."""

    def __init__(self, port: int, path: str, body: object) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5.0)
        self._raw = b""
        self._is_closed = False
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    def read(self, deadline: float, events: int | None = None) -> None:
        """Read until so many events are there, the answer has ended, or `deadline` (of time.monotonic) has come."""
        while self.ending is OPEN and (events is None or self.events < events):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._socket.settimeout(left)
            try:
                piece = self._socket.recv(RECEIVE_BYTES)
            except TimeoutError:
                return
            except OSError:  # a reset is a cut as well
                piece = b""
            self._raw += piece
            self._is_closed = not piece

    @property
    def status(self) -> int | None:
        """Return the HTTP status; None before there is one."""
        found = re.match(rb"HTTP/1\.[01] (\d{3}) ", self._raw)
        return int(found[1]) if found else None

    @property
    def events(self) -> int:
        """Return how many items came."""
        return len(re.findall(rb'^data: \{"index"', self._body()[0], re.MULTILINE))

    @property
    def error(self) -> str | None:
        """Return the type that an error event tells, or its whole text; None when no event tells of an error."""
        found = re.search(rb"^event: error\r?\ndata: (.*)$", self._body()[0], re.MULTILINE)
        if not found:
            return None
        with contextlib.suppress(ValueError, LookupError, TypeError):
            return json.loads(found[1])["error"]["type"]
        return found[1].decode(errors="replace")

    @property
    def ending(self) -> str:
        """Return whether the answer ended whole, was cut, or is still open."""
        if self._body()[1]:
            return WHOLE
        return CUT if self._is_closed else OPEN

    def _body(self) -> tuple[bytes, bool]:
        """Return the body so far, and whether it is complete."""
        head, blank, rest = self._raw.partition(b"\r\n\r\n")
        if not blank:
            return b"", False
        if found := re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE):
            return rest, len(rest) >= int(found[1])
        return _dechunked(rest)

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _dechunked(data: bytes) -> tuple[bytes, bool]:
    """Return what chunked bytes hold, as far as they go, and whether the final chunk is among them."""
    body = b""
    while found := re.match(rb"([0-9a-fA-F]+)[^\r]*\r\n", data):
        size = int(found[1], 16)
        if size == 0:
            return body, True
        body += data[found.end() : found.end() + size]
        data = data[found.end() + size + 2 :]
    return body, False


def status_of(port: int, path: str) -> int | None:
    """Return what a GET is answered with; None when there is no answer within a second."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
