"""A small server that takes files as ours does, and fails as a test says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from tests.support.scripted import Received, Scripted, answer, scripted


@contextlib.contextmanager
def fake_storage(*failures: object, key: str = "k") -> Iterator[Scripted]:
    """Run it; the first requests with bytes meet `failures`, a step of a script each, or a status.

    `key` is what makes the address that takes the bytes one that nobody else has.
    """
    left = list(failures)

    def answered(request: Received) -> object:
        method, target, _ = request.line.split()
        if "/initiate" in target:
            promise = {
                "upload_url": f"{server.url}/storage/upload/u1?key={key}",
                "file_url": f"{server.url}/files/f1/a",
            }
            return answer(200, json.dumps(promise).encode())
        failure = left.pop(0) if left and method == "PUT" else None
        if isinstance(failure, int):
            return answer(failure, b'{"detail": "scripted"}')
        if failure is not None:
            return failure
        number = target.partition("?")[0].rpartition("/")[2]
        return answer(200, json.dumps({"partNumber": number, "etag": f"e{number}"}).encode())

    with scripted([answered]) as server:
        yield server


def steps_of(server: Scripted) -> list[str]:
    """What was asked, step by step: `initiate`, `u1`, `u1/1`, `u1/complete`."""
    targets = [request.line.split()[1].partition("?")[0] for request in server.requests]
    return [target.removeprefix("/storage/upload/") for target in targets]


def bytes_put(server: Scripted) -> list[bytes]:
    """The bodies that were put."""
    return [request.body for request in server.requests if request.line.startswith("PUT")]
