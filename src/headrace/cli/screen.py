"""How the items of a stream look: joined text and a progress bar on a terminal, JSON lines in a pipe.

A screen takes each item as it comes and is closed once, with the stream's end. It knows no client: items are
the JSON objects of the stream, whoever made them, so nothing in them may move the cursor or change a colour.
"""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any, Protocol

import orjson

if TYPE_CHECKING:
    from rich.progress import Progress

#: Letters of one text in a compactly printed item, before it is cut short.
_TEXT_LETTERS_MAX = 200

#: The keys whose texts are pieces of one text, to be joined.
_PIECE_KEYS = ("delta", "token")


class Screen(Protocol):
    """Where items go."""

    def show(self, item: dict[str, Any]) -> None:
        """Show one item, now."""

    def close(self) -> None:
        """Leave the screen as the next line of a shell wants it. May be called at any point, once."""


def screen_for(output: IO[str]) -> Screen:
    """Return the screen for a terminal, or for whatever else reads `output`."""
    return TerminalScreen(output) if output.isatty() else PipeScreen(output)


class PipeScreen:
    """One JSON line for each item, flushed at once: what `jq --unbuffered` and a script want."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output.buffer if hasattr(output, "buffer") else None
        self._text = output

    def show(self, item: dict[str, Any]) -> None:
        """Write the item. UTF-8 whatever the locale says: JSON has no other encoding (RFC 8259 section 8.1)."""
        line = orjson.dumps(item) + b"\n"
        if self._output is None:
            self._text.write(line.decode())
            self._text.flush()
        else:
            self._output.write(line)
            self._output.flush()

    def close(self) -> None:
        """Nothing is left open."""


class TerminalScreen:
    """Pieces of text joined as they come, a bar where items have `progress`, everything else in one line."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._pieces: list[str] = []
        self._bar: _Bar | None = None

    def show(self, item: dict[str, Any]) -> None:
        """Show the item in the way that its keys ask for."""
        if (piece := _piece_of(item)) is not None:
            self._pieces.append(piece)
            self._write(plain(piece))
        elif isinstance(progress := item.get("progress"), int | float) and not isinstance(progress, bool):
            self._end_line()
            self._bar = self._bar or _Bar()
            self._bar.move(progress, plain(str(item.get("message") or "")))
        else:
            self._show_whole(item)

    def close(self) -> None:
        """End the line and take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._end_line()

    def _show_whole(self, item: dict[str, Any]) -> None:
        """Print an item compactly, less the text that stands on the screen already: a result repeats it."""
        text = "".join(self._pieces)
        rest = {key: _short(value) for key, value in item.items() if not text or value != text}
        self.close()
        if rest:
            self._write(plain(orjson.dumps(rest).decode()) + "\n")

    def _end_line(self) -> None:
        if self._pieces:
            self._pieces.clear()
            self._write("\n")

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


class _Bar:
    """A progress bar on stderr. Fractions and percents both occur; the first value that tells decides."""

    def __init__(self) -> None:
        # rich takes longer to import than a first token takes to come; only a bar needs it.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()
        self._is_percent: bool | None = None

    def move(self, value: float, message: str) -> None:
        """Move to `value`: 0 to 1, or 0 to 100."""
        if value > 1 or (self._is_percent is None and value == 1 and isinstance(value, int)):
            self._is_percent = True
        elif self._is_percent is None and 0 < value < 1:
            self._is_percent = False
        fraction = value / 100 if self._is_percent else value
        self._progress.update(self._task, completed=min(max(fraction, 0.0), 1.0), description=message)

    def close(self) -> None:
        """Take it off the screen."""
        self._progress.stop()


def plain(text: str) -> str:
    """Return `text` with control characters made visible: what a model says must not steer the terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else f"\\x{ord(letter):02x}" for letter in text
    )


def tell_end(count: int, first_s: float | None, total_s: float) -> None:
    """Write the figures of a stream, aside from its output."""
    import typer

    first = "" if first_s is None else f", the first after {first_s:.2f} s"
    items = "1 item" if count == 1 else f"{count} items"
    if sys.stderr.isatty():
        typer.secho(f"{items} in {total_s:.2f} s{first}", err=True, dim=True)


def _piece_of(item: dict[str, Any]) -> str | None:
    for key in _PIECE_KEYS:
        if isinstance(piece := item.get(key), str):
            return piece
    return None


def _short(value: Any) -> Any:
    """Return a JSON value with its long texts cut: a picture in a data URL is not for reading."""
    if isinstance(value, str) and len(value) > _TEXT_LETTERS_MAX:
        return f"{value[:_TEXT_LETTERS_MAX]}… ({len(value):,} letters)"
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value]
    return value
