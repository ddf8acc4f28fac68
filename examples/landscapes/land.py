"""The painter's land: mountains, hills, deserts, forests, cities, and what grows on them. See paint.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from brushes import (
    COLUMNS,
    ROWS,
    SIZE,
    Plane,
    Stencil,
    X,
    Y,
    cloud,
    colour,
    curve,
    look_up,
    mix,
    smooth_curve,
    step,
)

if TYPE_CHECKING:
    from paint import Scene

SNOW = colour(0.97, 0.98, 1.0)
GRASS = colour(0.36, 0.56, 0.22)
NEEDLES = colour(0.13, 0.30, 0.17)


def ground(scene: Scene) -> Plane:
    """The colour of what grows here."""
    if scene.has("snow"):
        return SNOW
    return GRASS * scene.rng.uniform(0.85, 1.15, 3).astype(np.float32)


def mountains(scene: Scene) -> None:
    """A far range, a main range with snow caps, and foothills before them."""
    rng = scene.rng
    for _ in range(int(rng.integers(3, 6))):
        summit(scene, rng.uniform(0, 1), rng.uniform(0.2, 0.3), distance=rng.uniform(0.45, 0.6))
    places = np.linspace(0.12, 0.88, int(rng.integers(2, 4))) + rng.normal(0, 0.08)
    heights = sorted(rng.uniform(0.26, 0.5, len(places)))
    for x, height in zip(rng.permutation(places), reversed(heights), strict=True):
        summit(scene, x + rng.normal(0, 0.04), height, distance=rng.uniform(0.05, 0.2))
    foothills = scene.horizon - 0.03 - 0.05 * np.abs(curve(rng, 3))[None, :]
    growth = ground(scene) if scene.has("snow") else mix(NEEDLES, GRASS, rng.uniform(0.1, 0.7))
    scene.cover(step(0, 0.01, ROWS - foothills), meadow(scene, growth, foothills, 0.1))


def summit(scene: Scene, x: float, height: float, distance: float) -> None:
    """One mountain: a side in the light, a side in shadow, ribs that run down from the top, a cap of snow."""
    rng = scene.rng
    foot = scene.horizon + 0.02
    top = foot - height
    down = np.clip((ROWS - top) / height, 0, 1)
    half = height * rng.uniform(0.8, 1.25) * down**1.12 + 0.004
    edges = [half * (1 + 0.1 * curve(rng, 7)[:, None] * step(0, 0.25, down)) for _ in range(2)]
    across = X - x
    mask = (
        step(-0.006, 0.006, np.minimum(across + edges[0], edges[1] - across))
        * (top <= ROWS)
        * (foot + 0.06 > ROWS)
    )
    spine = half * 0.3 * curve(rng, 5)[:, None]  # the ridge that parts light from shadow
    grain = cloud(rng, [(10, 10), (24, 24)], 0.7) - 0.5
    angle = np.clip((across - spine) / half, -1.2, 1.2)
    ribs = look_up(curve(rng, 9, octaves=2, rough=0.7), 0.5 + 0.4 * angle + 0.16 * grain)
    facing = step(-0.07, 0.07, (angle + grain * 0.25) * scene.side)
    light = np.clip(0.12 + 0.85 * facing + 0.3 * ribs * step(0.08, 0.4, down), 0, 1.15)
    rock = mix(colour(0.40, 0.36, 0.36), colour(0.50, 0.42, 0.36), rng.random()) * rng.uniform(0.75, 1.1)
    line = rng.uniform(0.65, 0.95) if scene.has("snow") else rng.uniform(0.12, 0.34) * (height > 0.3)
    snow = step(-0.03, 0.03, line + 0.16 * ribs + 0.3 * grain - down)
    scene.cover(
        mask, scene.lit(mix(np.broadcast_to(rock, (SIZE, SIZE, 3)), SNOW, snow[..., None]), light, distance)
    )


def meadow(scene: Scene, growth: Plane, edge: Plane, distance: float) -> Plane:
    """Ground below `edge` (a row of heights): brighter where it leans to the light, darker towards us."""
    near = np.clip(ROWS - edge, 0, 1)
    slope = np.gradient(edge[0])[None, :] * SIZE * scene.side * step(0.12, 0.0, near)
    grain = cloud(scene.rng, [(8, 16), (24, 40)], 0.7) - 0.5
    light = np.clip(0.6 + 0.35 * slope - 0.55 * near + 0.55 * grain, 0, 1.1)
    return scene.lit(growth, light, distance)


def hills(scene: Scene) -> None:
    rng = scene.rng
    count = int(rng.integers(3, 5))
    for index in range(count):
        nearness = index / (count - 1)
        middle = scene.horizon - 0.14 + 0.26 * nearness
        edge = (middle + rng.uniform(0.05, 0.09) * smooth_curve(rng, rng.uniform(0.7, 1.6)))[None, :]
        growth = mix(ground(scene), NEEDLES, 0 if scene.has("snow") else rng.uniform(0, 0.45))
        scene.cover(step(0, 0.012, ROWS - edge), meadow(scene, growth, edge, 0.5 * (1 - nearness)))
        if not scene.has("lake") or nearness < 0.5:
            dots(scene, edge[0], nearness)


def dots(scene: Scene, edge: Plane, nearness: float) -> None:
    """Bushes and far trees on a hill."""
    rng = scene.rng
    stencil = Stencil()
    for _ in range(int(rng.integers(0, 7))):
        column = int(rng.integers(0, SIZE))
        size = 0.012 + 0.014 * nearness
        stencil.ellipse(column / SIZE, edge[column] + rng.uniform(-0.01, 0.08), size, size)
    leaves = mix(NEEDLES, SNOW, 0.35 if scene.has("snow") else 0)
    scene.cover(stencil.mask, scene.lit(leaves, 0.4, 0.4 * (1 - nearness)))


def desert(scene: Scene) -> None:
    """Dunes: from each crest one side falls into the light and one into shadow."""
    rng = scene.rng
    sand = colour(0.93, 0.74, 0.45) * rng.uniform(0.9, 1.05, 3).astype(np.float32)
    count = int(rng.integers(3, 5))
    for index in range(count):
        nearness = index / (count - 1)
        base = scene.horizon - 0.06 + 0.3 * nearness
        tall = 0.08 + 0.09 * nearness
        knots = int(rng.integers(1, 3))
        crests = np.sort(rng.uniform(-0.1, 1.1, knots))
        edge = np.full(SIZE, base, np.float32)
        shade = np.zeros((SIZE, SIZE), np.float32)
        for x in crests:
            peak = base - tall * rng.uniform(0.5, 1)
            reach = rng.uniform(0.3, 0.5)
            edge = np.minimum(edge, peak + (np.abs(COLUMNS[0] - x) / reach) ** 0.85 * (base - peak))
            fall = np.clip(ROWS - peak, 0, 1)
            bend = x + scene.side * (0.05 * np.sin(fall * 22 + 3 * x) - 0.25 * fall)
            lee = step(0, 0.02, (bend - X) * scene.side) * step(0.3, 0.1, fall)
            shade = np.maximum(shade, lee * step(reach, reach * 0.4, np.abs(X - x)))
        ripple = 0.07 * np.sin((ROWS * 140 / (0.6 + ROWS)) + 3 * smooth_curve(rng, 1)[None, :])
        light = np.clip(0.9 - 0.72 * shade + ripple * nearness, 0, 1)
        scene.cover(step(0, 0.012, ROWS - edge[None, :]), scene.lit(sand, light, 0.4 * (1 - nearness)))


def ocean(scene: Scene) -> None:
    """The sea itself is water; sometimes there is a coast far away."""
    rng = scene.rng
    if rng.random() < 0.3:
        swell = 0.05 * np.abs(curve(rng, 2)) * step(0.0, 0.5, (COLUMNS[0] - 0.5) * rng.choice([-1, 1]))
        edge = (scene.horizon - swell)[None, :]
        scene.cover(step(0, 0.01, ROWS - edge) * (swell > 0.004), scene.lit(NEEDLES, 0.4, 0.45))


def beach(scene: Scene) -> None:
    if scene.rng.random() < (0.8 if scene.has("trees") else 0.25):
        edge = (scene.rng.uniform(0.84, 0.93) + 0.04 * smooth_curve(scene.rng, 0.8))[None, :]
        surf = step(0, 0.01, ROWS - edge + 0.02)
        scene.cover(surf, scene.lit(SNOW, 0.5))
        grain = cloud(scene.rng, [(20, 20)])
        scene.cover(step(0, 0.01, ROWS - edge), scene.lit(colour(0.85, 0.72, 0.5), 0.5 + 0.4 * grain))


def forest(scene: Scene) -> None:
    """Rows of firs, each row nearer, taller and darker."""
    rng = scene.rng
    floor = ground(scene)
    back = (scene.horizon - 0.16 - 0.05 * smooth_curve(rng, 1.2))[None, :]
    scene.cover(step(0, 0.01, ROWS - back), meadow(scene, mix(NEEDLES, floor, 0.3), back, 0.5))
    rows = int(rng.integers(3, 5))
    for index in range(rows):
        nearness = index / (rows - 1)
        foot = scene.horizon - 0.07 + 0.1 * nearness
        tall = 0.15 + 0.17 * nearness
        edge = np.full((1, SIZE), foot, np.float32)
        scene.cover(
            step(0, 0.01, ROWS - edge),
            meadow(scene, floor if nearness > 0.6 else NEEDLES, edge, 0.45 * (1 - nearness)),
        )
        firs(scene, foot, tall, tall * rng.uniform(0.28, 0.42), nearness)


def firs(scene: Scene, foot: float, tall: float, gap: float, nearness: float) -> None:
    """A row of firs: the light touches one side of each, snow lies on their shoulders."""
    rng = scene.rng
    whole, lit = Stencil(), Stencil()
    x = rng.uniform(-gap, 0)
    while x < 1 + gap:
        height = tall * rng.uniform(0.65, 1.1)
        low = foot + rng.uniform(-0.01, 0.02)
        whole.conifer(x, low, height)
        lit.conifer(x + scene.side * height * 0.09, low - height * 0.03, height * 0.8)
        x += gap * rng.uniform(0.6, 1.5)
    mask = whole.mask
    touched = (lit.mask * mask)[..., None]
    needles = NEEDLES * rng.uniform(0.8, 1.25, 3).astype(np.float32)
    far = 0.55 * (1 - nearness)
    white = mix(needles, SNOW, 0.75 if scene.has("snow") else 0.0)
    scene.cover(mask, mix(scene.lit(needles, 0.15, far), scene.lit(white, 0.85, far), touched))


def city(scene: Scene) -> None:
    """Towers in two or three rows; their windows shine when it is dark."""
    rng = scene.rng
    rows = int(rng.integers(2, 4))
    for index in range(rows):
        nearness = index / (rows - 1)
        stencil, windows, sides = Stencil(), Stencil(), Stencil()
        x = rng.uniform(-0.1, 0)
        while x < 1:
            width = 2 * int(rng.integers(4, 9)) / SIZE
            tall = rng.uniform(0.14, 0.36) * (1.25 - 0.45 * nearness) * rng.choice([1, 1, 1, 1.35])
            top = round((scene.horizon - tall) * SIZE / 2) * 2 / SIZE
            tower(rng, stencil, windows, sides, x, top, width, scene.horizon + 0.05)
            x += width + 2 * int(rng.integers(-1, 3)) / SIZE * (1 if nearness else 0.5)
        wall = mix(colour(0.42, 0.45, 0.52), colour(0.55, 0.47, 0.44), rng.random()) * rng.uniform(0.7, 1.15)
        far = 0.5 * (1 - nearness)
        shadow = sides.mask if scene.side < 0 else 1 - sides.mask
        scene.cover(stencil.mask, scene.lit(wall, 0.15 + 0.6 * (1 - shadow), far))
        dark = scene.has("night", "sunset", "storm")
        shine = (
            mix(colour(1.0, 0.82, 0.4), scene.hour.horizon, 0.5 * far)
            if dark
            else scene.lit(colour(0.2, 0.28, 0.42), 0.3, far)
        )
        scene.cover(windows.mask * (0.95 if dark else 0.7), shine)
    edge = np.full((1, SIZE), scene.horizon, np.float32)
    street = SNOW if scene.has("snow") else mix(colour(0.3, 0.3, 0.32), GRASS, scene.rng.uniform(0, 0.8))
    scene.cover(step(0, 0.01, ROWS - edge), meadow(scene, street, edge, 0.0))


def tower(
    rng: np.random.Generator, body: Stencil, windows: Stencil, sides: Stencil,
    x: float, top: float, width: float, foot: float,
) -> None:  # fmt: skip
    x = round(x * SIZE / 2) * 2 / SIZE
    body.box(x, top, x + width, foot)
    sides.box(x + width * 0.6, top, x + width, foot)
    if rng.random() < 0.2:
        body.box(x + width / 2 - 0.008, top - rng.uniform(0.04, 0.09), x + width / 2 + 0.008, top)
    lit = rng.uniform(0.35, 0.8)
    cell = 2 / SIZE  # a pixel of the finished picture
    for row in np.arange(top + cell, foot - 0.06, 2 * cell):
        for column in np.arange(x + cell, x + width - cell / 2, 2 * cell):
            if rng.random() < lit:
                windows.box(column, row, column + cell, row + cell - 1 / SIZE)


def near_shore(scene: Scene) -> None:
    """The bank on our side of a lake, now and then."""
    rng = scene.rng
    if rng.random() < 0.35 or scene.has("trees"):
        edge = (rng.uniform(0.88, 0.94) + 0.05 * smooth_curve(rng, 0.8))[None, :]
        scene.cover(step(0, 0.012, ROWS - edge), meadow(scene, ground(scene), edge, 0.0))


def trees(scene: Scene) -> None:
    """A few big trees close by: palms by the sea, firs in the mountains, round crowns elsewhere."""
    rng = scene.rng
    for _ in range(int(rng.integers(1, 4))):
        x = rng.choice([rng.uniform(0.05, 0.3), rng.uniform(0.7, 0.95)])
        foot, tall = rng.uniform(0.88, 0.97), rng.uniform(0.3, 0.5)
        if scene.has("ocean", "desert"):
            palm(scene, x, foot, tall)
        elif scene.has("mountains") or rng.random() < 0.3:
            fir(scene, x, foot, tall)
        else:
            crown(scene, x, foot, tall * 0.85)


def fir(scene: Scene, x: float, foot: float, tall: float) -> None:
    whole, lit = Stencil(), Stencil()
    whole.conifer(x, foot, tall)
    lit.conifer(x + scene.side * tall * 0.08, foot - tall * 0.05, tall * 0.8)
    white = mix(NEEDLES * 1.3, SNOW, 0.7 if scene.has("snow") else 0.0)
    touched = (lit.mask * whole.mask)[..., None]
    scene.cover(whole.mask, mix(scene.lit(NEEDLES, 0.1), scene.lit(white, 0.8), touched))


def crown(scene: Scene, x: float, foot: float, tall: float) -> None:
    rng = scene.rng
    trunk, leaves = Stencil(), Stencil()
    trunk.box(x - 0.014, foot - tall * 0.5, x + 0.014, foot)
    for _ in range(7):
        ball = tall * rng.uniform(0.15, 0.24)
        leaves.ellipse(x + rng.normal(0, tall * 0.15), foot - tall * rng.uniform(0.52, 0.82), ball, ball)
    scene.cover(trunk.mask, scene.lit(colour(0.34, 0.23, 0.15), 0.3))
    grain = cloud(rng, [(16, 16), (32, 32)])
    light = np.clip(
        0.45 + 1.6 * scene.side * (X - x) / tall + 1.2 * (grain - 0.5) - (Y - foot + tall * 0.65) / tall, 0, 1
    )
    green = GRASS * rng.uniform(0.7, 1.1, 3).astype(np.float32)
    scene.cover(leaves.mask, scene.lit(mix(green, SNOW, 0.6 if scene.has("snow") else 0.0), light))


def palm(scene: Scene, x: float, foot: float, tall: float) -> None:
    rng = scene.rng
    stencil = Stencil()
    lean = rng.uniform(-0.1, 0.1)
    top_x, top_y = x + lean, foot - tall
    stencil.line([(x, foot), (x + lean * 0.35, foot - tall * 0.5), (top_x, top_y)], 3)
    for angle in np.linspace(-0.4, np.pi + 0.4, 8) + rng.normal(0, 0.1):
        dx, dy = np.cos(angle) * tall * 0.34, -np.sin(angle) * tall * 0.17
        stencil.line([(top_x, top_y), (top_x + dx * 0.6, top_y + dy), (top_x + dx, top_y + dy + tall * 0.12)], 3)
    scene.cover(stencil.mask, scene.lit(colour(0.16, 0.26, 0.13), 0.3))


PAINTERS: dict[str, Callable[[Scene], None]] = {
    "mountains": mountains,
    "hills": hills,
    "desert": desert,
    "ocean": ocean,
    "forest": forest,
    "city": city,
}
