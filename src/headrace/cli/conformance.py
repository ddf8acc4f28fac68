"""`headrace conformance`: check that a server, ours or another, streams as fal's clients need it."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any, Never

import typer

from headrace.cli.failures import tell_failure, told
from headrace.cli.help import examples
from headrace.cli.screen import plain

if TYPE_CHECKING:
    from headrace.client.conformance import Plan, Result, Verdict

EXAMPLES = examples(
    "headrace conformance http://127.0.0.1:8080",
    'headrace conformance https://gpu.example.org --app me/chat --input \'{"prompt": "hi"}\'',
    "headrace conformance http://127.0.0.1:8080 --json | jq .failed",
)

#: Nothing can be checked: a wrong argument, or no server there.
_CANNOT_CHECK = 2

_Input = Annotated[str, typer.Option(metavar="JSON", help="An input that the model can take, soon done.")]


@told
def conformance(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server, http or https.", show_default=False)],
    key: Annotated[
        str | None,
        typer.Option(help="The key; safer in the environment. [HEADRACE_KEY; else as saved for the server]"),
    ] = None,
    app: Annotated[
        str | None, typer.Option(help="owner/alias, or owner/alias/path. [The first stream in the server's list]")
    ] = None,
    path: Annotated[str, typer.Option(help="The stream's path below APP.")] = "/stream",
    input: _Input = "{}",
    error_input: Annotated[
        str | None, typer.Option(metavar="JSON", help="An input that makes the model fail after its first event.")
    ] = None,
    slow_input: Annotated[
        str | None, typer.Option(metavar="JSON", help="An input that keeps the model silent for over 15 s.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds without a byte before giving up.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check that a server streams as fal's clients, browsers and curl need it.

    Exits with 0 when nothing failed, 1 when something did, 2 when nothing could be checked.
    """
    from headrace.client.conformance import NothingToCheck, check_server

    try:
        plan = _plan(url, key, app, path, input, error_input, slow_input, timeout)
        results = check_server(plan, _tell)
    except (ValueError, NothingToCheck) as error:
        tell_failure(str(error))
        return _CANNOT_CHECK
    counts = _counts(results)
    if as_json:
        typer.echo(json.dumps(_report(plan, results, counts), indent=2))
    else:
        _print(plan, results, counts)
    return 1 if counts["failed"] else 0


def _plan(
    url: str, key: str | None, app: str | None, path: str,
    input: str, error_input: str | None, slow_input: str | None, timeout: float,
) -> Plan:  # fmt: skip
    """Return what to ask. Raises `ValueError` for a wrong argument, `NothingToCheck` without a stream."""
    from headrace.client import credentials
    from headrace.client.conformance import Plan, Target, find_stream

    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"--timeout {timeout:g} must be a number of seconds over 0")
    inputs = _object("--input", input), _object("--error-input", error_input), _object("--slow-input", slow_input)
    base = credentials.server_url(url)
    found = credentials.resolve_key(base, key)
    target = Target(base, None if found is None else found.text)
    stream_path = find_stream(target, timeout) if app is None else _stream_path(app, path)
    return Plan(target, stream_path, inputs[0] or {}, inputs[1], inputs[2], patience_s=timeout)


def _stream_path(app: str, path: str) -> str:
    """Return the path of an app's stream; raises `ValueError` for what is no app or cannot stand in a URL."""
    from headrace.core.routes import parse_endpoint_id

    id_ = parse_endpoint_id(app)
    below = path.strip("/")
    full = f"/{id_.app}{id_.path}" + (f"/{below}" if below else "")
    if not (full.isascii() and full.isprintable()) or any(letter in full for letter in " ?#"):
        raise ValueError(f"{full!r} has characters that a path cannot have")
    return full


def _object(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{option} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - it is what the person typed that is wrong
            f'{option} must be a JSON object, such as {{"prompt": "hello"}}'
        )
    return value


def _no_constant(word: str) -> Never:
    raise ValueError(f"{word} is no JSON")


# --- telling ------------------------------------------------------------------------------------------------


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        typer.secho(f"asking: {what}", err=True, dim=True)


def _counts(results: list[Result]) -> dict[str, int]:
    from headrace.client.conformance import Verdict

    return {verdict.value: sum(result.finding.verdict is verdict for result in results) for verdict in Verdict}


def _print(plan: Plan, results: list[Result], counts: dict[str, int]) -> None:
    typer.echo(f"{plan.target.url}{plan.path}\n")
    for result in results:
        seen = plain(" ".join(result.finding.seen.split()))
        typer.echo(f"{_mark(result.finding.verdict)} {result.name:<24}{result.promise}: {seen}")
        if result.finding.damage:
            typer.secho(f"{'':<26}suffers: {result.finding.damage}", fg="yellow")
    typer.echo(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['unchecked']} not checkable")


def _mark(verdict: Verdict) -> str:
    letter, colour = {"passed": ("✓", "green"), "failed": ("✗", "red"), "unchecked": ("–", None)}[verdict.value]
    return typer.style(letter, fg=colour)


def _report(plan: Plan, results: list[Result], counts: dict[str, int]) -> dict[str, Any]:
    checks = [
        {
            "name": result.name,
            "promise": result.promise,
            "verdict": result.finding.verdict.value,
            "seen": result.finding.seen,
            "suffers": result.finding.damage or None,
        }
        for result in results
    ]
    return {"url": plan.target.url, "path": plan.path, **counts, "checks": checks}
