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
        sound, rate = samples_of(input.audio_url.as_bytes())
        duration = len(sound) / rate
        step = int(rate * STEP_S)
        heard: dict[int, TranscriptLine] = {}
        stream = self.transcriber.create_stream(update_interval=2 * LENGTH_S_MAX)  # it is asked by us alone
        try:
            stream.start()
            for at in range(0, len(sound), step):
                stream.add_audio(sound[at : at + step], rate)
                progress = min(1.0, (at + step) / len(sound))
                yield from news(stream.update_transcription().lines, heard, progress)
            yield from news(stream.stop().lines, heard, 1.0)
        finally:
            stream.close()  # whoever left, and why: the engine holds memory for it
        chunks = [Chunk(timestamp=span_of(line), text=line.text) for line in heard.values()]
        yield Transcript(text=" ".join(chunk.text for chunk in chunks), chunks=chunks, duration=round(duration, 2))


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


def samples_of(wav: bytes) -> tuple[list[float], int]:
    """Return a recording as one channel of samples from -1 to 1, and how many there are in a second."""
    try:
        with wave.open(io.BytesIO(wav)) as file:
            channels, width, rate, frames, *_ = file.getparams()
            if width != 2:
                raise headrace.FieldException("audio_url", f"the WAV has {8 * width} bits a sample; 16 are needed")
            if not 0 < frames <= LENGTH_S_MAX * rate:
                raise headrace.FieldException("audio_url", f"from a sample to {LENGTH_S_MAX} s are taken")
            sound = array("h", file.readframes(frames))
    except (wave.Error, EOFError) as error:
        message = f"not a WAV file ({error}); convert it: ffmpeg -i talk.mp3 -ar 16000 -ac 1 talk.wav"
        raise headrace.FieldException("audio_url", message) from error
    if sys.byteorder == "big":
        sound.byteswap()
    mixed = (sum(sound[at : at + channels]) / channels for at in range(0, len(sound), channels))
    return [sample / 32768 for sample in mixed], rate
