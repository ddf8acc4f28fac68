"""The page: what is served to somebody who opens this server, or an app of it, in a browser.

    GET  /                   the list of apps
    GET  /{owner}/{alias}    an app's page, for who accepts text/html
    GET  /static/…           their scripts and colours

The document holds nothing of this node's: what it shows it asks for, with the key of whoever sits there. Its
policy lets it load from here alone, run nothing that stands in it, and be framed by nobody (reliability A8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headrace.core.routes import RouteTable, UnknownPath
from headrace.gateway.calls import Call
from headrace.gateway.static_files import StaticFile

#: Pictures and sound may also come from elsewhere by https, as models' outputs do; scripts and calls never.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data: blob: https:; media-src 'self' data: blob: https:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_OF_PAGE: Final = (
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"vary", b"Accept"),
)


def _script(name: str) -> StaticFile:
    return StaticFile.read(name, b"text/javascript; charset=utf-8")


#: The one document there is; its script looks at the path.
PAGE: Final = StaticFile.read("page.html", b"text/html; charset=utf-8", *_OF_PAGE)

_SCRIPTS: Final = (
    "theme", "main", "dom", "session", "index", "page", "calls", "card", "show", "events", "plot", "schema",
    "fields", "form", "snippets",
)  # fmt: skip

#: What it loads.
FILES: Final[Mapping[str, StaticFile]] = {
    **{f"/static/{name}.js": _script(f"{name}.js") for name in _SCRIPTS},
    "/static/page.css": StaticFile.read("page.css", b"text/css; charset=utf-8"),
    "/static/mark.svg": StaticFile.read("mark.svg", b"image/svg+xml"),
}


def page_for(call: Call, routes: RouteTable) -> StaticFile | None:
    """Return what a call gets of the page, or None where it asks for something else. No key is needed for it."""
    if call.method not in {"GET", "HEAD"}:
        return None
    if call.path == "/":
        return PAGE
    if (file := FILES.get(call.path)) is not None:
        return file
    return PAGE if _takes_html(call) and _is_app(call.path, routes) else None


def _takes_html(call: Call) -> bool:
    """Whether the caller names text/html; who takes anything, as curl does, is told that a view wants POST."""
    return "text/html" in call.headers.get("accept", "").lower()


def _is_app(path: str, routes: RouteTable) -> bool:
    try:
        return not routes.app_of(path)[1]
    except UnknownPath:
        return False
