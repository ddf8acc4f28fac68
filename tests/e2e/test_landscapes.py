"""The text-to-image example behind the server, as a user serves it: previews, pictures, and fal's words for them."""

import base64
import concurrent.futures
import io

import numpy as np
import pytest
from PIL import Image

from tests.support.landscapes import FOLDER, brightness
from tests.support.leaving import metric
from tests.support.server import Server, data_events, eventually, running_server

pytestmark = pytest.mark.timeout(180)

APP = "/headrace/landscapes"
SMALL = {"prompt": "mountains, day", "seed": 7, "num_inference_steps": 6, "image_size": "square"}


@pytest.fixture(scope="module")
def server():
    with running_server(
        FOLDER / "app.py", args=("--no-auth", "--alias", "fal-ai/flux=headrace/landscapes")
    ) as server:
        yield server


def fetched(server: Server, url: str) -> Image.Image:
    """What lies behind a URL of an answer."""
    if url.startswith("data:"):
        data = base64.b64decode(url.partition(",")[2])
    else:
        answer = server.request("GET", url.removeprefix(server.url))
        assert 200 == answer.status
        data = answer.body
    return Image.open(io.BytesIO(data)).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean())


def test_every_step_is_a_preview_and_the_picture_comes_last(server):
    answer = server.post(f"{APP}/stream", SMALL)
    *previews, last = data_events(answer.body)
    seen = [fetched(server, preview["images"][0]["url"]) for preview in previews]
    (image,) = last["images"]
    picture = fetched(server, image["url"])

    assert [round(step / 6, 6) for step in range(1, 7)] == [round(p["progress"], 6) for p in previews]
    assert "step 6 of 6" == previews[-1]["message"]
    assert {(256, 256)} == {preview.size for preview in seen}
    assert (512, 512) == picture.size == (image["width"], image["height"])
    assert "image/jpeg" == image["content_type"]
    assert 7 == last["seed"]
    assert "mountains, day" == last["prompt"]
    assert 0 < last["timings"]["inference"]
    assert difference(seen[-1].resize((512, 512)), picture) < difference(seen[0].resize((512, 512)), picture)


@pytest.mark.parametrize("path", [APP, f"{APP}/schnell", "/fal-ai/flux/schnell"])
def test_the_same_order_is_the_same_picture_under_every_name(server, path):
    first = server.post(APP, SMALL).json
    again = server.post(path, SMALL).json
    pictures = [fetched(server, answer["images"][0]["url"]) for answer in (first, again)]

    assert difference(*pictures) < 2


def test_without_a_seed_one_is_chosen_and_told(server):
    order = {name: value for name, value in SMALL.items() if name != "seed"} | {"prompt": "a cat"}
    chosen = server.post(APP, order).json
    again = server.post(APP, order | {"seed": chosen["seed"]}).json
    pictures = [fetched(server, answer["images"][0]["url"]) for answer in (chosen, again)]

    assert difference(*pictures) < 2


def test_several_pictures_are_those_of_the_seeds_that_follow(server):
    answer = server.post(APP, SMALL | {"num_images": 3}).json
    third = server.post(APP, SMALL | {"seed": 9}).json
    pictures = [fetched(server, image["url"]) for image in answer["images"]]

    assert 3 == len(pictures)
    assert difference(pictures[0], pictures[1]) > 5
    assert difference(pictures[2], fetched(server, third["images"][0]["url"])) < 2


@pytest.mark.parametrize(
    ("size", "pixels"),
    [
        ("square_hd", (1024, 1024)),
        ("portrait_16_9", (576, 1024)),
        ({"width": 96, "height": 64}, (96, 64)),
        ({"width": 64, "height": 2048}, (64, 2048)),
    ],
)
def test_a_picture_has_the_size_that_was_asked_for(server, size, pixels):
    order = SMALL | {"image_size": size, "num_inference_steps": 1, "output_format": "png"}
    image = server.post(APP, order).json["images"][0]

    assert pixels == fetched(server, image["url"]).size == (image["width"], image["height"])
    assert "image/png" == image["content_type"]


def test_in_sync_mode_the_picture_is_in_the_answer(server):
    image = server.post(APP, SMALL | {"sync_mode": True}).json["images"][0]

    assert image["url"].startswith("data:image/jpeg;base64,")
    assert (512, 512) == fetched(server, image["url"]).size


def test_the_words_of_the_prompt_reach_the_model(server):
    pictures = {
        time: fetched(server, server.post(APP, SMALL | {"prompt": f"{time}, ocean"}).json["images"][0]["url"])
        for time in ("day", "night")
    }

    assert brightness(np.asarray(pictures["night"])) < brightness(np.asarray(pictures["day"])) - 30


def test_requests_at_once_have_the_pictures_that_each_has_alone(server):
    orders = [SMALL | {"prompt": prompt} for prompt in ("city, night", "ocean, sunset", "forest, fog")]

    def ask(order):
        return fetched(server, server.post(APP, order).json["images"][0]["url"])

    alone = [ask(order) for order in orders]
    with concurrent.futures.ThreadPoolExecutor(3) as callers:
        together = list(callers.map(ask, orders))

    assert all(difference(*pair) < 2 for pair in zip(alone, together, strict=True))


def test_who_leaves_stops_the_drawing_and_leaves_the_others_alone(server):
    long = SMALL | {"num_inference_steps": 50, "num_images": 4}
    with server.open(f"{APP}/stream", long) as leaver, server.open(f"{APP}/stream", SMALL) as stayer:
        leaver.read_until(b'"step 1 of 50"')
        leaver.close()
        stayer.read_until(b'"timings"')

    ended = {"app": "headrace/landscapes", "view": "stream", "ending": "client_disconnected"}
    eventually(
        lambda: 1 == metric(server, "headrace_requests_total", **ended), "its request ends before its pictures"
    )


@pytest.mark.parametrize(
    ("wrong", "field", "message"),
    [
        ({"prompt": None}, "prompt", "valid string"),
        ({"num_images": 0}, "num_images", "greater than or equal to 1"),
        ({"num_images": 5}, "num_images", "less than or equal to 4"),
        ({"num_inference_steps": 51}, "num_inference_steps", "less than or equal to 50"),
        ({"guidance_scale": 0.5}, "guidance_scale", "greater than or equal to 1"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"image_size": "huge"}, "image_size", "square_hd"),
        ({"image_size": {"width": 32, "height": 64}}, "image_size", "greater than or equal to 64"),
        ({"image_size": {"width": 64, "height": 4096}}, "image_size", "less than or equal to 2048"),
        ({"output_format": "gif"}, "output_format", "'jpeg' or 'png'"),
    ],
)
def test_a_wrong_order_is_422_and_says_which_field(server, wrong, field, message):
    answer = server.post(APP, SMALL | wrong)
    found = [detail for detail in answer.json["detail"] if field in detail["loc"] and message in detail["msg"]]

    assert 422 == answer.status
    assert found, answer.json
