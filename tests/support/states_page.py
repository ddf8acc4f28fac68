"""Writes the states of a request into docs/why/one-request-three-views.md: `python -m tests.support.states_page`."""

from __future__ import annotations

import pathlib

from headrace.core.request import FINAL, MOVES, State

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "why" / "one-request-three-views.md"
BEGIN, END = "<!-- states -->\n", "<!-- end of states -->\n"


def diagram() -> str:
    """Return the table of moves as text: each state, and what leads from it where."""
    lines = ["```text"]
    for state in State:
        lines.append(state.name + (" is the end" if state in FINAL else ""))
        lines += [
            f"    {move.name:<7} -> {then.name}" for (before, move), then in MOVES.items() if before is state
        ]
    return "\n".join([*lines, "```\n"])


def page(text: str) -> str:
    """Return the page with the diagram between its marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + diagram() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
