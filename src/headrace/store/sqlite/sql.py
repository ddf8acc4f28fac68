"""The statements of the store, which lie in `.sql` files beside this one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def parse(text: str) -> dict[str, str]:
    """Split a file of statements, each below a line `-- name: NAME`. Raises `ValueError` for a name used twice."""
    parts = _NAME.split(text)
    names = parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError("two statements have the same name")
    return {name: statement.strip() for name, statement in zip(names, parts[2::2], strict=True)}


def migrations() -> list[str]:
    """Return the scripts that make the tables, in order: the n-th leads from version n - 1 to n."""
    scripts = [
        entry for entry in files(__package__).joinpath("migrations").iterdir() if entry.name.endswith(".sql")
    ]
    return [entry.read_text("utf-8") for entry in sorted(scripts, key=lambda entry: entry.name)]


#: All statements, by name.
SQL: Final[Mapping[str, str]] = parse(files(__package__).joinpath("queries.sql").read_text("utf-8"))
