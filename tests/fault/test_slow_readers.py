"""Readers that are slow, or stop reading, and models that say nothing: what that costs, and whom."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import headrace
from tests.support.bystander import bystander
from tests.support.crowd import crowd
from tests.support.leaving import MODELS as LEAVING
from tests.support.memory import MIB, metric, resident_bytes, settled, watched_memory
from tests.support.official import CLIENTS_OF_FAL, Client, Outcome, need_node, official_server
from tests.support.server import RawStream, Server, data_events, eventually, running_server
from tests.support.toxic import Toxic

MODELS = Path(__file__).parent / "models/hoarding.py"
CALM = "/fault/calm/stream"

#: Events of the floods: 1,000 bytes of text, and what stands around it.
FLOOD = {"events": 1_000_000, "size": 1_000}
WINDOW_BYTES = 256 * 1024
#: What the kernel takes for us (`socket_buffer_bytes`), for a client whose own buffer is CLIENT_BYTES.
SEND_BYTES = 256 * 1024
CLIENT_BYTES = 16 * 1024

names = (f"slow {number}" for number in itertools.count())


class SlowReader(RawStream):
    """A client whose kernel takes no more than a few packets ahead of it, as over a slow line.

    Left alone, a loopback hands over 64 KiB at once, and takes no more until all of that is read.
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(30)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CLIENT_BYTES // 2)  # the kernel doubles it
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1_460)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 4_096)
        self.socket.connect(("127.0.0.1", port))
        self.bytes = b""


def unread(port: int, path: str, body: object) -> SlowReader:
    reader = SlowReader(port)
    reader.post(path, body)
    return reader


def made(server: Server) -> dict[str, int]:
    """How many events each flood has made."""
    return server.post("/fault/hoarding/made").json["made"]


def over(server: Server) -> list[str]:
    """The floods whose generators were closed."""
    return server.post("/fault/hoarding/made").json["over"]


@contextlib.contextmanager
def read_at(reader: RawStream, bytes_per_s: float) -> Iterator[threading.Thread]:
    """Read a little of a stream, ten times a second or less, until the block is left or the stream ends."""
    portion = max(1, int(bytes_per_s / 10))
    is_over = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            while not is_over.wait(portion / bytes_per_s):
                if not (piece := reader.socket.recv(portion)):
                    return
                reader.bytes += piece

    thread = threading.Thread(target=read, name="slow reader")
    thread.start()
    try:
        yield thread
    finally:
        is_over.set()
        thread.join(60)
    assert not thread.is_alive()


# --- S6: slow readers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patient() -> Iterator[Server]:
    """A server that lets readers take their time."""
    with running_server(MODELS, limits={"stall_timeout_s": 600}) as server:
        server.post("/fault/hoarding/made")
        yield server


@pytest.mark.promise("S6")
@pytest.mark.parametrize("bytes_per_s", [0, 1])
@pytest.mark.parametrize("path", ["/fault/hoarding/flood/stream", "/fault/hoarding/flood-sync/stream"])
def test_a_slow_reader_stops_its_model_at_the_cap_and_nobody_else(patient, path, bytes_per_s, recorder, figures):
    ticks = 500 if recorder.is_full else 25
    everybody = {"readers": 50, "n": ticks, "pause_s": 0.02}
    name = next(names)
    without = crowd(patient, "/fault/hoarding/ticks/stream", **everybody)
    with unread(patient.port, path, {**FLOOD, "name": name}) as slow, contextlib.ExitStack() as reading:
        if bytes_per_s:
            reading.enter_context(read_at(slow, bytes_per_s))
        eventually(lambda: name in made(patient), "its model begins")
        events = settled(lambda: made(patient)[name])
        with watched_memory(patient) as growth, bystander(patient, path=CALM, ticks=10):
            beside = crowd(patient, "/fault/hoarding/ticks/stream", **everybody)
        later = made(patient)[name]

    assert isinstance(events, int)
    assert ([], []) == (without.complaints, beside.complaints)
    # By cost: 1,000 bytes of text, some 25 around it, 64 for each event. One event may overdraw.
    assert events * 1_089 <= WINDOW_BYTES + SEND_BYTES + CLIENT_BYTES + 8 * 1_089
    assert later - events <= 2 + bytes_per_s * 60  # it takes a byte a second: the model stands still
    assert growth.node < 16 * MIB
    assert growth.runner_mib < 16
    figures("S6", made_kib=events * 1_089 / 1024, p99_gap_without_ms=without.p99_ms, p99_gap_beside_ms=beside.p99_ms,
            node_mib=growth.node_mib, runner_mib=growth.runner_mib)  # fmt: skip


@pytest.mark.promise("S6")
def test_a_thousand_readers_that_stopped_cost_what_their_windows_hold_and_others_nothing(recorder, figures):
    readers = 1_000 if recorder.is_full else 40
    everybody = {"readers": 50, "n": readers // 2, "pause_s": 0.02}
    with running_server(MODELS, limits={"stall_timeout_s": 600}) as server, contextlib.ExitStack() as streams:
        server.post("/fault/hoarding/made")
        without = crowd(server, "/fault/hoarding/ticks/stream", **everybody)
        before = resident_bytes(server.process.pid)
        for number in range(readers):
            name = f"stopped {number}"
            streams.enter_context(unread(server.port, "/fault/hoarding/flood/stream", {**FLOOD, "name": name}))
        eventually(lambda: len(made(server)) == readers, "all the models begin")
        settled(lambda: sum(made(server).values()))
        held = metric(server, "headrace_held_bytes", kind="events")
        with watched_memory(server) as growth, bystander(server, path=CALM, ticks=10):
            grown = resident_bytes(server.process.pid) - before
            beside = crowd(server, "/fault/hoarding/ticks/stream", **everybody)

    assert ([], []) == (without.complaints, beside.complaints)
    assert growth.node < 16 * MIB  # flat
    assert growth.runner_mib < 16
    assert held <= readers * (WINDOW_BYTES + SEND_BYTES + CLIENT_BYTES + 64 * 1024)
    assert grown <= readers * (WINDOW_BYTES + SEND_BYTES + CLIENT_BYTES + 256 * 1024) + 32 * MIB
    figures("S6", readers=readers, node_mib=grown / MIB, each_kib=grown / readers / 1024, held_mib=held / MIB,
            node_mib_later=growth.node_mib, p99_gap_without_ms=without.p99_ms,
            p99_gap_beside_ms=beside.p99_ms)  # fmt: skip


# --- S7: readers that take nothing --------------------------------------------------------------------------

#: Seconds after which a smoke run takes a reader for stalled who is not: one that reads is in this process, which a busy
#: machine may hold up for some.
STALL_S = 5


@pytest.mark.promise("S7")
def test_a_reader_that_takes_nothing_is_ended_and_counted_and_its_slot_is_free(count, figures, recorder):
    readers = count(smoke=3, full=10)
    limits = {} if recorder.is_full else {"stall_timeout_s": 1}
    stall_s = 30.0 if recorder.is_full else 1.0
    with running_server(MODELS, limits=limits) as server, contextlib.ExitStack() as streams:
        server.post("/fault/hoarding/made")
        ended_s: list[float] = []
        with bystander(server, path="/fault/hoarding/ticks/stream"):
            stopped_at = {}
            for number in range(readers):
                body = {**FLOOD, "name": f"stalled {number}"}
                stopped_at[f"stalled {number}"] = time.monotonic()
                reader = streams.enter_context(unread(server.port, "/fault/hoarding/flood/stream", body))
            waits = dict(stopped_at)

            def all_are_over() -> bool:
                for name in over(server):
                    if name in waits:
                        ended_s.append(time.monotonic() - waits.pop(name))
                return not waits

            eventually(all_are_over, "every stalled reader's model is stopped", seconds=stall_s + 30)
            eventually(
                lambda: metric(server, "headrace_requests", app="fault/hoarding", state="running") <= 1,
                "the slots are free",
            )
        stalled = metric(server, "headrace_readers_stalled_total", app="fault/hoarding")
        ends = metric(server, "headrace_requests_total", app="fault/hoarding", ending="reader_stalled")
        with contextlib.suppress(ConnectionResetError):
            reader.read_to_end()

    assert (readers, readers) == (stalled, ends)
    assert not reader.is_whole
    assert min(ended_s) >= stall_s * 0.9
    figures("S7", n=readers, first_s=min(ended_s), last_s=max(ended_s), limit_s=stall_s)


@pytest.mark.promise("S7")
def test_a_reader_that_moves_however_slowly_is_not_ended(recorder):
    limits, rate = ({}, 1_000) if recorder.is_full else ({"stall_timeout_s": STALL_S}, 20_000)
    patience_s = 90 if recorder.is_full else STALL_S + 2
    with running_server(MODELS, limits=limits) as server, bystander(server, path=CALM):
        with unread(server.port, "/fault/hoarding/flood/stream", {**FLOOD, "name": "moves"}) as slow:
            begun = time.monotonic()
            with read_at(slow, rate) as reading:
                eventually(
                    lambda: not reading.is_alive() or time.monotonic() - begun > patience_s,
                    "time passes",
                    seconds=patience_s + 30,
                )
                assert reading.is_alive(), "the stream was ended"
                assert over(server) == []
            assert 0 == metric(server, "headrace_readers_stalled_total", app="fault/hoarding")
            numbers = [event["i"] for event in data_events(slow.body[: slow.body.rfind(b"\n\n") + 2])]
            assert list(range(len(numbers))) == numbers
            assert len(slow.bytes) > rate


@pytest.mark.promise("S7")
def test_a_thin_line_is_no_stalled_reader(recorder):
    limits, rate = ({}, 8_000) if recorder.is_full else ({"stall_timeout_s": STALL_S}, 100_000)
    events = 600 if recorder.is_full else int((STALL_S + 1) * 100)
    with (
        running_server(MODELS, limits=limits) as server,
        Toxic(server.port) as proxy,
        bystander(server, path=CALM),
    ):
        proxy.add("bandwidth", bytes_per_s=rate)
        with RawStream(proxy.port) as stream:
            stream.post("/fault/hoarding/flood/stream", {"events": events, "size": 1_000})
            stream.read_until(b"\r\n0\r\n\r\n")
        assert 0 == metric(server, "headrace_readers_stalled_total", app="fault/hoarding")

    assert list(range(events)) == [event["i"] for event in data_events(stream.body)]


# --- S8: fast models ----------------------------------------------------------------------------------------


def hash_of(stream: RawStream) -> tuple[str, dict[str, object]]:
    """Read a stream to its end without keeping it; return the hash of its texts, and its last event."""
    file = stream.socket.makefile("rb", buffering=256 * 1024)
    digest, last = hashlib.sha256(), {}
    while file.readline() != b"\r\n":
        pass
    rest = b""
    while size := int(file.readline(), 16):
        rest += file.read(size)
        assert file.read(2) == b"\r\n"
        *blocks, rest = rest.split(b"\n\n")
        for block in blocks:
            [last] = data_events(block.replace(b": ping\n", b""))
            if "pad" in last:
                digest.update(f"{last['i']} {last['pad']}\n".encode())
    assert (rest.replace(b": ping\n", b""), file.readline()) == (b"", b"\r\n")
    return digest.hexdigest(), last


@pytest.mark.promise("S8")
@pytest.mark.parametrize("path", ["/fault/hoarding/hashed/stream", "/fault/hoarding/hashed-async/stream"])
def test_a_model_faster_than_any_reader_costs_no_memory_and_no_event(patient, path, recorder, figures):
    total = (512 if recorder.is_full else 32) * MIB
    for _ in range(2):  # both processes have what they need for one stream
        with patient.open(path, {"bytes": 8 * MIB}) as stream:
            hash_of(stream)
    begun = time.monotonic()
    with watched_memory(patient) as growth, bystander(patient, path=CALM, ticks=10):
        with patient.open(path, {"bytes": total}) as stream:
            digest, last = hash_of(stream)
    took_s = time.monotonic() - begun

    assert last["sha256"] == digest
    assert growth.node < 32 * MIB
    assert growth.runner_mib < 32
    figures("S8", mib=total / MIB, node_mib=growth.node_mib, runner_mib=growth.runner_mib,
            mib_per_s=total / MIB / took_s)  # fmt: skip


# --- S9: silent models --------------------------------------------------------------------------------------


@pytest.mark.promise("S9")
def test_heartbeats_come_on_time_each_a_comment_of_one_newline(recorder, figures):
    heartbeat_s, beats = (10.0, 12) if recorder.is_full else (0.4, 5)
    limits = {"heartbeat_s": heartbeat_s, "headers_hold_s": heartbeat_s}
    with (
        running_server(f"{LEAVING}:Leaving", limits=limits) as server,
        bystander(server, path="/test/leaving/stream"),
    ):
        arrivals: list[float] = [time.monotonic()]
        with server.open("/test/leaving/ponders/stream", {"n": 0, "name": "silent"}) as stream:
            for beat in range(1, beats + 1):
                eventually(lambda: read_more(stream) >= beat, "a heartbeat", seconds=heartbeat_s + 30)
                arrivals.append(time.monotonic())
            (server.folder / "notes.silent").touch()  # it says its one word
            stream.read_until(b"\r\n0\r\n\r\n")
            seconds = time.monotonic() - arrivals[0]

    came = stream.body.count(b": ping\n")
    assert b": ping\n" * came + b'data: {"total":0}\n\n' == stream.body
    assert beats <= came <= seconds / heartbeat_s + 0.1  # none comes early, however late some are
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert statistics.median(gaps) < heartbeat_s + 2
    figures("S9", n=beats, heartbeat_s=heartbeat_s, median_s=statistics.median(gaps), longest_s=max(gaps),
            shortest_s=min(gaps))  # fmt: skip


def read_more(stream: RawStream) -> int:
    """Read a piece; return how many heartbeats there are by now."""
    piece = stream.socket.recv(65_536)
    assert piece, "the connection ended"
    stream.bytes += piece
    return stream.body.count(b": ping\n")


@pytest.mark.promise("S9")
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_a_silence_of_minutes_disturbs_no_client_of_fals(language, silent_server, silence_s):
    clients = [client for client in CLIENTS_OF_FAL if client.name.startswith(language)]
    if language == "javascript":
        need_node()

    def call(client: Client) -> Outcome:
        return client.stream(silent_server, "zoo/zoo/silent", {"pause": silence_s}, seconds=silence_s + 60)

    with ThreadPoolExecutor(len(clients)) as threads:
        called = list(threads.map(call, clients))

    expected = [([{"i": 0}], None, 0)] * 2
    assert expected == [(outcome.items, outcome.error, outcome.exit_status) for outcome in called]


@pytest.mark.promise("S9")
def test_a_silence_of_minutes_disturbs_neither_of_our_clients(silent_server, silence_s):
    url, key = silent_server.server.url, silent_server.environment["FAL_KEY"]
    client = headrace.Client(url, key)

    async def both() -> list[list[object]]:
        async def read() -> list[object]:
            async with headrace.AsyncClient(url, key) as client:
                return [item async for item in client.stream("zoo/zoo/silent", {"pause": silence_s})]

        in_thread = asyncio.to_thread(lambda: list(client.stream("zoo/zoo/silent", {"pause": silence_s})))
        return await asyncio.gather(in_thread, read())

    with client:
        assert [[{"i": 0}], [{"i": 0}]] == asyncio.run(both())


@pytest.fixture(scope="module")
def silence_s(recorder) -> float:
    return 120.0 if recorder.is_full else 2.0


@pytest.fixture(scope="module")
def silent_server(recorder):
    """In a full run with the heartbeats that everybody gets."""
    limits = {} if recorder.is_full else {"heartbeat_s": 0.3, "headers_hold_s": 0.3}
    with official_server(limits=limits) as served:
        yield served
