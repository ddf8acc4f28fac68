"""An upload step by step: what is sent, and what an answer or a failure makes of it. No server, no clock."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.client import _uploads, errors
from headrace.client._content import Body, BytesContent, FileContent, content_of
from headrace.client._request import PIECE_BYTES, Target
from headrace.client._storage import StorageSettings
from headrace.client._uploads import Upload
from headrace.client.credentials import Key

SERVER = Target("http://127.0.0.1:8080", Key("id:secret", "here"), None)
PROMISE = {
    "upload_url": "http://127.0.0.1:8080/storage/upload/u1?key=hidden",
    "file_url": "http://127.0.0.1:8080/files/f1/a.bin",
}
LOST = errors.StreamCut("cut off")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten bytes are many here, and four are a part."""
    monkeypatch.setattr(_uploads, "MULTIPART_BYTES", 10)
    monkeypatch.setattr(_uploads, "PART_BYTES", 4)


def begun(data: bytes, **options: Any) -> Upload:
    return Upload(SERVER, BytesContent(data, "image/png", "a.png"), **options)


def sent(upload: Upload) -> bytes:
    body = upload.request.body
    return body if isinstance(body, bytes) else b"".join(body or b"")


def test_a_file_is_promised_and_then_put() -> None:
    upload = begun(b"0123456789")
    first = upload.request
    upload.answered(PROMISE)
    second, body = upload.request, sent(upload)
    upload.answered({})

    assert "POST http://127.0.0.1:8080/storage/upload/initiate?storage_type=fal-cdn-v3" == (
        f"{first.method} {first.url}"
    )
    assert {"content_type": "image/png", "file_name": "a.png"} == orjson.loads(first.body)
    assert "Key id:secret" == first.headers["authorization"]
    assert f"PUT {PROMISE['upload_url']}" == f"{second.method} {second.url}"
    assert ("image/png", "10", b"0123456789") == (
        second.headers["content-type"],
        second.headers["content-length"],
        body,
    )
    assert (True, PROMISE["file_url"]) == (upload.is_over, upload.url)


def test_the_key_goes_to_the_promise_alone() -> None:
    upload = begun(b"01234567890")
    with_key = []
    for answer in [PROMISE, *({"etag": f"e{n}"} for n in (1, 2, 3)), {}]:
        with_key.append("authorization" in upload.request.headers)
        upload.answered(answer)

    assert upload.is_over
    assert [True, False, False, False, False] == with_key


def test_a_large_file_goes_in_parts() -> None:
    upload = begun(b"0123456789a")
    asked = []
    for answer in [PROMISE, *({"etag": f"e{n}", "partNumber": n} for n in (1, 2, 3)), {}]:
        asked.append((upload.request.method, upload.request.url.removeprefix(SERVER.url), sent(upload)))
        upload.answered(answer)

    assert "/storage/upload/initiate-multipart?storage_type=fal-cdn-v3" == asked[0][1]
    assert [
        ("PUT", "/storage/upload/u1/1?key=hidden", b"0123"),
        ("PUT", "/storage/upload/u1/2?key=hidden", b"4567"),
        ("PUT", "/storage/upload/u1/3?key=hidden", b"89a"),
    ] == asked[1:4]
    assert ("POST", "/storage/upload/u1/complete?key=hidden") == asked[4][:2]
    assert [{"partNumber": n, "etag": f"e{n}"} for n in (1, 2, 3)] == orjson.loads(asked[4][2])["parts"]
    assert (True, PROMISE["file_url"]) == (upload.is_over, upload.url)


def test_an_empty_file_is_put_too() -> None:
    upload = begun(b"")
    upload.answered(PROMISE)

    assert ("0", b"") == (upload.request.headers["content-length"], sent(upload))


def test_a_part_that_was_lost_is_sent_again_and_the_file_that_was_lost_is_promised_again() -> None:
    large = begun(b"0123456789a")
    large.answered(PROMISE)
    large.answered({"etag": "e1"})
    lost_part = large.request
    large.failed(LOST, 0.5)
    small = begun(b"x")
    promise = small.request
    small.answered(PROMISE)
    small.failed(LOST, 0.5)

    assert (lost_part.url, b"4567") == (large.request.url, sent(large))
    assert promise == small.request


def test_a_step_is_tried_three_times_and_success_begins_the_count_again() -> None:
    upload = begun(b"0123456789a")
    pauses = [upload.failed(LOST, 0.5), upload.failed(LOST, 0.5)]
    upload.answered(PROMISE)
    last_of_the_first = upload.failed(LOST, 0.5)
    other = begun(b"0123456789a")
    other.answered(PROMISE)
    other.failed(LOST, 0.5)
    other.answered({"etag": "e1"})

    assert [0.25, 0.5] == pauses
    assert last_of_the_first is None  # a promise alone is no success: three tries until the first bytes are there
    assert [0.25, 0.5, None] == [other.failed(LOST, 0.5) for _ in range(3)]


def test_what_will_not_pass_is_not_tried_again() -> None:
    refused = errors.APIError(
        "413", status_code=413, message="too large", detail="too large", error_type="payload_too_large",
        request_id="r", response_headers={}, retryable=False, body=None,
    )  # fmt: skip

    assert begun(b"x").failed(refused, 0.5) is None


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"upload_url": 7, "file_url": "x"}, {"upload_url": PROMISE["upload_url"]}],
)
def test_an_answer_that_is_no_promise_is_told(answer: Any) -> None:
    with pytest.raises(errors.ProtocolError, match="Does this server take files"):
        begun(b"x").answered(answer)


@pytest.mark.parametrize(
    "url", ["http://elsewhere.org/u?key=hidden", "http://127.0.0.1:8081/u?key=hidden", "/u?key=hidden"]
)
def test_a_file_is_sent_to_no_other_host_and_the_key_of_the_address_is_not_told(url: str) -> None:
    with pytest.raises(errors.ProtocolError, match="which is not on") as caught:
        begun(b"x").answered({**PROMISE, "upload_url": url})

    assert "hidden" not in str(caught.value)


def test_a_request_is_named_without_its_query() -> None:
    upload = begun(b"x")
    upload.answered(PROMISE)

    assert "PUT http://127.0.0.1:8080/storage/upload/u1" == str(upload.request)


def test_settings_go_with_the_promise() -> None:
    upload = begun(b"x", settings=StorageSettings(expires_in=60))

    assert '{"expiration_duration_seconds":60}' == upload.request.headers["x-fal-object-lifecycle"]


def test_a_text_is_utf_8_and_a_path_is_not_mistaken_for_one(tmp_path: Path) -> None:
    assert "é".encode() == content_of("é", "text/plain", None).data
    assert b"ab" == content_of(bytearray(b"ab"), "text/plain", None).data
    with pytest.raises(TypeError, match="upload_file"):
        content_of(tmp_path, "text/plain", None)  # type: ignore[arg-type]


async def gathered(body: Body) -> bytes:
    return b"".join([piece async for piece in body])


@pytest.mark.parametrize("wrong", ["image/png\r\nX-Evil: 1", "image/\u65e5", "image/p\xf1g", "image/png\0"])
def test_a_type_that_no_header_can_have_is_refused_before_anything_is_sent(wrong: str) -> None:
    with pytest.raises(ValueError, match="content_type=.* has characters that a header cannot have"):
        content_of(b"x", wrong, None)
    with pytest.raises(TypeError, match="content_type is a text"):
        content_of(b"x", None, None)  # type: ignore[arg-type]


def test_a_name_on_a_disk_that_is_no_text_is_told_as_far_as_it_is_one() -> None:
    upload = Upload(SERVER, BytesContent(b"x", "image/png", os.fsdecode(b"caf\xe9.png")))

    assert "caf?.png" == orjson.loads(upload.request.body)["file_name"]


def test_a_pipe_is_no_empty_file_and_a_folder_is_none_either(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match=r"not a file: .* upload\(\).*pipe"):
        FileContent.of(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        FileContent.of(tmp_path)


def test_a_file_is_read_in_pieces_by_both_colours_and_as_often_as_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    data = bytes(range(256)) * 1_000
    path.write_bytes(data)
    told: list[tuple[int, int]] = []
    body = Body(FileContent.of(path), 100, len(data) - 100, lambda *figures: told.append(figures))

    assert [data[100:]] * 3 == [b"".join(body), asyncio.run(gathered(body)), b"".join(body)]
    assert max(map(len, body)) == PIECE_BYTES
    assert (100 + PIECE_BYTES, len(data)) == told[0]
    assert {(len(data), len(data))} == {figures for figures in told if figures[0] == len(data)}


def test_a_file_that_became_shorter_is_the_files_fault_and_not_the_connections(tmp_path: Path) -> None:
    path = tmp_path / "shrinking.bin"
    path.write_bytes(b"0123456789")
    upload = Upload(SERVER, FileContent.of(path))
    upload.answered(PROMISE)
    path.write_bytes(b"0123")
    with pytest.raises(OSError, match="became shorter"):
        sent(upload)

    with pytest.raises(OSError, match=r"shrinking\.bin became shorter"):
        upload.failed(LOST, 0.5)  # as an HTTP library tells it


def test_what_a_callback_raises_is_raised_and_not_tried_again() -> None:
    def stop(sent: int, size: int) -> None:
        raise KeyError(f"{sent} of {size}")

    upload = begun(b"0123456789", on_progress=stop)
    upload.answered(PROMISE)
    with pytest.raises(KeyError):
        sent(upload)

    with pytest.raises(KeyError, match="10 of 10"):
        upload.failed(LOST, 0.5)
