"""Our own ways to send a file, to a real server and back: the SDK in both colours, `headrace.fal_client`, the CLI."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys

import pytest

from headrace import AsyncClient, Client, StorageSettings
from headrace.client import _uploads, errors
from tests.e2e.test_uploads import LIMITS, MODEL
from tests.support.official import key_of, users_environment
from tests.support.server import PATIENCE_S, Server, running_server
from tests.support.shells import no_credentials  # noqa: F401

#: Parts that differ, so that a wrong order would be seen.
LARGE = b"".join(b"%07d " % n for n in range(100_000))


@pytest.fixture(scope="module")
def server():
    with running_server(MODEL, args=(), limits=LIMITS) as server:
        yield server


def by_sync(server: Server, kind: str, *arguments: object, **options: object) -> str:
    with Client(server.url, key_of(server)) as client:
        return getattr(client, kind)(*arguments, **options)


def by_async(server: Server, kind: str, *arguments: object, **options: object) -> str:
    async def main() -> str:
        return await getattr(AsyncClient(server.url, key_of(server)), kind)(*arguments, **options)

    return asyncio.run(main())


both_colours = pytest.mark.parametrize("send", [by_sync, by_async], ids=["sync", "async"])


def fetched(server: Server, url: str):
    return server.request("GET", url.removeprefix(server.url))


@both_colours
def test_bytes_come_back_as_they_were_sent_with_their_type_and_their_name(server, send):
    url = send(server, "upload", b"\x00picture\xff", "image/png", "ein Bär.png")
    answer = fetched(server, url)

    assert (answer.body, answer.headers["content-type"]) == (b"\x00picture\xff", "image/png")
    assert url.endswith("/ein%20B%C3%A4r.png")


@both_colours
def test_a_large_file_comes_back_whole(server, send, tmp_path, monkeypatch):
    monkeypatch.setattr(_uploads, "MULTIPART_BYTES", 500_000)
    monkeypatch.setattr(_uploads, "PART_BYTES", 90_000)
    path = tmp_path / "large.csv"
    path.write_bytes(LARGE)
    told = []

    url = send(server, "upload_file", path, on_progress=lambda *figures: told.append(figures))

    answer = fetched(server, url)
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(LARGE).digest()
    assert url.endswith("/large.csv")
    assert told[-1] == (len(LARGE), len(LARGE))


@both_colours
def test_nothing_is_a_file_too(server, send):
    assert fetched(server, send(server, "upload", b"", "text/plain")).body == b""


@both_colours
def test_it_is_kept_for_as_long_as_was_asked(server, send):
    url = send(server, "upload", "a note", "text/plain", lifecycle=StorageSettings(expires_in="immediate"))

    assert int(fetched(server, url).headers["cache-control"].split("max-age=")[1].split(",")[0]) <= 60


@both_colours
def test_what_is_too_large_is_an_error_that_says_so(server, send):
    with pytest.raises(errors.APIError) as refused:
        send(server, "upload", bytes(LIMITS["file_bytes_max"] + 1), "image/png")

    assert (refused.value.status_code, refused.value.error_type) == (413, "payload_too_large")
    assert "key=" not in str(refused.value)


@pytest.mark.parametrize("colour", ["", "_async"])
def test_a_program_for_fals_client_needs_one_word_more(server, monkeypatch, colour):
    monkeypatch.setenv("HEADRACE_URL", server.url)
    monkeypatch.setenv("FAL_KEY", key_of(server))
    from headrace import fal_client

    client = fal_client.AsyncClient() if colour else fal_client.SyncClient()
    url = client.upload("a note", "text/plain", "note.txt", repository="fal_v3", fallback_repository=["fal"])

    assert fetched(server, asyncio.run(url) if colour else url).body == b"a note"


def test_the_command_prints_a_url_that_leads_to_the_file(server, tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(b"a cat")
    shown = subprocess.run(
        [sys.executable, "-m", "headrace", "upload", str(path), "--url", server.url],
        env=users_environment(server), capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip

    assert (shown.returncode, shown.stderr) == (0, "")
    [url] = shown.stdout.splitlines()
    assert fetched(server, url).body == b"a cat"
