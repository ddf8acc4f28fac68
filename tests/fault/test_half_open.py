"""Readers who are gone without a word: no FIN, no RST, and no acknowledgement ever again."""

import itertools
import time

import pytest

from tests.support.bystander import bystander
from tests.support.leaving import MODELS, is_idle, metric, noted, notes_of, waiting
from tests.support.recorder import spread_ms
from tests.support.server import RawStream, eventually, running_server
from tests.support.toxic import Toxic

#: What a full run waits for at most: a heartbeat's time, the stall's, 5 seconds of TCP, and a slow machine's.
PATIENCE_S = 90.0

names = (f"vanished-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server(recorder):
    # A reader that is to be behind for a moment may be held up with this process for some seconds.
    soon = {"heartbeat_s": 0.5, "headers_hold_s": 0.5, "stall_timeout_s": 5}
    targets = [f"{MODELS}:Leaving", f"{MODELS}:OneSlot"]
    with running_server(*targets, limits=None if recorder.is_full else soon) as server:
        yield server


@pytest.fixture
def proxy(server):
    with Toxic(server.port) as proxy:
        yield proxy


@pytest.fixture
def opened(proxy):
    """Makes a call through the proxy, and reads nothing of its answer."""
    streams = []

    def opened(path: str, **ask: object) -> RawStream:
        streams.append(RawStream(proxy.port))
        streams[-1].post(path, ask)
        return streams[-1]

    yield opened
    for stream in streams:
        stream.close()


#: Calls that have a slot.
SERVED = [
    ("/test/leaving/stream", {"pause": 0.02}),
    ("/test/leaving/stream", {"pause": 600}),
    ("/test/leaving/stream", {"pause": 600, "burst": 200, "pad": 10_000}),  # whose reader is behind, for a while
    ("/test/leaving/sync/stream", {"pause": 0.02}),
    ("/test/leaving/thinks/stream", {}),  # no event yet
    ("/test/leaving", {"pause": 600}),  # a run, which says nothing until its end
]


@pytest.mark.promise("S4", "S5")
def test_readers_that_vanish_are_noticed_and_hold_neither_a_slot_nor_a_place(
    server, proxy, opened, count, figures
):
    turns = count(smoke=1, full=2)
    served = {next(names): kind for kind in SERVED * turns}
    for name, (path, ask) in served.items():
        stream = opened(path, n=1_000_000, name=name, **ask)
        noted(server, "start", name)
        if "burst" in ask:
            eventually(lambda: metric(server, "headrace_held_bytes", kind="events") > 200_000, "it is behind")
            stream.read_until(b'{"i":%d,' % ask["burst"])
    holder = server.open("/test/one-slot/stream", {"n": 2, "pause": 600})
    holder.read_until(b"data: ")
    unserved = [(next(names), path) for path in ["/test/one-slot/stream", "/test/one-slot"] * turns]
    for name, path in unserved:
        opened(path, name=name)
    eventually(lambda: waiting(server, "test/one-slot") == len(unserved), "they wait")

    with bystander(server, path="/test/leaving/stream") as other:
        proxy.add("timeout", vanished=True)
        vanished_at = time.monotonic()
        times_s = [noted(server, "finally", name, seconds=PATIENCE_S) - vanished_at for name in served]
        eventually(lambda: waiting(server, "test/one-slot") == 0, "no place is held", seconds=PATIENCE_S)

    holder.close()
    eventually(lambda: is_idle(server, "test/leaving"), "no slot is held")
    assert server.post("/test/one-slot", {"n": 1}).status == 200
    assert [name for name, _ in unserved if "start" in notes_of(server, name)] == []
    figures("S4", **spread_ms(times_s), others_gap_ms=other.gap_ms)


@pytest.mark.promise("S4")
def test_a_proxy_that_gives_its_reader_up_frees_the_slot(server, proxy, opened, count, figures):
    times_s = []

    with bystander(server, path="/test/leaving/stream") as other:
        for _ in range(count(smoke=2, full=10)):
            name = next(names)
            opened("/test/leaving/stream", n=1_000_000, pause=0.02, name=name).read_until(b"data: ")
            proxy.add("timeout", ms=200)
            given_up_at = time.monotonic() + 0.2
            times_s.append(noted(server, "finally", name) - given_up_at)
            proxy.clear()

    figures("S4", target="at once", **spread_ms(times_s), others_gap_ms=other.gap_ms)


@pytest.mark.promise("S4")
def test_a_proxy_that_holds_a_connection_and_takes_nothing_more_loses_it(server, opened, count, figures):
    stalled = metric(server, "headrace_readers_stalled_total")
    callers = [next(names) for _ in range(count(smoke=1, full=10))]
    for name in callers:
        opened("/test/leaving/stream", n=1_000_000, pad=10_000, name=name)

    with bystander(server, path="/test/leaving/stream") as other:
        begun_at = max(noted(server, "start", name) for name in callers)
        times_s = [noted(server, "finally", name, seconds=PATIENCE_S) - begun_at for name in callers]

    assert metric(server, "headrace_readers_stalled_total") - stalled == len(callers)
    figures(
        "S4", target="stall_timeout_s (30 s) after the last byte", **spread_ms(times_s), others_gap_ms=other.gap_ms
    )
