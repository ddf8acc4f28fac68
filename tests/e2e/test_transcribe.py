"""The speech example: a real recogniser, words that are truly said, lines that come while it listens."""

import base64
import importlib.util
import io
import pathlib
import wave

import pytest

from tests.support.server import data_events, eventually, running_server

TRANSCRIBE = pathlib.Path(__file__).parents[2] / "examples/transcribe.py"
APP = "headrace/moonshine"


def recording(name: str = "beckett.wav") -> bytes:
    """A recording that comes with the engine: a man reads ten seconds of Beckett."""
    spec = importlib.util.find_spec("moonshine_voice")
    assert spec is not None and spec.origin is not None, "run `make .venv/.ready`: the engine is in the lock"
    return (pathlib.Path(spec.origin).parent / "assets" / name).read_bytes()


def as_uri(data: bytes, media_type: str = "audio/wav") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.fixture(scope="module")
def server():
    with running_server(TRANSCRIBE) as server:
        eventually(server.is_ready, "the recogniser is loaded", seconds=120)
        yield server


@pytest.mark.timeout(240)
def test_what_is_said_comes_line_by_line_while_it_listens(server):
    with server.open(f"/{APP}/stream", {"audio_url": as_uri(recording())}) as stream:
        stream.socket.settimeout(200)
        stream.read_until(b"\r\n0\r\n\r\n")
        *lines, last = data_events(stream.body)
        is_whole = stream.is_whole

    assert is_whole
    said = last["text"].lower()
    assert said.startswith("ever tried. ever failed. no matter. try again.")
    assert said.endswith("better.")
    finals = [line for line in lines if line["is_final"]]
    assert [line["message"] for line in finals] == [chunk["text"] for chunk in last["chunks"]]
    assert [*range(len(finals))] == [line["line"] for line in finals]
    # It does not wait for the end of a line, nor of the recording, to tell what it hears.
    assert any(not line["is_final"] for line in lines)
    assert lines[0]["progress"] < 0.5
    assert sorted(line["progress"] for line in lines) == [line["progress"] for line in lines]
    assert 9.5 < last["duration"] < 10.5


@pytest.mark.timeout(120)
def test_of_silence_nothing_is_written(server):
    answer = server.post(f"/{APP}", {"audio_url": as_uri(wav(bytes(2 * 16_000 * 5)))})

    assert {"text": "", "chunks": [], "duration": 5.0} == answer.json


def test_two_channels_are_heard_as_one(server):
    left_and_right = wav(b"".join(frame * 2 for frame in frames_of(recording(), seconds=2)), channels=2)

    answer = server.post(f"/{APP}", {"audio_url": as_uri(left_and_right)})

    assert "ever tried" in answer.json["text"].lower()
    assert 2.0 == answer.json["duration"]


@pytest.mark.parametrize(
    ("audio", "complaint"),
    [
        (as_uri(b"ID3 this is no WAV", "audio/mpeg"), "not a WAV file"),
        (as_uri(b"RIFF"), "not a WAV file"),
        (as_uri(b""), "not a WAV file"),
        ("no URL at all", "URL scheme"),
    ],
)
def test_what_is_no_recording_is_refused_with_what_to_do(server, audio, complaint):
    answer = server.post(f"/{APP}", {"audio_url": audio})

    assert 422 == answer.status, answer.body
    (wrong,) = answer.json["detail"]
    assert ["body", "audio_url"] == wrong["loc"]
    assert complaint in wrong["msg"]


def test_eight_bits_and_no_samples_are_refused(server):
    eight = server.post(f"/{APP}", {"audio_url": as_uri(wav(bytes(800), width=1))})
    empty = server.post(f"/{APP}", {"audio_url": as_uri(wav(b""))})

    assert "8 bits" in eight.json["detail"][0]["msg"]
    assert "from a sample to" in empty.json["detail"][0]["msg"]


def wav(samples: bytes, *, channels: int = 1, width: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, width, 16_000, 0, "NONE", ""))
        file.writeframes(samples)
    return out.getvalue()


def frames_of(data: bytes, *, seconds: int) -> list[bytes]:
    with wave.open(io.BytesIO(data)) as file:
        assert (1, 2, 16_000) == file.getparams()[:3]
        samples = file.readframes(16_000 * seconds)
    return [samples[at : at + 2] for at in range(0, len(samples), 2)]
