"""The bystander of the fault tests complains of everything that a reader of a stream could notice."""

import threading
import time

import pytest

from tests.support.bystander import bystander
from tests.support.scripted import CLOSE, LAST_CHUNK, RESET, STREAM_HEAD, Wait, chunk, event, scripted
from tests.support.server import PATIENCE_S, eventually

FIRST, SECOND, TOTAL = event(b'{"i":0}'), event(b'{"i":1}'), event(b'{"total":2}')
ERROR = chunk(b'event: error\ndata: {"error":{"type":"x"}}\n\n')


def test_streams_that_are_as_they_should_be_follow_each_other_until_the_fault_is_over():
    script = [STREAM_HEAD, FIRST, Wait(0.05), SECOND, TOTAL, LAST_CHUNK]
    with scripted(script) as server:
        with bystander(server, ticks=2, pause_s=0.01, gap_s=PATIENCE_S) as other:
            eventually(lambda: len(server.requests) >= 3, "a third stream")

    assert len(other.arrivals) == len(server.requests) >= 3
    assert {len(stream) for stream in other.arrivals} == {3}
    assert 40 < other.gap_ms == max(other.gaps_ms)
    assert '"n": 2, "pause": 0.01' in server.requests[0].body.decode()


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ([FIRST, TOTAL, LAST_CHUNK], "2 of 3 events, the end clean"),
        ([FIRST, FIRST, SECOND, TOTAL, LAST_CHUNK], "4 of 3 events"),
        ([SECOND, FIRST, TOTAL, LAST_CHUNK], "3 of 3 events"),
        ([FIRST, SECOND, TOTAL, CLOSE], "the end a cut"),
        ([FIRST, ERROR, CLOSE], "event: error"),
        ([FIRST, RESET], "ConnectionResetError"),
        ([CLOSE], "0 of 3 events"),
    ],
    ids=["lost", "doubled", "out of order", "cut", "error", "reset", "nothing"],
)
def test_it_complains(script, complaint):
    with scripted([STREAM_HEAD, *script]) as server:
        with pytest.raises(AssertionError, match=complaint), bystander(server, ticks=2, pause_s=0.01):
            pass


def held(step, until: threading.Event):
    """A step of a script that comes once a test says so."""

    def come(_):
        assert until.wait(PATIENCE_S)
        return step

    return come


def test_it_complains_of_an_event_that_is_late():
    is_late = threading.Event()
    with scripted([STREAM_HEAD, FIRST, held(SECOND, is_late), TOTAL, LAST_CHUNK]) as server:
        with (
            pytest.raises(AssertionError, match=r"waited \d+ ms"),
            bystander(server, ticks=2, pause_s=0.01, gap_s=0.3),
        ):
            time.sleep(0.4)  # it has seen the first
            is_late.set()


def test_a_fault_test_that_fails_is_not_hidden_by_its_bystander():
    has_begun = threading.Event()
    with scripted([STREAM_HEAD, FIRST, held(CLOSE, has_begun)]) as server:
        with pytest.raises(ZeroDivisionError), bystander(server, ticks=2, pause_s=0.01):
            has_begun.set()
            1 / 0
