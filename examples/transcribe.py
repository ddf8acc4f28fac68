"""Speech to text, line by line while it listens: Moonshine tiny-en on the CPU, weights inside its package.

    pip install 'headrace[speech]'
    headrace serve examples/transcribe.py

    headrace stream headrace/moonshine audio_url="$(headrace upload talk.wav)"

It hears English, in WAV files of up to an hour, several times faster than it is spoken. A tiny model mishears
names and rare words ("Fare again" for "Fail again"), and knows no other language.
"""

import io
import sys
import wave
from array import array
from collections.abc import Iterator

from moonshine_voice.moonshine_api import ModelArch, TranscriptLine
from moonshine_voice.transcriber import Transcriber
from moonshine_voice.utils import get_model_path
from pydantic import BaseModel, Field

import headrace

STEP_S = 0.5  # how much more it hears before it is asked again
LENGTH_S_MAX = 3600
RATES = range(8_000, 192_001)  # samples in a second, from a telephone's to a studio's


class Speech(BaseModel):
    audio_url: headrace.File = Field(description="A WAV file: a URL, an upload, or a data URI.")


class Line(BaseModel):
    """What was heard of one line so far. The same `line` comes again with better words until `is_final`."""

    line: int
    message: str
    start: float = Field(description="Seconds from the beginning.")
    end: float
    is_final: bool
    progress: float


class Chunk(BaseModel):
    timestamp: tuple[float, float]
    text: str


class Transcript(BaseModel):
    text: str
    chunks: list[Chunk]
    duration: float


class Moonshine(headrace.App, name="headrace/moonshine"):
    """Moonshine tiny-en, a small speech recogniser that reports what it hears as it hears it."""

    def setup(self) -> None:
        # Without this, each look at the transcript copies all of the sound.
        options = {"return_audio_data": False}
        self.transcriber = Transcriber(get_model_path("tiny-en"), ModelArch.TINY, options=options)

    @headrace.endpoint("/")
    def transcribe(self, input: Speech) -> Iterator[Line | Transcript]:
        """Write down what is said in a recording."""
        sound = recording_in(input.audio_url.as_bytes())
        rate, length = sound.getframerate(), sound.getnframes()
        heard: dict[int, TranscriptLine] = {}
        at = 0
        stream = self.transcriber.create_stream(update_interval=2 * LENGTH_S_MAX)  # it is asked by us alone
        try:
            stream.start()
            while samples := next_samples(sound, int(rate * STEP_S)):
                stream.add_audio(samples, rate)
                at += len(samples)
                yield from news(stream.update_transcription().lines, heard, at / length)
            yield from news(stream.stop().lines, heard, 1.0)
        finally:
            stream.close()  # whoever left, and why: the engine holds memory for it
        chunks = [Chunk(timestamp=span_of(line), text=line.text) for line in heard.values()]
        yield Transcript(
            text=" ".join(chunk.text for chunk in chunks), chunks=chunks, duration=round(at / rate, 2)
        )


def news(lines: list[TranscriptLine], heard: dict[int, TranscriptLine], progress: float) -> Iterator[Line]:
    """Tell each line that has new words or is final now, and remember it."""
    for number, line in enumerate(lines):
        before = heard.get(number)
        if before is None or (before.text, before.is_complete) != (line.text, line.is_complete):
            heard[number] = line
            start, end = span_of(line)
            yield Line(
                line=number,
                message=line.text,
                start=start,
                end=end,
                is_final=line.is_complete,
                progress=round(progress, 3),
            )


def span_of(line: TranscriptLine) -> tuple[float, float]:
    return round(line.start_time, 2), round(line.start_time + line.duration, 2)


def recording_in(wav: bytes) -> wave.Wave_read:
    """Open a recording that we can hear. Raises `FieldException`, the caller's 422, for any other."""
    try:
        sound = wave.open(io.BytesIO(wav), "rb")  # noqa: SIM115 - it holds memory alone
    except (wave.Error, EOFError) as error:
        message = f"not a WAV file ({error}); convert it: ffmpeg -i talk.mp3 -ar 16000 -ac 1 talk.wav"
        raise headrace.FieldException("audio_url", message) from error
    _, width, rate, frames, *_ = sound.getparams()
    if width != 2:
        raise headrace.FieldException("audio_url", f"the WAV has {8 * width} bits a sample; 16 are needed")
    if rate not in RATES:
        message = f"the WAV has {rate} samples a second; from {RATES[0]} to {RATES[-1]} are taken"
        raise headrace.FieldException("audio_url", message)
    if not 0 < frames <= LENGTH_S_MAX * rate:
        raise headrace.FieldException("audio_url", f"from a sample to {LENGTH_S_MAX} s are taken")
    return sound


def next_samples(sound: wave.Wave_read, count: int) -> list[float]:
    """Return the next samples of a recording as one channel of numbers from -1 to 1; none at its end.

    So few at a time, for each is eight times as large as the two bytes that it comes from.
    """
    channels = sound.getnchannels()
    data = sound.readframes(count)
    # A file that was cut off may end within a sample.
    frames = array("h", data[: len(data) - len(data) % (2 * channels)])
    if sys.byteorder == "big":
        frames.byteswap()
    return [sum(frames[at : at + channels]) / channels / 32768 for at in range(0, len(frames), channels)]
