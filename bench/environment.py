"""Environments of their own for the servers we compare ourselves with, away from our own pins."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path


def set_up(directory: Path, lock: Path) -> None:
    """Make a virtual environment from a file of hashed requirements, unless it is the one that file describes."""
    stamp = directory / "lock.sha256"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print("installing the peers ...", file=sys.stderr)
    venv.create(directory, clear=True, with_pip=True)
    python = directory / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-qq", "--require-hashes", "-r", str(lock)]
    subprocess.run(install, check=True)
    stamp.write_text(digest)
