"""`headrace webhooks`: those that a server has given up to deliver, and another try."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.client import Key, Url, asking
from headrace.cli.failures import told
from headrace.cli.help import examples

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, epilog=examples("headrace webhooks list"))


@app.callback()
def _webhooks() -> None:
    """List webhooks that could not be delivered, and have them tried again."""


@app.command("list", epilog=examples("headrace webhooks list"))
@told
def list_(url: Url = None, key: Key = None) -> None:
    """List the webhooks of your requests that were given up, the latest first: when, which, where to, and why."""
    with asking(url, key) as client:
        dead = client._call_json("GET", "/v1/webhooks")["dead"]  # noqa: SLF001 - the SDK keeps it for us
    for one in dead:
        typer.echo(f"{one['given_up_at']}  {one['request_id']}  {one['app']}  {one['url']}  {one['error']}")
    if not dead:
        typer.echo("None was given up.", err=True)


@app.command(epilog=examples("headrace webhooks retry $ID"))
@told
def retry(
    id: Annotated[str, typer.Argument(metavar="ID", help="The request's id, as `list` tells it.")],
    url: Url = None,
    key: Key = None,
) -> None:
    """Have a webhook that was given up tried again, from the beginning."""
    with asking(url, key) as client:
        client._call_json("POST", f"/v1/webhooks/{id}/retry")  # noqa: SLF001 - as above
    typer.echo(f"The webhook of {id} is tried again.", err=True)
