"""`headrace keys`: make, list and revoke the keys of the server on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from headrace import config
from headrace.cli import parts
from headrace.cli.failures import told
from headrace.cli.help import examples
from headrace.settings import SETTINGS

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, epilog=examples("headrace keys create --name laptop")
)

_DATA_DIR_HELP = SETTINGS["data_dir"].help


@app.callback()
def _keys() -> None:
    """Make, list and revoke keys. A running server sees a change within 2 seconds."""


@app.command(
    epilog=examples(
        "headrace keys create --name laptop",
        "export HEADRACE_KEY=$(headrace keys create --name ci | tail -n 1)",
    )
)
@told
def create(
    name: Annotated[str, typer.Option(help="Who will hold it: a word for the list.")] = "default",
    data_dir: Annotated[Path | None, typer.Option(help=_DATA_DIR_HELP)] = None,
) -> None:
    """Make a key and print it, once. Works before the server's first start.

    The key stands alone on the last line. It is also saved for `headrace stream` and the SDK of this user,
    unless a key that works is saved there already.
    """
    settings = config.load({"data_dir": data_dir})
    keys = parts.node().keys(settings)
    record, text = keys.create(name)
    kept = _keep(text, settings.url, lambda saved: keys.verify(saved) is not None)
    typer.secho(f"{record.id} ({record.name}) is made; {kept}", err=True, dim=True)
    typer.echo(text)


@app.command("list", epilog=examples("headrace keys list"))
@told
def list_(data_dir: Annotated[Path | None, typer.Option(help=_DATA_DIR_HELP)] = None) -> None:
    """List the keys: id, when made, state, name. Their texts are kept nowhere."""
    for record in parts.node().keys(config.load({"data_dir": data_dir})).list():
        state = "good" if record.revoked is None else f"revoked {_day(record.revoked)}"
        typer.echo(f"{record.id}  {_day(record.created)}  {state:<18}  {record.name}")


@app.command(epilog=examples("headrace keys revoke hr_abcdefghijkl"))
@told
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `headrace keys list` shows it.")],
    data_dir: Annotated[Path | None, typer.Option(help=_DATA_DIR_HELP)] = None,
) -> None:
    """Revoke a key. Requests that run go on; the next one with it is refused."""
    record = parts.node().keys(config.load({"data_dir": data_dir})).revoke(id)
    typer.echo(f"{record.id} ({record.name}) is revoked")


def _keep(key: str, url: str, is_good: Callable[[str], bool]) -> str:
    """Save a key for this user's clients, unless a good one is saved already. Returns what was done, in words."""
    from headrace.client import BadCredentials, credentials

    try:
        saved = credentials.find_key(url)
        if saved is not None and is_good(saved):
            return f"the key saved for {url} still works and stays"
        return f"saved for {url} in {credentials.save_key(url, key)}"
    except (BadCredentials, OSError) as error:
        return f"not saved for the client: {error}"


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
