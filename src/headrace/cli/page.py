"""`headrace page`: a link that opens a running server's page, for who has lost the one that `serve` printed."""

from __future__ import annotations

import typer

from headrace.cli.client import Key, Url, asking
from headrace.cli.failures import told
from headrace.cli.help import examples

EXAMPLES = examples("headrace page", "xdg-open $(headrace page)")


@told
def page(url: Url = None, key: Key = None) -> None:
    """Print a link that opens the server's page with your key: once, within ten minutes.

    Whoever opens it may call the apps as you for twelve hours, so it is for your own browser.
    """
    with asking(url, key) as client:
        made = client._call_json("POST", "/v1/page-link")  # noqa: SLF001 - the SDK keeps it for us
    typer.echo(made["url"])
