"""The proxy of the fault tests does to a connection what it says, and nothing else. Nothing here measures exactly."""

import contextlib
import pathlib
import socket
import threading
import time

import pytest

from tests.support.server import eventually
from tests.support.toxic import Toxic

PATIENCE_S = 20.0
RST = b"\x01\0\0\0\0\0\0\0"


class Upstream:
    """A server that accepts, and leaves the rest to the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.port = self._listener.getsockname()[1]

    def accept(self) -> socket.socket:
        end, _ = self._listener.accept()
        end.settimeout(PATIENCE_S)
        return end

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def upstream():
    with contextlib.closing(Upstream()) as upstream:
        yield upstream


@pytest.fixture
def proxy(upstream):
    with Toxic(upstream.port) as proxy:
        yield proxy


@contextlib.contextmanager
def joined(proxy: Toxic, upstream: Upstream):
    """A client and its server, with the proxy between them."""
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as client, upstream.accept() as server:
        yield client, server


@contextlib.contextmanager
def pouring(end: socket.socket, data: bytes):
    """Send in a thread, as far as the other side lets us, and say that this was all."""

    def pour() -> None:
        with contextlib.suppress(OSError):
            end.sendall(data)
            end.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=pour)
    sender.start()
    yield
    sender.join(PATIENCE_S)


def read(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = end.recv(65_536)
        assert piece, f"the end after {data[-100:]!r}"
        data += piece
    return data


def read_to_end(end: socket.socket) -> bytes:
    data = b""
    while piece := end.recv(65_536):
        data += piece
    return data


def is_silent(end: socket.socket, seconds: float = 0.3) -> bool:
    """Whether neither a byte nor an end arrives for so long."""
    end.settimeout(seconds)
    try:
        end.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        end.settimeout(PATIENCE_S)
    return False


def test_without_a_toxic_it_is_a_wire(proxy, upstream):
    text = bytes(range(256)) * 4_000  # more than all the buffers hold
    with joined(proxy, upstream) as (client, server):
        with pouring(client, text):
            received = read_to_end(server)
        server.sendall(b"and back")
        server.close()

        assert received == text
        assert read_to_end(client) == b"and back"


def test_a_reset_passes_as_a_reset(proxy, upstream):
    with joined(proxy, upstream) as (client, server):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        client.close()

        with pytest.raises(ConnectionResetError):
            server.recv(1)


def test_a_server_that_is_not_there_is_a_reset(proxy, upstream):
    upstream.close()

    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as client,
    ):
        client.recv(1)


def test_it_holds_little_of_what_a_client_does_not_read(proxy, upstream):
    with joined(proxy, upstream) as (_, server):
        server.settimeout(1.0)
        taken = 0
        with pytest.raises(TimeoutError):
            while True:
                taken += server.send(bytes(65_536))

        # The server's own send buffer takes most of it; the proxy's share is 64 KiB and two small socket buffers.
        assert taken < 8 * 1024 * 1024


# --- latency, bandwidth, slicer -------------------------------------------------------------------------------


def test_latency_delays_its_direction_and_not_the_other(proxy, upstream):
    proxy.add("latency", direction="down", ms=60_000)
    with joined(proxy, upstream) as (client, server):
        server.sendall(b"slow")
        client.sendall(b"quick")

        assert read(server, 5) == b"quick"
        assert is_silent(client, 0.1)


def test_what_latency_delays_comes_by_itself_in_the_end(proxy, upstream):
    proxy.add("latency", direction="down", ms=400, jitter_ms=100)
    with joined(proxy, upstream) as (client, server):
        started_at = time.monotonic()
        server.sendall(b"slow")

        assert read(client, 4) == b"slow"
        assert 0.29 < time.monotonic() - started_at


def test_latency_is_not_paid_again_by_each_event(proxy, upstream):
    proxy.add("latency", ms=300)
    with joined(proxy, upstream) as (client, server):
        started_at = time.monotonic()
        for i in range(30):
            server.sendall(b"%02d" % i)
            time.sleep(0.005)
        received = read(client, 60)
        took_s = time.monotonic() - started_at

    assert received == b"".join(b"%02d" % i for i in range(30))
    assert 0.3 < took_s < 30 * 0.3


def test_bandwidth_lets_so_many_bytes_through_in_a_second(proxy, upstream):
    proxy.add("bandwidth", bytes_per_s=20_000)
    with joined(proxy, upstream) as (client, server):
        started_at = time.monotonic()
        server.sendall(bytes(10_000))
        read(client, 10_000)

    assert time.monotonic() - started_at > 0.4


def test_at_one_byte_a_second_a_single_byte_comes_at_a_time(proxy, upstream):
    proxy.add("bandwidth", bytes_per_s=1)

    def comes_alone() -> bool:
        with joined(proxy, upstream) as (client, server):
            server.sendall(b"abc")
            return client.recv(100) == b"a" and is_silent(client, 0.2)

    eventually(comes_alone, "a reader that is not late itself, and finds one byte")


def test_a_slicer_cuts_into_small_pieces_and_loses_nothing(proxy, upstream):
    proxy.add("slicer", size_bytes=3, variation_bytes=2, delay_ms=20)

    def comes_in_pieces() -> bool:
        pieces = []
        with joined(proxy, upstream) as (client, server):
            server.sendall(bytes(range(60)))
            while sum(map(len, pieces)) < 60:
                pieces.append(client.recv(100))

        assert b"".join(pieces) == bytes(range(60))
        return len(pieces) >= 6  # at least 12 were sent; two may meet in a buffer

    eventually(comes_in_pieces, "a reader that is not late itself, and finds pieces")


def test_toxics_work_together_in_any_order(proxy, upstream):
    proxy.add("limit_data", bytes_max=100)
    proxy.add("latency", ms=50)
    proxy.add("slicer", size_bytes=7)
    proxy.add("bandwidth", bytes_per_s=2_000)
    with joined(proxy, upstream) as (client, server):
        server.sendall(bytes(range(200)))

        assert read_to_end(client) == bytes(range(100))


# --- ends -----------------------------------------------------------------------------------------------------


def test_slow_close_delays_the_end_and_not_the_bytes(proxy, upstream):
    proxy.add("slow_close", ms=60_000)
    with joined(proxy, upstream) as (client, server):
        server.sendall(b"bye")
        server.close()

        assert read(client, 3) == b"bye"
        assert is_silent(client)


def test_a_slow_close_comes_by_itself_in_the_end(proxy, upstream):
    proxy.add("slow_close", ms=300)
    with joined(proxy, upstream) as (client, server):
        started_at = time.monotonic()
        server.close()

        assert client.recv(1) == b""
        assert time.monotonic() - started_at > 0.29


def test_timeout_swallows_what_is_sent_and_the_end(proxy, upstream):
    with joined(proxy, upstream) as (client, server):
        proxy.add("timeout", direction="up")
        client.sendall(b"into the void")
        client.shutdown(socket.SHUT_WR)
        server.sendall(b"the other way is open")

        assert read(client, 21) == b"the other way is open"
        assert is_silent(server)
        proxy.clear()
        assert read_to_end(server) == b""


def test_timeout_closes_after_its_time(proxy, upstream):
    proxy.add("timeout", ms=200)
    with joined(proxy, upstream) as (client, server):
        server.sendall(b"into the void")

        assert read_to_end(client) == b""
        assert read_to_end(server) == b""


def test_a_vanished_client_answers_no_packet(proxy, upstream):
    with joined(proxy, upstream) as (client, server):
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 700)
        proxy.add("timeout", direction="up")
        proxy.add("timeout", direction="down", vanished=True)
        server.sendall(b"are you there?")
        client.close()

        with pytest.raises(TimeoutError):  # ETIMEDOUT, by the kernel; far before the socket's own
            server.recv(1)


def test_a_mended_cable_brings_what_the_cut_one_lost(proxy, upstream):
    with joined(proxy, upstream) as (client, server):
        proxy.add("timeout", direction="down", vanished=True)
        server.sendall(b"sent again")
        assert is_silent(client)
        proxy.clear()

        assert read(client, 10) == b"sent again"


@pytest.mark.parametrize("ms", [0, 200])
def test_reset_peer_resets_both_ends(proxy, upstream, ms):
    with joined(proxy, upstream) as (client, server):
        proxy.add("reset_peer", ms=ms)

        for end in (client, server):
            with pytest.raises(ConnectionResetError):
                end.recv(1)


@pytest.mark.parametrize("size", [1, 4_096, 100_000])
def test_limit_data_closes_behind_that_very_byte(proxy, upstream, size):
    proxy.add("limit_data", bytes_max=size)
    text = bytes(range(256)) * 800
    with joined(proxy, upstream) as (client, server):
        with pouring(server, text):
            received = read_to_end(client)

    assert received == text[:size]


def test_limit_data_counts_from_when_it_was_added_and_each_connection_for_itself(proxy, upstream):
    with joined(proxy, upstream) as (first, server), joined(proxy, upstream) as (second, its_server):
        server.sendall(b"before")
        read(first, 6)
        proxy.add("limit_data", bytes_max=3)
        server.sendall(b"abcdef")
        its_server.sendall(b"uvwxyz")

        assert read_to_end(first) == b"abc"
        assert read_to_end(second) == b"uvw"


def test_down_closes_what_is_open_and_refuses_until_cleared(proxy, upstream):
    with joined(proxy, upstream) as (client, server):
        proxy.add("down")

        assert read_to_end(client) == b""
        assert read_to_end(server) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S)
    proxy.clear()
    with joined(proxy, upstream) as (client, server):
        server.sendall(b"up again")
        assert read(client, 8) == b"up again"


# --- changing, leaving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toxic", "settings"),
    [("latency", {"ms": 60_000}), ("bandwidth", {"bytes_per_s": 0.01}), ("slicer", {"delay_ms": 60_000})],
)
def test_clearing_lets_what_was_held_go_on_at_once(proxy, upstream, toxic, settings):
    proxy.add(toxic, direction="up", **settings)
    with joined(proxy, upstream) as (client, server):
        client.sendall(b"x" * 300)
        assert is_silent(server)
        proxy.clear()

        assert read(server, 300) == b"x" * 300


@pytest.mark.parametrize("toxic", [None, "timeout", "slicer"])
def test_nothing_is_left_of_it_though_clients_are_still_connected(upstream, toxic):
    def belongings() -> tuple[int, int]:
        return threading.active_count(), len(list(pathlib.Path("/proc/self/fd").iterdir()))

    before = belongings()
    with contextlib.ExitStack() as clients:
        with Toxic(upstream.port) as proxy:
            if toxic:
                proxy.add(toxic)
            ends = [clients.enter_context(joined(proxy, upstream)) for _ in range(20)]
            for client, server in ends:
                server.sendall(bytes(1_000))
            clients.enter_context(socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S))
            eventually(lambda: proxy.connections == proxy.opened == 21, "all are connected")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S)

    assert belongings() == before


def test_a_toxic_or_setting_that_does_not_exist_is_told_at_once(proxy):
    with pytest.raises(KeyError):
        proxy.add("gremlins")
    with pytest.raises(TypeError):
        proxy.add("latency", seconds=1)
