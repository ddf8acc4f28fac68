"""A model for clients that want files: it hands back what it was given, or a picture of one red point."""

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
    image_url: str | None = None
    num_images: int = 1
    file: str | None = None


class Sound(BaseModel):
    audio_url: str


class Pictures(headrace.App, name="fal-ai/pictures", max_multiplexing=8):
    """Paints."""

    @headrace.endpoint("/")
    def paint(self, input: Wish) -> dict[str, Any]:
        url = input.image_url or headrace.encode(RED, "image/png")
        picture = {"url": url, "width": 1, "height": 1, "content_type": "image/png"}
        return {"images": [picture] * input.num_images, "seed": 7, "prompt": input.prompt, "file": input.file}

    @headrace.endpoint("/speak")
    def speak(self, input: dict[str, Any]) -> dict[str, Any]:
        return {"audio": {"url": headrace.encode(f"RIFF {input['text']}", "audio/wav")}}

    @headrace.endpoint("/film")
    def film(self, input: Wish) -> dict[str, Any]:
        return {"video": {"url": headrace.encode(f"a film of {input.prompt}", "video/mp4")}}

    @headrace.endpoint("/transcribe")
    def transcribe(self, input: Sound) -> dict[str, Any]:
        sound = base64.b64decode(input.audio_url.partition("base64,")[2])
        words = sound.decode().split()
        chunks = [{"text": word, "timestamp": [n, n + 1]} for n, word in enumerate(words)]
        return {"text": " ".join(words), "chunks": chunks, "inferred_languages": ["en"]}
