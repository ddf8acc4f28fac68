"""Vercel's AI SDK with `@ai-sdk/fal`, as its users write it, against a model of ours."""

import base64
import json
import subprocess

import pytest

from tests.contract.models.pictures import RED
from tests.support.official import CLIENTS, need_node, official_server
from tests.support.server import ROOT

#: Its programs wait seconds between two looks at a queue, and six of them run one after another.
pytestmark = pytest.mark.timeout(240)

MODELS = ROOT / "tests" / "contract" / "models" / "pictures.py"


@pytest.fixture(scope="module")
def told():
    with official_server(MODELS) as served:
        picture = {"kind": "image", "model": "fal-ai/pictures", "baseURL": served.server.url}
        calls = [
            {**picture, "name": "picture", "prompt": "a red point"},
            {**picture, "name": "pictures", "prompt": "two", "n": 2},
            {**picture, "name": "wrong", "prompt": "x", "options": {"num_images": "many"}},
            {"name": "speech", "kind": "speech", "model": "fal-ai/pictures/speak", "text": "hello"},
            {"name": "words", "kind": "transcribe", "model": "pictures/transcribe", "audio": "RIFF good day"},
            {"name": "film", "kind": "video", "model": "pictures/film", "prompt": "x"},
        ]
        node = subprocess.run(
            ["node", "--input-type=module", "--eval", (CLIENTS / "ai.mjs").read_text()],
            cwd=need_node(), env=served.environment, input=json.dumps(calls), capture_output=True, text=True,
            timeout=200,
        )  # fmt: skip
    assert node.returncode == 0, node.stderr
    return {line["name"]: line for line in map(json.loads, node.stdout.splitlines())}


def test_a_picture_is_made_at_the_base_url_and_fetched_from_the_files(told):
    made = told["picture"]

    assert [(one["type"], base64.b64decode(one["content"])) for one in made["images"]] == [("image/png", RED)]
    known = {"width": 1, "height": 1, "contentType": "image/png", "fileName": "red.png", "fileSize": len(RED)}
    assert made["metadata"]["images"] == [known]


def test_each_of_several_pictures_is_a_call_of_its_own(told):
    assert [base64.b64decode(one["content"]) for one in told["pictures"]["images"]] == [RED, RED]


def test_a_wrong_input_is_told_field_by_field(told):
    error = told["wrong"]["error"]

    assert (error["name"], error["status"]) == ("AI_APICallError", 422)
    assert error["message"].startswith("body.num_images: Input should be a valid integer")


def test_speech_is_made_and_fetched(told):
    assert base64.b64decode(told["speech"]["content"]) == b"RIFF hello"


def test_a_transcription_goes_by_the_queue(told):
    words = told["words"]

    assert (words["text"], words["language"]) == ("RIFF good day", "en")
    assert words["segments"][1] == {"text": "good", "startSecond": 1, "endSecond": 2}


def test_a_film_is_submitted_and_its_result_is_asked_for_without_a_key(told):
    """The client sends its key to fal's own hosts alone. If this fails, it has changed: say so in the how-to."""
    assert told["film"]["error"]["status"] == 401
