"""`headrace upload`: a URL for each file on stdout, whatever else on stderr, and the exit status."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli import app, upload
from headrace.client import _uploads
from tests.support.fake_storage import bytes_put, fake_storage, steps_of
from tests.support.shells import no_credentials  # noqa: F401


def headrace(url: str, *words: object) -> Any:
    return CliRunner().invoke(app, ["upload", *map(str, words), "--url", url, "--key", "id:secret"])


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(b"a cat")
    return path


def test_each_file_is_a_line_with_its_url(cat: Path, tmp_path: Path) -> None:
    dog = tmp_path / "dog.txt"
    dog.write_bytes(b"a dog")
    with fake_storage() as server:
        shown = headrace(server.url, cat, dog)

    assert (0, f"{server.url}/files/f1/a\n" * 2, "") == (shown.exit_code, shown.stdout, shown.stderr)
    assert [b"a cat", b"a dog"] == bytes_put(server)
    promises = [json.loads(request.body) for request in server.requests[::2]]
    assert [("cat.png", "image/png"), ("dog.txt", "text/plain")] == [
        (said["file_name"], said["content_type"]) for said in promises
    ]


def test_a_large_file_goes_in_parts(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_uploads, "MULTIPART_BYTES", 4)
    monkeypatch.setattr(_uploads, "PART_BYTES", 3)
    with fake_storage() as server:
        shown = headrace(server.url, cat)

    assert (0, ["initiate-multipart", "u1/1", "u1/2", "u1/complete"]) == (shown.exit_code, steps_of(server))
    assert [b"a c", b"at"] == bytes_put(server)


@pytest.mark.parametrize(("said", "seconds"), [("1h", 3_600), ("90", 90)])
def test_it_says_how_long_a_file_is_kept(cat: Path, said: str, seconds: int) -> None:
    with fake_storage() as server:
        headrace(server.url, cat, "--expires-in", said)

    assert {"expiration_duration_seconds": seconds} == json.loads(
        server.requests[0].headers["x-fal-object-lifecycle"]
    )


@pytest.mark.parametrize(("said", "told"), [("soon", "expires_in='soon' must be one of"), ("0", "over 0 seconds")])
def test_a_time_that_is_none_is_told_before_anything_is_sent(cat: Path, said: str, told: str) -> None:
    shown = headrace("http://127.0.0.1:1", cat, "--expires-in", said)

    assert 1 == shown.exit_code
    assert shown.stderr.startswith("headrace: --expires-in: ") and told in shown.stderr


@pytest.mark.parametrize("wrong", ["nothing.png", "."])
def test_what_is_no_file_is_told_before_anything_is_sent(cat: Path, wrong: str) -> None:
    shown = headrace("http://127.0.0.1:1", cat, cat.parent / wrong)

    assert (1, "") == (shown.exit_code, shown.stdout)
    assert f"headrace: {cat.parent / wrong} is not a file\n" == shown.stderr


def test_a_refusal_is_one_line_behind_the_urls_that_there_are(cat: Path) -> None:
    with fake_storage() as server:
        first = headrace(server.url, cat)
    with fake_storage(413) as server:
        shown = headrace(server.url, cat, cat)

    assert 0 == first.exit_code
    assert (1, "") == (shown.exit_code, shown.stdout)
    assert shown.stderr.startswith("headrace: 413 from PUT ") and shown.stderr.count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_large_file_has_a_bar_on_a_terminal_and_nowhere_else(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_BAR_BYTES", 5)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(upload.sys, "stderr", terminal := Terminal())
    with upload._progress(cat) as tell:
        assert tell is not None
        tell(2, 5)
        tell(5, 5)
    monkeypatch.setattr(upload, "_BAR_BYTES", 6)
    with upload._progress(cat) as tell_small:
        pass
    monkeypatch.setattr(upload, "_BAR_BYTES", 5)
    monkeypatch.setattr(upload.sys, "stderr", io.StringIO())
    with upload._progress(cat) as tell_pipe:
        pass

    assert "cat.png" in terminal.getvalue()
    assert (None, None) == (tell_small, tell_pipe)
