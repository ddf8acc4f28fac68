"""Models that give out pictures and take them in: absolute URLs that work, inputs by every kind of URL, typed faults."""

import base64
import contextlib
import http.server
import json
import pathlib
import re
import threading
import time

import pytest

from headrace.core.stored_file import NewFile
from headrace.files.folder import FileBounds, FileFolder
from tests.support.pictures import look, png
from tests.support.server import ROOT, RawStream, Server, data_events, eventually, running_server

A5 = pytest.mark.promise("A5")
MODELS = ROOT / "tests" / "support" / "pictures.py"
LIMITS = {"files_spare_bytes": 1, "file_bytes_max": 100_000, "cancel_grace_s": 60}
APP = "/t/pictures"


class Site:
    """Somebody else's server, on this machine."""

    def __init__(self) -> None:
        site = self
        self.asked: list[str] = []
        self.let_go = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                status, body, headers = site.answer(self.path)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.path == "/slow":
                        site.let_go.wait(30)
                    self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        match path:
            case "/cat.png" | "/slow":
                return 200, png(), {"Content-Type": "image/png"}
            case "/large":
                return 200, b"x" * 100_001, {}
            case "/text":
                return 200, b"no picture", {}
            case "/moved":
                return 302, b"", {"Location": "/cat.png"}
            case "/away":
                return 302, b"", {"Location": "http://169.254.169.254/latest/meta-data"}
        return 404, b"", {}

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def site():
    site = Site()
    yield site
    site.close()


@pytest.fixture(scope="module")
def server(site):
    """A server that may fetch from the site."""
    outbound = ("--outbound-http", "--outbound-port", str(site.port), "--outbound-network", "127.0.0.0/8")
    with running_server(MODELS, args=("--no-auth", *outbound), limits=LIMITS) as server:
        yield server


@pytest.fixture(scope="module")
def strict_server():
    """A server as it comes: it fetches from the public internet alone."""
    with running_server(MODELS, limits=LIMITS) as server:
        yield server


def fetched(server: Server, url: str) -> bytes:
    """What is behind a URL that a model gave out, which must be absolute, and this server's."""
    assert url.startswith(server.url + "/files/")
    answer = server.request("GET", url.removeprefix(server.url))
    assert answer.status == 200
    return answer.body


def streamed(server: Server, path: str, **input: object) -> list[dict]:
    return data_events(server.post(f"{APP}{path}/stream", input).body)


# --- out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/draw", "/draw-async"])
def test_every_preview_and_every_result_is_behind_an_absolute_url(server, path):
    *previews, result = streamed(server, path)

    shown = [event["preview"] for event in previews]
    assert [fetched(server, image["url"]) for image in shown] == [png(shade=step) for step in range(3)]
    assert [(image["width"], image["height"], image["content_type"]) for image in shown] == [
        (3, 2, "image/png")
    ] * 3
    assert fetched(server, result["images"][0]["url"])[:8] == b"\x89PNG\r\n\x1a\n"


def test_an_image_has_fals_shape(server):
    image = server.post(f"{APP}/draw").json["images"][0]

    assert re.fullmatch(rf"{server.url}/files/[0-9a-f]{{32}}/a%20lake\.png", image["url"])
    assert {key: value for key, value in image.items() if key != "url"} == {
        "content_type": "image/png", "file_name": "a lake.png", "file_size": len(png(40, 30)), "width": 40,
        "height": 30,
    }  # fmt: skip


def test_pillow_images_come_out_as_what_was_asked_for(server):
    *previews, result = streamed(server, "/draw-pil", steps=1)

    assert previews[0]["preview"]["content_type"] == "image/jpeg"
    assert fetched(server, previews[0]["preview"]["url"])[:3] == b"\xff\xd8\xff"
    assert [image["content_type"] for image in result["images"]] == ["image/png", "image/webp"]
    assert {(image["width"], image["height"]) for image in result["images"]} == {(16, 12)}


def test_sync_mode_gives_the_bytes_themselves_and_keeps_nothing(server):
    before = kept_in(server)

    image = server.post(f"{APP}/draw", {"sync_mode": True}).json["images"][0]

    assert image["url"] == "data:image/png;base64," + base64.b64encode(png(40, 30)).decode()
    assert kept_in(server) == before


def kept_in(server: Server) -> set[str]:
    return {path.name for path in (server.folder / "data" / "files" / "ids").glob("*/*")}


@pytest.mark.parametrize(
    ("input", "name", "type_"),
    [
        ({}, "file.bin", "application/octet-stream"),
        ({"name": "notes.txt"}, "notes.txt", "text/plain"),
        ({"type": "text/csv"}, "text.csv", "text/csv"),
        ({"type": "json"}, "file.json", "application/json"),
        ({"name": "../../../etc/cron.d/x"}, "x", "application/octet-stream"),
        ({"name": "x.html", "type": "text/html"}, "x.html", "text/html"),
    ],
)
def test_a_file_has_a_name_and_a_type(server, input, name, type_):
    file = server.post(f"{APP}/say", input).json["files"][0]

    assert (file["file_name"], file["content_type"], file["file_size"]) == (name, type_, 5)
    assert fetched(server, file["url"]) == b"hello"


def test_the_same_text_twice_has_two_addresses_and_one_blob(server):
    first, second = (server.post(f"{APP}/say", {"text": "twice"}).json["files"][0]["url"] for _ in range(2))

    assert first != second
    assert (
        server.request("GET", first.removeprefix(server.url)).headers["etag"]
        == (server.request("GET", second.removeprefix(server.url)).headers["etag"])
    )


def test_a_copy_of_a_file_on_the_disk_is_given_out(server):
    file = server.post(f"{APP}/copy", {"text": "from the disk"}).json

    assert (file["file_name"], file["content_type"]) == ("a copy.txt", "text/plain")
    assert fetched(server, file["url"]) == b"from the disk"


def test_a_file_that_is_made_in_a_thread_belongs_to_the_request(server):
    assert fetched(server, server.post(f"{APP}/in-a-thread").json["file"]["url"]) == b"x"


def test_a_file_that_was_made_before_any_request_carries_its_bytes(server):
    assert server.post(f"{APP}/early").json["url"] == "data:text/plain;base64,ZWFybHk="


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"Host": "localhost:1234"}, "http://localhost:1234"),
        ({"Host": "127.0.0.1"}, "http://127.0.0.1"),
        ({"Host": "localhost", "X-Forwarded-Host": "evil.example"}, "http://localhost"),
    ],
)
def test_a_url_is_on_the_host_that_the_caller_called(server, headers, base):
    url = server.post(f"{APP}/say", {}, headers).json["files"][0]["url"]

    assert url.startswith(f"{base}/files/")


def test_a_public_url_is_what_all_urls_begin_with_even_of_queued_requests_after_a_restart(tmp_path):
    with running_server(
        MODELS, args=("--no-auth", "--public-url", "https://models.example"), limits=LIMITS
    ) as server:
        assert server.post(f"{APP}/say").json["files"][0]["url"].startswith("https://models.example/files/")
        told = server.post(f"/queue{APP}/say").json
        path = f"/queue{APP}/requests/{told['request_id']}"
        eventually(lambda: server.request("GET", path).status == 200, "it has its result")
        assert server.request("GET", path).json["files"][0]["url"].startswith("https://models.example/files/")


def test_a_queued_request_keeps_its_callers_address_over_a_restart(tmp_path):
    waiting = tmp_path / "waiting.py"
    waiting.write_text(
        "import os, time, headrace\n"
        "class Waiting(headrace.App, name='t/waiting'):\n"
        "    @headrace.endpoint('/')\n"
        "    def wait(self):\n"
        "        while not os.path.exists(os.environ['GO']): time.sleep(0.05)\n"
        "        return headrace.File.from_bytes(b'x', 'text/plain')\n"
    )
    data, go = tmp_path / "data", tmp_path / "go"
    options = {"env": {"GO": str(go)}, "data_dir": data, "limits": {**LIMITS, "drain_s": 0.1}}
    with running_server(waiting, **options) as server:
        told = server.post("/queue/t/waiting", {}, {"Host": "localhost:4711"}).json
    go.touch()
    with running_server(waiting, **options) as server:
        path = f"/queue/t/waiting/requests/{told['request_id']}"
        eventually(lambda: server.request("GET", path).status == 200, "it has its result")

        assert server.request("GET", path).json["url"].startswith("http://localhost:4711/files/")


def test_a_queue_hosts_files_are_on_that_host(server):
    told = server.request("POST", f"{APP}/say", {}, {"Host": "queue.localhost"})
    path = f"{APP}/requests/{told.json['request_id']}"
    eventually(
        lambda: server.request("GET", path, headers={"Host": "queue.localhost"}).status == 200, "it is done"
    )
    url = server.request("GET", path, headers={"Host": "queue.localhost"}).json["files"][0]["url"]

    assert url.startswith("http://queue.localhost/files/")
    below = url.removeprefix("http://queue.localhost")
    assert server.request("GET", below, headers={"Host": "queue.localhost"}).body == b"hello"


def test_a_caller_may_have_its_files_go_soon(server):
    headers = {"X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 1}'}
    url = server.post(f"{APP}/say", {"text": "brief"}, headers).json["files"][0]["url"].removeprefix(server.url)

    eventually(lambda: server.request("GET", url).status == 404, "it goes")


@pytest.mark.parametrize("path", [f"{APP}/say", f"/queue{APP}/say"])
@pytest.mark.parametrize(
    "preference", ["soon", "[]", '{"expiration_duration_seconds": -1}', '{"initial_acl": {"default": "forbid"}}']
)
def test_a_wish_that_cannot_be_granted_is_refused_before_anything_runs(server, path, preference):
    answer = server.post(path, {}, {"X-Fal-Object-Lifecycle-Preference": preference})

    assert (answer.status, answer.json["error_type"]) == (400, "bad_request")


def test_a_file_over_the_limit_is_one_requests_typed_error(server):
    answer = server.post(f"{APP}/say", {"text": "x" * 100_001})

    assert (answer.status, answer.json["error_type"]) == (500, "file_too_large")
    assert "more than 100000 bytes" in answer.json["detail"]


def test_a_full_disk_costs_one_request_its_file_and_nobody_else_anything():
    with running_server(MODELS, limits={**LIMITS, "files_spare_bytes": 1 << 62}) as server:
        answer = server.post(f"{APP}/say")
        assert (answer.status, answer.json["error_type"]) == (503, "files_unavailable")
        assert answer.headers["x-fal-needs-retry"] == "1"
        eventually(lambda: "a file could not be kept" in server.log, "the operator is told, too")
        assert server.post(f"{APP}/draw", {"sync_mode": True}).status == 200
        with server.open(f"{APP}/draw/stream", {"sync_mode": True}) as stream:
            stream.read_until(b"images")


# --- in -------------------------------------------------------------------------------------------------------

DATA_URL = "data:image/png;base64," + base64.b64encode(png()).decode()


@pytest.mark.parametrize("path", ["/see", "/see-async"])
@pytest.mark.parametrize(
    ("url", "content"),
    [
        (DATA_URL, png()),
        ("data:,hello%20there", b"hello there"),
        ("DATA:text/plain;charset=utf-8;BASE64,aGk", b"hi"),
        ({"url": DATA_URL, "content_type": "image/png"}, png()),
    ],
    ids=["base64", "percent", "unpadded", "object"],
)
def test_a_data_url_holds_its_content(server, path, url, content):
    assert server.post(f"{APP}{path}", {"image_url": url}).json["image"] == look(content)


@pytest.mark.parametrize("path", ["/see", "/see-async", "/see-badly"])
@pytest.mark.parametrize("host", ["http://127.0.0.1:{port}", "http://localhost", "https://another.name.example"])
def test_a_file_of_this_server_is_read_from_the_disk_on_whatever_name(strict_server, path, host):
    made = strict_server.post(f"{APP}/draw").json["images"][0]["url"]
    url = made.replace(strict_server.url, host.format(port=strict_server.port))

    answer = strict_server.post(f"{APP}{path}", {"image_url": url}).json

    assert (answer.get("image") or answer) == look(png(40, 30))


@pytest.mark.parametrize("path", ["/see", "/see-async"])
@pytest.mark.parametrize("below", ["/cat.png", "/moved"])
def test_a_url_that_may_be_called_is_fetched(server, site, path, below):
    answer = server.post(f"{APP}{path}", {"image_url": site.url + below, "more": [DATA_URL, site.url + "/text"]})

    assert answer.json == {"image": look(png()), "more": [look(png()), look(b"no picture")]}


def wrong(answer) -> dict:
    assert (answer.status, answer.json["error_type"]) == (422, "validation_error")
    assert answer.headers["x-fal-error-type"] == "validation_error"
    (only,) = answer.json["detail"]
    return only


@A5
@pytest.mark.parametrize("path", ["/see", "/see-async"])
@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://127.0.0.1:{port}/cat.png", "scheme"),
        ("https://127.0.0.1/x", "loopback"),
        ("https://[::1]/x", "loopback"),
        ("https://169.254.169.254/latest", "link-local"),
        ("https://10.0.0.1/x", "private"),
        ("https://0x7f000001/x", "address-spelling"),
        ("https://2130706433/x", "address-spelling"),
        ("https://[::ffff:127.0.0.1]/x", "v4-mapped"),
        ("https://localhost/x", "local-name"),
        ("https://user@example.com/x", "userinfo"),
        ("https://example.com:22/x", "port"),
        ("https://example.com\\@evil/x", "backslash"),
    ],
)
def test_a_url_into_this_network_is_refused_and_never_called(strict_server, site, path, url, rule):
    before = len(site.asked)
    url = url.format(port=site.port)

    told = wrong(strict_server.post(f"{APP}{path}", {"image_url": url}))

    assert (told["loc"], told["type"], told["input"]) == (["body", "image_url"], "file_download_error", url)
    assert f"(rule {rule})" in told["msg"]
    assert len(site.asked) == before


@A5
def test_a_redirect_into_this_network_is_refused(server, site):
    told = wrong(server.post(f"{APP}/see", {"image_url": f"{site.url}/away"}))

    assert told["type"] == "file_download_error"
    assert "rule" in told["msg"]


@pytest.mark.parametrize(
    ("url", "type_", "said"),
    [
        ("{site}/nothing", "file_download_error", "answered with 404"),
        ("{site}/large", "file_too_large", "more than 100000 bytes"),
        ("{own}/files/00000000000000000000000000000000/x.png", "file_download_error", "no such file here"),
        ("data:image/png;base64,???", "file_download_error", "not the base64"),
        ("data:image/png", "file_download_error", "no comma"),
    ],
)
def test_what_cannot_be_had_is_fals_422_and_says_which_field(server, site, url, type_, said):
    url = url.format(site=site.url, own=server.url)

    for path in ("/see", "/see-async"):
        told = wrong(server.post(f"{APP}{path}", {"image_url": DATA_URL, "more": [DATA_URL, url]}))
        assert (told["loc"], told["type"], told["input"]) == (["body", "more", 1], type_, url)
        assert said in told["msg"]
    if type_ == "file_too_large":
        assert told["ctx"] == {"max_size": 100_000}


def test_what_is_no_picture_is_fals_image_load_error(server, site):
    assert server.post(f"{APP}/measure", {"image_url": DATA_URL}).json == {"size": [3, 2], "mode": "RGB"}

    for url in (f"{site.url}/text", "data:,x", DATA_URL[:70]):
        told = wrong(server.post(f"{APP}/measure", {"image_url": url}))
        assert (told["loc"], told["type"]) == (["body", "image_url"], "image_load_error")


@pytest.mark.parametrize("url", ["ftp://example.com/x", "file:///etc/passwd", "/etc/passwd", "", "javascript:x"])
def test_any_other_scheme_is_refused_when_the_input_is_read(server, url):
    told = wrong(server.post(f"{APP}/see", {"image_url": url}))

    assert (told["loc"], told["type"]) == (["body", "image_url"], "url_scheme")


def test_an_author_may_catch_it(server, site):
    answer = server.post(f"{APP}/see-kindly", {"image_url": f"{site.url}/nothing"})

    assert answer.json["field"] == "image_url"
    assert "404" in answer.json["message"]


def test_fetching_on_the_event_loop_is_the_authors_mistake_and_says_so(server, site):
    answer = server.post(f"{APP}/see-badly", {"image_url": f"{site.url}/cat.png"})

    assert answer.status == 500
    eventually(lambda: "await …_async() instead" in server.log, "the log says what to do")


def test_a_file_passes_through_as_it_came(server):
    assert server.post(f"{APP}/pass-on", {"image_url": "https://example.com/x.png"}).json["image"]["url"] == (
        "https://example.com/x.png"
    )


@pytest.mark.parametrize("path", ["/see", "/see-async"])
def test_a_caller_who_leaves_ends_the_fetch(server, site, path):
    notes = len(server.notes())
    asked = len(site.asked)
    with server.open(f"{APP}{path}", {"image_url": f"{site.url}/slow"}):
        eventually(lambda: len(site.asked) > asked, "it is being fetched")
    eventually(lambda: server.notes()[notes:] == ["see", "saw"], "the model's finally has run")


def test_the_schema_says_url_or_object_in_and_object_out(server):
    schema = server.request("GET", f"{APP}/openapi.json").json

    text = json.dumps(schema)
    assert '{"type": "string", "format": "uri"}' in text or '{"format": "uri", "type": "string"}' in text


# --- what a runner writes is a stranger's ---------------------------------------------------------------------


def test_a_file_of_a_runner_that_lies_about_it_is_not_served(server):
    folder = FileFolder(server.folder / "data" / "files", FileBounds(1_000, 100.0, 1))
    file = folder.put(b"x", NewFile(content_type="image/png"), now=time.time())
    folder.path_of(file.id).unlink()
    folder.path_of(file.id).symlink_to(pathlib.Path("/etc/passwd"))

    assert server.request("GET", file.path).status == 404


def test_a_stream_of_previews_by_one_connection_and_its_pictures_by_another_work_at_once(server):
    with RawStream(server.port) as stream:
        stream.post(f"{APP}/draw/stream", {"steps": 50}, {"Connection": "keep-alive"})
        stream.read_until(b"preview")
        url = data_events(stream.body)[0]["preview"]["url"]
        path = re.sub(r"^http://[^/]+", "", url)
        assert server.request("GET", path).body == png(shade=0)
        stream.read_until(b"images")
