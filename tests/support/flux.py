"""A stand-in for an image model: it reports each step and ends with the image. For the snippets of fal's pages.

headrace serve tests/support/flux.py --alias fal-ai/flux=demo/flux
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import headrace
from pydantic import BaseModel, Field


class Prompt(BaseModel):
    prompt: str
    num_inference_steps: int = Field(default=4, ge=1, le=50)
    seed: int | None = None


class Progress(BaseModel):
    step: int
    progress: float


class Picture(BaseModel):
    url: str
    width: int
    height: int


class Result(BaseModel):
    images: list[Picture]
    seed: int
    prompt: str


class Flux(headrace.App, name="demo/flux", max_multiplexing=4):
    @headrace.endpoint("/schnell")
    def schnell(self, input: Prompt) -> Iterator[Progress | Result]:
        """Make a picture of a prompt."""
        steps = input.num_inference_steps
        for step in range(1, steps + 1):
            time.sleep(0.02)
            yield Progress(step=step, progress=step / steps)
        name = hashlib.sha256(input.prompt.encode()).hexdigest()[:12]
        picture = Picture(url=f"https://example.com/{name}.png", width=1024, height=768)
        yield Result(images=[picture], seed=7 if input.seed is None else input.seed, prompt=input.prompt)
