"""`App`: the class that an author derives from, and the knobs that its class statement takes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar, Final

from headrace.app.context import Request, current_call
from headrace.app.endpoint import caller
from headrace.core.errors import FileFault
from headrace.core.routes import check_app_name

#: The knobs, with the type and the least value of each. Defaults and meanings stand in `core.spec.AppSpec`.
KNOBS: Final[Mapping[str, tuple[type[int | float], float]]] = {
    "max_multiplexing": (int, 1),
    "min_concurrency": (int, 0),
    "startup_timeout": (float, 0.001),
    "request_timeout": (float, 0.001),
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a class statement said: `class Flux(headrace.App, name="fal-ai/flux", max_multiplexing=4):`."""

    name: str
    file: str
    line: int
    knobs: Mapping[str, float] = field(default_factory=dict)


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
    - `startup_timeout`: seconds until `setup` must be done, default 600
    - `request_timeout`: seconds that one request may run, default 3600

    `setup` runs once per process before it takes work, `teardown` when it leaves; both may be `async def`.
    """

    __headrace__: ClassVar[Declaration]

    def __init_subclass__(cls, *, name: str | None = None, **knobs: float) -> None:
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
        cls.__headrace__ = Declaration(app_name, file, line, {**(inherited.knobs if inherited else {}), **knobs})

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
    kind, least = KNOBS[knob]
    wanted = f"a whole number of at least {least}" if kind is int else "a number of seconds above 0"
    if isinstance(value, bool) or not isinstance(value, int | kind) or not isfinite(value) or value < least:
        raise ValueError(f"{knob}={value!r}: expected {wanted}")
