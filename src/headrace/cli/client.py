"""`headrace stream`, `run` and `apps`: ask a running server, here or anywhere. `queue` asks the server's queue."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Never

import typer

from headrace.cli.failures import Failure, told
from headrace.cli.help import examples

if TYPE_CHECKING:
    from headrace.client import Client, Stream

STREAM_EXAMPLES = examples(
    "headrace stream headrace/smollm2 prompt='Why is the sky blue?' max_tokens=64",
    "headrace stream me/flux/schnell --json input.json | jq --unbuffered .progress",
    "headrace stream me/chat prompt=hi --url https://gpu.example.org --event-timeout 30",
)
RUN_EXAMPLES = examples("headrace run headrace/smollm2 prompt='Say hello' | jq -r .output")
APPS_EXAMPLES = examples("headrace apps", "headrace apps --url http://127.0.0.1:9000")

AppName = Annotated[
    str, typer.Argument(metavar="APP", help="owner/alias, or owner/alias/path.", show_default=False)
]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="The input. A value is JSON where it reads as JSON, else a text.",
        show_default=False,
    ),
]
JsonFile = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="The input as a JSON object; - for stdin.")
]
Url = Annotated[str | None, typer.Option(help="The server. [HEADRACE_URL; else http://127.0.0.1:8080]")]
Key = Annotated[
    str | None,
    typer.Option(help="The key; safer in the environment. [HEADRACE_KEY; else as saved for the server]"),
]
_Timeout = Annotated[float | None, typer.Option(help="Seconds without a byte before giving up.")]


@told
def stream(
    app: AppName,
    pairs: Pairs = None,
    input: JsonFile = None,
    path: Annotated[str, typer.Option(help="The stream's path below APP.")] = "/stream",
    url: Url = None,
    key: Key = None,
    timeout: _Timeout = None,
    event_timeout: Annotated[float | None, typer.Option(help="Seconds without an item before giving up.")] = None,
) -> None:
    """Stream what an app makes, as it makes it.

    On a terminal, text is joined and progress is a bar; in a pipe, every item is a line of JSON.
    """
    arguments = read_arguments(pairs, input)
    with (
        asking(url, key) as client,
        client.stream(app, arguments, path=path, timeout=timeout, event_timeout=event_timeout) as items,
    ):
        show_items(items)


@told
def run(
    app: AppName,
    pairs: Pairs = None,
    input: JsonFile = None,
    path: Annotated[str, typer.Option(help="The endpoint's path below APP.")] = "",
    url: Url = None,
    key: Key = None,
    timeout: _Timeout = None,
) -> None:
    """Run an app to its end and print the result as JSON."""
    arguments = read_arguments(pairs, input)
    with asking(url, key) as client:
        result = client.run(app, arguments, path=path, timeout=timeout)
    show_json(result)


@told
def apps(url: Url = None, key: Key = None) -> None:
    """List a server's apps: state, and the path of every view."""
    with asking(url, key) as client:
        listed = client._call_json("GET", "/v1/apps")["apps"]  # noqa: SLF001 - the SDK keeps it for us
    for app in listed:
        names = " = ".join((app["name"], *app["aliases"]))
        typer.echo(f"{names}  ({app['state']})")
        for endpoint in app["endpoints"]:
            for view, view_path in endpoint["views"].items():
                if view_path is not None:
                    typer.echo(f"  {view:<7} POST {view_path}  {endpoint['doc']}".rstrip())


def show_items(items: Stream) -> None:
    """Show the items of a stream as they come, and its figures after its end."""
    from headrace.cli.screen import screen_for, tell_end

    started = time.monotonic()
    first_s: float | None = None
    count = 0
    with contextlib.closing(screen_for(sys.stdout)) as screen:
        for item in items:
            if first_s is None:
                first_s = time.monotonic() - started
            count += 1
            screen.show(item)
    tell_end(count, first_s, time.monotonic() - started)


def show_json(value: Any) -> None:
    """Print a value as JSON: one line in a pipe, laid out on a terminal."""
    is_terminal = sys.stdout.isatty()
    typer.echo(json.dumps(value, indent=2 if is_terminal else None, ensure_ascii=not is_terminal))


@contextlib.contextmanager
def asking(url: str | None, key: str | None) -> Iterator[Client]:
    """Give a client, and tell what goes wrong with it in words for the terminal."""
    from headrace.client import Client
    from headrace.client.errors import HeadraceError

    try:
        with Client(url=url, key=key) as client:
            yield client
    except HeadraceError as error:
        raise Failure(_words(error)) from error
    except ValueError as error:  # an address, a key, an app's name that cannot be one
        raise Failure(str(error)) from error


def _words(error: Any) -> str:
    """Return an SDK error as one line: what, whose request, and what to do."""
    from headrace.client import errors

    text = str(error).rstrip(".")
    if error.request_id and error.request_id not in text:
        text += f" (request {error.request_id})"
    if isinstance(error, errors.AuthenticationError):
        text += ". On the server's machine: headrace keys create"
    elif isinstance(error, errors.NotFound) and error.error_type != "request_not_found":
        text += ". See what there is: headrace apps"
    elif isinstance(error, errors.ConnectionFailed):
        text += f"{'' if text.endswith('?') else '.'} Start a server: headrace serve app.py"
    elif error.retryable:
        text += ". Trying again may work"
    return text


# --- the input ----------------------------------------------------------------------------------------------


def read_arguments(pairs: list[str] | None, source: str | None) -> dict[str, Any]:
    """Return the input: the object in `source` (a file, or - for stdin), and over it the KEY=VALUE words."""
    arguments = {} if source is None else _read_object(source)
    given: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise Failure(f"{pair!r} is not KEY=VALUE, such as prompt='hello'")
        if name in given:
            raise Failure(f"{name!r} is given twice")
        given[name] = _value_of(text)
    return arguments | given


def _value_of(text: str) -> Any:
    """Read a value as JSON (numbers, true, null, quoted, lists, objects); anything else is a text as it is."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _no_constant(word: str) -> Never:
    raise ValueError(f"{word} is Python's, not JSON's")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is beyond a JSON number")
    return number


def _read_object(source: str) -> dict[str, Any]:
    name = "stdin" if source == "-" else source
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        value = json.loads(content, parse_constant=_no_constant)
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Failure(f'{name} must hold one JSON object, such as {{"prompt": "hello"}}')
    return value
