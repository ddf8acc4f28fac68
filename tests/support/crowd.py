"""Many ordinary readers of one endpoint, read in one thread: do they notice what happens beside them?

The endpoint gives `{"i": 0}` … `{"i": n - 1}`, `pause` seconds apart, and `{"total": n}`.
"""

from __future__ import annotations

import itertools
import selectors
import time
from dataclasses import dataclass, field

from tests.support.recorder import spread_ms
from tests.support.server import PATIENCE_S, RawStream, Server, data_events

FINAL_CHUNK = b"\r\n0\r\n\r\n"


@dataclass
class Member:
    stream: RawStream
    arrivals: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Crowd:
    """What all of them saw."""

    gaps_s: list[float]  # between each two events of a stream
    complaints: list[str]

    @property
    def p99_ms(self) -> float:
        return spread_ms(self.gaps_s)["p99_ms"]


def crowd(server: Server, path: str, *, readers: int, n: int, pause_s: float) -> Crowd:
    """Read that many streams side by side, each to its end."""
    members = [Member(server.open(path, {"n": n, "pause": pause_s})) for _ in range(readers)]
    try:
        with selectors.DefaultSelector() as selector:
            for member in members:
                selector.register(member.stream.socket, selectors.EVENT_READ, member)
            deadline = time.monotonic() + n * pause_s + PATIENCE_S
            while selector.get_map() and time.monotonic() < deadline:
                for key, _ in selector.select(timeout=0.5):
                    if not _read_some(key.data):
                        selector.unregister(key.fileobj)
    finally:
        for member in members:
            member.stream.close()
    gaps = [later - earlier for one in members for earlier, later in itertools.pairwise(one.arrivals)]
    return Crowd(gaps, [complaint for one in members if (complaint := _complaint(one.stream, n))])


def _read_some(member: Member) -> bool:
    """Read what there is; return whether more will come."""
    piece = member.stream.socket.recv(65_536)
    member.stream.bytes += piece
    member.arrivals += [time.monotonic()] * piece.count(b"data: ")
    return bool(piece) and not member.stream.bytes.endswith(FINAL_CHUNK)


def _complaint(stream: RawStream, n: int) -> str | None:
    if data_events(stream.body) == [*({"i": i} for i in range(n)), {"total": n}] and stream.is_whole:
        return None
    return f"{len(data_events(stream.body))} of {n + 1} events, and last {stream.bytes[-200:]!r}"
