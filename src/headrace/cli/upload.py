"""`headrace upload`: send files to a running server, and print where they are then."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.client import Key, Url, asking
from headrace.cli.failures import Failure, told
from headrace.cli.help import examples

if TYPE_CHECKING:
    from headrace.client import StorageSettings

EXAMPLES = examples(
    "headrace upload cat.png",
    'headrace run me/upscale image_url="$(headrace upload cat.png)"',
    "headrace upload *.wav --expires-in 1h",
)

#: Files of fewer bytes are there before a bar could be read.
_BAR_BYTES = 8 * 1024 * 1024


@told
def upload(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What to send.", show_default=False)],
    expires_in: Annotated[
        str | None, typer.Option(help="How long they are kept: 1h, 1d, 7d, 30d, 1y, or seconds.")
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Send files to the server, and print a URL for each, in a line of its own.

    The URL goes into the input of a model. Whoever has it can read the file.
    """
    settings = _settings(expires_in)
    for file in files:
        if not file.is_file():
            raise Failure(f"{file} is not a file")
    with asking(url, key) as client:
        for file in files:
            with _progress(file) as tell, _readable(file):
                address = client.upload_file(file, lifecycle=settings, on_progress=tell)
            typer.echo(address)


def _settings(expires_in: str | None) -> StorageSettings | None:
    from headrace.client import StorageSettings

    if expires_in is None:
        return None
    try:
        return StorageSettings(int(expires_in) if expires_in.isdecimal() else expires_in)  # type: ignore[arg-type]
    except ValueError as error:
        raise Failure(f"--expires-in: {error}") from error


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror or error}") from error


@contextlib.contextmanager
def _progress(file: Path) -> Iterator[Callable[[int, int], None] | None]:
    """Give what moves a bar on stderr; nothing for a small file, or where nobody sees it."""
    if not sys.stderr.isatty() or file.stat().st_size < _BAR_BYTES:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from headrace.cli.screen import plain

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(plain(file.name))
        yield lambda sent, size: progress.update(task, completed=sent, total=size)
