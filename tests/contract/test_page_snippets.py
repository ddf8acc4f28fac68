"""The four snippets of fal's streaming page, byte for byte, against a server that asks for a key.

They lie in clients/snippets. What stands around them is what a user has to do: `headrace env` for Python and Node (or
one `fal.config` in front), two lines of `.curlrc` for curl.
"""

import ast
import dataclasses
import pathlib
import re
import subprocess
import sys

import pytest
from PIL import Image

from tests.support.official import PROGRAM_S, SNIPPETS, need_node, official_server
from tests.support.server import ROOT, data_events

STEPS = [{"step": n, "progress": n / 4} for n in (1, 2, 3, 4)]
RESULT = {
    "images": [{"url": "https://example.com/d544c450d538.png", "width": 1024, "height": 768}],
    "seed": 7,
    "prompt": "a sunset over mountains",
}

PRINTED_BY_NODE = """\
{ step: 1, progress: 0.25 }
{ step: 2, progress: 0.5 }
{ step: 3, progress: 0.75 }
{ step: 4, progress: 1 }
{
  images: [
    {
      url: 'https://example.com/d544c450d538.png',
      width: 1024,
      height: 768
    }
  ],
  seed: 7,
  prompt: 'a sunset over mountains'
}
"""

PRINTED_BY_CURL = """\
data: {"step":1,"progress":0.25}

data: {"step":2,"progress":0.5}

data: {"step":3,"progress":0.75}

data: {"step":4,"progress":1.0}

data: {"images":[{"url":"https://example.com/d544c450d538.png","width":1024,"height":768}],"seed":7,\
"prompt":"a sunset over mountains"}

"""


@pytest.fixture(scope="module")
def served():
    flux = ROOT / "tests" / "support" / "flux.py"
    with official_server(flux, args=("--alias", "fal-ai/flux=demo/flux", "--impersonate")) as served:
        yield served


def printed(command: list[str], folder: pathlib.Path, environment, given: str | None = None) -> str:
    """Run a program to its end, and return what it printed; fail if it failed or complained."""
    program = subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, text=True, timeout=PROGRAM_S
    )
    assert (program.returncode, program.stderr) == (0, "")
    return program.stdout


@pytest.mark.parametrize("name", ["stream.py", "stream_async.py"])
def test_the_python_snippets_run_in_a_shell_that_has_seen_headrace_env(served, tmp_path, name):
    text = printed([sys.executable, str(SNIPPETS / name)], tmp_path, served.environment)

    assert [ast.literal_eval(line) for line in text.splitlines()] == [*STEPS, RESULT]


def run_by_node(served, program: str) -> str:
    """Feed a program to Node as it is: imports of a program on stdin are found from the current folder."""
    return printed(["node", "--input-type=module", "-"], need_node(), served.environment, program)


def test_the_javascript_snippet_runs_in_a_shell_that_has_seen_headrace_env(served):
    snippet = (SNIPPETS / "stream.mjs").read_text()

    assert run_by_node(served, snippet) == PRINTED_BY_NODE


def test_the_javascript_snippet_runs_with_one_configuration_in_front(served):
    configuration = f"""\
import {{ fal as headrace }} from "@fal-ai/client";
headrace.config({{ proxyUrl: {{ url: "{served.proxy_url}", when: "always" }} }});
"""
    environment = {k: v for k, v in served.environment.items() if not k.startswith("NODE_")}
    plain = dataclasses.replace(served, environment=environment)
    snippet = (SNIPPETS / "stream.mjs").read_text()

    assert run_by_node(plain, configuration + snippet) == PRINTED_BY_NODE


def curl_home(served, folder: pathlib.Path) -> dict[str, str]:
    """Return an environment in which curl finds fal.run here, and believes it."""
    lines = [f'connect-to = "fal.run:443:localhost:{served.tls_port}"', f'cacert = "{served.ca}"', "silent"]
    (folder / ".curlrc").write_text("\n".join(lines) + "\n")
    return {**served.environment, "CURL_HOME": str(folder)}


def test_the_curl_snippet_runs_with_a_curlrc(served, tmp_path):
    text = printed(["bash", str(SNIPPETS / "stream.sh")], tmp_path, curl_home(served, tmp_path))

    assert text == PRINTED_BY_CURL


def test_the_curl_snippet_shows_the_refusal_of_a_wrong_key(served, tmp_path):
    environment = {**curl_home(served, tmp_path), "FAL_KEY": "nobodys:key"}

    text = printed(["bash", str(SNIPPETS / "stream.sh")], tmp_path, environment)

    assert '"error_type":"unauthorized"' in text
    assert "data:" not in text


# --- the same snippets, and a model that paints ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def painting():
    landscapes = ROOT / "examples" / "landscapes" / "app.py"
    with official_server(
        landscapes, args=("--alias", "fal-ai/flux=headrace/landscapes", "--impersonate")
    ) as served:
        yield served


def size_behind(served, url: str, folder: pathlib.Path) -> tuple[int, int]:
    """The size of the picture that curl gets for a URL, with the same two lines of `.curlrc` and no key."""
    file = folder / "picture"
    printed(["curl", "--fail", "--output", str(file), url], folder, curl_home(served, folder))
    with Image.open(file) as picture:
        picture.load()
        return picture.size


def judge(served, items: list[dict], folder: pathlib.Path) -> None:
    """Each step is a preview of its own; the last item is the picture, at the page's default size."""
    *previews, last = items
    shown = [preview["images"][0]["url"] for preview in previews]
    (image,) = last["images"]

    assert len(shown) == len(set(shown)) >= 4
    assert all(url.startswith("data:image/") for url in shown)
    assert [item["progress"] for item in previews] == sorted(item["progress"] for item in previews)
    assert last["prompt"] == "a sunset over mountains"
    assert size_behind(served, image["url"], folder) == (image["width"], image["height"])


@pytest.mark.parametrize("name", ["stream.py", "stream_async.py"])
def test_the_python_snippets_stream_a_real_picture(painting, tmp_path, name):
    text = printed([sys.executable, str(SNIPPETS / name)], tmp_path, painting.environment)

    judge(painting, [ast.literal_eval(line) for line in text.splitlines()], tmp_path)


def test_the_curl_snippet_streams_a_real_picture(painting, tmp_path):
    text = printed(["bash", str(SNIPPETS / "stream.sh")], tmp_path, curl_home(painting, tmp_path))

    judge(painting, data_events(text.encode()), tmp_path)


def test_the_javascript_snippet_streams_a_real_picture(painting, tmp_path):
    text = run_by_node(painting, (SNIPPETS / "stream.mjs").read_text())

    assert text.count("progress: ") >= 4
    assert text.count("data:image/") >= 4
    (url,) = re.findall(r"https?://[^']+/files/[^']+", text)
    assert size_behind(painting, url, tmp_path) == (1024, 768)
