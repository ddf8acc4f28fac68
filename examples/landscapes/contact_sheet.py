"""Draws docs/images/landscapes-contact-sheet.jpg: what the model makes of some prompts.

The seeds are 0, 1, 2, 3 for every prompt; nothing is picked.

python examples/landscapes/contact_sheet.py sheet.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

from model import Model
from PIL import Image, ImageDraw

PROMPTS = (
    "mountains, snow, day",
    "sunset over the mountains, with a lake",
    "night, stars and a moon over the ocean",
    "storm over a lake, mountains",
    "city at night",
    "golden desert, sun",
    "forest in the fog, sunrise",
    "green hills with trees, clouds, day",
    "purple night, mountains, moon, stars",
    "ocean at sunset, sun",
    "snow in the forest, day",
    "city by the lake, pink sunrise",
    "storm on the ocean",
    "palms by the sea, day",
    "mountains",
    "a cat",
)
SEEDS = 4
SIDE = 128  # of a picture, in pixels of the sheet
CAPTION = 14


def main() -> None:
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent
    model = Model(folder)
    columns = 2  # of prompts
    sheet = Image.new("RGB", (columns * SEEDS * SIDE + 8, len(PROMPTS) // columns * (SIDE + CAPTION)), "white")
    write = ImageDraw.Draw(sheet)
    for index, prompt in enumerate(PROMPTS):
        left = index % columns * (SEEDS * SIDE + 8)
        top = index // columns * (SIDE + CAPTION)
        write.text((left + 2, top + 1), prompt, fill="black")
        *_, drawings = model.draw(prompt, seed=0, pictures=SEEDS)
        for number, drawing in enumerate(drawings):
            picture = Image.fromarray(model.enlarge(drawing.preview)).resize(
                (SIDE, SIDE), Image.Resampling.LANCZOS
            )
            sheet.paste(picture, (left + number * SIDE, top + CAPTION))
    sheet.save(sys.argv[1], quality=82)


if __name__ == "__main__":
    main()
