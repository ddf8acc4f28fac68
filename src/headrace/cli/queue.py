"""`headrace submit`, `status`, `logs`, `result`, `cancel`, `attach`: hand work to a server, leave, and come back.

What a request made stands on stdout, what is said about it on stderr. A request is known by its app and its id, to
whoever has the key that submitted it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any, cast

import typer

from headrace.cli.client import AppName, JsonFile, Key, Pairs, Url, asking, read_arguments, show_items, show_json
from headrace.cli.failures import Failure, told
from headrace.cli.help import examples
from headrace.cli.screen import PipeScreen, plain

SUBMIT_EXAMPLES = examples(
    "headrace submit me/flux prompt='a cat'",
    "ID=$(headrace submit me/flux --json input.json --priority low)",
    "headrace submit me/flux prompt='a cat' --wait | jq -r .images[0].url",
)
STATUS_EXAMPLES = examples("headrace status me/flux $ID | jq -r .status")
LOGS_EXAMPLES = examples("headrace logs me/flux $ID", "headrace logs me/flux $ID --follow | jq -r .message")
RESULT_EXAMPLES = examples("headrace result me/flux $ID")
CANCEL_EXAMPLES = examples("headrace cancel me/flux $ID")
ATTACH_EXAMPLES = examples("headrace attach me/flux $ID", "headrace attach me/flux $ID --after $ID.1.41")

_Id = Annotated[str, typer.Argument(metavar="ID", help="The request's id, as submit told it.", show_default=False)]


@told
def submit(
    app: AppName,
    pairs: Pairs = None,
    input: JsonFile = None,
    path: Annotated[str, typer.Option(help="The endpoint's path below APP.")] = "",
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Where the server posts the result.")] = None,
    priority: Annotated[str | None, typer.Option(metavar="NAME", help="normal or low.")] = None,
    hint: Annotated[str | None, typer.Option(metavar="HINT", help="The runner that is preferred.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Put a call into the server's queue and print its id.

    With --wait: tell its status and logs on stderr and print the result as JSON. Ctrl-C leaves it to the server.
    """
    arguments = read_arguments(pairs, input)
    with asking(url, key) as client:
        handle = client.submit(
            app, arguments, path=path, webhook_url=webhook, priority=cast("Any", priority), hint=hint
        )
        id_ = handle.request_id
        if not wait:
            typer.echo(id_)
            return
        typer.secho(f"request {id_}", err=True, dim=True)
        try:
            for status in handle.iter_events(with_logs=True):
                _tell(status)
            show_json(handle.get())
        except KeyboardInterrupt:
            typer.secho(f"The request goes on. Come back with: headrace result {app} {id_}", err=True)
            raise


@told
def status(
    app: AppName,
    id: _Id,
    logs: Annotated[bool, typer.Option("--logs", help="With all log lines so far.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Print what a request is doing, as JSON: IN_QUEUE, IN_PROGRESS or COMPLETED."""
    from headrace.client import Completed, InProgress, Queued

    with asking(url, key) as client:
        now = client.status(app, id, with_logs=logs)
    fields: dict[str, Any] = {}
    match now:
        case Queued(position):
            fields = {"status": "IN_QUEUE", "queue_position": position}
        case InProgress(lines):
            fields = {"status": "IN_PROGRESS", "logs": lines}
        case Completed(lines, metrics, error, error_type):
            fields = {"status": "COMPLETED", "logs": lines, "metrics": metrics, "error": error}
            fields["error_type"] = error_type
    show_json({name: value for name, value in fields.items() if value is not None})


@told
def logs(
    app: AppName,
    id: _Id,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the request is over.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Print a request's log lines: as text on a terminal, as lines of JSON in a pipe."""
    with asking(url, key) as client:
        handle = client.get_handle(app, id)
        for status in handle.iter_events(with_logs=True) if follow else [handle.status(with_logs=True)]:
            _show_lines(getattr(status, "logs", None) or [])


@told
def result(app: AppName, id: _Id, url: Url = None, key: Key = None) -> None:
    """Wait for a request's end and print its result as JSON."""
    with asking(url, key) as client:
        value = client.result(app, id)
    show_json(value)


@told
def cancel(app: AppName, id: _Id, url: Url = None, key: Key = None) -> None:
    """Ask the server to stop a request."""
    from headrace.client.errors import APIError

    with asking(url, key) as client:
        try:
            client.cancel(app, id)
        except APIError as error:
            if error.status_code == 400 and isinstance(error.body, dict) and "status" in error.body:
                raise Failure(f"request {id} is over already; its result: headrace result {app} {id}") from error
            raise
    typer.secho(f"request {id} is asked to stop", err=True, dim=True)


@told
def attach(
    app: AppName,
    id: _Id,
    after: Annotated[
        str | None,
        typer.Option(metavar="EVENT_ID", help="Go on behind this event. Without it, from the start."),
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Watch what a request makes, from the start, whoever began it; leaving does not stop a queued one."""
    with asking(url, key) as client, client.attach(app, id, after=after) as items:
        show_items(items)
        if items.status_code == 204:
            typer.secho("Nothing came after that event: the request is over.", err=True, dim=True)


def _tell(status: Any) -> None:
    """Say on stderr what has changed."""
    from headrace.client import InProgress, Queued

    if isinstance(status, Queued):
        before = f", {status.position} before it" if status.position else ""
        typer.secho(f"in line{before}", err=True, dim=True)
    elif isinstance(status, InProgress) and not status.logs:
        typer.secho("running", err=True, dim=True)
    for line in getattr(status, "logs", None) or []:
        typer.echo(_text_of(line), err=True)


def _show_lines(lines: Iterable[dict[str, Any]]) -> None:
    screen = PipeScreen(sys.stdout)
    is_terminal = sys.stdout.isatty()
    for line in lines:
        if is_terminal:
            typer.echo(_text_of(line))
        else:
            screen.show(line)


def _text_of(line: dict[str, Any]) -> str:
    """Return a log line for a person: when, how grave, what."""
    parts = (str(line.get(name, "")) for name in ("timestamp", "level", "message"))
    return plain("  ".join(part for part in parts if part))
