"""`App`: the class that an author derives from, and the knobs that its class statement takes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar, Final

from headrace.app.context import Request, current_call
from headrace.app.endpoint import caller
from headrace.core.disconnect import grace_of
from headrace.core.errors import FileFault
from headrace.core.routes import check_app_name


@dataclass(frozen=True, slots=True)
class Knob:
    """What a class keyword takes: how it is said in a message, and the test for it."""

    expected: str
    is_good: Callable[[Any], bool]


def _whole(least: int) -> Knob:
    return Knob(
        f"a whole number of at least {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0.001


def _policy(value: object) -> bool:
    try:
        grace_of(str(value))
    except ValueError:
        return False
    return True


_SECONDS: Final = Knob("a number of seconds above 0", _seconds)

#: The knobs and what each takes. Defaults and meanings stand in `core.spec.AppSpec`.
KNOBS: Final[Mapping[str, Knob]] = {
    "max_multiplexing": _whole(1),
    "min_concurrency": _whole(0),
    "max_concurrency": _whole(1),
    "keep_alive": _SECONDS,
    "num_gpus": _whole(0),
    "memory_limit": _whole(1),
    "startup_timeout": _SECONDS,
    "request_timeout": _SECONDS,
    "first_event_timeout": _SECONDS,
    "event_gap_timeout": _SECONDS,
    "on_disconnect": Knob("'cancel', 'finish' or 'grace:SECONDS'", _policy),
    "log_items": Knob("True or False", lambda value: isinstance(value, bool)),
    "stream_error_end": Knob("'cut' or 'clean'", lambda value: str(value) in {"cut", "clean"}),
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a class statement said: `class Flux(headrace.App, name="fal-ai/flux", max_multiplexing=4):`."""

    name: str
    file: str
    line: int
    knobs: Mapping[str, float | str] = field(default_factory=dict)


class App:
    """A model and its endpoints. Derive from it; one instance lives in each runner process.

        class Hello(headrace.App, name="me/hello", max_multiplexing=4):
            @headrace.endpoint("/")
            def hello(self, input: Prompt) -> Iterator[Word]: ...

    Class keywords, with fal's names and meanings; derived classes inherit all but the name, and a wrong one
    raises `FileFault`:

    - `name`: "owner/alias"; `local/<class-name>` without one
    - `max_multiplexing`: requests at once in one runner, default 1
    - `min_concurrency`: runners kept up, default 1; 0 starts the first one on demand
    - `max_concurrency`: runners started at most as requests wait, default as many as are kept up
    - `keep_alive`: seconds a runner beyond `min_concurrency` stays without a request, default 60
    - `num_gpus`: whole devices that each runner has to itself, default 0: it sees what the server sees
    - `memory_limit`: bytes that a runner, with what it started, may hold before it is ended, default none
    - `startup_timeout`: seconds until `setup` must be done, default 600
    - `request_timeout`: seconds that one request may run, default 3600
    - `first_event_timeout`: seconds from its slot to a stream's first event, default none
    - `event_gap_timeout`: seconds between two events of a stream, default none
    - `on_disconnect`: "cancel" (default), "finish" or "grace:SECONDS": what happens when the last reader leaves
    - `log_items`: True (default) or False: whether an item with a `progress` or a `message` is also a line of its
      queued request's log
    - `stream_error_end`: "cut" (default) or "clean": the end of the connection behind an error event

    `setup` runs once per process before it takes work, `teardown` when it leaves; both may be `async def`.
    """

    __headrace__: ClassVar[Declaration]

    def __init_subclass__(cls, *, name: str | None = None, **knobs: float | str) -> None:
        """Take the class keywords; see the class."""
        super().__init_subclass__()
        file, line = caller()
        try:
            app_name = check_app_name(_default_name(cls.__name__) if name is None else str(name))
            for knob, value in knobs.items():
                _check_knob(knob, value)
            for knob in KNOBS.keys() & vars(cls).keys():
                raise ValueError(f"{knob} is a class keyword: class {cls.__name__}(headrace.App, {knob}=…)")
        except ValueError as error:
            raise FileFault(file, line, str(error)) from None
        inherited = getattr(cls, "__headrace__", None)
        knobs = {**(inherited.knobs if inherited else {}), **knobs}
        least, most = int(knobs.get("min_concurrency", 1)), int(knobs.get("max_concurrency", 0))
        if 0 < most < least:
            raise FileFault(file, line, f"max_concurrency={most} is below min_concurrency={least}")
        cls.__headrace__ = Declaration(app_name, file, line, knobs)

    def setup(self) -> Awaitable[None] | None:
        """Load what every request needs. Runs once, before the first request."""
        return None

    def teardown(self) -> Awaitable[None] | None:
        """Let go of what `setup` took. Runs once, after the last request; it has about two seconds."""
        return None

    @property
    def current_request(self) -> Request:
        """The request that this code is answering. Raises `RuntimeError` where there is none."""
        return current_call("current_request").request


def _default_name(class_name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", class_name.strip("_"))
    return f"local/{words.lower()}"


def _check_knob(knob: str, value: object) -> None:
    if knob not in KNOBS:
        raise ValueError(f"unknown class keyword {knob!r}; there are name, {', '.join(KNOBS)}")
    if not KNOBS[knob].is_good(value):
        raise ValueError(f"{knob}={value!r}: expected {KNOBS[knob].expected}")
