"""What tests about runners look at: notes, processes by their mark, the kernel's clocks, metrics, last errors; and a crowd."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from pathlib import Path

from tests.support.server import Answer, RawStream, Server, data_events, processes

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def error_of(stream: RawStream) -> dict[str, object]:
    """The error that ended a stream: one event, the last, with the request's id, and then a cut."""
    last = stream.body.rpartition(b"event: error\ndata: ")[2]  # heartbeats may stand before it
    request_id = re.search(rb"x-fal-request-id: (\S+)", stream.head)[1].decode()
    error = json.loads(last.removesuffix(b"\n\n"))["error"]
    assert (stream.body.count(b"event: error"), error["request_id"], stream.is_whole) == (1, request_id, False)
    return error


def first_pid(stream: RawStream) -> int:
    """The process that makes a stream, as its first event tells."""
    stream.read_until(b"\n\n")
    return data_events(stream.body)[0]["pid"]


def noted(server: Server, what: str) -> list[float]:
    """The values of a model's notes `WHAT VALUE`."""
    return [float(note.removeprefix(f"{what} ")) for note in server.notes() if note.startswith(f"{what} ")]


def metric(server: Server, series: str) -> float:
    """One series of `/metrics`, by its whole name; 0 when it is not there."""
    for line in server.request("GET", "/metrics").body.decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name == series:
            return float(value)
    return 0.0


def condition(server: Server, app: str) -> dict[str, object]:
    """What `/ready` says of an app."""
    return server.request("GET", "/ready").json["apps"][app]


class Crowd:
    """Callers that ask all at once: `with Crowd(server, path, number, body) as crowd:` waits for their answers at its end."""

    def __init__(self, server: Server, path: str, number: int, body: object) -> None:
        self.answers: list[Answer] = []

        def ask() -> None:
            self.answers.append(server.post(path, body))

        self._threads = [threading.Thread(target=ask) for _ in range(number)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    @property
    def pids(self) -> set[int]:
        """The runners that answered; fails unless every call was."""
        assert [answer.status for answer in self.answers] == [200] * len(self._threads)
        return {answer.json["pid"] for answer in self.answers}


def bearers(mark: str) -> set[int]:
    """The live processes with a text in their environment, in whatever session they are."""
    found = set()
    for pid, _, _ in processes():
        with contextlib.suppress(OSError):
            if mark.encode() in (Path("/proc") / str(pid) / "environ").read_bytes():
                found.add(pid)
    return found


def group_of(leader: int) -> set[int]:
    """The live processes of a group."""
    return {pid for pid, _, group in processes() if group == leader}


def started_at(pid: int) -> float:
    """When a process was started, by CLOCK_MONOTONIC, to a hundredth of a second."""
    since_boot = int(_stat(pid)[19]) / TICKS_PER_S
    return since_boot - time.clock_gettime(time.CLOCK_BOOTTIME) + time.monotonic()


def cpu_s(pid: int) -> float:
    """The seconds of CPU that a process has used, its children's aside."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
