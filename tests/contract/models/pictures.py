"""A model for clients of files: it hands back what it was given, or makes a picture of one red point."""

from __future__ import annotations

import base64
from typing import Any

import headrace
from pydantic import BaseModel

RED = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


class Wish(BaseModel):
    prompt: str = ""
    num_images: int = 1
    file: headrace.File | None = None


class Pictures(BaseModel):
    images: list[headrace.Image]
    seed: int
    prompt: str
    given: str | None  # the URL of the file in the wish
    given_bytes: int | None


class Sound(BaseModel):
    audio_url: headrace.File


class Painter(headrace.App, name="fal-ai/pictures", max_multiplexing=8):
    """Paints."""

    @headrace.endpoint("/")
    def paint(self, input: Wish) -> Pictures:
        images = [
            headrace.Image.from_bytes(RED, "image/png", file_name="red.png") for _ in range(input.num_images)
        ]
        given, size = (input.file.url, len(input.file.as_bytes())) if input.file else (None, None)
        return Pictures(images=images, seed=7, prompt=input.prompt, given=given, given_bytes=size)

    @headrace.endpoint("/speak")
    def speak(self, input: dict[str, Any]) -> dict[str, Any]:
        return {"audio": headrace.File.from_bytes(f"RIFF {input['text']}".encode(), "audio/wav").model_dump()}

    @headrace.endpoint("/film")
    def film(self, input: Wish) -> dict[str, Any]:
        return {"video": {"url": headrace.encode(f"a film of {input.prompt}", "video/mp4")}}

    @headrace.endpoint("/transcribe")
    def transcribe(self, input: Sound) -> dict[str, Any]:
        words = input.audio_url.as_bytes().decode().split()
        chunks = [{"text": word, "timestamp": [n, n + 1]} for n, word in enumerate(words)]
        return {"text": " ".join(words), "chunks": chunks, "inferred_languages": ["en"]}
