"""`headrace models`: fetch a model for the examples and the demo, and see what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli import weights
from headrace.cli.failures import Failure, told
from headrace.cli.help import examples

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, epilog=examples("headrace models pull smollm2"))


@app.callback()
def _models() -> None:
    """Fetch models for the examples and the demo."""


@app.command(epilog=examples("headrace models pull smollm2"))
@told
def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The model, as `headrace models list` shows it.")
    ] = "smollm2",
) -> None:
    """Fetch a model, check it, and print its path. One that is there and whole stays."""
    model = weights.MODELS.get(name)
    if model is None:
        raise Failure(f"there is no model {name!r}; there are {', '.join(weights.MODELS)}")
    typer.echo(str(weights.pull(model, tell)))


@app.command("list", epilog=examples("headrace models list"))
@told
def list_() -> None:
    """List the models: name, size, licence, and where each is or that it is absent."""
    for model in weights.MODELS.values():
        where = str(weights.path_of(model)) if weights.is_present(model) else "absent"
        typer.echo(f"{model.name}  {model.title}  {model.size_bytes // 1_000_000} MB  {model.licence}  {where}")


def tell(line: str) -> None:
    """Write what is being done, aside from the output."""
    typer.secho(line, err=True, dim=True)
