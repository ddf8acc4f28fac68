"""An app for the page: texts, pictures, sound and progress, a form with every kind of field, and what goes wrong."""

import base64
import os
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, Field

import headrace

#: Rooms where a test leaves a note to let a waiting stream go on.
NOTES = os.environ["ZOO_NOTES"]


class Text(BaseModel):
    prompt: str = "one two three"
    pause: float = Field(0, ge=0, le=10)
    wait_for: str | None = None


class Size(BaseModel):
    width: int = Field(512, ge=64, le=2048)
    height: int = Field(512, ge=64, le=2048)


class Message(BaseModel):
    role: Literal["user", "assistant"] = "user"
    content: str


class Everything(BaseModel):
    prompt: str = Field(examples=["A river at dusk"], description="What the picture shows.", min_length=3)
    steps: int = Field(4, ge=1, le=50)
    guidance: float = Field(3.5, gt=0, lt=20)
    seed: int | None = Field(None, ge=0, lt=2**32)
    size: Literal["square", "wide"] | Size = "wide"
    format: Literal["jpeg", "png"] = "jpeg"
    fast: bool = True
    messages: list[Message] | None = None
    tags: list[str] = []
    extra: dict[str, Any] | None = None
    image_url: str | None = None
    is_public: bool | None = None


def picture(grey: int, side: int = 24) -> str:
    """A grey square as a PNG in a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([grey]) * side) * side
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def tone(seconds: float, rate: int = 8_000) -> str:
    """A hum as a WAV file in a data URL."""
    samples = bytes(128 + (40 if at // 20 % 2 else -40) for at in range(int(seconds * rate)))
    wav = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate, 1, 8)
    wav += b"data" + struct.pack("<I", len(samples)) + samples
    return "data:audio/wav;base64," + base64.b64encode(b"RIFF" + struct.pack("<I", len(wav)) + wav).decode()


def wait_for(word: str | None) -> None:
    """Wait until a test has written the word; a cancelled request ends here by its interrupt."""
    while word and (not os.path.exists(NOTES) or word not in open(NOTES).read().split()):
        time.sleep(0.01)


class Shows(headrace.App, name="test/shows", max_multiplexing=8):
    """Everything the page can show."""

    @headrace.endpoint("/")
    def text(self, input: Text) -> Iterator[dict[str, Any]]:
        """Says the prompt word by word."""
        words = input.prompt.split()
        for at, word in enumerate(words):
            yield {"token": word if at == 0 else f" {word}"}
            time.sleep(input.pause)
            if at == 1:
                wait_for(input.wait_for)
        print("said it all")
        yield {"output": " ".join(words), "words": len(words)}

    @headrace.endpoint("/cumulative")
    def cumulative(self, input: Text) -> Iterator[dict[str, Any]]:
        words = input.prompt.split()
        for at in range(1, len(words) + 1):
            yield {"output": " ".join(words[:at]), "partial": at < len(words)}

    @headrace.endpoint("/pictures")
    def pictures(self, input: Text) -> Iterator[dict[str, Any]]:
        for step in range(1, 5):
            yield {"progress": step / 4, "message": f"Step {step} of 4", "images": [{"url": picture(50 * step)}]}
            if step == 2:
                wait_for(input.wait_for)
        yield {"images": [{"url": picture(250), "width": 24, "height": 24}], "seed": 7}

    @headrace.endpoint("/sound")
    def sound(self, input: Text) -> Iterator[dict[str, Any]]:
        """A piece of sound, then the whole of it."""
        yield {"audio": {"url": tone(1.5), "content_type": "audio/wav"}}
        wait_for(input.wait_for)
        yield {"audio": {"url": tone(3), "content_type": "audio/wav"}, "seconds": 3}

    @headrace.endpoint("/fast")
    def fast(self, input: Text) -> Iterator[dict[str, Any]]:
        for number in range(10_000):
            yield {"token": f"{number} "}

    @headrace.endpoint("/fails")
    def fails(self, input: Text) -> Iterator[dict[str, Any]]:
        yield {"token": "so far so good"}
        raise headrace.AppException("The kiln is cold", status_code=503)

    @headrace.endpoint("/sly")
    def sly(self, input: Text) -> Iterator[dict[str, Any]]:
        """What a hostile model would try."""
        script = "<img src=x onerror=alert(1)><script>alert(1)</script>"
        yield {"token": script, "message": script, script: script}
        yield {
            "images": [{"url": "javascript:alert(1)"}],
            "file": {"url": "javascript:alert(1)", "file_name": script},
        }

    @headrace.endpoint("/odd")
    def odd(self, input: Text) -> Iterator[Any]:
        """What a page might not expect of an item."""
        yield {"token": "still", "images": [None, "", {"url": picture(9)}], "audio": ""}
        yield {"logs": [None, "a bare line", {"message": "at no time", "timestamp": 7}, {}]}
        yield None
        yield {"progress": 0}
        wait_for(input.wait_for)
        yield {"token": " here"}

    @headrace.endpoint("/only-run")
    def only_run(self, input: Text) -> dict[str, Any]:
        return {"output": input.prompt.upper()}

    @headrace.endpoint("/everything")
    def everything(self, input: Everything) -> dict[str, Any]:
        return {"echo": input.model_dump()}
