"""The four servers: how each is started with its defaults, where it streams, and how it is stopped.

Nothing is tuned and nothing is pinned: one worker, which is everybody's default. It knows nothing of what is measured.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.compare.client import WHOLE, Stream
from bench.servers import ROOT, free_port, stop
from bench.tree import descendants, proportional_bytes

PEERS = ROOT / "bench" / "compare" / "peers"
#: Peers live in an environment of their own, away from our pins.
ENVIRONMENT = ROOT / ".venv" / "compare"

#: Seconds a server may take from its start to its first whole answer. BentoML imports for some of them.
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """One server under comparison."""

    name: str  # as the tables call it
    key: str  # as the command line calls it
    package: str  # whose version says which server it was
    command: Callable[[int, str], list[str]]  # (port, "sync" or "async") to argv
    health: str  # the path that says it lives
    path: str = "/{}"  # where "sync" and "async" stream
    is_peer: bool = True  # needs the peers' environment


def _bin(name: str) -> str:
    return str(ENVIRONMENT / "bin" / name)


def _litserve(*options: str) -> Callable[[int, str], list[str]]:
    return lambda port, colour: [_bin("python"), str(PEERS / "litserve_app.py"), str(port), colour, *options]


def _bentoml(port: int, _: str) -> list[str]:
    service = "bench.compare.peers.bentoml_app:Compare"
    return [_bin("bentoml"), "serve", service, "--host", "127.0.0.1", "--port", str(port)]


def _fastapi(*options: str) -> Callable[[int, str], list[str]]:
    app = "bench.compare.peers.fastapi_app:app"
    return lambda port, _: [_bin("uvicorn"), app, "--port", str(port), *options]


def _headrace(port: int, _: str) -> list[str]:
    app = PEERS / "headrace_app.py"
    return [sys.executable, "-m", "headrace", "serve", str(app), "--no-auth", "--port", str(port)]


SERVERS = (
    Server("LitServe", "litserve", "litserve", _litserve(), "/health"),
    Server("BentoML", "bentoml", "bentoml", _bentoml, "/livez"),
    Server("FastAPI + StreamingResponse", "fastapi", "fastapi", _fastapi(), "/health"),
    Server("Headrace", "headrace", "headrace", _headrace, "/health", "/bench/compare/{}/stream", is_peer=False),
)

#: LitServe leaves when its worker dies, unless it is told otherwise.
LITSERVE_RESTARTING = Server(
    "LitServe, `restart_workers=True`", "litserve", "litserve", _litserve("restart"), "/health"
)
#: From two workers on, uvicorn starts a dead one again.
FASTAPI_WORKERS = Server(
    "FastAPI, `uvicorn --workers 2`", "fastapi", "fastapi", _fastapi("--workers", "2"), "/health"
)
#: FastAPI's newer way: a generator endpoint, framed by the framework.
FASTAPI_EVENTS = Server("FastAPI + EventSourceResponse", "fastapi", "fastapi", _fastapi(), "/health", "/events/{}")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that streams, and where its model's notes go."""

    server: Server
    colour: str  # "sync" or "async": which of the model's generators is asked for
    process: subprocess.Popen[bytes]
    port: int
    directory: Path
    _numbers: Iterator[int]

    def ask(
        self, items: int, *, every_s: float = 0.0, text_bytes: int = 8, fails_after: int = 0
    ) -> tuple[Stream, Path]:
        """Send one request; return its stream, and the file with the notes that the model takes of it."""
        notes = self.directory / f"notes-{next(self._numbers)}"
        options = {"items": items, "every_s": every_s, "text_bytes": text_bytes, "fails_after": fails_after}
        path = self.server.path.format(self.colour)
        return Stream(self.port, path, {**options, "notes": str(notes)}), notes

    def answers(self, within_s: float) -> bool:
        """Say whether a request for three items is answered whole."""
        with contextlib.suppress(OSError):
            stream, _ = self.ask(3)
            with stream:
                stream.read(time.monotonic() + within_s)
                return (stream.status, stream.events, stream.ending) == (200, 3, WHOLE)
        return False

    def has_left(self) -> bool:
        """Say whether the process that was started has ended."""
        return self.process.poll() is not None

    def memory_bytes(self) -> int:
        """Return what all of its processes hold, a shared page split between those that share it."""
        return sum(map(_held_by, descendants(self.process.pid)))


def _held_by(pid: int) -> int:
    """Return the PSS of a process; nothing when it has ended."""
    with contextlib.suppress(OSError, ValueError):
        return proportional_bytes(pid)
    return 0


@contextlib.contextmanager
def running(server: Server, colour: str) -> Iterator[Running]:
    """Start a server in an empty directory, wait until it streams, and stop it with all its processes at the end."""
    with tempfile.TemporaryDirectory() as name, (Path(name) / "output").open("w+b") as output:
        port = free_port()
        process = subprocess.Popen(
            server.command(port, colour),
            cwd=name,
            env=_environment(name),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        one = Running(server, colour, process, port, Path(name), itertools.count())
        try:
            _wait_until_it_streams(one)
            yield one
        except Exception as error:
            output.seek(0)
            error.add_note(f"{server.name} printed:\n{output.read().decode(errors='replace')[-4000:]}")
            raise
        finally:
            stop(process)
            with contextlib.suppress(ProcessLookupError):  # what a server that was killed left behind
                os.killpg(process.pid, signal.SIGKILL)


def _environment(directory: str) -> dict[str, str]:
    """Return this environment without anybody's settings, and with homes that are thrown away."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HEADRACE_", "FAL_", "BENTOML_", "LIT_", "UVICORN_"))
    }
    homes = {"BENTOML_HOME": f"{directory}/bentoml", "HEADRACE_DATA_DIR": f"{directory}/headrace"}
    return {**kept, **homes, "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True"}


def _wait_until_it_streams(one: Running) -> None:
    """Return once a request was answered whole; raise TimeoutError when none is."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and not one.has_left():
        if one.answers(within_s=5.0):
            return
        time.sleep(0.1)
    raise TimeoutError(f"{one.server.name} did not stream within {START_S:.0f} s of its start")


def version_of(server: Server) -> str:
    """Return the version of a server's package, as its own environment has it."""
    python = _bin("python") if server.is_peer else sys.executable
    script = f"from importlib.metadata import version; print(version({server.package!r}))"
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
