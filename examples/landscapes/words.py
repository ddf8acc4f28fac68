"""The words of the model: what the painter paints, what a prompt may say, in which order the network hears it."""

from __future__ import annotations

import re

TIMES = ("day", "sunset", "sunrise", "night", "storm")
LANDS = ("mountains", "hills", "desert", "ocean", "forest", "city")
THINGS = ("lake", "snow", "clouds", "stars", "moon", "fog", "sun", "trees")
TINTS = ("pink", "orange", "golden", "purple", "blue", "green")
WORDS = (*TIMES, *LANDS, *THINGS, *TINTS)
"""Everything that the model has a word for, in the order of its inputs."""

SAID_OTHERWISE = {
    "mountain": "mountains", "alps": "mountains", "peaks": "mountains", "hill": "hills", "dunes": "desert",
    "sea": "ocean", "beach": "ocean", "coast": "ocean", "woods": "forest", "skyline": "city", "town": "city",
    "snowy": "snow", "winter": "snow", "cloudy": "clouds", "cloud": "clouds", "starry": "stars", "star": "stars",
    "moonlight": "moon", "moonlit": "moon", "foggy": "fog", "mist": "fog", "misty": "fog", "sunny": "sun",
    "tree": "trees", "palms": "trees", "dawn": "sunrise", "morning": "sunrise", "dusk": "sunset",
    "evening": "sunset",
    "midnight": "night", "noon": "day", "stormy": "storm", "thunderstorm": "storm", "lightning": "storm",
    "rain": "storm", "gold": "golden", "violet": "purple", "lakes": "lake",
}  # fmt: skip


def words_in(prompt: str) -> list[str]:
    """Those of the model's words that a prompt says, in the order of WORDS: all that it understands of it."""
    said = {SAID_OTHERWISE.get(word, word) for word in re.findall(r"[a-z]+", prompt.lower())}
    return [word for word in WORDS if word in said]
