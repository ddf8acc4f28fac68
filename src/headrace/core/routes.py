"""App names, endpoint ids, and which path is which view.

    [namespace/]owner/alias[/path]          fal's endpoint ids: `fal-ai/flux/schnell`, `workflows/me/flow`
    owner/alias + run path                  POST: the run view
    owner/alias + stream path               POST: the stream view

Pure: a route table is built from `AppSpec`s and answers questions; it knows no HTTP.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from headrace.core.errors import FileFault
from headrace.core.spec import AppSpec, EndpointSpec

#: First segments that shift an id by one: `workflows/owner/alias`.
NAMESPACES: Final = frozenset({"workflows", "comfy"})

#: Owners that would hide a route of ours, now or later.
RESERVED_OWNERS: Final = NAMESPACES | {
    "health", "ready", "metrics", "queue", "fal", "files", "v1", ".well-known",
    "storage", "tokens", "docs", "sdk", "static",
}  # fmt: skip

_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATH_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_LEGACY_ID: Final = re.compile(r"([0-9]+)-([a-zA-Z0-9-]+)")


class View(enum.Enum):
    """A way to look at a request: its last item as one answer, or every item as it is made."""

    RUN = "run"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class EndpointId:
    """A parsed endpoint id: the app's full name and the path below it ("" or "/…")."""

    app: str
    path: str


def parse_endpoint_id(text: str) -> EndpointId:
    """Split `[namespace/]owner/alias[/path]` as fal's clients do.

    Leading and trailing slashes are ignored; the legacy `<digits>-<name>` reads as `<digits>/<name>`.
    Raises `ValueError`, in words for the caller, when owner or alias is missing.
    """
    segments = text.strip("/").split("/")
    if len(segments) == 1 and (legacy := _LEGACY_ID.fullmatch(segments[0])):
        segments = list(legacy.groups())
    named = 3 if segments and segments[0] in NAMESPACES else 2
    if len(segments) < named or not all(segments):
        raise ValueError(f"{text!r} is not an endpoint id; expected owner/alias or owner/alias/path")
    return EndpointId("/".join(segments[:named]), "".join(f"/{segment}" for segment in segments[named:]))


def check_app_name(name: str) -> str:
    """Return the app's full name, or raise `ValueError` saying what is wrong with it."""
    try:
        id_ = parse_endpoint_id(name)
    except ValueError:
        raise ValueError(f"the app's name {name!r} must be 'owner/alias', such as 'me/chat'") from None
    if id_.path or name.strip("/") != name:
        raise ValueError(f"the app's name {name!r} must be 'owner/alias' alone; paths belong to @endpoint")
    *namespace, owner, alias = id_.app.split("/")
    for segment in (owner, alias):
        if not _SEGMENT.fullmatch(segment):
            raise ValueError(
                f"the app's name {name!r}: {segment!r} may have letters, digits, '.', '_' and '-', at most 64"
            )
    if not namespace and owner in RESERVED_OWNERS:
        raise ValueError(f"the app's name {name!r}: the owner {owner!r} is kept for the server's own routes")
    if alias == "requests":
        raise ValueError(f"the app's name {name!r}: the alias 'requests' is kept for request routes")
    return id_.app


def check_endpoint_path(path: str) -> str:
    """Return an endpoint's path below its app ("" for the root), or raise `ValueError` saying what is wrong."""
    if not path.startswith("/"):
        raise ValueError(f"the path {path!r} must begin with '/'")
    trimmed = path.rstrip("/")
    segments = trimmed.split("/")[1:]
    for segment in segments:
        if not _PATH_SEGMENT.fullmatch(segment) or segment in {".", ".."}:
            raise ValueError(f"the path {path!r} has the segment {segment!r}; use letters, digits and - . _ ~")
    if "requests" in segments:
        raise ValueError(f"the path {path!r} may not contain '/requests': these routes are a request's own")
    if trimmed in {"/openapi.json", "/llms.txt"}:
        raise ValueError(f"the path {path!r} is a description of the app; choose another")
    return trimmed


def view_paths(path: str, *, streams: bool, stream: str | None) -> tuple[str | None, str | None]:
    """Return (run path, stream path) of an endpoint, either None where it has no such view.

    `streams` says whether it yields items at all; `stream` is the author's own stream path, if any.
    A streaming endpoint at a path that ends in `/stream` *is* the stream view and has no run view, and so
    is one whose own stream path equals its path.
    """
    run_path = check_endpoint_path(path)
    if stream is not None and not streams:
        raise ValueError(f"stream={stream!r} is for generators, or functions with emits=…; this one has no items")
    if not streams:
        return run_path, None
    if stream is not None:
        stream_path = check_endpoint_path(stream)
    elif run_path.endswith("/stream"):
        stream_path = run_path
    else:
        stream_path = f"{run_path}/stream"
    return (None if stream_path == run_path else run_path), stream_path


@dataclass(frozen=True, slots=True)
class Route:
    """What a path leads to."""

    app: AppSpec
    endpoint: EndpointSpec
    view: View


class UnknownPath(Exception):
    """No view at this path. The message says what there is, for the caller."""


class RouteTable:
    """Every view of every app, by path. Built once, before anything listens."""

    def __init__(self, apps: Iterable[AppSpec], aliases: Mapping[str, str] | None = None) -> None:
        """Claim every view's path; `aliases` maps further names to apps' names.

        Raises `FileFault` for two apps of one name or two views of one path, `ValueError` for an alias of
        an app that is not there or under a taken or illegal name.
        """
        self.apps: dict[str, AppSpec] = {}
        self._routes: dict[str, Route] = {}
        for app in apps:
            self._claim_app(app)
        self.aliases: dict[str, str] = {}
        for new, old in (aliases or {}).items():
            self._claim_alias(new, old)

    def _claim_app(self, app: AppSpec) -> None:
        if other := self.apps.get(app.name):
            raise FileFault(
                app.file, app.line, f"the app {app.name!r} is also defined at {other.file}:{other.line}"
            )
        self.apps[app.name] = app
        for endpoint in app.endpoints:
            for view, path in ((View.RUN, endpoint.run_path), (View.STREAM, endpoint.stream_path)):
                if path is None:
                    continue
                full = f"/{app.name}{path}"
                if taken := self._routes.get(full):
                    raise FileFault(
                        app.file,
                        endpoint.line,
                        f"the {view.value} view of endpoint {endpoint.path!r} claims {full}, which is the "
                        f"{taken.view.value} view of endpoint {taken.endpoint.path!r} "
                        f"({taken.app.file}:{taken.endpoint.line}); give one of them another path",
                    )
                self._routes[full] = Route(app, endpoint, view)

    def _claim_alias(self, new: str, old: str) -> None:
        new = check_app_name(new)
        if old not in self.apps:
            raise ValueError(f"--alias {new}={old}: there is no app {old!r}; there are {', '.join(self.apps)}")
        if new in self.apps or new in self.aliases:
            raise ValueError(f"--alias {new}={old}: the name {new!r} is taken")
        self.aliases[new] = old

    def app_of(self, path: str) -> tuple[AppSpec, str]:
        """Return the app a URL path belongs to and what follows its name. Raises `UnknownPath`."""
        if path.startswith("//"):
            raise UnknownPath(f"Path {path} not found: one slash separates its parts")
        try:
            id_ = parse_endpoint_id(path)
        except ValueError as error:
            raise UnknownPath(str(error)) from None
        app = self.apps.get(self.aliases.get(id_.app, id_.app))
        if app is None:
            raise UnknownPath(f"there is no app {id_.app!r} here; GET /v1/apps lists what there is")
        return app, id_.path

    def find(self, path: str) -> Route:
        """Return the view at a URL path; slashes at its end do not matter. Raises `UnknownPath`."""
        route = self._routes.get(path)
        if route is not None:
            return route
        app, below = self.app_of(path)
        route = self._routes.get(f"/{app.name}{below}")
        if route is not None:
            return route
        raise UnknownPath(self._what_there_is(app, below))

    def _what_there_is(self, app: AppSpec, below: str) -> str:
        stem = below.removesuffix("/stream")
        for endpoint in app.endpoints:
            if stem in {endpoint.run_path, endpoint.stream_path} or below == endpoint.run_path:
                return f"Path {below or '/'} not found: this endpoint of {app.name!r} has {_views(app, endpoint)}"
        views = "; ".join(_views(app, endpoint) for endpoint in app.endpoints)
        return f"Path {below or '/'} not found: {app.name!r} has {views}"


def _views(app: AppSpec, endpoint: EndpointSpec) -> str:
    named = {"run": endpoint.run_path, "stream": endpoint.stream_path}
    return " and ".join(f"{view} at /{app.name}{path}" for view, path in named.items() if path is not None)
