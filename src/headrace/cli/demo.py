"""`headrace demo`: a real model in your terminal, another in your browser, and the lines to call them yourself.

The server is a child process like any other `headrace serve`, on the user's own data folder: its key is kept in
the credentials file, so that `headrace stream` and the SDK find it from another terminal. A `headrace.toml` in
the current folder, meant for another server, does not count, and a server that runs already is left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Never
from urllib.parse import urlsplit

import typer

import headrace
from headrace import config
from headrace.cli import parts, weights
from headrace.cli.failures import Failure, told
from headrace.cli.help import examples

EXAMPLES = examples(
    "headrace demo", "headrace demo --once", "headrace demo --model ~/models/other.gguf --port 9000"
)

HOST: Final = "127.0.0.1"
APP: Final = "headrace/smollm2"
PROMPT: Final = "Explain in three sentences why the sky is blue."
PICTURES: Final = "headrace/landscapes"
PICTURE: Final = "sunset over the mountains, with a lake"

#: Seconds until the model must be loaded. A warm start takes one or two, a cold disk some more.
START_TIMEOUT_S: Final = 120.0

#: Seconds the server may take to leave; it drains for one.
STOP_TIMEOUT_S: Final = 15.0

#: Lines of the server's log that are shown when it fails.
_LOG_LINES: Final = 15


@told
def demo(
    model: Annotated[
        Path | None, typer.Option(metavar="FILE.gguf", help="Another chat model, in llama.cpp's format.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Leave after one stream.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to try first.")] = 8080,
) -> None:
    """Fetch a small language model, serve it, and stream an answer; then pictures, on the server's page.

    The first run downloads 93 MB; after that it needs no network.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    parts.need_engine()
    gguf = _own_model(model) if model else _pulled_model()
    with _served(gguf, port) as server:
        _stream_once(server)
        if once:
            return
        typer.echo(_picture_link(server))
        typer.echo(_invitation(server))
        with contextlib.suppress(KeyboardInterrupt):
            server.process.wait()
            raise Failure(f"the server ended by itself:\n{server.log_tail()}")


@dataclass(frozen=True, slots=True)
class _Server:
    """The demo's server."""

    process: subprocess.Popen[bytes]
    port: int
    key: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join(f"  {line}" for line in lines)

    def is_ready(self, app: str) -> bool:
        """Ask `/ready` whether an app's model is loaded. Raises `Failure` when it cannot be."""
        import http.client

        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/ready")
            answer = connection.getresponse()
            facts = json.load(answer)
        except OSError:  # it does not listen yet
            return False
        finally:
            connection.close()
        condition = facts["apps"][app]
        if fault := condition.get("fault"):
            raise Failure(f"the model did not start: {fault}")
        return bool(condition["state"] == "ready")


@contextlib.contextmanager
def _served(gguf: Path, port: int) -> Iterator[_Server]:
    """Serve the example until the block ends."""
    node = parts.node()
    free: int | None = node.next_free_port(HOST, port - 1)
    if free is None:
        raise Failure(f"port {port} and the hundred after it are taken; name another with --port")
    if free != port:
        _tell(f"port {port} is taken; using {free}")
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        settings = dataclasses.replace(config.load({}, folder=Path(folder)), host=HOST, port=free)
        key = _key(settings)
        log = Path(folder) / "serve.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "headrace", "serve", *_targets(), "--host", HOST),
                    *("--port", str(free), "--data-dir", str(settings.data_dir), "--log-level", "warning"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,  # away from a headrace.toml that is meant for another server
                env=_environment(gguf),
                process_group=0,  # Ctrl-C is for us; we end it when we are done
            )
        try:
            server = _Server(process, free, key, log)
            _wait_until_ready(server, APP)
            yield server
        finally:
            _stop(process)


def _key(settings: config.Config) -> str:
    try:
        key: str = parts.node().key_for_the_user(settings)
    except (headrace.BadCredentials, OSError) as error:
        raise Failure(f"no key for the demo: {error}") from error
    return key


def _environment(gguf: Path) -> dict[str, str]:
    """Return ours, less what is meant for another server."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**ours, "SMOLLM2_GGUF": str(gguf), "HEADRACE_DRAIN_S": "1"}


def _wait_until_ready(server: _Server, app: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.is_ready(app):
        if server.process.poll() is not None:
            raise Failure(f"the server did not start:\n{server.log_tail()}")
        if time.monotonic() >= deadline:
            raise Failure(f"the model was not loaded in {START_TIMEOUT_S:.0f} s:\n{server.log_tail()}")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stream_once(server: _Server) -> None:
    """Stream one prompt to the screen, as joined text even where stdout is a pipe: it is for reading."""
    from headrace.cli.client import asking
    from headrace.cli.screen import TerminalScreen

    typer.secho(f"> {PROMPT}", bold=True)
    with asking(server.url, server.key) as client, contextlib.closing(TerminalScreen(sys.stdout)) as screen:
        for item in client.stream(APP, {"prompt": PROMPT, "max_tokens": 160, "temperature": 0}):
            screen.show(item)


def _picture_link(server: _Server) -> str:
    """Have pictures made, and return a link to the page on which they are seen as they are made."""
    if not parts.has_pictures():
        return f"\nFor pictures, too: pip install 'headrace[landscapes]'\npage {server.url}/#{_code(server)}"
    from headrace.cli.client import asking

    _wait_until_ready(server, PICTURES)
    code = _code(server)
    with asking(server.url, server.key) as client:
        made = client.submit(PICTURES, {"prompt": PICTURE, "num_images": 4, "num_inference_steps": 50})
    return f"""
page {server.url}/{PICTURES}#{code}request={made.request_id}
     is painting "{PICTURE}"; the link opens once, within ten minutes"""


def _code(server: _Server) -> str:
    """Return the part of a link that brings its reader in. It is for a terminal alone: a pipe may be a log."""
    from headrace.cli.client import asking

    if not sys.stdout.isatty():
        return ""
    with asking(server.url, server.key) as client:
        page = client._call_json("POST", "/v1/page-link")["url"]  # noqa: SLF001 - the SDK keeps it for us
    return f"{urlsplit(page).fragment}&"


def _invitation(server: _Server) -> str:
    """Return the server's address and key, and lines that work when they are pasted."""
    python = "python" if shutil.which("python") == sys.executable else shlex.quote(sys.executable)
    return f"""
url  {server.url}
key  {server.key}

curl -N {server.url}/{APP}/stream \\
  -H 'Authorization: Key {server.key}' -H 'Content-Type: application/json' \\
  -d '{{"prompt": "Tell me a story.", "max_tokens": 100}}'

{python} -c "
import headrace
client = headrace.Client(url='{server.url}', key='{server.key}')
for item in client.stream('{APP}', {{'prompt': 'Tell me a story.', 'max_tokens': 100}}):
    print(item.get('delta', ''), end='', flush=True)
"

Ctrl-C stops the server."""


def _targets() -> list[str]:
    """Return what the demo serves: the pictures only where their engine is installed."""
    return [
        str(example(name)) for name in ("smollm2.py", *(["landscapes/app.py"] if parts.has_pictures() else []))
    ]


def example(name: str = "smollm2.py") -> Path:
    """Return one of the demo's apps: beside the package in a wheel, at the root of a checkout."""
    package = Path(headrace.__file__).parent
    for folder in (package / "examples", package.parents[1] / "examples"):
        if (folder / name).is_file():
            return folder / name
    raise Failure(f"examples/{name} is not in this install; reinstall headrace")


def _pulled_model() -> Path:
    model = weights.MODELS["smollm2"]
    return weights.path_of(model) if weights.is_present(model) else weights.pull(model, _tell)


def _own_model(path: Path) -> Path:
    if not path.is_file():
        raise Failure(f"{path} is not a file; --model takes a .gguf")
    return path.absolute()


def _tell(line: str) -> None:
    typer.secho(line, err=True, dim=True)


def _leave(number: int, _frame: FrameType | None) -> Never:
    """End as Ctrl-C does, the server first."""
    sys.exit(128 + number)
