"""The node's end of a runner's socket: starts a real runner process and speaks the frames, nothing else.

It waits with deadlines and keeps what it has read per stream, so that a test can ask in any order.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from headrace.core.frames import FrameReader, Kind, encode, pieces
from headrace.core.limits import Limits

PLENTY = 1 << 30
#: Seconds a runner may take for anything. It is a process of its own, and its start costs seconds on a busy machine.
DEADLINE_S = 60.0


class RunnerGone(Exception):
    """The runner hung up; carries its log."""


class PretendNode:
    """One runner and the other end of its link. A context manager: leaving it kills what is left."""

    def __init__(self, target: str, *, limits: Mapping[str, Any] | None = None, cwd: Path | None = None) -> None:
        self.limits = Limits(**(limits or {}))
        self.socket, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "headrace.runner", "--fd", str(theirs.fileno()), "--target", target]
        if limits:
            command += ["--limits", json.dumps(limits)]
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            cwd=cwd,
        )
        theirs.close()
        self._reader = FrameReader(
            frame_bytes_max=self.limits.frame_bytes_max, message_bytes_max=self.limits.message_bytes_max
        )
        self._unread: dict[int, deque[tuple[Kind, bytes]]] = defaultdict(deque)
        self.bytes_of: dict[int, int] = defaultdict(int)
        self.order: list[tuple[Kind, int]] = []  # of the messages, as each became whole
        self._next_stream = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()

    @property
    def log(self) -> str:
        """What the runner has printed so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()

    # --- down ---------------------------------------------------------------------------------------------

    def send(self, kind: Kind, stream: int = 0, payload: bytes = b"") -> None:
        self.socket.sendall(b"".join(pieces(kind, stream, payload, self.limits.frame_bytes_max)))

    def setup(self, app: str | None = None) -> dict[str, Any]:
        """HELLO, SETUP, READY; return HELLO."""
        kind, payload = self.receive(0)
        assert kind is Kind.HELLO, (kind, payload, self.log)
        hello = json.loads(payload)
        self.send(Kind.SETUP, 0, json.dumps({"app": app or hello["apps"][0]["name"]}).encode())
        assert self.receive(0) == (Kind.READY, b""), self.log
        return hello

    def start(self, path: str = "/", body: object = None, *, window: int = PLENTY, kind: Kind = Kind.START) -> int:
        """START (or CHECK) on a new stream; return its number. `body` is bytes as they are, or JSON."""
        stream, self._next_stream = self._next_stream, self._next_stream + 1
        head = {
            "request_id": f"r-{stream}",
            "path": path,
            "headers": {"X-Trace": "t"},
            "attempt": 1,
            "window": window,
        }
        raw = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        self.send(kind, stream, json.dumps(head).encode() + b"\n" + raw)
        return stream

    def grant(self, stream: int, window_bytes: int) -> None:
        self.socket.sendall(encode(Kind.WINDOW, stream, window_bytes.to_bytes(4, "big")))

    def cancel(self, stream: int, reason: str = "client_disconnected") -> None:
        self.send(Kind.CANCEL, stream, reason.encode())

    # --- up -----------------------------------------------------------------------------------------------

    def pump(self, timeout_s: float, bytes_max: int = 1 << 20) -> bool:
        """Read once, for at most `timeout_s`; say whether anything came. Raises `RunnerGone`."""
        if not select.select([self.socket], [], [], timeout_s)[0]:
            return False
        try:
            data = self.socket.recv(bytes_max)
        except ConnectionError:
            data = b""
        if not data:
            raise RunnerGone(self.log)
        for kind, stream, payload in self._reader.feed(data):
            self._unread[stream].append((Kind(kind), payload))
            self.bytes_of[stream] += len(payload)
            self.order.append((Kind(kind), stream))
        return True

    def receive(self, stream: int, deadline_s: float = DEADLINE_S) -> tuple[Kind, bytes]:
        """The next message of a stream."""
        ends = time.monotonic() + deadline_s
        while not self._unread[stream]:
            left = ends - time.monotonic()
            if left <= 0 or not self.pump(left):
                raise TimeoutError(f"nothing on stream {stream} for {deadline_s} s; the runner's log:\n{self.log}")
        return self._unread[stream].popleft()

    def read_until(self, is_true: Callable[[], object]) -> None:
        """Read until `is_true()` of what has come."""
        while not is_true():
            assert self.pump(DEADLINE_S), f"nothing for {DEADLINE_S} s; the runner's log:\n{self.log}"

    def is_quiet(self, seconds: float) -> bool:
        """Whether the runner sends nothing at all for so long."""
        return not self.pump(seconds)

    def events(self, stream: int) -> list[Any]:
        """What has come on a stream and was not read, events decoded."""
        unread = self._unread[stream]
        return [json.loads(payload) for kind, payload in unread if kind is Kind.EVENT]

    def finish(self, stream: int) -> tuple[list[Any], dict[str, Any] | None]:
        """Read a stream to its end: its events, and its error or None."""
        events: list[Any] = []
        while True:
            kind, payload = self.receive(stream)
            match kind:
                case Kind.EVENT:
                    payload.decode("ascii")
                    events.append(json.loads(payload))
                case Kind.DONE:
                    return events, None
                case Kind.ERROR:
                    return events, json.loads(payload)
                case _:
                    raise AssertionError(f"{kind!r} on a request's stream")

    def call(self, path: str = "/", body: object = None) -> tuple[list[Any], dict[str, Any] | None]:
        """START and read to the end."""
        return self.finish(self.start(path, body))

    def check(self, path: str, body: object) -> dict[str, Any] | None:
        """CHECK: the error, or None."""
        kind, payload = self.receive(self.start(path, body, kind=Kind.CHECK))
        assert kind is Kind.CHECKED
        return json.loads(payload) if payload else None

    def fault(self) -> dict[str, Any]:
        """The FAULT that the runner leaves with, after any HELLO."""
        kind, payload = self.receive(0)
        assert kind is Kind.FAULT, (kind, payload)
        return json.loads(payload)

    def exit_status(self, deadline_s: float = DEADLINE_S) -> int:
        return self.process.wait(deadline_s)
