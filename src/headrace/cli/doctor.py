"""`headrace doctor`: what this machine has and lacks, a line for each, and the line that mends what is wrong.

    ✓   as it should be
    –   absent or unknown, and nothing is wrong with that
    ✗   wrong; the line below mends it

Each check looks at one thing and returns a `Finding`. None changes anything.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import platform
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace import config
from headrace.cli import parts, weights
from headrace.cli.failures import Failure, told
from headrace.cli.help import examples
from headrace.core.keys import KeyFault
from headrace.settings import SETTINGS

if TYPE_CHECKING:
    from headrace.config import Config

EXAMPLES = examples("headrace doctor", "headrace doctor --port 9000 --data-dir /srv/headrace")

#: Seconds a server or a driver's tool may take to answer. Either does in milliseconds, or is stuck.
ANSWER_TIMEOUT_S: Final = 5.0

#: Seconds two clocks may differ. More spoils certificates and signatures.
CLOCK_DIFFERENCE_MAX_S: Final = 60.0

_PYTHON: Final = (3, 11)
_SERVER_PARTS: Final = ("cryptography", "httptools", "pydantic", "uvicorn")


class Mark(Enum):
    """How a check came out."""

    GOOD = "✓"
    NEUTRAL = "–"
    BAD = "✗"


_COLOURS: Final = {Mark.GOOD: "green", Mark.NEUTRAL: "bright_black", Mark.BAD: "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    mark: Mark
    name: str
    text: str
    mend: str = ""  # the line that mends it


@dataclass(frozen=True, slots=True)
class Server:
    """What answered at the server's port."""

    is_headrace: bool
    apps: dict[str, Any]  # of /ready
    clock_s: float | None  # its Date, as seconds since 1970


@told
def doctor(
    data_dir: Annotated[Path | None, typer.Option(help=SETTINGS["data_dir"].help)] = None,
    host: Annotated[str | None, typer.Option(help=SETTINGS["host"].help)] = None,
    port: Annotated[str | None, typer.Option(help=SETTINGS["port"].help)] = None,
) -> int:
    """Say what is missing on this machine, and the line that mends it.

    The exit status is 0 when nothing is wrong, else 1. What is merely absent is not wrong.
    """
    settings = config.load({"data_dir": data_dir, "host": host, "port": port})
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without ✓ gets a ?
    is_bad = False
    for finding in findings(settings):
        is_bad |= finding.mark is Mark.BAD
        typer.echo(f"{typer.style(finding.mark.value, fg=_COLOURS[finding.mark])} {finding.name}: {finding.text}")
        if finding.mend:
            typer.echo(f"    {finding.mend}")
    return 1 if is_bad else 0


def findings(settings: Config) -> Iterator[Finding]:
    """Make every check, in the order in which one thing needs another."""
    lacking = [name for name in _SERVER_PARTS if importlib.util.find_spec(name) is None]
    server = ask(settings)
    yield check_python(sys.version_info[:2])
    yield check_extra(lacking)
    yield check_engine()
    yield check_model(weights.MODELS["smollm2"])
    yield check_port(settings, server)
    if server is not None and server.is_headrace:
        yield check_apps(server)
    if not lacking:
        yield check_key(settings)
        yield check_tls(settings)
    yield check_permissions(_private_files(settings))
    yield check_clock(server, _private_files(settings), time.time())
    yield check_gpu()


# --- what is installed --------------------------------------------------------------------------------------


def check_python(version: tuple[int, ...]) -> Finding:
    """Whether this Python is one we run on."""
    if version < _PYTHON:
        return Finding(
            Mark.BAD, "python", f"{platform.python_version()} is too old", "install Python 3.11 or later"
        )
    return Finding(Mark.GOOD, "python", f"{platform.python_version()} ({sys.executable})")


def check_extra(lacking: list[str]) -> Finding:
    """Whether the server's own packages are there. A machine that only calls needs none."""
    if lacking:
        text = f"this install is the client alone; for the server, {', '.join(lacking)} is missing"
        return Finding(Mark.NEUTRAL, "server parts", text, "pip install 'headrace[serve]'")
    return Finding(Mark.GOOD, "server parts", "installed")


def check_engine() -> Finding:
    """Whether the engine of the demo's model is there."""
    if importlib.util.find_spec("xllamacpp") is None:
        text = "xllamacpp is not installed; the demo and examples/smollm2.py need it"
        return Finding(Mark.NEUTRAL, "engine", text, "pip install 'headrace[llm]'")
    return Finding(Mark.GOOD, "engine", "xllamacpp is installed")


def check_model(model: weights.Model) -> Finding:
    """Whether the demo's model is there and whole."""
    path = weights.path_of(model)
    mend = f"headrace models pull {model.name}"
    if not path.exists():
        return Finding(Mark.NEUTRAL, "model", f"{model.name} is not fetched; the demo needs it", mend)
    if not weights.is_whole(path, model):
        return Finding(Mark.BAD, "model", f"{path} is damaged", mend)
    return Finding(Mark.GOOD, "model", f"{model.name} is whole: {path}")


# --- the server ---------------------------------------------------------------------------------------------


def ask(settings: Config) -> Server | None:
    """Return what answers at the server's port, or None where nobody does."""
    import email.utils
    import http.client

    host, _, port = settings.url.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        date = email.utils.parsedate_to_datetime(answer.headers.get("Date") or "")
        facts = json.loads(answer.read(1_000_000))
        apps: dict[str, Any] = {name: dict(state) for name, state in facts["apps"].items()}
    except ConnectionRefusedError:
        return None
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError):
        return Server(is_headrace=False, apps={}, clock_s=None)
    finally:
        connection.close()
    return Server(is_headrace=True, apps=apps, clock_s=date.timestamp())


def check_port(settings: Config, server: Server | None) -> Finding:
    """Whether the port is free, or served by us."""
    where = f"{settings.url.removeprefix('http://')}"
    if server is not None and server.is_headrace:
        return Finding(Mark.GOOD, "port", f"Headrace answers at {settings.url}")
    if server is None and (reason := _why_not_bound(settings)) is None:
        return Finding(Mark.GOOD, "port", f"{where} is free")
    text = f"{where} is another program's" if server else f"{where} cannot be listened on ({reason})"
    return Finding(Mark.BAD, "port", text, "headrace serve --port 8081, or any other that is free")


def _why_not_bound(settings: Config) -> str | None:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(found[0][4])
    except OSError as error:
        return error.strerror or str(error)
    return None


def check_apps(server: Server) -> Finding:
    """Whether the running server's apps are ready, and if not, why."""
    for name, app in server.apps.items():
        if fault := app.get("fault"):
            return Finding(Mark.BAD, "apps", f"{name} does not start: {fault}", "mend the file; it is tried again")
    waiting = [f"{name} ({app.get('state')})" for name, app in server.apps.items() if app.get("state") != "ready"]
    if waiting:
        return Finding(Mark.NEUTRAL, "apps", f"not ready: {', '.join(waiting)}")
    return Finding(Mark.GOOD, "apps", f"ready: {', '.join(server.apps)}")


# --- what is kept -------------------------------------------------------------------------------------------


def check_key(settings: Config) -> Finding:
    """Whether the server has a key, and this user holds one that opens it."""
    from headrace.client import BadCredentials, credentials

    mend = "headrace keys create"
    try:
        keys = parts.node().keys(settings)
        records = keys.list()
        if not records:
            return Finding(
                Mark.NEUTRAL, "key", f"none in {settings.data_dir}; the first `headrace serve` makes one"
            )
        if all(record.revoked is not None for record in records):
            return Finding(Mark.BAD, "key", "every key of the server is revoked", mend)
        key = credentials.find_key(settings.url)
    except (KeyFault, BadCredentials) as fault:
        return Finding(Mark.BAD, "key", str(fault))
    if key is None:
        return Finding(Mark.BAD, "key", f"{credentials.credentials_path()} has none for {settings.url}", mend)
    key_id = keys.verify(key)
    if key_id is None:
        text = f"the one in {credentials.credentials_path()} for {settings.url} is not the server's, or is revoked"
        return Finding(Mark.BAD, "key", text, mend)
    return Finding(Mark.GOOD, "key", f"{key_id} opens {settings.url}")


def check_tls(settings: Config) -> Finding:
    """Whether clients that trust the local CA would take the server's certificate."""
    folder = parts.node().tls(settings)
    again = "headrace serve --tls makes what is missing or over"
    try:
        state = folder.state(dt.datetime.now(dt.UTC))
    except OSError as error:
        return Finding(Mark.BAD, "tls", f"{error.filename} cannot be read ({error.strerror})", "run as its owner")
    if state is None:
        return Finding(Mark.NEUTRAL, "tls", "no local CA; fal's Python client needs one", "headrace serve --tls")
    if state.fault is not None:
        return Finding(Mark.BAD, "tls", state.fault, again)
    text = f"{state.names}; the certificate lasts until {state.leaf_until}, the CA until {state.ca_until}"
    return Finding(Mark.GOOD, "tls", text)


def _private_files(settings: Config) -> list[Path]:
    from headrace.client import credentials

    data = settings.data_dir
    files = [data / "keys.json", data / "tls" / "ca-key.pem", data / "tls" / "server.pem"]
    return [path for path in (*files, credentials.credentials_path()) if path.is_file()]


def check_permissions(files: list[Path]) -> Finding:
    """Whether what is secret is its owner's alone (0600)."""
    opened = [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if opened:
        text = f"others may read or write {', '.join(map(str, opened))}"
        return Finding(Mark.BAD, "permissions", text, f"chmod 600 {' '.join(map(str, opened))}")
    if not files:
        return Finding(Mark.NEUTRAL, "permissions", "no keys are kept yet")
    return Finding(Mark.GOOD, "permissions", f"{len(files)} files with secrets are their owner's alone")


# --- the machine --------------------------------------------------------------------------------------------


def check_clock(server: Server | None, files: list[Path], now_s: float) -> Finding:
    """Whether the clock agrees with the server's, and with the past: no file of ours is from the future."""
    mend = "timedatectl set-ntp true"
    if server is not None and server.clock_s is not None:
        ahead_s = now_s - server.clock_s
        if abs(ahead_s) > CLOCK_DIFFERENCE_MAX_S:
            return Finding(Mark.BAD, "clock", f"{ahead_s:+.0f} s from the server's", mend)
    newest_s = max((path.stat().st_mtime for path in files), default=None)
    if newest_s is not None and newest_s > now_s + CLOCK_DIFFERENCE_MAX_S:
        return Finding(Mark.BAD, "clock", f"{newest_s - now_s:.0f} s behind the time of our own files", mend)
    if newest_s is None and (server is None or server.clock_s is None):
        return Finding(Mark.NEUTRAL, "clock", "nothing to compare it with")
    return Finding(Mark.GOOD, "clock", f"{dt.datetime.fromtimestamp(now_s, dt.UTC):%Y-%m-%d %H:%M:%S} UTC")


def check_gpu() -> Finding:
    """Which GPU driver there is. None is no fault: models run on the CPU."""
    try:
        if shutil.which("nvidia-smi"):
            return Finding(Mark.GOOD, "gpu", "; ".join(_nvidia_gpus()))
    except Failure as failure:
        return Finding(Mark.NEUTRAL, "gpu", f"{failure}: models run on the CPU")
    if Path("/dev/kfd").exists():  # the device of AMD's compute driver
        return Finding(Mark.GOOD, "gpu", "AMD's driver is there")
    return Finding(Mark.NEUTRAL, "gpu", "no GPU driver found: models run on the CPU")


def _nvidia_gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        raise Failure("nvidia-smi does not answer") from None
    gpus = [line.strip() for line in asked.stdout.splitlines() if line.strip()]
    if asked.returncode != 0 or not gpus:
        raise Failure("nvidia-smi is there but finds no GPU")
    return gpus
