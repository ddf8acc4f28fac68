"""Our SDK for JavaScript: where it lies, and the parse table as it is given to it, in Node and in a browser."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tests.support.official import lacking
from tests.support.server import ROOT
from tests.support.sse_cases import CASES, PARTS
from tests.support.sse_reference import reference

SDK = ROOT / "src" / "headrace" / "gateway" / "static" / "headrace.js"
SCRIPTS = ROOT / "tests" / "support" / "js"

#: Seconds that a script in Node may take.
SCRIPT_S = 100.0


def node(script: str, given: object = None, *, env: dict[str, str] | None = None) -> Any:
    """Run a module in Node, with `given` as JSON on its standard input; return the JSON that it prints.

    In the script, `SDK` and `SCRIPTS` are the URLs of the SDK and of tests/support/js, `given` is what was given.
    """
    if shutil.which("node") is None:
        lacking("node is missing: the SDK for JavaScript is tested in Node 20 or later")
    head = f"""
        import {{ text }} from "node:stream/consumers";
        const SDK = {json.dumps(SDK.as_uri())}, SCRIPTS = {json.dumps(SCRIPTS.as_uri() + "/")};
        const given = JSON.parse(await text(process.stdin));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", head + script],
        input=json.dumps(given), env=env, capture_output=True, text=True, timeout=SCRIPT_S,
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr), done.stderr[-4_000:]
    return json.loads(done.stdout)


class JavaScriptError(Exception):
    """What a script in Node threw; `facts` are the error's own."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(f"{facts['name']}: {facts['message']}")
        self.facts = facts


@dataclass
class Node:
    """Node with the SDK loaded. A script is the body of an async function of `sdk`, `given` and `read`."""

    process: subprocess.Popen[str]
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _waiting: dict[int, Future[Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, script: str, **given: Any) -> Future[Any]:
        """Begin a script; the future has what it returns, as JSON can tell it."""
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"number": number, "script": script, "given": given}) + "\n")
            self.process.stdin.flush()
        return future

    def run(self, script: str, **given: Any) -> Any:
        """Run a script and return its value. Raises `JavaScriptError`."""
        return self.begin(script, **given).result(SCRIPT_S)

    def read(self, url: str, id: str = "me/app", **given: Any) -> dict[str, Any]:
        """Read a stream; return its `items`, `requestId` and `error`."""
        options = given.pop("options", {})
        return self.run("return await read(given);", url=url, id=id, options=options, **given)

    def listen(self) -> None:
        """Take what scripts tell, until Node ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            future = self._waiting.pop(told["number"])
            if "error" in told:
                future.set_exception(JavaScriptError(told["error"]))
            else:
                future.set_result(told.get("value"))
        for future in self._waiting.values():
            future.set_exception(AssertionError("Node ended; see what it wrote to stderr"))


@contextlib.contextmanager
def running_node() -> Iterator[Node]:
    """Run Node until the block ends. A rejection that nobody handles ends it, and fails the test."""
    if shutil.which("node") is None:
        lacking("node is missing: the SDK for JavaScript is tested in Node 20 or later")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "FAL_"))}
    process = subprocess.Popen(
        ["node", "--unhandled-rejections=strict", str(SCRIPTS / "node.mjs"), SDK.as_uri()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean,
        process_group=0,
    )  # fmt: skip
    node = Node(process)
    listener = threading.Thread(target=node.listen)
    complaints: list[str] = []
    assert process.stderr is not None
    hearer = threading.Thread(target=lambda: complaints.append(process.stderr.read()))
    for thread in (listener, hearer):
        thread.start()
    try:
        yield node
    finally:
        is_alive = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)  # `node` may be a script that runs the real one
        process.wait()
        for thread in (listener, hearer):
            thread.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
    assert (True, [""]) == (is_alive, complaints), complaints


def sse_cases() -> list[dict[str, object]]:
    """Return the parse table, and random streams with what the reference reads in them, as JSON can hold them."""
    cases = [
        (case.name, case.stream, case.starts_with_id, case.events, case.last_event_id, case.retry_ms)
        for case in CASES
    ]
    for seed in range(300):
        stream = b"".join(random.Random(seed).choices(PARTS, k=seed % 40 + 1))
        cases.append((f"random {seed}", stream, "before", *reference(stream, "before")))
    names = ("name", "stream", "startsWithId", "events", "lastEventId", "retryMs")
    return [
        dict(zip(names, (name, base64.b64encode(stream).decode(), *rest), strict=True))
        for name, stream, *rest in cases
    ]


def assert_all_decoded(judged: dict[str, Any]) -> None:
    """Check what tests/support/js/decoding.mjs returns."""
    assert [] == judged["mistakes"]
    assert judged["count"] > 20_000
