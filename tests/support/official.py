"""fal's own clients as users run them, each in a process of its own: fal-client for Python, @fal-ai/client for Node.

They find a server of ours by what `headrace env` prints, as a user's shell would. The JavaScript client is installed
from tests/contract/clients/package-lock.json, once, into `.venv/node`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from tests.support.server import ROOT, Server, running_server

CLIENTS = ROOT / "tests" / "contract" / "clients"
SNIPPETS = CLIENTS / "snippets"
NODE_PACKAGES = ROOT / ".venv" / "node"

#: Seconds the package registry may take.
INSTALL_S = 180.0

#: Seconds one program may take for one call: it starts, imports its client, and may wait for a runner that died.
PROGRAM_S = 90.0


def lacking(reason: str) -> NoReturn:
    """Skip, saying what is missing; in CI nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@functools.cache
def _installed() -> pathlib.Path | str:
    """Return the folder that has node_modules, or why there is none."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"{program} is missing: the JavaScript client needs Node 20 or later with npm"
    lock = (CLIENTS / "package-lock.json").read_bytes()
    folder = NODE_PACKAGES / hashlib.sha256(lock).hexdigest()[:12]
    if folder.exists():
        return folder
    NODE_PACKAGES.mkdir(parents=True, exist_ok=True)
    with (NODE_PACKAGES / "lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        return folder if folder.exists() else _install(folder)


def _install(folder: pathlib.Path) -> pathlib.Path | str:
    # Installed aside and moved into place whole, so that a run that is killed leaves no half of it.
    with tempfile.TemporaryDirectory(dir=NODE_PACKAGES, prefix="new-") as new:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(CLIENTS / name, new)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            npm = subprocess.run(
                command, cwd=new, timeout=INSTALL_S, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return f"npm ci did not end within {INSTALL_S:g} s"
        if npm.returncode != 0:
            return f"npm ci failed: {npm.stderr[-500:]}"
        with contextlib.suppress(OSError):  # the other run was first
            pathlib.Path(new).rename(folder)
            pathlib.Path(new).mkdir()  # for TemporaryDirectory to remove
    return folder


def need_node() -> pathlib.Path:
    """Return the folder from which Node finds `@fal-ai/client`. Skips with the reason, but fails in CI."""
    found = _installed()
    return found if isinstance(found, pathlib.Path) else lacking(found)


@dataclass
class OfficialServer:
    """A server with authentication and TLS, and what its clients are told about it."""

    server: Server
    tls_port: int
    environment: Mapping[str, str]

    @property
    def ca(self) -> pathlib.Path:
        return self.server.folder / "data" / "tls" / "ca.pem"

    @property
    def proxy_url(self) -> str:
        return f"{self.server.url}/fal/proxy"


@contextlib.contextmanager
def official_server(
    *targets: object, args: tuple[str, ...] = (), limits: Mapping[str, object] | None = None
) -> Iterator[OfficialServer]:
    """Serve with keys and TLS; the environment is what `eval "$(headrace env --node)"` makes of a user's shell."""
    with running_server(*targets, args=("--tls", "--tls-port", "0", *args), limits=limits) as server:
        tls_port = tls_port_of(server)
        yield OfficialServer(server, tls_port, shell_after_headrace_env(server, tls_port))


def command_of(program: str, to: OfficialServer) -> tuple[list[str], pathlib.Path]:
    """Return the command that starts a program of tests/contract/clients, and the folder to start it in."""
    if program.endswith(".py"):
        return [sys.executable, str(CLIENTS / program)], to.server.folder
    return ["node", "--input-type=module", "--eval", module(program), "--"], need_node()


def module(program: str) -> str:
    """Return a module of tests/contract/clients as text: its imports are then looked up from the current folder.

    It begins with stalls.mjs, so that it can tell for how long it was held up itself.
    """
    return (CLIENTS / "stalls.mjs").read_text() + (CLIENTS / program).read_text()


def tls_port_of(server: Server) -> int:
    """Return the port that a server started with `--tls` says it serves https on."""
    found = re.search(r"serves on https://[^ ]*:(\d+)", server.log)
    assert found, server.log
    return int(found[1])


def key_of(server: Server) -> str:
    """Return the key that a server made at its first start, from where it keeps it for the user."""
    kept = json.loads((server.folder / "config" / "headrace" / "credentials").read_text())
    return kept[server.url]


def shell_after_headrace_env(server: Server, tls_port: int) -> dict[str, str]:
    """Return the environment of a shell that has run `eval "$(headrace env --node)"`."""
    script = 'set -e; lines="$("$@")"; eval "$lines"; exec env -0'
    command = [sys.executable, "-m", "headrace", "env", "--node", "--url", server.url]
    command += ["--data-dir", str(server.folder / "data"), "--tls-port", str(tls_port)]
    shell = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=server.folder, env=users_environment(server), capture_output=True, text=True, timeout=PROGRAM_S,
    )  # fmt: skip
    assert shell.returncode == 0, shell.stderr
    return dict(line.partition("=")[::2] for line in shell.stdout.split("\0") if line)


def users_environment(server: Server) -> dict[str, str]:
    """Return this process's environment as a user of that server would have it, before any `headrace env`."""
    names = [name for name in os.environ if not name.startswith(("HEADRACE_", "FAL_"))]
    return {name: os.environ[name] for name in names} | {"XDG_CONFIG_HOME": str(server.folder / "config")}


@dataclass
class Outcome:
    """What became of one call, as its client told it."""

    items: list[Any] = field(default_factory=list)
    result: Any = None
    request_id: str | None = None
    error: dict[str, Any] | None = None
    exit_status: int = 0
    complaint: str = ""  # what it wrote to stderr
    stalled_s: float = 0.0  # the longest that it was held up itself, where it tells that


@dataclass(frozen=True)
class Client:
    """One way to use one of the official clients: a program of tests/contract/clients, and what it is to do."""

    name: str
    program: str
    streams_by: str
    runs_by: str = "run"

    @contextlib.contextmanager
    def streaming(
        self, to: OfficialServer, endpoint: str, input: object, **more: object
    ) -> Iterator[subprocess.Popen[str]]:
        """Begin a stream; `more` may have `options` for the client and `leave_after`, a count of items."""
        with self._started(to, self.streams_by, {"endpoint": endpoint, "input": input, **more}) as process:
            yield process

    def stream(
        self, to: OfficialServer, endpoint: str, input: object, *, seconds: float = PROGRAM_S, **more: object
    ) -> Outcome:
        with self.streaming(to, endpoint, input, **more) as process:
            return outcome(process, seconds=seconds)

    def run(self, to: OfficialServer, endpoint: str, input: object, **more: object) -> Outcome:
        with self._started(to, self.runs_by, {"endpoint": endpoint, "input": input, **more}) as process:
            return outcome(process)

    @contextlib.contextmanager
    def _started(self, to: OfficialServer, kind: str, call: object) -> Iterator[subprocess.Popen[str]]:
        command, folder = command_of(self.program, to)
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*command, kind, json.dumps(call)],
            cwd=folder, env=to.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def outcome(process: subprocess.Popen[str], *, seconds: float = PROGRAM_S) -> Outcome:
    """Let a client come to its end, and return what it told."""
    told, complaint = process.communicate(timeout=seconds)
    outcome = Outcome(exit_status=process.returncode, complaint=complaint)
    for line in filter(None, told.split("\n")):  # U+2028 is no end of a line here
        for name, value in json.loads(line).items():
            if name == "item":
                outcome.items.append(value)
            elif name != "left":
                setattr(outcome, name, value)
    return outcome


PYTHON = Client("python", "call.py", "stream")
PYTHON_ASYNC = Client("python async", "call.py", "stream_async", "run_async")
JAVASCRIPT = Client("javascript", "call.mjs", "loop")
JAVASCRIPT_LISTENERS = Client("javascript listeners", "call.mjs", "listeners")
#: `for await` and nothing else, as one writes it at first.
JAVASCRIPT_BARE = Client("javascript bare", "call.mjs", "bare")

CLIENTS_OF_FAL = (PYTHON, PYTHON_ASYNC, JAVASCRIPT, JAVASCRIPT_LISTENERS)
