"""Which server and which key: the order of the places, the file and its permissions, and what is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from headrace.client.credentials import credentials_path, find_key, resolve_key, save_key, server_url
from headrace.client.errors import BadCredentials, HeadraceError
from tests.support.shells import no_credentials  # noqa: F401

URL = "http://127.0.0.1:8080"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the server ------------------------------------------------------------------------------------------


def test_the_address_comes_from_the_argument_then_headrace_url_then_fal_run_host(monkeypatch) -> None:
    found = [server_url()]
    monkeypatch.setenv("FAL_RUN_HOST", "models.test:8443/prefix/")
    found.append(server_url())
    monkeypatch.setenv("HEADRACE_URL", "http://gpu.test:8080/")
    found.append(server_url())
    found.append(server_url("https://other.test"))

    assert [
        URL,
        "https://models.test:8443/prefix",
        "http://gpu.test:8080",
        "https://other.test",
    ] == found


@pytest.mark.parametrize(
    "url",
    ["", "gpu.test", "gpu.test:8080", "ftp://gpu.test", "http://", "http://:8080", "http://gpu.test:99999",
     "http://gpu.test:x", "http://gpu.test:0", "http://user:pw@gpu.test", "http://gpu.test/?a=b", "http://gpu.test/#f",
     "http://gpu test", "http://gpu.test/\r\nX: y", "http://gpü.test", "http://[::1", f"http://{'x' * 64}.test"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ValueError, match="expected http://HOST") as caught:
        server_url(url)

    assert repr(url) in str(caught.value)


def test_a_wrong_address_names_the_variable_it_came_from(monkeypatch) -> None:
    monkeypatch.setenv("HEADRACE_URL", "gpu.test")

    with pytest.raises(ValueError, match="HEADRACE_URL='gpu.test'"):
        server_url()


# --- the key ---------------------------------------------------------------------------------------------


def test_the_key_comes_from_the_first_place_that_has_one(monkeypatch) -> None:
    def found() -> tuple[str, str] | None:
        key = resolve_key(URL)
        return key and (key.text, key.source)

    assert None is found()
    save_key(URL, "in:file")
    assert ("in:file", str(credentials_path())) == found()
    monkeypatch.setenv("FAL_KEY_ID", "id")
    assert ("in:file", str(credentials_path())) == found()
    monkeypatch.setenv("FAL_KEY_SECRET", "secret")
    assert ("id:secret", "FAL_KEY_ID and FAL_KEY_SECRET") == found()
    monkeypatch.setenv("FAL_KEY", "fal:key")
    assert ("fal:key", "FAL_KEY") == found()
    monkeypatch.setenv("HEADRACE_KEY", "our:key")
    assert ("our:key", "HEADRACE_KEY") == found()
    assert "arg:key" == resolve_key(URL, "arg:key").text


@pytest.mark.parametrize("key", ["", " ", "a b", "a\r\nX: y", "a\0b", "kéy", "a\tb"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_without_being_shown(key: str, monkeypatch) -> None:
    with pytest.raises(ValueError, match="is not a key") as caught:
        resolve_key(URL, key)

    assert not key.strip() or key not in str(caught.value)


def test_the_end_of_a_pasted_line_is_no_part_of_a_key(monkeypatch) -> None:
    monkeypatch.setenv("HEADRACE_KEY", "id:secret\n")

    assert "id:secret" == resolve_key(URL).text


def test_a_key_stays_out_of_repr() -> None:
    assert "secret" not in repr(resolve_key(URL, "id:secret"))


# --- the file --------------------------------------------------------------------------------------------


def test_a_saved_key_is_found_for_its_server_alone() -> None:
    path = save_key("https://gpu.test", "a:1")
    save_key("https://other.test", "b:2")

    assert credentials_path() == path
    assert ("a:1", "b:2", None, None) == (
        find_key("https://gpu.test"),
        find_key("https://other.test"),
        find_key("http://gpu.test"),
        find_key("https://gpu.test:8443"),
    )


@pytest.mark.parametrize(
    ("saved", "asked"),
    [
        ("http://localhost:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080", "http://[::1]:8080/"),
        ("http://[::1]:8080", "http://LOCALHOST:8080"),
        ("https://gpu.test", "https://GPU.test:443/"),
        ("http://gpu.test:80", "http://gpu.test"),
        ("https://gpu.test/prefix/", "https://gpu.test/prefix"),
    ],
)
def test_one_server_has_many_spellings(saved: str, asked: str) -> None:
    save_key(saved, "a:1")

    assert "a:1" == find_key(asked)


def test_the_file_and_its_folder_are_the_owners_alone() -> None:
    old = os.umask(0)
    try:
        path = save_key(URL, "a:1")
    finally:
        os.umask(old)

    assert (0o600, 0o700) == (mode(path), mode(path.parent))


def test_saving_repairs_permissions_that_are_too_open() -> None:
    path = save_key(URL, "a:1")
    path.chmod(0o644)
    path.parent.chmod(0o755)

    save_key(URL, "b:2")

    assert (0o600, 0o700, "b:2") == (mode(path), mode(path.parent), find_key(URL))


def test_nothing_but_the_file_is_left_behind() -> None:
    path = save_key(URL, "a:1")
    save_key(URL, "b:2")

    assert [path] == list(path.parent.iterdir())


def test_a_write_that_fails_leaves_the_old_file(monkeypatch) -> None:
    path = save_key(URL, "a:1")
    monkeypatch.setattr(json, "dump", lambda *_, **__: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        save_key(URL, "b:2")

    assert ("a:1", [path]) == (find_key(URL), list(path.parent.iterdir()))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b'{"http://a": 1}', b"\xff\xfe", b'{"a": "b"} x'])
def test_a_damaged_file_is_named_and_left_alone(text: bytes) -> None:
    path = save_key(URL, "a:1")
    path.write_bytes(text)

    for call in (lambda: find_key(URL), lambda: save_key(URL, "b:2"), lambda: resolve_key(URL)):
        with pytest.raises(BadCredentials, match="damaged") as caught:
            call()
        assert str(path) in str(caught.value)
    assert text == path.read_bytes()
    assert issubclass(BadCredentials, (HeadraceError, ValueError))


def test_a_path_that_is_no_file_is_named(tmp_path) -> None:
    credentials_path().mkdir(parents=True)

    with pytest.raises(BadCredentials, match="cannot be read"):
        find_key(URL)


def test_a_damaged_file_does_not_matter_when_the_key_is_given() -> None:
    save_key(URL, "a:1").write_bytes(b"{")

    assert "x:y" == resolve_key(URL, "x:y").text


def test_without_xdg_config_home_the_file_is_in_dot_config(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)

        assert tmp_path / ".config" / "headrace" / "credentials" == credentials_path()
