"""What a painter has in hand: noise, edges, light. Everything works on a square of SIZE x SIZE numbers.

Pictures are drawn at twice the size they are kept at, so that a hard edge comes out smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Plane = NDArray[np.floating[Any]]
"""SIZE x SIZE numbers, or what broadcasts to it: a row, a column, one colour."""

SIZE = 128
Y, X = (axis.astype(np.float32) / SIZE for axis in np.mgrid[0:SIZE, 0:SIZE])
ROWS = Y[:, :1]
COLUMNS = X[:1, :]


def colour(*channels: float) -> Plane:
    return np.array(channels, np.float32)


def mix(a: Plane, b: Plane, amount: Plane | float) -> Plane:
    """`a` where `amount` is 0, `b` where it is 1."""
    return a + (b - a) * amount


def step(low: float, high: float, value: Plane) -> Plane:
    """0 below `low`, 1 above `high`, smooth between."""
    t: Plane = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def curve(rng: np.random.Generator, waves: int, *, octaves: int = 3, rough: float = 0.5) -> Plane:
    """A wandering line: SIZE numbers within about -1 and 1, with `waves` swings across the picture."""
    total = np.zeros(SIZE, np.float32)
    loudness = 1.0
    for octave in range(octaves):
        knots = waves * 2**octave + 2
        total += loudness * np.interp(
            np.linspace(0, knots - 1.001, SIZE), np.arange(knots), rng.uniform(-1, 1, knots)
        )
        loudness *= rough
    return total


def smooth_curve(rng: np.random.Generator, waves: float) -> Plane:
    """A line without corners, within -1 and 1."""
    t = np.linspace(0, 2 * np.pi, SIZE, dtype=np.float32)
    line = np.zeros(SIZE, np.float32)
    for swings, height in ((waves, 0.65), (waves * 1.9, 0.25), (waves * 3.3, 0.1)):
        line += height * np.sin(swings * t + rng.uniform(0, 2 * np.pi))
    return line


def cloud(rng: np.random.Generator, grids: Sequence[tuple[int, int]], rough: float = 0.5) -> Plane:
    """Soft noise within 0 and 1: one octave for each grid of (columns, rows)."""
    total = np.zeros((SIZE, SIZE), np.float32)
    loudness, sum_of_loudness = 1.0, 0.0
    for columns, rows in grids:
        grain = Image.fromarray(rng.random((rows, columns), np.float32))
        total += loudness * np.asarray(grain.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        sum_of_loudness += loudness
        loudness *= rough
    return total / sum_of_loudness


def look_up(line: Plane, place: Plane) -> Plane:
    """The value of `line` at each `place`, where 0 is its first number and 1 its last."""
    at: NDArray[np.int16] = np.clip(place * (SIZE - 1), 0, SIZE - 1).astype(np.int16)
    return line[at]


def disc(x: float, y: float, radius: float) -> Plane:
    """A round mask, hard but for one pixel at its edge."""
    mask: Plane = np.clip((radius - np.hypot(X - x, Y - y)) * SIZE + 0.5, 0, 1)
    return mask


def glow(x: float, y: float, reach: float) -> Plane:
    """Light around a point: 1 at it, a third at `reach`, then fading."""
    light: Plane = np.exp(-np.hypot(X - x, Y - y) / reach)
    return light


class Stencil:
    """A mask drawn with polygons; coordinates are within 0 and 1."""

    def __init__(self) -> None:
        self._image = Image.new("L", (SIZE, SIZE))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[tuple[float, float]]) -> None:
        self._draw.polygon([(x * SIZE, y * SIZE) for x, y in points], fill=255)

    def box(self, left: float, top: float, right: float, bottom: float) -> None:
        x, y = left * SIZE, top * SIZE
        self._draw.rectangle((x, y, max(x, right * SIZE - 1), max(y, bottom * SIZE)), fill=255)

    def ellipse(self, x: float, y: float, width: float, height: float) -> None:
        self._draw.ellipse(
            ((x - width) * SIZE, (y - height) * SIZE, (x + width) * SIZE, (y + height) * SIZE), fill=255
        )

    def line(self, points: Sequence[tuple[float, float]], width: int) -> None:
        self._draw.line([(x * SIZE, y * SIZE) for x, y in points], fill=255, width=width)

    def conifer(self, x: float, foot: float, height: float) -> None:
        """A fir: three tiers of branches, the lowest the widest."""
        for tier in range(3):
            top = foot - height * (1 - 0.27 * tier)
            low = foot - height * (0.58 - 0.26 * tier)
            half = height * (0.13 + 0.075 * tier)
            self.polygon([(x, top), (x + half, low), (x - half, low)])
        self.box(x - height * 0.04, foot - height * 0.1, x + height * 0.05, foot + 0.02)

    @property
    def mask(self) -> Plane:
        return np.asarray(self._image, np.float32) / 255
