"""Words to a picture: landscapes.onnx draws 64 x 64 pixels in some steps, upscale.onnx makes 256 x 256 of them.

    for drawings in Model().draw("Sunset over the mountains, with a lake", seed=7):
        drawings[0].preview       # what it will be, as far as is known by now: 64 x 64 x 3 bytes

It needs numpy and onnxruntime, and knows nothing of Headrace. MODEL_CARD.md says what the model can draw, and what
not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

# From 1.32 on, the engine reports to its maker unless it is told not to before it is imported. What runs here is
# nobody's news.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from words import WORDS, words_in

Pixels = NDArray[np.uint8]
"""Height x width x 3."""

PIXELS = 64
SCALE = 4
STEPS = 28
GUIDANCE = 2.0


class Drawing:
    """One picture in the making: noise at first, and a little less of it after each step."""

    def __init__(self, prompt: str, seed: int, steps: int = STEPS, guidance: float = GUIDANCE) -> None:
        """`seed` is not negative; `guidance` says how much more the words count than by nature (1)."""
        said = words_in(prompt)
        self.words = np.array([word in said for word in WORDS], np.float32)
        self.steps = steps
        self.step = 0
        # Guidance compares with a picture of no words; without words, or at 1, there is nothing to compare.
        self.guidance = guidance if said else 1.0
        self._noisy = np.random.default_rng(seed).standard_normal((3, PIXELS, PIXELS), np.float32)
        self._clean = np.zeros_like(self._noisy)

    @property
    def is_done(self) -> bool:
        return self.step == self.steps

    @property
    def preview(self) -> Pixels:
        """The estimate of the finished picture; after the last step, the picture."""
        return to_pixels(self._clean)

    @property
    def time(self) -> float:
        """How much of what is there is noise: 1 at first, 0 in the end."""
        return 1 - self.step / self.steps

    @property
    def asks(self) -> list[tuple[NDArray[np.float32], float, NDArray[np.float32]]]:
        """The rows that this drawing adds to the next forward pass: picture, time, words."""
        said = (self._noisy, self.time, self.words)
        return [said] if self.guidance == 1 else [said, (self._noisy, self.time, np.zeros_like(self.words))]

    def move(self, velocities: NDArray[np.float32]) -> None:
        """Goes one step along the answers to `asks`."""
        velocity = velocities[0]
        if len(velocities) == 2:
            velocity = velocities[1] + self.guidance * (velocities[0] - velocities[1])
        before = self.time
        self._clean = self._noisy - before * velocity
        self.step += 1
        self._noisy = self._noisy + (self.time - before) * velocity


class Model:
    """The two networks. Calls may come from any thread, and give up the GIL while they work."""

    def __init__(self, folder: Path = Path(__file__).parent, threads: int | None = None) -> None:
        """`threads` are those of one forward pass; by default half of the processors, at most four."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or min(4, max(1, (os.cpu_count() or 1) // 2))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        # Threads that spin while they wait take the processor from everything else on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._network, self._upscaler = (
            onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
            for name in ("landscapes.onnx", "upscale.onnx")
        )

    def advance(self, drawings: Sequence[Drawing]) -> None:
        """Takes each of some unfinished drawings a step further in one forward pass, however far each has come."""
        asks = [ask for drawing in drawings for ask in drawing.asks]
        pictures, times, words = (np.stack(column).astype(np.float32) for column in zip(*asks, strict=True))
        (velocities,) = self._network.run(None, {"picture": pictures, "t": times, "words": words})
        start = 0
        for drawing in drawings:
            stop = start + len(drawing.asks)
            drawing.move(velocities[start:stop])
            start = stop

    def draw(
        self, prompt: str, seed: int, *, pictures: int = 1, steps: int = STEPS, guidance: float = GUIDANCE
    ) -> Iterator[list[Drawing]]:
        """Draws `pictures` pictures from `seed`, `seed` + 1, …; gives them all after each step."""
        drawings = [Drawing(prompt, seed + number, steps, guidance) for number in range(pictures)]
        for _ in range(steps):
            self.advance(drawings)
            yield drawings

    def enlarge(self, pixels: Pixels) -> Pixels:
        """The picture at four times its width and height, its edges sharp."""
        picture = pixels.astype(np.float32).transpose(2, 0, 1)[None] / 255
        (large,) = self._upscaler.run(None, {"picture": picture})
        return to_pixels(large[0] * 2 - 1)


def to_pixels(picture: NDArray[np.float32]) -> Pixels:
    """From the network's 3 x height x width within about -1 and 1."""
    pixels: Pixels = ((np.clip(picture, -1, 1) + 1) * 127.5 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    return pixels
