"""One exchange over a raw socket, recorded: what was sent is what was given, what came is kept to the byte.

Every exchange has a connection of its own, so that how it ends says something about it alone. Proxies of the
environment are not used: they would answer for the server. TLS trusts what the platform trusts, or the file that
SSL_CERT_FILE names.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from headrace.client.conformance.answer import Answer, AnswerParser, Ending

#: Bytes of one answer, and seconds of one exchange, after which we leave: a stream may be endless.
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
EXCHANGE_S_MAX: Final = 600.0

_READ_BYTES: Final = 64 * 1024
#: SO_LINGER on, with no time: closing sends RST (socket(7)).
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Leave(enum.Enum):
    """How we close a connection whose answer has not ended."""

    FIN = "fin"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Target:
    """The server, `http(s)://HOST[:PORT][/PREFIX]` without a slash at its end, and the key it gets, if any."""

    url: str
    key: str | None = field(default=None, repr=False)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> bytes:
        """Return a request as the official clients send it; `headers` are set over theirs, None leaves one out."""
        parts = urlsplit(self.url)
        lines: dict[str, str | None] = {
            "Host": parts.netloc,
            "User-Agent": "headrace-conformance",
            "Accept": "text/event-stream",
            # The clients offer it on streams too; a stream must not be compressed for all that.
            "Accept-Encoding": "gzip, deflate",
            "Authorization": None if self.key is None else f"Key {self.key}",
            "Content-Type": None if body is None else "application/json",
            "Content-Length": None if body is None else str(len(body)),
            **(headers or {}),
        }
        head = [f"{method} {parts.path}{path} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in lines.items() if value is not None]
        return "\r\n".join([*head, "", ""]).encode("ascii") + (body or b"")


def record(
    target: Target,
    request: Iterable[bytes],
    *,
    patience_s: float,
    until: bytes | None = None,
    leave: Leave = Leave.FIN,
) -> Answer:
    """Send a request, piece by piece, and return what came back; never raises for anything a peer may do.

    Sending stops once an answer begins. Reading stops at the answer's end, after `patience_s` seconds without a
    byte, or, with `until`, as soon as these bytes have come: then the connection is closed as `leave` says.
    """
    try:
        connection = _connect(target, patience_s)
    except OSError as error:  # refused, no such host, a certificate that is not trusted
        return AnswerParser().answer(Ending.UNREACHABLE, 0.0, str(error))
    with connection:
        recorder = _Recorder(connection)
        ending = recorder.send(request, patience_s) or recorder.read(patience_s, until)
        if leave is Leave.RESET:
            with contextlib.suppress(OSError):  # it is closed already
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        return recorder.parser.answer(ending, recorder.now())


def _connect(target: Target, patience_s: float) -> socket.socket:
    parts = urlsplit(target.url)
    host = parts.hostname or ""
    is_tls = parts.scheme == "https"
    connection = socket.create_connection((host, parts.port or (443 if is_tls else 80)), timeout=patience_s)
    if not is_tls:
        return connection
    try:
        context = ssl.create_default_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR
        context.set_alpn_protocols(["http/1.1"])
        return context.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


class _Recorder:
    """A connection and what came over it."""

    def __init__(self, connection: socket.socket) -> None:
        self.parser = AnswerParser()
        self._connection = connection
        self._started = time.monotonic()
        self._received = bytearray()

    def now(self) -> float:
        """Return the seconds since the connection stood."""
        return time.monotonic() - self._started

    def send(self, pieces: Iterable[bytes], patience_s: float) -> Ending | None:
        """Send until all is sent or an answer begins; return how the connection ended, if it did."""
        for piece in pieces:
            ending = self._receive(0.0)
            if ending is not Ending.SILENT:
                return ending
            self._connection.settimeout(patience_s)
            try:
                self._connection.sendall(piece)
            except OSError:  # it takes no more; what it said before is still to be read
                return None
        return None

    def read(self, patience_s: float, until: bytes | None) -> Ending:
        """Read to the answer's end, to `until`, or to the end of our patience."""
        searched = 0
        while True:
            if until is not None:
                if self._received.find(until, searched) >= 0:
                    return Ending.LEFT
                searched = max(0, len(self._received) - len(until))
            if self.parser.is_complete:
                return Ending.COMPLETE
            if self.parser.fault or len(self._received) > ANSWER_BYTES_MAX or self.now() > EXCHANGE_S_MAX:
                return Ending.LEFT
            ending = self._receive(patience_s)
            if ending is not None:
                return ending

    def _receive(self, timeout_s: float) -> Ending | None:
        """Read once; return what ended instead, SILENT when nothing came in time."""
        self._connection.settimeout(timeout_s)
        try:
            data = self._connection.recv(_READ_BYTES)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return Ending.SILENT
        except OSError:
            return Ending.RESET
        if not data:
            return Ending.FIN
        self._received += data
        self.parser.feed(data, self.now())
        return None
