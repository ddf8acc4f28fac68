"""What a command says when it cannot go on: one red line on stderr, and an exit status.

1     the message says what went wrong and what to do
2     the command line or a setting cannot be used
130   Ctrl-C
141   whoever read our output left; quiet, as for any program in a pipe
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Final, ParamSpec

import typer

from headrace.config import ConfigFault
from headrace.core.keys import KeyFault

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

_P = ParamSpec("_P")


class Failure(Exception):
    """A command cannot go on. The message is for the person at the terminal and says what to do."""


def told(command: Callable[_P, int | None]) -> Callable[_P, None]:
    """Wrap a command: an expected failure is told in one line and becomes the exit status.

    What the command returns is its status; None is 0.
    """

    @functools.wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        raise typer.Exit(_status(functools.partial(command, *args, **kwargs)))

    return wrapped


def _status(command: Callable[[], int | None]) -> int:
    try:
        return command() or 0
    except Failure as failure:
        tell_failure(str(failure))
        return 1
    except (ConfigFault, KeyFault) as fault:
        tell_failure(str(fault))
        return 2 if isinstance(fault, ConfigFault) else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more on its way out; that must not be told either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def tell_failure(message: str) -> None:
    """Write the one red line."""
    typer.secho(f"headrace: {message}", fg="red", err=True)
