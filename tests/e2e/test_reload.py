"""`serve --reload`: a changed file is served at once, running streams finish on the old one."""

import threading

import pytest

from tests.support.server import PATIENCE_S, STARTING_S, RawStream, data_events, eventually, running_server

SOURCE = """
import asyncio
import headrace

class Shop(headrace.App, name="me/shop", max_multiplexing=2):
    @headrace.endpoint("/")
    async def words(self, input: dict):
        for i in range(input.get("n", 1)):
            yield {"version": 1, "i": i}
            await asyncio.sleep(0.05)
"""


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop.py"
    path.write_text(SOURCE)
    with running_server(path, args=("--no-auth", "--reload")) as server:
        yield server, path


def version(server) -> object:
    return server.post("/me/shop").json.get("version")


def test_a_changed_file_is_served_and_a_running_stream_finishes_on_the_old_one(shop):
    server, path = shop
    with server.open("/me/shop/stream", {"n": 60}) as stream:
        stream.read_until(b"data: ")
        path.write_text(SOURCE.replace('"version": 1', '"version": 2'))
        eventually(lambda: version(server) == 2, "the new version answers")
        stream.read_until(b"0\r\n\r\n")

    assert [event["version"] for event in data_events(stream.body)] == [1] * 60
    eventually(lambda: len(server.runner_pids()) == 1, "the old runner is gone")


def test_a_faulty_edit_is_told_and_the_old_one_goes_on(shop):
    server, path = shop
    path.write_text(SOURCE + "\n\ndef broken(:\n")
    eventually(lambda: "not reloaded" in server.log, "the fault is told")

    eventually(lambda: "shop.py:13" in server.log, "its place is told")
    assert version(server) == 1
    path.write_text(SOURCE.replace('"version": 1', '"version": 3'))
    eventually(lambda: version(server) == 3, "the mended version answers")


def test_a_setup_that_fails_after_an_edit_does_not_replace_what_works(shop):
    server, path = shop
    path.write_text(
        SOURCE.replace("    @headrace", "    def setup(self):\n        raise RuntimeError('no')\n\n    @headrace")
    )
    eventually(lambda: "not reloaded" in server.log, "the fault is told")

    assert version(server) == 1
    assert server.is_ready()


def test_endpoints_and_apps_can_come_and_go(shop):
    server, path = shop
    path.write_text(SOURCE.replace('endpoint("/")', 'endpoint("/new")').replace("me/shop", "me/other"))
    eventually(lambda: server.post("/me/other/new").status == 200, "the new app answers")

    assert server.post("/me/shop").status == 404
    assert [app["name"] for app in server.request("GET", "/v1/apps").json["apps"]] == ["me/other"]


@pytest.mark.parametrize("path", ["/me/shop", "/me/shop/stream", "/queue/me/shop"])
def test_a_call_whose_app_goes_while_its_body_comes_is_a_404(shop, path):
    server, file = shop
    with RawStream(server.port) as call:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        call.socket.sendall(head.encode() + b"{")
        file.write_text(SOURCE.replace("me/shop", "me/other"))
        eventually(lambda: server.post("/me/other").status == 200, "the new app answers")
        call.socket.sendall(b"}")
        call.read_until(b'"error_type":"not_found"')

    assert call.bytes.startswith(b"HTTP/1.1 404 ")
    assert b"The app 'me/shop' is not served any more." in call.bytes


def test_an_edit_while_the_file_is_imported_is_served_too(tmp_path):
    path, began = tmp_path / "shop.py", tmp_path / "began"
    wait = f"""
import os, time
open({str(began)!r}, "w").close()
while not os.path.exists(os.environ["ZOO_NOTES"] + ".go"):
    time.sleep(0.01)
"""
    path.write_text(wait + SOURCE)

    def edit() -> None:
        eventually(began.exists, "it is being imported", seconds=STARTING_S)
        path.write_text(SOURCE.replace('"version": 1', '"version": 2'))
        (path.parent / "notes.go").touch()

    editing = threading.Thread(target=edit)
    editing.start()
    with running_server(
        path, args=("--no-auth", "--reload"), env={"ZOO_NOTES": str(tmp_path / "notes")}
    ) as server:
        editing.join(PATIENCE_S)
        eventually(lambda: version(server) == 2, "the file as it is now answers")
