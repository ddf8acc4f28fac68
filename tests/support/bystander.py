"""A stream of somebody else, read beside a fault: it must not notice.

    with bystander(server) as other:
        …harm another request…
    other.gap_ms  # the longest it waited for an event

It knows one endpoint by its contract: the input `{"n", "pause", "name"}` gives `{"i": 0}` … `{"i": n - 1}`, `pause`
seconds apart, and `{"total": n}` at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.server import PATIENCE_S, RawStream, Server, data_events

EVENT = re.compile(rb"data: [^\n]*\n\n")
FINAL_CHUNK = b"\r\n0\r\n\r\n"

_numbers = itertools.count(1)


@dataclass
class Bystander:
    """What the reader saw. Read one stream after the other, for as long as the fault lasts."""

    port: int
    path: str
    ticks: int
    pause_s: float
    arrivals: list[list[float]] = field(default_factory=list)  # of each stream, when each event came
    complaints: list[str] = field(default_factory=list)
    _has_begun: threading.Event = field(default_factory=threading.Event)
    _is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def gaps_ms(self) -> list[float]:
        """The time between each two events of a stream, its pause included."""
        return [
            (later - earlier) * 1000 for stream in self.arrivals for earlier, later in itertools.pairwise(stream)
        ]

    @property
    def gap_ms(self) -> float:
        """The longest of them."""
        return max(self.gaps_ms, default=0.0)

    def read(self) -> None:
        """The life of its thread. It complains of what it sees, and goes on until it has something to say."""
        try:
            while not self.complaints and not (self._is_over.is_set() and self.arrivals):
                self._read_a_stream(f"bystander {next(_numbers)}")
        except (OSError, ValueError) as fault:
            self.complaints.append(f"its connection or what came on it was broken: {fault!r}")
        finally:
            self._has_begun.set()

    def _read_a_stream(self, name: str) -> None:
        arrivals: list[float] = []
        self.arrivals.append(arrivals)
        with RawStream(self.port) as stream:
            stream.post(self.path, {"n": self.ticks, "pause": self.pause_s, "name": name})
            seen = 0
            while FINAL_CHUNK not in stream.bytes[-len(FINAL_CHUNK) :]:
                piece = stream.socket.recv(65_536)
                if not piece:
                    break
                stream.bytes += piece
                for event in EVENT.finditer(stream.bytes, seen):
                    arrivals.append(time.monotonic())
                    seen = event.end()
                    self._has_begun.set()
        expected = [*({"i": i} for i in range(self.ticks)), {"total": self.ticks}]
        if data_events(stream.body) != expected or not stream.is_whole:
            self.complaints.append(
                f"{name}: {len(arrivals)} of {len(expected)} events, the end "
                f"{'clean' if stream.is_whole else 'a cut'}; last bytes {stream.bytes[-300:]!r}"
            )


@contextlib.contextmanager
def bystander(
    server: Server,
    *,
    path: str = "/zoo/zoo/async/stream",
    ticks: int = 50,
    pause_s: float = 0.02,
    gap_s: float = 15.0,  # a busy machine holds a process up for seconds
) -> Iterator[Bystander]:
    """Read streams of `ticks` events while the block runs, from its first event on; the last one to its end.

    Fails at exit, with all that was seen, unless every stream brought each event once and in order, no error event and a
    clean end, and no two events were further apart than `gap_s`. Until the block is left a new stream follows the one
    that ended, so a fault that fills every slot wants more `ticks` than it lasts.
    """
    other = Bystander(server.port, path, ticks, pause_s)
    reader = threading.Thread(target=other.read, name="bystander")
    reader.start()
    try:
        assert other._has_begun.wait(PATIENCE_S), "the bystander's first event did not come"
        assert not other.complaints, other.complaints[0]
        yield other
    finally:
        other._is_over.set()
        reader.join(PATIENCE_S + ticks * pause_s)
    assert not reader.is_alive(), "the bystander's stream does not end"
    assert not other.complaints, other.complaints[0]
    assert other.gap_ms <= gap_s * 1000, f"the bystander waited {other.gap_ms:.0f} ms for an event"
