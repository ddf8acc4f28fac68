"""The network between a reader and the node misbehaves. Nobody but that reader notices."""

import itertools
import time

import pytest

from tests.support.bystander import bystander
from tests.support.recorder import spread_ms
from tests.support.server import RawStream, data_events, eventually, running_server
from tests.support.toxic import Toxic

PATHS = ["/zoo/zoo/stream", "/zoo/zoo/async/stream"]

names = (f"network {number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server():
    with running_server() as server:
        yield server


@pytest.fixture
def proxy(server):
    with Toxic(server.port) as proxy:
        yield proxy


def opened(proxy: Toxic, path: str, body: object) -> RawStream:
    """A stream through the proxy, of which nothing has been read."""
    stream = RawStream(proxy.port)
    stream.post(path, body)
    return stream


@pytest.mark.promise("H10")
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_stream_in_slices_arrives_whole_and_in_order(server, proxy, size, count):
    for direction in ("up", "down"):
        proxy.add("slicer", direction=direction, size_bytes=size, variation_bytes=size // 2)

    with bystander(server):
        for _ in range(count(smoke=1, full=20)):
            with opened(proxy, "/zoo/zoo/burst/stream", {"n": 50}) as stream:
                stream.read_until(b"\r\n0\r\n\r\n")

            assert [event["i"] for event in data_events(stream.body)] == list(range(50))


@pytest.mark.promise("H10")
@pytest.mark.parametrize("path", PATHS)
def test_a_stream_cut_behind_any_byte_is_no_success_and_ends_its_model(server, proxy, path, count):
    with opened(proxy, path, {"n": 3}) as whole:
        whole.read_until(b"\r\n0\r\n\r\n")
    turns = count(smoke=3, full=20)

    with bystander(server):
        for turn in range(turns):
            name = next(names)
            size = len(whole.head) + 4 + (len(whole.bytes) - len(whole.head) - 4) * turn // turns
            proxy.add("limit_data", bytes_max=size)
            with opened(proxy, path, {"n": 3, "pause": 0.1, "name": name}) as stream:
                stream.read_to_end()
            proxy.clear()

            eventually(server.saw(f"finally {name}"), "the generator is closed")
            assert (len(stream.bytes), stream.is_whole) == (size, False)


@pytest.mark.promise("S3", "H10")
@pytest.mark.parametrize("path", PATHS)
def test_a_reset_in_mid_stream_closes_the_generator(server, proxy, path, count, figures):
    times_s = []

    with bystander(server) as other:
        for _ in range(count(smoke=5, full=50)):
            name = next(names)
            with opened(proxy, path, {"n": 10_000, "pause": 0.02, "name": name}) as stream:
                stream.read_until(b"data: ")
                reset_at = time.monotonic()
                proxy.add("reset_peer")
                with pytest.raises(ConnectionResetError):
                    stream.read_to_end()
            eventually(server.saw(f"finally {name}"), "the generator is closed")
            times_s.append(time.monotonic() - reset_at)
            proxy.clear()

    figures("S3", **spread_ms(times_s), others_gap_ms=other.gap_ms)
    assert server.post("/zoo/zoo/def", {"n": 1}).json == {"total": 1}
