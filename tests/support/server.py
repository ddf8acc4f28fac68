"""A real server for tests: `headrace serve` as a user starts it, on a port of its own, seen off without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping

ROOT = pathlib.Path(__file__).parents[2]
ZOO = ROOT / "tests" / "support" / "zoo.py"

#: Seconds after which a wait in a test has failed. Generous: machines are shared.
PATIENCE_S = 30.0

#: Seconds a server may take to start: two interpreters with all their imports, on a machine that is busy with others.
STARTING_S = 120.0


def eventually(is_true: Callable[[], object], what: str, *, seconds: float = PATIENCE_S) -> None:
    """Wait until `is_true()` holds, or fail saying what was waited for."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclasses.dataclass
class Server:
    """A running `headrace serve`."""

    process: subprocess.Popen[bytes]
    port: int
    folder: pathlib.Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request. A `bytes` body goes as it is, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("POST", path, {} if body is None else body, headers)

    def open(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> RawStream:
        """POST and leave the answer unread."""
        stream = RawStream(self.port)
        stream.post(path, {} if body is None else body, headers)
        return stream

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.request("GET", "/ready").status == 200
        return False

    def runner_pids(self) -> list[int]:
        """The runner processes that live now."""
        return [pid for pid in self.children() if b"guardian.py" not in _command_of(pid)]

    def children(self) -> list[int]:
        """All processes that it started and that live now: its runners, and the guardian of what those start."""
        return [pid for pid, parent, _ in processes() if parent == self.process.pid]

    def notes(self) -> list[str]:
        """What the zoo's models wrote down about their own lives."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def release(self, name: str) -> None:
        """Let those models go on that wait for the file `$ZOO_NOTES.NAME`."""
        (self.folder / f"notes.{name}").touch()

    def saw(self, note: str) -> Callable[[], bool]:
        return lambda: note in self.notes()


class RawStream:
    """A client down to the bytes: what arrived, and how the connection ended."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.bytes = b""

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(data)}", "", ""]
        self.socket.sendall("\r\n".join(lines).encode() + data)

    def read_until(self, text: bytes) -> bytes:
        """Read until `text` has arrived; fail when the connection ends before."""
        while text not in self.bytes:
            piece = self.socket.recv(65_536)
            if not piece:
                raise AssertionError(f"the connection ended before {text!r}; it said {self.bytes[-500:]!r}")
            self.bytes += piece
        return self.bytes

    def read_to_end(self) -> bytes:
        """Read until the server closes."""
        while piece := self.socket.recv(65_536):
            self.bytes += piece
        return self.bytes

    @property
    def head(self) -> bytes:
        return self.bytes.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """What of the chunked body arrived."""
        return dechunked(self.bytes.partition(b"\r\n\r\n")[2])[0]

    @property
    def is_whole(self) -> bool:
        """Whether the final chunk arrived: a clean end."""
        return dechunked(self.bytes.partition(b"\r\n\r\n")[2])[1]

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def __enter__(self) -> RawStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def dechunked(data: bytes) -> tuple[bytes, bool]:
    """Return the body inside chunked bytes, as far as it goes, and whether its final chunk is there."""
    body = b""
    while match := re.match(rb"([0-9a-fA-F]+)\r\n", data):
        size = int(match[1], 16)
        data = data[match.end() :]
        if size == 0:
            return body, data.startswith(b"\r\n")
        body += data[:size]
        data = data[size + 2 :]
    return body, False


def data_events(body: bytes) -> list[dict[str, object]]:
    """The JSON of every `data:` line."""
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]


def processes() -> list[tuple[int, int, int]]:
    """Every live process: (pid, parent, process group). Zombies are not alive."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found.append((int(entry.name), int(fields[1]), int(fields[2])))
    return found


def _command_of(pid: int) -> bytes:
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has just left


@contextlib.contextmanager
def running_server(
    *targets: object,
    args: tuple[str, ...] = ("--no-auth",),
    limits: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    until_ready: bool = True,
    data_dir: pathlib.Path | None = None,
) -> Iterator[Server]:
    """Start `headrace serve TARGETS --port 0`; stop it with SIGTERM, and check that nothing is left behind."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="headrace-test-"))
    if limits:
        settings = "\n".join(f"{name} = {value}" for name, value in limits.items())
        (folder / "headrace.toml").write_text(f"[limits]\n{settings}\n")
    command = [sys.executable, "-m", "headrace", "serve", *map(str, targets or (ZOO,)), "--port", "0", *args]
    command += ["--data-dir", str(data_dir or folder / "data")]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), "ZOO_NOTES": str(folder / "notes")}
    for name in [name for name in environment if name.startswith(("HEADRACE_", "FAL_"))]:
        del environment[name]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**environment, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    server = Server(process, 0, folder)
    try:
        server.port = _announced_port(server)
        if until_ready:
            eventually(server.is_ready, f"ready; the log says:\n{server.log}", seconds=STARTING_S)
        yield server
    except BaseException:
        print(server.log[-8_000:], file=sys.stderr)
        raise
    finally:
        _stop(server)


def _announced_port(server: Server) -> int:
    def found() -> re.Match[str] | None:
        if server.process.poll() is not None:
            raise AssertionError(f"the server left with {server.process.returncode}:\n{server.log}")
        return re.search(r"serves on http://[^ ]*:(\d+)", server.log)

    eventually(found, "the server says where it listens", seconds=STARTING_S)
    match = found()
    assert match is not None
    return int(match[1])


def _stop(server: Server) -> None:
    runners = server.runner_pids()
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)  # a second one hurries
    try:
        server.process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.process.pid, signal.SIGKILL)
        raise AssertionError(f"the server did not stop:\n{server.log[-4_000:]}") from None
    groups = set(runners)
    eventually(
        lambda: not [pid for pid, _, group in processes() if group in groups], "every runner's group is gone"
    )
