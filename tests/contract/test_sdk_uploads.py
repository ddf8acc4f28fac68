"""Uploads by the SDK, on both shells, against a server that fails as a test says. `Upload` itself has unit tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace import AsyncClient, Client
from headrace.client import _uploads, errors
from tests.support.fake_storage import bytes_put, fake_storage, steps_of
from tests.support.scripted import CLOSE, RESET, STRETCHES, answer
from tests.support.shells import no_credentials  # noqa: F401

LARGE = bytes(range(256)) * 4_000
PART_BYTES = 400_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte is large here."""
    monkeypatch.setattr(_uploads, "MULTIPART_BYTES", 1_000_000)
    monkeypatch.setattr(_uploads, "PART_BYTES", PART_BYTES)


def sync_upload(url: str, kind: str, *args: Any, client: Any = None, **options: Any) -> str:
    with Client(url, key="id:secret", **(client or {})) as made:
        return getattr(made, kind)(*args, **options)


def async_upload(url: str, kind: str, *args: Any, client: Any = None, **options: Any) -> str:
    async def main() -> str:
        return await getattr(AsyncClient(url, key="id:secret", **(client or {})), kind)(*args, **options)

    return asyncio.run(main())


both_shells = pytest.mark.parametrize("upload", [sync_upload, async_upload], ids=["sync", "async"])


@both_shells
def test_bytes_and_their_type_and_name_arrive(upload: Any) -> None:
    with fake_storage() as server:
        url = upload(server.url, "upload", b"\x00\xff", "image/png", "a.png")
        promise, put = server.requests

    assert f"http://127.0.0.1:{server.port}/files/f1/a" == url
    assert {"content_type": "image/png", "file_name": "a.png"} == json.loads(promise.body)
    assert ("PUT /storage/upload/u1?key=k HTTP/1.1", b"\x00\xff") == (put.line, put.body)
    headers = put.headers
    assert ("2", "image/png") == (headers["content-length"], headers["content-type"])
    assert {"authorization", "transfer-encoding", "expect"} & set(headers) == set()


@both_shells
def test_a_file_arrives_with_the_name_and_the_type_of_its_path(upload: Any, tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(LARGE[:300_000])
    with fake_storage() as server:
        upload(server.url, "upload_file", path)
        promise, put = server.requests

    assert {"content_type": "audio/mpeg", "file_name": "song.mp3"} == json.loads(promise.body)
    assert LARGE[:300_000] == put.body


@both_shells
def test_an_image_arrives_as_the_file_that_its_library_makes(upload: Any) -> None:
    class Painted:
        def save(self, fp: Any, format: str) -> None:
            fp.write(f"an image as {format}".encode())

    with fake_storage() as server:
        upload(server.url, "upload_image", Painted(), "png")
        promise, put = server.requests

    assert {"content_type": "image/png"} == json.loads(promise.body)
    assert b"an image as png" == put.body


@both_shells
def test_a_large_file_arrives_in_parts_and_its_progress_is_told(upload: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(LARGE)
    told: list[tuple[int, int]] = []
    with fake_storage() as server:
        upload(server.url, "upload_file", path, on_progress=lambda *figures: told.append(figures))

    assert ["initiate-multipart", "u1/1", "u1/2", "u1/3", "u1/complete"] == steps_of(server)
    assert LARGE == b"".join(bytes_put(server))
    expected = [{"partNumber": n, "etag": f"e{n}"} for n in (1, 2, 3)]
    assert expected == json.loads(server.requests[-1].body)["parts"]
    assert sorted(told) == told
    assert (len(LARGE), len(LARGE)) == told[-1]


@both_shells
@pytest.mark.parametrize("failure", [RESET, CLOSE, 429, 503], ids=["reset", "closed", "429", "503"])
def test_a_part_that_fails_is_sent_again_whole(upload: Any, failure: Any) -> None:
    with fake_storage(failure) as server:
        upload(server.url, "upload", LARGE, "image/png")

    assert ["initiate-multipart", "u1/1", "u1/1", "u1/2", "u1/3", "u1/complete"] == steps_of(server)
    assert LARGE == b"".join(bytes_put(server)[1:])


@both_shells
def test_a_file_that_fails_is_promised_again(upload: Any) -> None:
    with fake_storage(RESET, RESET) as server:
        upload(server.url, "upload", b"x", "image/png")

    assert ["initiate", "u1"] * 3 == steps_of(server)


@both_shells
def test_after_three_tries_the_failure_is_raised(upload: Any) -> None:
    with fake_storage(503, 503, 503) as server, pytest.raises(errors.Overloaded, match="503"):
        upload(server.url, "upload", b"x", "image/png")

    assert ["initiate", "u1"] * 3 == steps_of(server)


@both_shells
def test_a_refusal_is_raised_at_once(upload: Any) -> None:
    with fake_storage(413) as server, pytest.raises(errors.APIError, match="scripted") as caught:
        upload(server.url, "upload", LARGE, "image/png")

    assert (413, ["initiate-multipart", "u1/1"]) == (caught.value.status_code, steps_of(server))


@both_shells
@pytest.mark.parametrize("wrong", [OSError("the disk"), KeyError("mine"), RuntimeError("mine too")])
def test_what_goes_wrong_on_this_side_is_raised_as_it_is(upload: Any, wrong: Exception) -> None:
    def stop(sent: int, size: int) -> None:
        raise wrong

    with fake_storage() as server, pytest.raises(type(wrong), match=str(wrong.args[0])):
        upload(server.url, "upload", LARGE, "image/png", on_progress=stop)


@both_shells
@pytest.mark.parametrize(
    "failure",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: nameless\r\nContent-Length: 0\r\n\r\n",
        RESET,
        CLOSE,
        500,
        "moved",
    ],
    ids=["garbage", "header", "reset", "closed", "500", "moved"],
)
def test_no_failure_tells_the_key_that_the_address_is(upload: Any, failure: Any) -> None:
    if failure == "moved":
        failure = b"HTTP/1.1 308 Moved\r\nLocation: https://a.b/u1?key=SECRET\r\nContent-Length: 0\r\n\r\n"
    with fake_storage(*[failure] * 3, key="SECRET") as server, pytest.raises(errors.HeadraceError) as caught:
        upload(server.url, "upload", LARGE, "image/png")

    assert "SECRET" in server.requests[-1].line
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


@both_shells
def test_nor_does_a_file_that_cannot_be_read(upload: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(LARGE)

    with fake_storage(key="SECRET") as server, pytest.raises(OSError, match=str(path)) as caught:
        upload(server.url, "upload_file", path, on_progress=lambda *_: path.unlink(missing_ok=True))

    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


@both_shells
def test_a_server_that_takes_no_bytes_is_not_waited_for(upload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_uploads, "MULTIPART_BYTES", 10**9)
    closing = threading.Event()
    deaf = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        """Promise, on each first request of a connection; never read a second one."""
        connections = []
        with contextlib.suppress(OSError):
            while not closing.is_set():
                connection, _ = deaf.accept()
                connections.append(connection)
                connection.recv(65_536)
                base = f"http://127.0.0.1:{deaf.getsockname()[1]}"
                urls = {"upload_url": f"{base}/u", "file_url": f"{base}/f"}
                connection.sendall(answer(200, json.dumps(urls).encode()))
        for connection in connections:
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        for stretch in STRETCHES:
            limits = {"timeout": 0.3 * stretch}
            with pytest.raises((errors.ReadTimeout, errors.ConnectTimeout)) as caught:
                upload(url, "upload", LARGE * 40, "image/png", client=limits)
            if caught.type is errors.ReadTimeout:
                break  # else it was too slow itself to make the connection in that time
        assert caught.type is errors.ReadTimeout
    finally:
        closing.set()
        deaf.shutdown(socket.SHUT_RDWR)
        deaf.close()
        thread.join(20)


def test_the_functions_use_the_environments_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.client import _functions

    with fake_storage() as server:
        monkeypatch.setenv("HEADRACE_URL", server.url)
        for cached in (_functions._default_client, _functions._default_async_client):
            cached.cache_clear()
        try:
            urls = [headrace.upload("x", "text/plain"), asyncio.run(headrace.upload_async("x", "text/plain"))]
        finally:
            for cached in (_functions._default_client, _functions._default_async_client):
                cached.cache_clear()

    assert [f"{server.url}/files/f1/a"] * 2 == urls
