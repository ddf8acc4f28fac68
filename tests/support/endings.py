"""Every way a stream can fail, and how each is told: one table for all clients.

The models are those of tests/support/mortal.py. One way needs a hand: `cancelling` stops requests that ask for it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.official import OfficialServer, Outcome, command_of
from tests.support.server import PATIENCE_S, ROOT, Server

MODELS = ROOT / "tests" / "support" / "mortal.py"

#: Limits under which each of them comes soon. So many deaths are no loop of crashes.
LIMITS = {"headers_hold_s": 0.2, "heartbeat_s": 0.2, "crashes_max": 1_000}


@dataclass(frozen=True)
class Ending:
    """What is called, and what the caller is told."""

    endpoint: str
    input: dict[str, Any]
    items: list[Any]
    type: str
    status: int
    is_retryable: bool = False


ONE = [{"i": 0}]


def ending(how: str, type_: str, status: int, *, app: str = "any", events: int = 1, **fields: Any) -> Ending:
    input = {"how": how, "events": events, "pause": fields.pop("pause", 0.0)}
    return Ending(f"mortal/{app}", input, ONE[:events], type_, status, **fields)


def death(how: str) -> Ending:
    return ending(how, "runner_disconnected", 503, app="crash", is_retryable=True)


#: Failures that are told behind the first byte of a stream. A run is told the same by its status.
ENDINGS = {
    "raised": ending("raised", "runner_server_error", 500),
    "exited": ending("exited", "runner_server_error", 500),
    "refused": ending("refused", "app_error", 418),
    "found a field wrong": ending("found a field wrong", "validation_error", 422),
    "gave up": ending("gave up", "client_cancelled", 499),
    "yielded bytes": ending("yielded bytes", "unserializable_item", 500),
    "yielded too much": ending("yielded too much", "event_too_large", 500),
    "yielded nothing": ending("well", "no_result", 500, events=0, pause=0.35),
    "cancelled": ending("asks to be cancelled", "client_cancelled", 499, app="single"),
    "killed": death("killed"),
    "left by os._exit": death("left by os._exit"),
    "SIGSEGV": death("SIGSEGV"),
    "SIGABRT": death("SIGABRT"),
    "no first event": ending("silent", "first_event_timeout", 504, events=0, is_retryable=True),
    "a gap": ending("silent", "event_gap_timeout", 504, is_retryable=True),
    "too long": ending("silent", "request_timeout", 504, app="hurried", is_retryable=True),
}
#: To be called while the one slot is taken.
NO_SLOT = Ending("mortal/single", {}, [], "startup_timeout", 504, is_retryable=True)


@contextlib.contextmanager
def cancelling(server: Server, key: str | None = None) -> Iterator[None]:
    """Cancel every request whose model asks for it, by the route for that, as long as the block runs."""
    is_over = threading.Event()
    headers = {"Authorization": f"Key {key}"} if key else {}

    def watch() -> None:
        seen = 0
        while not is_over.wait(0.01):
            notes = server.notes()
            for note in notes[seen:]:
                if note.startswith("cancel me "):
                    id_ = note.rpartition(" ")[2]
                    server.request("PUT", f"/mortal/single/requests/{id_}/cancel", headers=headers)
            seen = len(notes)

    watcher = threading.Thread(target=watch, name="cancelling")
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join(PATIENCE_S)


# --- fal's clients --------------------------------------------------------------------------------------------


def told(
    to: OfficialServer,
    program: str,
    kinds: Sequence[str],
    endings: dict[str, Ending],
    *,
    seconds: float = 4 * PATIENCE_S,
) -> dict[tuple[str, str], Outcome]:
    """Have one process of one of fal's clients call all of them at once, in each of some ways: what each call was told.

    `program` is endings.py or endings.mjs of tests/contract/clients.
    """
    calls = [
        {"name": name, "kind": kind, "endpoint": ending.endpoint, "input": ending.input}
        for name, ending in endings.items()
        for kind in kinds
    ]
    command, folder = command_of(program, to)
    process = subprocess.run(
        [*command, json.dumps(calls)],
        cwd=folder, env=to.environment, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-4_000:]
    outcomes = {}
    for line in filter(None, process.stdout.split("\n")):
        fields = json.loads(line)
        call = fields.pop("name"), fields.pop("kind")
        outcomes[call] = Outcome(**fields)
    return outcomes
