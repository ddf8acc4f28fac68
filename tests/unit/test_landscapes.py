"""The example model: what its files make of words and seeds. Facts that files of random numbers would fail."""

import numpy as np
import onnxruntime
import pytest

from tests.support.landscapes import FOLDER, brightness, module, warmth

model, words, paint = module("model"), module("words"), module("paint")

SEEDS = 4


@pytest.fixture(scope="module")
def painter():
    return model.Model()


def drawn(painter, prompt, seed=0, **options):
    """The finished picture."""
    *_, drawings = painter.draw(prompt, seed, **options)
    return drawings[0].preview


def several(painter, prompt):
    """Finished pictures of one prompt, from a few seeds."""
    *_, drawings = painter.draw(prompt, 0, pictures=SEEDS, steps=12)
    return [drawing.preview for drawing in drawings]


@pytest.mark.parametrize("name", ["landscapes.onnx", "upscale.onnx"])
def test_a_file_is_small_and_loads_in_onnxruntime_alone(name):
    file = FOLDER / name
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    assert file.stat().st_size < 2_600_000
    assert 1 == len(session.get_outputs())


def test_the_network_hears_every_word():
    session = onnxruntime.InferenceSession(FOLDER / "landscapes.onnx", providers=["CPUExecutionProvider"])
    shapes = {tensor.name: tensor.shape for tensor in session.get_inputs()}

    assert {"picture": ["batch", 3, 64, 64], "t": ["batch"], "words": ["batch", len(words.WORDS)]} == shapes


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Sunset over the MOUNTAINS, with a lake", ["sunset", "mountains", "lake"]),
        ("a starry night by the sea", ["night", "ocean", "stars"]),
        ("snowy woods; mist at dawn", ["sunrise", "forest", "snow", "fog"]),
        ("moon-lit city", ["city", "moon"]),
        ("mountaineers today", []),
        ("a cat", []),
        ("", []),
    ],
)
def test_the_words_of_a_prompt_are_found_whatever_their_case_and_others_are_ignored(prompt, said):
    assert said == words.words_in(prompt)


def test_every_other_way_to_say_a_word_means_a_word():
    assert set(words.SAID_OTHERWISE.values()) <= set(words.WORDS)
    assert not set(words.SAID_OTHERWISE) & set(words.WORDS)


def test_the_same_prompt_and_seed_give_the_same_picture_and_another_seed_another(painter):
    first, again = (drawn(painter, "mountains, day", 7, steps=6) for _ in range(2))
    other = drawn(painter, "mountains, day", 8, steps=6)

    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_words_that_the_model_does_not_know_change_nothing(painter):
    plain = drawn(painter, "mountains, day", 7, steps=4)

    assert np.array_equal(plain, drawn(painter, "DAY: a cat on the mountains!", 7, steps=4))


def test_pictures_of_different_requests_drawn_together_are_what_each_is_alone(painter):
    orders = [("city at night", 1, 5), ("ocean", 2, 7), ("a cat", 3, 6), ("sunset, hills", 4, 5)]
    together = [model.Drawing(prompt, seed, steps) for prompt, seed, steps in orders]
    while unfinished := [drawing for drawing in together if not drawing.is_done]:
        painter.advance(unfinished)
    alone = [drawn(painter, prompt, seed, steps=steps) for prompt, seed, steps in orders]

    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.preview.astype(int) - other).max() <= 2


def test_the_preview_settles(painter):
    previews = [drawings[0].preview.astype(int) for drawings in painter.draw("mountains, lake, day", 3, steps=16)]
    changes = [np.abs(after - before).mean() for before, after in zip(previews, previews[1:], strict=False)]

    assert 16 == len(previews)
    assert np.mean(changes[-4:]) < np.mean(changes[:4]) / 2


def test_night_is_darker_than_day(painter):
    day, night = (several(painter, f"mountains, {time}") for time in ("day", "night"))

    assert max(map(brightness, night)) < min(map(brightness, day))


def test_a_sunset_is_warmer_than_a_day(painter):
    day, sunset = (several(painter, f"ocean, {time}") for time in ("day", "sunset"))

    assert max(map(warmth, day)) + 20 < min(map(warmth, sunset))


def test_snow_whitens_the_ground(painter):
    bare, snowed = (several(painter, f"forest, day{more}") for more in ("", ", snow"))
    ground = slice(48, 64)

    assert np.mean([brightness(p[ground]) for p in snowed]) > np.mean([brightness(p[ground]) for p in bare]) + 20


def test_stars_are_points_of_light_in_a_dark_sky(painter):
    def points(pixels):
        sky = pixels[:32].mean(axis=2)
        return int((sky > np.median(sky) + 60).sum())

    bare, starry = (several(painter, f"night, desert{more}") for more in ("", ", stars"))

    assert np.mean([points(p) for p in starry]) > np.mean([points(p) for p in bare]) + 15


def test_more_guidance_follows_the_words_further(painter):
    free, guided = (warmth(drawn(painter, "sunset, ocean", 5, steps=8, guidance=g)) for g in (1.0, 4.0))

    assert free < guided


def test_a_picture_is_enlarged_four_times_and_stays_the_same_picture(painter):
    small = drawn(painter, "mountains, day", 1, steps=12)
    large = painter.enlarge(small)
    shrunk = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))

    assert (256, 256, 3) == large.shape
    assert np.abs(shrunk - small).mean() < 8


def test_the_painter_tells_what_it_paints_and_paints_what_it_is_told():
    pixels, told = paint.paint(np.random.default_rng(7))
    again, _ = paint.paint(np.random.default_rng(7))
    ordered = [paint.paint(np.random.default_rng(seed), {"night", "city", "moon"}) for seed in range(3)]

    assert (64, 64, 3) == pixels.shape
    assert np.array_equal(pixels, again)
    assert told <= set(words.WORDS)
    assert 1 == len(told & set(words.TIMES)) == len(told & set(words.LANDS))
    assert all({"night", "city", "moon"} == said for _, said in ordered)
    assert all(pixels.max() > 230 and brightness(pixels) < 90 for pixels, _ in ordered)  # a moon in the dark


def test_the_painter_has_a_brush_for_every_land():
    for land in words.LANDS:
        pixels, said = paint.paint(np.random.default_rng(1), {"day", land})

        assert {"day", land} == said
        assert pixels.std() > 15
