"""The speech example without its engine: which recordings it takes, and how much of one it holds at a time."""

import importlib.util
import io
import pathlib
import tracemalloc
import wave
from types import SimpleNamespace

import pytest

import headrace

PATH = pathlib.Path(__file__).parents[2] / "examples/transcribe.py"
SECONDS = 20


class Engine:
    """Hears nothing, and notes how many samples it is given."""

    def __init__(self):
        self.given = []
        self.is_closed = False

    def create_stream(self, update_interval):
        return self

    def start(self):
        pass

    def add_audio(self, samples, rate):
        assert all(-1 <= sample <= 1 for sample in samples[:100])
        self.given.append(len(samples))

    def update_transcription(self):
        return SimpleNamespace(lines=[])

    stop = update_transcription

    def close(self):
        self.is_closed = True


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("transcribe_example", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wav(samples: bytes, *, channels: int = 1, rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(samples)
    return out.getvalue()


def heard(example, data: bytes):
    """What the example says of a recording in the end, and its engine."""
    engine = Engine()
    speech = SimpleNamespace(audio_url=SimpleNamespace(as_bytes=lambda: data))
    *_, last = example.Moonshine.transcribe(SimpleNamespace(transcriber=engine), speech)
    assert engine.is_closed
    return last, engine


@pytest.mark.parametrize("rate", [1, 2, 7_999, 192_001, 2_000_000_000])
def test_a_rate_at_which_nobody_speaks_is_the_callers_to_mend(example, rate):
    with pytest.raises(headrace.FieldException, match=f"the WAV has {rate} samples a second; from 8000 to 192000"):
        heard(example, wav(b"\1\2" * 100, rate=rate))


@pytest.mark.parametrize(("channels", "cut"), [(1, 0), (2, 0), (1, 1), (2, 1), (2, 3)])
def test_a_recording_is_heard_in_pieces_of_half_a_second_up_to_where_it_is_cut(example, channels, cut):
    data = wav(b"\1\2" * channels * 20_000, channels=channels)

    last, engine = heard(example, data[: len(data) - cut])

    assert engine.given == [8_000, 8_000, 4_000 - (cut > 0)]
    assert last.duration == 1.25


def test_a_long_recording_costs_no_more_than_its_bytes(example):
    data = wav(bytes(2 * 16_000 * SECONDS))
    tracemalloc.start()
    try:
        last, _ = heard(example, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert last.duration == SECONDS
    assert peak < 2 * len(data)
