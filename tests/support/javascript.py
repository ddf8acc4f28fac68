"""Our SDK for JavaScript: where it lies, and the parse table as it is given to it, in Node and in a browser."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
from typing import Any

from tests.support.official import lacking
from tests.support.server import ROOT
from tests.support.sse_cases import CASES, PARTS
from tests.support.sse_reference import reference

SDK = ROOT / "src" / "headrace" / "gateway" / "static" / "headrace.js"
SCRIPTS = ROOT / "tests" / "support" / "js"

#: Seconds that a script in Node may take.
SCRIPT_S = 50.0


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
