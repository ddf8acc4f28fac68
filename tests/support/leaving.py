"""What tests of readers that leave share: the models' notes about their lives, and the node's metrics.

The models are in `tests/fault/models/leaving.py`; their times and `time.monotonic()` here are of one clock.
"""

from __future__ import annotations

import re

from tests.support.server import PATIENCE_S, ROOT, RawStream, Server, eventually

MODELS = ROOT / "tests" / "fault" / "models" / "leaving.py"

#: A reader leaves by closing its connection, or by resetting it.
WAYS = {"fin": RawStream.close, "rst": RawStream.reset}


def notes_of(server: Server, name: str) -> dict[str, str]:
    """What a model noted of the request of that name: what happened, and when."""
    return dict(re.findall(rf"^(\S+) {re.escape(name)} (\S+)$", "\n".join(server.notes()), re.MULTILINE))


def noted(server: Server, what: str, name: str, *, seconds: float = PATIENCE_S) -> float:
    """Wait until a model has noted this of the request of that name; return when it happened."""
    eventually(lambda: what in notes_of(server, name), f"{what!r} of the request {name!r}", seconds=seconds)
    return float(notes_of(server, name)[what])


def metric(server: Server, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    page = server.request("GET", "/metrics").body.decode()
    total = 0.0
    for told, value in re.findall(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", page, re.MULTILINE):
        if set(labels.items()) <= set(re.findall(r'(\w+)="([^"]*)"', told)):
            total += float(value)
    return total


def is_idle(server: Server, app: str) -> bool:
    """Whether no request of an app waits for a slot or holds one."""
    return metric(server, "headrace_requests", app=app) == 0


def waiting(server: Server, app: str) -> int:
    """How many requests of an app wait for a slot."""
    return int(metric(server, "headrace_requests", app=app, state="waiting"))
