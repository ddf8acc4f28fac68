"""`headrace env`: only export lines, safely quoted, that name what is there; and a plain word when it is not."""

import datetime as dt
import os
import pathlib
import shlex
import subprocess

import certifi
import pytest
from typer.testing import CliRunner

from headrace import node
from headrace.cli import app
from headrace.client.credentials import save_key
from headrace.config import Config
from headrace.store.certificates import names_of

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "NODE_OPTIONS")


def block(text: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----"


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("HEADRACE_", "FAL_")) or name in VARIABLES]:
        monkeypatch.delenv(name)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path):
    """The data of a server that was started with --tls, whose first key this user has."""
    folder = tmp_path / "it's $HOME; data"
    settings = Config(data_dir=folder)
    node.tls(settings).prepare(names_of("127.0.0.1"), dt.datetime.now(dt.timezone.utc))
    _, key = node.keys(settings).create("default")
    save_key(settings.url, key)
    return folder


def headrace_env(*words):
    return CliRunner().invoke(app, ["env", *map(str, words)])


def exported(*words) -> dict[str, str]:
    """Run the command, check that it says nothing but export lines, and return what a shell makes of them."""
    told = headrace_env(*words)
    assert (told.exit_code, told.stderr) == (0, "")
    assert all(line.startswith("export ") for line in told.stdout.splitlines())
    names = [line.removeprefix("export ").partition("=")[0] for line in told.stdout.splitlines()]
    shell = subprocess.run(
        ["sh", "-c", 'eval "$LINES_"; env -0'],
        env={"LINES_": told.stdout, "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(line.partition("=")[::2] for line in shell.stdout.split("\0") if line)
    return {name: found[name] for name in names}


def certificates(path: str) -> list[str]:
    return [
        part.strip() for part in pathlib.Path(path).read_text().split("-----END CERTIFICATE-----") if part.strip()
    ]


def test_the_lines_lead_every_client_to_the_server(data):
    lines = exported("--data-dir", data)

    assert lines.pop("FAL_KEY").startswith("hr_")
    assert lines == {
        "FAL_RUN_HOST": "localhost:8443",
        "FAL_QUEUE_RUN_HOST": "localhost:8443/queue",
        "HEADRACE_URL": "http://127.0.0.1:8080",
        "SSL_CERT_FILE": str(data / "tls" / "bundle.pem"),
        "NODE_EXTRA_CA_CERTS": str(data / "tls" / "ca.pem"),
    }


def test_ports_and_address_can_be_named(data):
    lines = exported("--data-dir", data, "--tls-port", "9443", "--url", "http://127.0.0.1:9000/")

    assert (lines["FAL_RUN_HOST"], lines["HEADRACE_URL"]) == ("localhost:9443", "http://127.0.0.1:9000")


def test_a_server_with_an_address_of_its_own_is_found_there(data, monkeypatch):
    monkeypatch.setenv("HEADRACE_HOST", "fd00::1")

    lines = exported("--data-dir", data)

    assert (lines["FAL_RUN_HOST"], lines["HEADRACE_URL"]) == ("[fd00::1]:8443", "http://[fd00::1]:8080")


# --- the key ------------------------------------------------------------------------------------------------


def test_the_key_is_one_that_this_server_takes_whatever_is_saved_for_its_address(data):
    settings = Config(data_dir=data)
    _, key = node.keys(settings).create("other")
    node.keys(settings).revoke(node.keys(settings).list()[0].id)
    save_key("http://127.0.0.1:9000", key)

    assert exported("--data-dir", data)["FAL_KEY"] == key


# --- certificates -------------------------------------------------------------------------------------------


def test_the_bundle_is_our_ca_and_the_public_roots(data):
    bundle = certificates(exported("--data-dir", data)["SSL_CERT_FILE"])

    ours = certificates(str(data / "tls" / "ca.pem"))
    assert bundle[:1] == ours
    assert len(bundle) == 1 + pathlib.Path(certifi.where()).read_text().count("END CERTIFICATE")


def test_without_certifi_the_systems_roots_are_taken(data, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "certifi", None)

    assert len(certificates(exported("--data-dir", data)["SSL_CERT_FILE"])) > 50


def test_certificates_the_user_trusts_already_stay_trusted_however_often_it_is_asked(data, tmp_path, monkeypatch):
    (tmp_path / "own.pem").write_text(block("mine"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(tmp_path / "own.pem"))
    first = exported("--data-dir", data, "--node")
    files = [pathlib.Path(first[name]).read_text() for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")]
    for name, value in first.items():
        monkeypatch.setenv(name, value)

    again = exported("--data-dir", data, "--node")

    assert again == first
    assert [pathlib.Path(again[name]).read_text() for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")] == files
    assert certificates(again["NODE_EXTRA_CA_CERTS"])[1:] == ["-----BEGIN CERTIFICATE-----\nmine"]
    assert certificates(again["SSL_CERT_FILE"])[-1:] == ["-----BEGIN CERTIFICATE-----\nmine"]


# --- node ---------------------------------------------------------------------------------------------------


def test_nodes_options_stay_and_ours_follow(data, monkeypatch):
    monkeypatch.setenv("NODE_OPTIONS", "--max-old-space-size=4096")

    lines = exported("--data-dir", data, "--node")

    before, _, ours = lines["NODE_OPTIONS"].partition(" --import ")
    assert before == "--max-old-space-size=4096"
    assert pathlib.Path(ours.removeprefix("file://")).is_file()
    assert lines["HEADRACE_REDIRECT"] == "https://localhost:8443"


# --- what is missing ----------------------------------------------------------------------------------------


def nothing_but(words, stderr_has):
    told = headrace_env(*words)
    assert (told.exit_code, told.stdout) == (1, "")
    assert stderr_has in told.stderr
    assert told.stderr.count("\n") == 1


def test_without_a_ca_one_line_says_to_start_the_server_first(tmp_path):
    settings = Config(data_dir=tmp_path / "data")
    save_key(settings.url, node.keys(settings).create("default")[1])

    nothing_but(["--data-dir", tmp_path / "data"], "run `headrace serve --tls` first")


def test_without_a_key_one_line_says_how_to_get_one(data, tmp_path):
    (tmp_path / "XDG_CONFIG_HOME" / "headrace" / "credentials").unlink()

    nothing_but(["--data-dir", data], "run `headrace serve --tls` or `headrace keys create` first")


def test_a_trusted_file_that_is_not_there_is_told(data, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")

    nothing_but(["--data-dir", data], "SSL_CERT_FILE names /nowhere/ca.pem, which is not there")


@pytest.mark.parametrize(
    ("words", "wants"), [(["--tls-port", "0"], "--tls-port"), (["--url", "ftp://x"], "ftp://x")]
)
def test_an_address_that_leads_nowhere_is_told(data, words, wants):
    nothing_but(["--data-dir", data, *words], wants)


def test_any_free_port_is_no_address(data, monkeypatch):
    monkeypatch.setenv("HEADRACE_PORT", "0")

    nothing_but(["--data-dir", data], "--url")


def test_lines_can_be_read_by_shlex_as_well(data):
    assert [len(shlex.split(line)) for line in headrace_env("--data-dir", data).stdout.splitlines()] == [2] * 6
