"""A painter of landscapes: from a random generator, a picture and the words that say what is on it.

    pixels, words = paint(np.random.default_rng(7))     # 64 x 64 x 3 bytes, {"night", "mountains", "moon", ...}

It is the only teacher the model has. `python paint.py sheet.png` shows a page of its work.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import land
import numpy as np
from brushes import COLUMNS, ROWS, SIZE, Plane, Stencil, X, Y, cloud, colour, curve, disc, glow, look_up, mix, step
from numpy.typing import NDArray
from PIL import Image
from words import LANDS, TIMES, TINTS

HUES = {
    "pink": colour(1.0, 0.55, 0.75),
    "orange": colour(1.0, 0.55, 0.2),
    "golden": colour(1.0, 0.8, 0.3),
    "purple": colour(0.62, 0.38, 0.95),
    "blue": colour(0.3, 0.55, 1.0),
    "green": colour(0.35, 0.9, 0.5),
}
PIXELS = 64


@dataclass(frozen=True)
class Hour:
    """The colours of a time of day: of the sky from top to horizon, of the light, and of the light in shadows."""

    top: Plane
    middle: Plane
    horizon: Plane
    light: Plane
    shade: Plane


HOURS = {
    "day": Hour(
        colour(0.20, 0.45, 0.86), colour(0.45, 0.68, 0.95), colour(0.80, 0.90, 0.97),
        colour(0.74, 0.70, 0.62), colour(0.40, 0.46, 0.56),
    ),
    "sunset": Hour(
        colour(0.22, 0.17, 0.43), colour(0.80, 0.30, 0.36), colour(1.00, 0.66, 0.24),
        colour(0.98, 0.50, 0.20), colour(0.26, 0.18, 0.30),
    ),
    "sunrise": Hour(
        colour(0.42, 0.58, 0.86), colour(0.95, 0.72, 0.74), colour(1.00, 0.90, 0.66),
        colour(0.86, 0.62, 0.46), colour(0.42, 0.40, 0.50),
    ),
    "night": Hour(
        colour(0.01, 0.02, 0.08), colour(0.03, 0.06, 0.18), colour(0.09, 0.14, 0.30),
        colour(0.28, 0.34, 0.48), colour(0.10, 0.13, 0.24),
    ),
    "storm": Hour(
        colour(0.13, 0.14, 0.18), colour(0.25, 0.27, 0.32), colour(0.46, 0.49, 0.50),
        colour(0.22, 0.24, 0.26), colour(0.24, 0.26, 0.30),
    ),
}  # fmt: skip


@dataclass
class Scene:
    """A picture in the making."""

    rng: np.random.Generator
    words: set[str]
    hour: Hour
    sun: tuple[float, float, float]
    """Where the sun or the moon stands, and its radius; it lights the land even when it is not in the picture."""
    horizon: float
    """Where the ground begins, from the top."""
    canvas: Plane = field(default_factory=lambda: np.zeros((SIZE, SIZE, 3), np.float32))

    def has(self, *words: str) -> bool:
        return any(word in self.words for word in words)

    @property
    def time(self) -> str:
        return next(word for word in TIMES if word in self.words)

    @property
    def side(self) -> float:
        """Where the light comes from: -1 left, 1 right."""
        return -1.0 if self.sun[0] < 0.5 else 1.0

    def lit(self, surface: Plane, light: Plane | float, distance: float = 0.0) -> Plane:
        """A surface under this hour's light (0 in shadow, 1 facing it), behind the air of `distance` (0 to 1)."""
        seen = surface * (self.hour.shade + self.hour.light * np.asarray(light)[..., None])
        return mix(seen, mix(self.hour.horizon, self.hour.middle, 0.25), distance)

    def cover(self, mask: Plane, paint: Plane) -> None:
        self.canvas = mix(self.canvas, paint, mask[..., None])


def choose(rng: np.random.Generator) -> set[str]:
    """The words of a new picture; what cannot be seen together is not chosen together."""

    def likely(chance: float) -> bool:
        return rng.random() < chance

    time = str(rng.choice(TIMES, p=[0.24, 0.22, 0.14, 0.25, 0.15]))
    land_word = str(rng.choice(LANDS, p=[0.3, 0.13, 0.12, 0.17, 0.14, 0.14]))
    words = {time, land_word}
    if land_word in {"mountains", "hills", "forest", "city"} and likely(0.36):
        words.add("lake")
    if land_word in {"mountains", "hills", "forest", "city"} and likely(
        0.45 if land_word == "mountains" else 0.25
    ):
        words.add("snow")
    if land_word in {"mountains", "hills", "ocean", "desert"} and likely(0.12 if land_word == "desert" else 0.28):
        words.add("trees")
    if time == "night":
        if likely(0.55):
            words.add("moon")
        if likely(0.6):
            words.add("stars")
        if likely(0.18):
            words.add("clouds")
    elif time == "storm":
        words.add("clouds")
    else:
        if likely({"day": 0.35, "sunset": 0.6, "sunrise": 0.5}[time]):
            words.add("sun")
        if likely(0.42):
            words.add("clouds")
    if likely(0.17):
        words.add("fog")
    if likely(0.34):
        words.add(str(rng.choice(TINTS)))
    return words


def begin(rng: np.random.Generator, words: set[str]) -> Scene:
    time = next(word for word in TIMES if word in words)
    base = HOURS[time]
    shift = rng.normal(0, 0.025, 3).astype(np.float32)
    hour = Hour(*(np.clip(c * rng.uniform(0.9, 1.1) + shift * c.mean(), 0, 1) for c in vars(base).values()))
    if "moon" in words:
        hour = Hour(hour.top, hour.middle * 1.2, hour.horizon * 1.15, hour.light * 1.35, hour.shade)
    horizon = rng.uniform(0.46, 0.62) if "ocean" in words else rng.uniform(0.58, 0.7)
    x = rng.choice([rng.uniform(0.12, 0.4), rng.uniform(0.6, 0.88)])
    high = "mountains" in words or "forest" in words or "city" in words
    if time in {"sunset", "sunrise"}:
        y = horizon - rng.uniform(0.24, 0.36) if high else horizon - rng.uniform(0.0, 0.2)
    else:
        y = rng.uniform(0.12, 0.24)
    return Scene(rng, words, hour, (x, y, rng.uniform(0.06, 0.082)), horizon)


def sky(scene: Scene) -> None:
    hour, rng = scene.hour, scene.rng
    middle = rng.uniform(0.45, 0.6)
    height = ROWS / scene.horizon
    upper = mix(hour.top, hour.middle, step(0, middle, height)[..., None])
    scene.canvas = np.broadcast_to(
        mix(upper, hour.horizon, step(middle, 1, height)[..., None]), (SIZE, SIZE, 3)
    ).copy()
    x, y, radius = scene.sun
    if scene.has("stars"):
        stars(scene)
    if scene.has("moon"):
        moon(scene)
    elif scene.has("sun"):
        warm = {"day": (1, 0.97, 0.8), "sunset": (1, 0.8, 0.3), "sunrise": (1, 0.93, 0.65)}[scene.time]
        scene.canvas = mix(scene.canvas, colour(*warm), 0.8 * glow(x, y, 0.13)[..., None])
        scene.cover(disc(x, y, radius), mix(colour(*warm), colour(1, 1, 0.95), 0.6))
    elif scene.time in {"sunset", "sunrise"}:
        scene.canvas = mix(scene.canvas, hour.horizon * 1.1, 0.6 * glow(x, scene.horizon - 0.05, 0.25)[..., None])
    if scene.time == "storm":
        thunderheads(scene)
    elif scene.has("clouds"):
        puffs(scene) if rng.random() < (0.75 if scene.time == "day" else 0.35) else streaks(scene)


def stars(scene: Scene) -> None:
    """A sky full of them. Each fills a whole pixel of the finished picture; the bright ones have arms."""
    rng = scene.rng
    x_moon, y_moon, _ = scene.sun
    for index in range(int(rng.integers(45, 85))):
        row, column = (
            2 * int(rng.integers(0, int(SIZE * scene.horizon / 2))),
            2 * int(rng.integers(0, SIZE // 2 - 1)),
        )
        if scene.has("moon") and np.hypot(column / SIZE - x_moon, row / SIZE - y_moon) < 0.13:
            continue
        bright = rng.uniform(0.55, 0.95)
        shine = colour(0.92, 0.95, 1.0) if rng.random() < 0.75 else colour(1.0, 0.9, 0.75)
        scene.canvas[row : row + 2, column : column + 2] = shine * bright
        if index < 9:
            scene.canvas[row : row + 2, column : column + 2] = 1
            for down, right in ((-2, 0), (2, 0), (0, -2), (0, 2)):
                arm = scene.canvas[
                    max(row + down, 0) : row + down + 2, max(column + right, 0) : column + right + 2
                ]
                arm += (shine - arm) * 0.4


def moon(scene: Scene) -> None:
    x, y, radius = scene.sun
    scene.canvas = mix(scene.canvas, colour(0.55, 0.65, 0.9), 0.6 * glow(x, y, 0.11)[..., None])
    face = disc(x, y, radius)
    pale = colour(1.0, 0.98, 0.88)
    if scene.rng.random() < 0.3:  # a crescent
        face = np.clip(face - disc(x - scene.side * radius * 0.75, y - radius * 0.25, radius * 0.95), 0, 1)
        scene.cover(face, pale)
        return
    seas = step(0.5, 0.75, cloud(scene.rng, [(22, 22), (40, 40)]))[..., None]
    scene.cover(face, mix(pale, colour(0.82, 0.82, 0.78), seas))


def puffs(scene: Scene) -> None:
    """Fair-weather clouds: heaps of balls on a flat foot, white above and grey below."""
    rng, hour = scene.rng, scene.hour
    for _ in range(int(rng.integers(2, 5))):
        x, y, size = rng.uniform(0, 1), rng.uniform(0.08, scene.horizon - 0.2), rng.uniform(0.1, 0.2)
        stencil = Stencil()
        for _ in range(int(rng.integers(6, 10))):
            dx = rng.normal(0, 0.55)
            ball = size * rng.uniform(0.25, 0.45) * np.exp(-(dx**2))
            stencil.ellipse(x + dx * size, y - ball * 0.6, ball * 1.15, ball * 0.9)
        mask = stencil.mask * step(0.12, 0.0, ROWS - y) * (y > ROWS - 0.03)
        up = np.clip((y + 0.01 - ROWS) / (size * 0.5), 0, 1)
        white = {"night": colour(0.22, 0.26, 0.4)}.get(
            scene.time, mix(hour.light + hour.shade, colour(1, 1, 1), 0.25)
        )
        grey = mix(hour.middle, white, 0.45)
        scene.cover(mask * 0.95, mix(grey, white, np.broadcast_to(up, mask.shape)[..., None]))


def streaks(scene: Scene) -> None:
    """High clouds drawn out along the wind, lit from below when the sun is low."""
    rng, hour = scene.rng, scene.hour
    grain = cloud(rng, [(3, 9), (6, 22), (14, 44)], 0.6)
    mask = step(0.5, 0.68, grain) * step(0.0, 0.3, scene.horizon - ROWS)
    under = {
        "day": colour(1, 1, 1), "night": colour(0.2, 0.24, 0.38),
        "sunset": colour(1.0, 0.45, 0.3), "sunrise": colour(1.0, 0.8, 0.72),
    }[scene.time]  # fmt: skip
    depth = step(0.6, 0.8, grain)[..., None]
    scene.cover(mask * 0.85, mix(under, mix(hour.top, under, 0.45), depth))


def thunderheads(scene: Scene) -> None:
    rng = scene.rng
    grain = cloud(rng, [(4, 4), (8, 9), (18, 20), (36, 40)], 0.6)
    mask = step(0.4, 0.6, grain + 0.25 * (0.45 - ROWS))
    above = np.roll(grain, 5, axis=0)
    relief = np.clip(0.5 + (grain - above) * -2.6, 0, 1)[..., None]
    scene.cover(mask * 0.9, mix(colour(0.08, 0.085, 0.11), colour(0.5, 0.52, 0.56), relief))
    if rng.random() < 0.4:
        bolt, x, y = [], rng.uniform(0.15, 0.85), 0.1
        while y < scene.horizon:
            bolt.append((x, y))
            x, y = x + rng.uniform(-0.06, 0.06), y + rng.uniform(0.05, 0.09)
        stencil = Stencil()
        stencil.line([*bolt, (x, scene.horizon)], 2)
        scene.canvas = mix(scene.canvas, colour(0.75, 0.75, 0.95), 0.5 * glow(bolt[0][0], 0.3, 0.12)[..., None])
        scene.cover(stencil.mask, colour(1, 1, 1))


def rain(scene: Scene) -> None:
    rng = scene.rng
    stencil = Stencil()
    slant = rng.uniform(-0.03, 0.03)
    for _ in range(70):
        x, y = rng.uniform(0, 1), rng.uniform(0, 0.9)
        stencil.line([(x, y), (x + slant, y + 0.09)], 1)
    scene.cover(stencil.mask * 0.22, colour(0.75, 0.78, 0.82))


def water(scene: Scene, shore: float, *, waves: float) -> None:
    """Everything below `shore` mirrors what is above it, broken by waves that grow towards us."""
    rng, hour = scene.rng, scene.hour
    near = np.clip((ROWS - shore) / (1 - shore), 0, 1)
    mirrored = np.clip((2 * shore - ROWS) * SIZE, 0, SIZE - 1)
    rough = cloud(rng, [(5, 40), (12, 80)], 0.7) - 0.5
    squeeze = 2 / (0.2 + near)  # waves look flatter the farther away they are
    ripples = look_up(curve(rng, 9, octaves=2), np.mod((near * squeeze + rough * 0.12) * 1.7, 1))
    rows = np.clip(mirrored + ripples * waves * 8 * near, 0, SIZE - 1).astype(np.int16)
    columns = np.clip(COLUMNS * SIZE + rough * waves * 24 * near, 0, SIZE - 1).astype(np.int16)
    image = scene.canvas[rows, columns]
    deep = {"day": colour(0.1, 0.32, 0.55), "storm": colour(0.14, 0.2, 0.24)}.get(scene.time, hour.top * 0.8)
    surface = mix(image * 0.86, deep, np.broadcast_to(0.15 + 0.45 * near, rough.shape)[..., None])
    crest = step(0.25, 0.6, ripples * (0.4 + near) + rough * 0.9)
    glint = mix(hour.middle, hour.horizon, 0.6)
    surface = mix(surface, glint, (0.35 * waves * crest)[..., None])
    surface = mix(
        surface, hour.horizon, (0.6 * np.exp(-near * 28) * (near > 0))[..., None]
    )  # the far shore shines
    if scene.time == "storm":
        foam = step(0.1, 0.22, rough * waves) * near
        surface = mix(surface, colour(0.75, 0.8, 0.82), 0.7 * foam[..., None])
    x, y, radius = scene.sun
    if scene.has("sun", "moon") and y < shore:
        path = step(1, 0.4, np.abs(X - x - rough * 0.07) / (radius * (0.6 + 1.3 * near)))
        broken = step(-0.35, 0.25, ripples + rough)
        gold = colour(1, 0.98, 0.88) if scene.has("moon") else mix(hour.horizon, colour(1, 1, 0.85), 0.6)
        surface = mix(surface, gold, (0.85 * path * broken)[..., None])
    scene.cover(np.broadcast_to(shore <= Y, rough.shape).astype(np.float32), surface)


def fog(scene: Scene) -> None:
    """Mist that lies thickest where the land meets the horizon."""
    grain = cloud(scene.rng, [(2, 7), (5, 16)], 0.6)
    band = np.exp(-(((ROWS - scene.horizon) / 0.2) ** 2))
    pale = mix(scene.hour.horizon, colour(0.9, 0.92, 0.95) * scene.hour.horizon.mean(), 0.5)
    scene.cover(np.clip(band * (0.35 + 1.1 * grain), 0, 0.93), pale)


def tinge(scene: Scene) -> None:
    """Colours the whole picture, the sky most."""
    for word, hue in HUES.items():
        if word in scene.words:
            value = scene.canvas.mean(axis=-1, keepdims=True)
            tinged = np.clip(value * hue / hue.mean(), 0, 1) * 0.9 + value * hue * 0.1
            strength = 0.72 - 0.27 * (step(scene.horizon - 0.1, scene.horizon + 0.1, ROWS))[..., None]
            scene.canvas = mix(scene.canvas, tinged, strength)


def paint(rng: np.random.Generator, words: set[str] | None = None) -> tuple[NDArray[np.uint8], set[str]]:
    """A picture of PIXELS x PIXELS x 3 and its words: chosen by `rng`, unless given."""
    scene = begin(rng, set(words) if words else choose(rng))
    sky(scene)
    land.PAINTERS[next(word for word in LANDS if word in scene.words)](scene)
    if scene.has("fog"):
        fog(scene)
    if scene.has("lake"):
        water(scene, scene.horizon + rng.uniform(0.02, 0.06), waves=rng.uniform(0.15, 0.5))
        land.near_shore(scene)
    elif scene.has("ocean"):
        water(scene, scene.horizon, waves=1.0)
        land.beach(scene)
    if scene.has("trees"):
        land.trees(scene)
    if scene.time == "storm":
        rain(scene)
    tinge(scene)
    kept = np.clip(scene.canvas, 0, 1).reshape(PIXELS, 2, PIXELS, 2, 3).mean(axis=(1, 3))
    return (kept * 255 + 0.5).astype(np.uint8), scene.words


if __name__ == "__main__":
    page = [paint(np.random.default_rng(seed))[0] for seed in range(8 * 12)]
    rows = [np.concatenate(page[start : start + 12], axis=1) for start in range(0, len(page), 12)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(sys.argv[1])
