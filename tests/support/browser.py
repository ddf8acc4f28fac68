"""What browser tests are made of: the browser, what its pages complain of, and pages of another origin than ours."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.official import lacking

CHROMIUM = "/usr/bin/chromium"

#: Without the ones about background work, Chromium asks the network for what is not there.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP *.example 127.0.0.1",  # names for pages that are not this machine's
]  # fmt: skip

#: A violation of a content security policy, told where `Complaints` hears it.
_TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sourceFile, lineNumber }) =>
  console.error(`content security policy: ${violatedDirective} stops ${blockedURI} at ${sourceFile}:${lineNumber}`));
"""


def need_chromium() -> None:
    """Skip with the reason where there is no Chromium, but fail in CI."""
    if not os.access(CHROMIUM, os.X_OK):
        lacking(f"{CHROMIUM} is missing: browser tests need Debian's chromium (apt-get install chromium)")


@dataclass
class Complaints:
    """What pages complained of: errors on their consoles, exceptions that nobody caught, violations of a policy."""

    heard: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """Let what matches pass; that none matches is a failure, too."""
        self.expected.append(pattern)

    def allow(self, pattern: str) -> None:
        """Let what matches pass, if it comes: a cut that a page may have noticed, or may have been spared."""
        self.allowed.append(pattern)

    def listen_to(self, context: Any) -> None:
        """Hear every page of a browser context."""
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", lambda message: message.type == "error" and self._hear(message))
        context.on("weberror", lambda error: self.heard.append(f"uncaught: {error.error}"))

    def judge(self) -> None:
        """Fail for complaints that were not expected, and for expected ones that did not come."""
        fine = [*self.expected, *self.allowed]
        surprises = [text for text in self.heard if not any(re.search(one, text) for one in fine)]
        missing = [one for one in self.expected if not any(re.search(one, text) for text in self.heard)]

        assert ([], []) == (surprises, missing)

    def _hear(self, message: Any) -> None:
        self.heard.append(f"{message.text} ({message.location.get('url', '')})")


@dataclass(frozen=True)
class Site:
    """Pages of an origin of their own."""

    port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"


@contextlib.contextmanager
def site(pages: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Iterator[Site]:
    """Serve pages and scripts from a port of their own, by path, until the block ends. `/` is there in any case."""
    # An icon of its own: one that a browser asks for at its leisure may still be on its way when the site closes.
    texts = {"/": "<!doctype html><title>A page</title><link rel=icon href=data:,>", "/favicon.ico": "", **pages}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            text = texts.get(path)
            self.send_response(404 if text is None else 200)
            kind = "javascript" if path.endswith((".js", ".mjs")) else "html"
            for name, value in {"Content-Type": f"text/{kind}; charset=utf-8", **(headers or {})}.items():
                self.send_header(name, value)
            body = (text or "").encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Site(server.server_port)
        finally:
            server.shutdown()
            thread.join()
