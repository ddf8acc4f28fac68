"""Files as HTTP has them: to whoever has the address, in parts, under harmless types, and nothing else of the disk."""

import contextlib
import http.client
import pathlib
import re
import socket
import time

import pytest

from headrace.core.stored_file import NewFile, StoredFile
from headrace.files.folder import FileBounds, FileFolder
from tests.support.server import PATIENCE_S, RawStream, Server, eventually, running_server
from tests.unit.test_stored_file import NAMES

A7, A8 = pytest.mark.promise("A7"), pytest.mark.promise("A8")

LIMITS = {"files_spare_bytes": 1, "files_sweep_every_s": 0.2}

CONTENT = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def server():
    with running_server(limits=LIMITS) as server:
        yield server


def kept(server: Server, content: bytes = CONTENT, type_: str = "image/png", name: str | None = "cat.png", **more):
    """A file, kept as a runner keeps it."""
    folder = FileFolder(folder_of(server), FileBounds(1 << 30, 600.0, 0))
    return folder.put(content, NewFile(content_type=type_, name=name, **more), now=time.time())


def folder_of(server: Server) -> pathlib.Path:
    return server.folder / "data" / "files"


def get(server: Server, file: StoredFile, **headers: str):
    return server.request(
        "GET", file.path, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


# --- the whole and its parts ----------------------------------------------------------------------------------


def test_whoever_has_the_address_gets_the_file(server):
    file = kept(server)

    answer = get(server, file)

    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{file.digest}"'
    assert re.fullmatch(r"private, max-age=([1-5]?\d?\d|600), immutable", answer.headers["cache-control"])
    assert "x-fal-request-id" in answer.headers
    assert "transfer-encoding" not in answer.headers
    assert server.request("GET", f"/files/{file.id}").body == CONTENT


def test_a_head_has_the_headers_of_a_get_and_no_body(server):
    file = kept(server)

    answer, head = get(server, file), server.request("HEAD", file.path, headers={"Range": "bytes=0-1"})

    ours = {"x-fal-request-id", "date", "cache-control"}
    assert (head.status, head.body) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k not in ours} == {
        k: v for k, v in answer.headers.items() if k not in ours
    }


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=1000-", 1_000, 1_024), ("bytes=-24", 1_000, 1_024),
     ("bytes=0-99999", 0, 1_024)],
)  # fmt: skip
def test_a_range_is_answered_with_its_part(server, asked, start, stop):
    answer = get(server, kept(server), Range=asked)

    assert (answer.status, answer.body) == (206, CONTENT[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/1024"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=1-0", "bytes=0-1,5-6", "lines=0-1", "bytes=x"])
def test_a_range_that_is_none_is_answered_with_the_whole(server, asked):
    answer = get(server, kept(server), Range=asked)

    assert (answer.status, answer.body) == (200, CONTENT)


def test_a_range_behind_the_end_is_416(server):
    answer = get(server, kept(server), Range="bytes=1024-")

    assert (answer.status, answer.json["error_type"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */1024"


@pytest.mark.parametrize(("matches", "status"), [(True, 206), (False, 200)])
def test_a_range_is_for_the_content_that_was_meant(server, matches, status):
    file = kept(server)

    assert get(server, file, Range="bytes=0-1", If_Range=f'"{file.digest if matches else "x"}"').status == status


def test_who_has_it_is_not_sent_it_again(server):
    file = kept(server)

    answer = get(server, file, If_None_Match=f'W/"{file.digest}"')

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == f'"{file.digest}"'


def test_an_empty_file_is_an_empty_answer(server):
    answer = get(server, kept(server, b"", "text/plain"))

    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


def test_a_large_file_arrives_whole_by_one_connection_again_and_again(server):
    file = kept(server, CONTENT * 4_000)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    sockets = set()
    for _ in range(3):
        connection.request("GET", file.path)
        sockets.add(connection.sock)
        assert connection.getresponse().read() == CONTENT * 4_000
    connection.close()

    assert len(sockets) == 1


def test_an_http_1_0_client_gets_it_too(server):
    file = kept(server, CONTENT * 400)
    with RawStream(server.port) as raw:
        raw.socket.sendall(f"GET {file.path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())

        assert raw.read_to_end().endswith(b"\r\n\r\n" + CONTENT * 400)


def test_a_file_is_only_read(server):
    file = kept(server)

    for method in ("DELETE", "PATCH"):
        answer = server.request(method, file.path)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    for method in ("POST", "PUT"):  # new files are sent below the same path
        assert server.request(method, file.path, b"other").status == 404
    assert get(server, file).body == CONTENT


# --- what is not there ----------------------------------------------------------------------------------------


def test_a_file_that_expired_is_404_in_fals_shape_and_its_bytes_go(server):
    file = kept(server, b"brief", lifetime_s=0.3)
    eventually(lambda: get(server, file).status == 404, "it expires")

    answer = get(server, file)

    assert answer.json == {"detail": "There is no such file, or not any more.", "error_type": "not_found"}
    folder = FileFolder(folder_of(server), FileBounds(1, 1.0, 0))
    eventually(lambda: not folder.blob_of(file.digest).exists(), "its bytes are swept")


@A7
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_name_leads_to_anything_but_its_own_file(server, name):
    """Said as a name when it is kept, and as a path when it is asked for."""
    file = kept(server, CONTENT, "image/png", name)

    assert get(server, file).body == CONTENT
    raw = name.encode("utf-8", "replace")
    for below in (raw, raw.replace(b"/", b"%2f"), b"".join(b"%%%02x" % byte for byte in raw)):
        if len(below) > 4_000 or not below.strip(b"/ "):
            continue
        target = b"/files/" + file.id.encode() + b"/" + re.sub(rb"[\x00-\x20\x7f-\xff]", b"_", below)
        answered = answer_to(server, target)
        assert answered.startswith((b"HTTP/1.1 200", b"HTTP/1.1 404", b"HTTP/1.1 400"))
        if answered.startswith(b"HTTP/1.1 200"):
            assert answered.endswith(CONTENT)


@A7
@pytest.mark.parametrize(
    "target",
    [
        "/files/../keys.json", "/files/..%2fkeys.json", "/files/%2e%2e/keys.json", "/files/..%5ckeys.json",
        "/files//etc/passwd", "/files/%2fetc%2fpasswd", "/files/", "/files", "/files/.", "/files/..",
        "/files/ids/00", "/files/new", "/files/blobs", "/files/%00", "/files/0123456789abcdef0123456789abcdef",
        "/files/0123456789abcdef0123456789abcdef.json", "/files/0123456789ABCDEF0123456789ABCDEF",
        "/files/..;/keys.json", "/files/%c0%ae%c0%ae/keys.json", "/./files/../files/../keys.json",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_files(server, target):
    answered = answer_to(server, target.encode())

    assert answered.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.1 405"))
    assert b"secret" not in answered
    assert b"root:" not in answered


def answer_to(server: Server, target: bytes) -> bytes:
    """All that comes back for a target, sent as it is."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as raw:
        raw.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answered = b""
        while piece := raw.recv(65_536):
            answered += piece
        return answered


# --- what a browser is told (A8) ------------------------------------------------------------------------------


@A8
@pytest.mark.parametrize(
    ("type_", "name", "told", "disposition"),
    [
        ("image/png", "a.png", "image/png", "inline"),
        ("image/jpeg", "a.jpg", "image/jpeg", "inline"),
        ("image/webp", "a.webp", "image/webp", "inline"),
        ("image/gif", "a.gif", "image/gif", "inline"),
        ("video/mp4", "a.mp4", "video/mp4", "inline"),
        ("audio/mpeg", "a.mp3", "audio/mpeg", "inline"),
        ("text/plain", "a.txt", "text/plain; charset=utf-8", "inline"),
        ("image/svg+xml", "a.svg", "image/svg+xml", "attachment"),
        ("application/pdf", "a.pdf", "application/pdf", "attachment"),
        ("application/json", "a.json", "application/json", "attachment"),
        ("application/zip", "a.zip", "application/zip", "attachment"),
        ("text/html", "a.html", "application/octet-stream", "attachment"),
        ("text/html", "a.png", "application/octet-stream", "attachment"),
        ("application/xhtml+xml", "a.xhtml", "application/octet-stream", "attachment"),
        ("text/xml", "a.xml", "application/octet-stream", "attachment"),
        ("text/javascript", "a.js", "application/octet-stream", "attachment"),
        ("application/javascript", "a.js", "application/octet-stream", "attachment"),
        ("text/css", "a.css", "application/octet-stream", "attachment"),
        ("application/wasm", "a.wasm", "application/octet-stream", "attachment"),
        ("multipart/x-mixed-replace", "a", "application/octet-stream", "attachment"),
        ("", "a", "application/octet-stream", "attachment"),
        ("text/html\r\nX-Evil: 1", "a", "application/octet-stream", "attachment"),
    ],
)
def test_a_browser_can_do_no_harm_with_a_file(server, type_, name, told, disposition):
    file = kept(server, b"<script>alert(1)</script>", type_, name)

    for answer in (get(server, file), get(server, file, Range="bytes=0-7"), server.request("HEAD", file.path)):
        assert answer.headers["content-type"] == told
        assert answer.headers["content-disposition"].partition(";")[0] == disposition
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert "x-evil" not in answer.headers


@A8
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cat.png", "inline; filename=\"cat.png\"; filename*=UTF-8''cat.png"),
        ('c"a\\t.png', "inline; filename=\"t.png\"; filename*=UTF-8''t.png"),
        ("日本.png", "inline; filename=\"__.png\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.png"),
        ("a\r\nX-Evil: 1", "inline; filename=\"aX-Evil_ 1\"; filename*=UTF-8''aX-Evil_%201"),
    ],
)
def test_a_download_has_the_files_name(server, name, said):
    assert get(server, kept(server, name=name)).headers["content-disposition"] == said


def test_pages_may_read_it_as_they_may_call(server):
    file = kept(server)

    ours = get(server, file, Origin="http://localhost:5173")
    others = get(server, file, Origin="https://evil.example")

    assert ours.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "content-range" in ours.headers["access-control-expose-headers"]
    assert (others.status, others.json["error_type"]) == (403, "forbidden")


@pytest.mark.parametrize("origin", [None, "http://localhost:5173"])
@pytest.mark.parametrize("more", ["", "If-None-Match: *\r\n", "Range: bytes=0-1\r\n"])
def test_no_cache_gives_a_page_what_was_kept_for_another_or_for_none(server, origin, more):
    file = kept(server)
    said = f"Origin: {origin}\r\n" if origin else ""
    with RawStream(server.port) as raw:
        raw.socket.sendall(f"GET {file.path} HTTP/1.0\r\nHost: localhost\r\n{said}{more}\r\n".encode())
        head = raw.read_to_end().partition(b"\r\n\r\n")[0]

    assert [line for line in head.split(b"\r\n") if line.startswith(b"vary:")] == [b"vary: Origin"]
    assert (b"access-control-allow-origin" in head) == (origin is not None)


def test_a_file_needs_no_key_where_all_else_does():
    with running_server(args=(), limits=LIMITS) as server:
        file = kept(server)

        assert get(server, file).body == CONTENT
        assert server.post("/zoo/zoo").status == 401


# --- slow readers and bad disks -------------------------------------------------------------------------------


def test_a_reader_that_takes_nothing_is_dropped_and_costs_little():
    with running_server(limits={**LIMITS, "stall_timeout_s": 3.0}) as server:
        file = kept(server, CONTENT * 40_000)
        with RawStream(server.port) as raw:
            raw.socket.sendall(f"GET {file.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            raw.read_until(b"\r\n\r\n")
            eventually(lambda: open_files(server) == 0, "it is dropped")

        def is_there() -> bool:
            """False where this test itself was held up, took nothing for a while, and was dropped, too."""
            with contextlib.suppress(OSError, http.client.HTTPException):
                return get(server, file).body == CONTENT * 40_000
            return False

        eventually(is_there, "others get all of it")


def open_files(server: Server) -> int:
    """How many stored files the node has open."""
    found = 0
    for descriptor in pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += "/data/files/ids/" in str(descriptor.readlink())
    return found


def test_a_file_that_shrinks_while_it_is_read_ends_in_a_cut(server):
    file = kept(server, CONTENT * 40_000)
    folder = FileFolder(folder_of(server), FileBounds(1, 1.0, 0))
    with RawStream(server.port) as raw:
        raw.socket.sendall(f"GET {file.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        raw.read_until(b"\r\n\r\n")
        with folder.path_of(file.id).open("r+b") as data:
            data.truncate(1 << 20)

        assert len(raw.read_to_end()) < len(CONTENT) * 40_000
    eventually(lambda: "has become shorter" in server.log, "the log says why")


def test_a_file_outlives_its_server(tmp_path):
    for restart in range(2):
        with running_server(limits=LIMITS, data_dir=tmp_path / "data") as server:
            if not restart:
                folder = FileFolder(tmp_path / "data" / "files", FileBounds(1_000, 600.0, 1))
                file = folder.put(b"still here", NewFile(content_type="text/plain"), now=time.time())
            assert get(server, file).body == b"still here"


def test_a_folder_that_cannot_be_made_stops_the_start_and_says_so(tmp_path):
    (tmp_path / "files").write_bytes(b"a file stands in its place")

    with (
        pytest.raises(
            AssertionError, match=r"left with 2:[^$]*files: cannot be made .*choose another with --data-dir"
        ),
        running_server(data_dir=tmp_path),
    ):
        pass
