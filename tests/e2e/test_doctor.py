"""`headrace doctor`: a line for each check, what mends it, and the exit status. On machines with and without faults."""

import contextlib
import http.server
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time

import pytest

from headrace import node
from headrace.cli import doctor
from headrace.cli.doctor import Mark
from headrace.client import credentials
from headrace.config import Config
from tests.support.server import PATIENCE_S, eventually, running_server


@pytest.fixture
def machine(tmp_path):
    """A user's folders and a bare environment: no GPU tools, no keys, no models."""
    (tmp_path / "bin").mkdir()
    environment = {name: os.environ[name] for name in os.environ if not name.startswith(("HEADRACE_", "FAL_"))}
    return environment | {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "share"),
        "PATH": str(tmp_path / "bin"),
    }


def headrace_doctor(machine, *words) -> tuple[int, dict[str, str], str]:
    """Run it, and return its status, its lines by name of check, and all it said."""
    told = subprocess.run(
        [sys.executable, "-m", "headrace", "doctor", *map(str, words)],
        env=machine, cwd=machine["PATH"], capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert told.stderr == ""
    lines = [line for line in told.stdout.splitlines() if not line.startswith("    ")]
    return told.returncode, {line[2:].partition(":")[0]: line for line in lines}, told.stdout


def free_port() -> int:
    """A port that nobody has, and none of those that the kernel gives to whoever else asks for one meanwhile."""
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def test_on_a_fresh_machine_what_is_absent_is_said_and_nothing_is_wrong(machine):
    status, lines, told = headrace_doctor(machine, "--port", free_port())

    assert status == 0
    assert list(lines) == [
        "python", "server parts", "engine", "model", "port", "key", "tls", "permissions", "clock", "gpu",
    ]  # fmt: skip
    assert lines["model"] == "– model: smollm2 is not fetched; the demo needs it"
    assert "    headrace models pull smollm2\n" in told
    assert lines["key"].startswith("– key: none in ")
    assert lines["gpu"].endswith("models run on the CPU") or "AMD" in lines["gpu"]
    assert "✗" not in told
    assert "\x1b" not in told  # no colours in a pipe


def test_beside_a_running_server_everything_is_good(machine):
    with running_server(args=("--tls", "--tls-port", "0")) as server:
        machine["XDG_CONFIG_HOME"] = str(server.folder / "config")
        status, lines, told = headrace_doctor(machine, "--data-dir", server.folder / "data", "--port", server.port)

    assert status == 0, told
    assert lines["port"] == f"✓ port: Headrace answers at {server.url}"
    assert lines["apps"].startswith("✓ apps: ready: zoo/zoo, ")
    assert lines["key"].startswith("✓ key: hr_")
    assert lines["tls"].startswith("✓ tls: localhost, 127.0.0.1, ::1; the certificate lasts until ")
    assert lines["permissions"] == "✓ permissions: 4 files with secrets are their owner's alone"
    assert lines["clock"].startswith("✓ clock: ")


def test_an_app_that_does_not_start_is_wrong_and_its_fault_is_shown(machine, tmp_path):
    (tmp_path / "moody.py").write_text(
        'import headrace\n\nclass Moody(headrace.App, name="me/moody"):\n'
        "    def setup(self):\n        raise RuntimeError('no model today')\n\n"
        '    @headrace.endpoint("/")\n    def moody(self, input: dict) -> dict:\n        return {}\n'
    )
    with running_server(tmp_path / "moody.py", until_ready=False) as server:
        eventually(
            lambda: "fault" in server.request("GET", "/ready").json["apps"]["me/moody"], "the fault is shown"
        )
        status, lines, _ = headrace_doctor(machine, "--port", server.port)

    assert status == 1
    assert lines["apps"].startswith("✗ apps: me/moody does not start: ")
    assert "no model today" in lines["apps"]


@contextlib.contextmanager
def another_program():
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        yield page.server_address[1]
        page.shutdown()


def test_a_port_that_another_program_has_is_wrong(machine):
    with another_program() as port:
        status, lines, told = headrace_doctor(machine, "--port", port)

    assert status == 1
    assert lines["port"] == f"✗ port: 127.0.0.1:{port} is another program's"
    assert "    headrace serve --port " in told


def test_a_damaged_model_is_wrong_and_pulling_mends_it(machine):
    model = pathlib.Path(machine["XDG_CACHE_HOME"]) / "headrace" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"half")
    status, lines, told = headrace_doctor(machine, "--port", free_port())

    assert (status, lines["model"]) == (1, f"✗ model: {model} is damaged")
    assert "    headrace models pull smollm2\n" in told


# --- keys, certificates, permissions ------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The settings of a server that has a key, with this user's credentials in a folder of the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    settings = Config(data_dir=tmp_path / "data")
    node.keys(settings).create("default")
    return settings


def test_a_user_without_the_servers_key_is_told_to_make_one(kept):
    finding = doctor.check_key(kept)

    assert (finding.mark, finding.mend) == (Mark.BAD, "headrace keys create")
    assert "has none for http://127.0.0.1:8080" in finding.text


def test_a_key_of_another_server_is_told(kept):
    credentials.save_key(kept.url, "somebody:else")
    finding = doctor.check_key(kept)

    assert (finding.mark, finding.mend) == (Mark.BAD, "headrace keys create")
    assert "not the server's, or is revoked" in finding.text


def test_a_server_whose_keys_are_all_revoked_is_told(kept):
    keys = node.keys(kept)
    keys.revoke(keys.list()[0].id)

    assert doctor.check_key(kept).text == "every key of the server is revoked"


@pytest.mark.parametrize("name", ["data/keys.json", "config/headrace/credentials"])
def test_damage_to_what_holds_keys_is_told_and_not_raised(kept, tmp_path, name):
    credentials.save_key(kept.url, "somebody:else")
    (tmp_path / name).write_text("{")
    finding = doctor.check_key(kept)

    assert (finding.mark, "damaged" in finding.text) == (Mark.BAD, True)


def test_a_certificate_that_is_not_the_cas_is_wrong(kept):
    folder = kept.data_dir / "tls"
    folder.mkdir()
    (folder / "ca.pem").write_text("nonsense")
    finding = doctor.check_tls(kept)

    assert (finding.mark, finding.text) == (Mark.BAD, f"{folder / 'ca.pem'} or its key is missing or damaged")


def test_a_file_with_secrets_that_others_may_read_is_wrong(kept):
    path = kept.data_dir / "keys.json"
    path.chmod(0o640)
    finding = doctor.check_permissions([path])

    assert (finding.mark, finding.mend) == (Mark.BAD, f"chmod 600 {path}")


# --- the machine --------------------------------------------------------------------------------------------


def server_whose_clock_says(seconds: float) -> doctor.Server:
    return doctor.Server(is_headrace=True, apps={}, clock_s=seconds)


@pytest.mark.parametrize(("ahead_s", "mark"), [(0, Mark.GOOD), (59, Mark.GOOD), (61, Mark.BAD), (-61, Mark.BAD)])
def test_a_clock_may_be_a_minute_from_the_servers(ahead_s, mark):
    assert doctor.check_clock(server_whose_clock_says(1_000), [], 1_000 + ahead_s).mark is mark


def test_a_clock_behind_our_own_files_is_wrong(tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps({}))
    now_s = time.time()

    assert doctor.check_clock(None, [tmp_path / "keys.json"], now_s).mark is Mark.GOOD
    assert doctor.check_clock(None, [tmp_path / "keys.json"], now_s - 3600).mark is Mark.BAD
    assert doctor.check_clock(None, [], now_s).text == "nothing to compare it with"


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("echo 'NVIDIA H200, 143771 MiB'", "✓ gpu: NVIDIA H200, 143771 MiB"),
        ("exit 9", "– gpu: nvidia-smi is there but finds no GPU: models run on the CPU"),
    ],
)
def test_a_gpu_is_named_as_its_driver_names_it(machine, script, line):
    tool = pathlib.Path(machine["PATH"]) / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)

    assert headrace_doctor(machine, "--port", free_port())[1]["gpu"] == line


def test_a_python_that_is_too_old_is_wrong_and_one_new_enough_is_not():
    assert [doctor.check_python(version).mark for version in ((3, 10), (3, 11), (3, 14))] == [
        Mark.BAD, Mark.GOOD, Mark.GOOD,
    ]  # fmt: skip


def test_an_install_of_the_client_alone_is_not_wrong():
    finding = doctor.check_extra(["uvicorn", "pydantic"])

    assert (finding.mark, finding.mend) == (Mark.NEUTRAL, "pip install 'headrace[serve]'")
    assert "uvicorn, pydantic" in finding.text
