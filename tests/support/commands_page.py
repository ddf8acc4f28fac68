"""docs/reference/commands.md, rendered from the commands' own help.

python -m tests.support.commands_page     writes the page; tests/unit/test_docs.py fails while it is stale
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import typer

from headrace.cli import app

PAGE = Path(__file__).parents[2] / "docs/reference/commands.md"

TOP = """# Commands

`headrace COMMAND --help` says the same with an example. Exit statuses: 0 for success; 1 for a failure, told in one line; 2 for a
wrong command line or setting, and for a file that cannot be served; 130 after Ctrl-C.
"""


def render() -> str:
    sections = [TOP]
    for name, command in commands(typer.main.get_command(app), "headrace"):
        sections.append(section(name, command))
    return "\n".join(sections)


def commands(command, name: str) -> Iterator[tuple[str, object]]:
    """Every command below this one, with its whole name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, below in command.commands.items():
        yield from commands(below, f"{name} {word}")


def section(name: str, command) -> str:
    arguments = " ".join(told(parameter) for parameter in command.params if is_argument(parameter))
    paragraph = inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")
    rows = [f"| `{told(parameter)}` | {parameter.help or ''} |" for parameter in command.params]
    table = ["", "| argument or option | meaning |", "|---|---|", *rows] if rows else []
    return "\n".join([f"## `{f'{name} {arguments}'.strip()}`", "", paragraph, *table, ""])


def told(parameter) -> str:
    if is_argument(parameter):
        return str(parameter.metavar or parameter.name)
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    return "`, `".join(parameter.opts) + value


def is_argument(parameter) -> bool:
    return parameter.param_type_name == "argument"


if __name__ == "__main__":
    PAGE.write_text(render())
