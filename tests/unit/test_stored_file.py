"""A stored file's id, name, address and card: names are data, whatever they look like."""

import json
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.stored_file import (
    NAME_LETTERS_MAX,
    FileId,
    StoredFile,
    id_in_url,
    is_id,
    name_for,
    read_path,
)

A7 = pytest.mark.promise("A7")
ID = FileId("0123456789abcdef0123456789abcdef")
FILE = StoredFile(
    id=ID,
    digest="ab" * 32,
    content_type="image/png",
    name="a cat.png",
    size=3,
    created_at=1_000.0,
    expires_at=2_000.0,
)

#: What somebody says a file is called, and what it is called then.
NAMES = {
    "cat.png": "cat.png",
    "a cat.png": "a cat.png",
    "日本.png": "日本.png",
    "e\u0301.png": "é.png",
    # paths, of every system
    "../../etc/passwd": "passwd",
    "..": "file.bin",
    ".": "file.bin",
    "...": "file.bin",
    "../": "file.bin",
    "../..": "file.bin",
    "/etc/shadow": "shadow",
    "//server/share/x.txt": "x.txt",
    "/": "file.bin",
    "a/b/c": "c",
    "a/./b": "b",
    "a/../b": "b",
    "~/.ssh/id_rsa": "id_rsa",
    "~root": "~root",
    "..\\..\\windows\\win.ini": "win.ini",
    "C:\\boot.ini": "boot.ini",
    "C:boot.ini": "C_boot.ini",
    "C:": "C_",
    "\\\\server\\share\\x": "x",
    "\\\\?\\C:\\x": "x",
    "\\\\.\\PhysicalDrive0": "PhysicalDrive0",
    "a\\../b": "b",
    "....//x": "x",
    "..;/x": "x",
    "x/..;": ".._".strip("."),
    # encoded once, twice, overlong: a name is not decoded
    "%2e%2e%2fpasswd": "_2e_2e_2fpasswd",
    "%252e%252e%252f": "_252e_252e_252f",
    "..%2f..%2fpasswd": "_2f.._2fpasswd",
    "..%5cpasswd": "_5cpasswd",
    "..%c0%afpasswd": "_c0_afpasswd",
    "%00.png": "_00.png",
    # letters that look like dots and slashes, or turn into them
    "\u2025/x": "x",
    "\uff0e\uff0e\uff0fpasswd": "passwd",
    "\u2215etc\u2215passwd": "\u2215etc\u2215passwd",
    "..\uff3cpasswd": "passwd",
    "\u2024\u2024/passwd": "passwd",
    # what does not show, and what turns a name round
    "a\0.png": "a.png",
    "a.png\0.exe": "a.png.exe",
    "\0": "file.bin",
    "a\r\nSet-Cookie: x": "aSet-Cookie_ x",
    "a\tb": "ab",
    "\x1b[31mred": "[31mred",
    "gpj.\u202eexe": "gpj.exe",
    "a\u200bb": "ab",
    "\ufeffa": "a",
    "\u2028a": "a",
    "\ud800a": "a",
    # special to a shell, a browser or Windows
    ".htaccess": "htaccess",
    ".bashrc": "bashrc",
    "a.": "a",
    "a ": "a",
    " . a . ": "a",
    'a"b': "a_b",
    "a'b": "a'b",
    "<script>": "_script_",
    "a|b": "a_b",
    "a?b=c": "a_b=c",
    "a;b": "a_b",
    "a*": "a_",
    "x.txt::$DATA": "x.txt__$DATA",
    "CON": "_CON",
    "con.png": "_con.png",
    "NUL": "_NUL",
    "aux.c": "_aux.c",
    "COM1": "_COM1",
    "lpt9.txt": "_lpt9.txt",
    "console": "console",
    "": "file.bin",
    " ": "file.bin",
    "a" * 300 + ".png": "a" * (NAME_LETTERS_MAX - 4) + ".png",
    "a." + "b" * 300: "a." + "b" * (NAME_LETTERS_MAX - 2),
    "." * 300: "file.bin",
    "/".join(["a"] * 500): "a",
}  # fmt: skip


@A7
@pytest.mark.parametrize("said", NAMES, ids=ascii)
def test_a_name_is_good_anywhere(said):
    assert name_for(said, "application/octet-stream") == NAMES[said]


@pytest.mark.parametrize(
    "said", ["con." + "a" * 76, "con." + "a" * 72 + ".png", "aux" + " " * 77 + "x", "nul." * 40]
)
def test_the_name_of_a_device_is_no_longer_than_another_and_stays_as_it_is(said):
    name = name_for(said, "image/png")

    assert name.startswith("_")
    assert len(name) <= NAME_LETTERS_MAX
    assert name_for(name, "image/png") == name


def test_of_what_is_as_long_as_a_book_only_the_end_is_looked_at():
    assert name_for("a" + "b" * 2_000, "image/png") == "b" * NAME_LETTERS_MAX
    assert name_for("\ufdfa" * 1_000_000 + "/a.png", "image/png") == "a.png"


def test_there_are_names_enough():
    assert len(NAMES) >= 60


@A7
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=400))
def test_any_name_is_one_step_of_a_path_and_stays_as_it_is(said):
    name = name_for(said, "image/png")

    assert 0 < len(name) <= NAME_LETTERS_MAX + 1  # with the underscore before a device
    assert name not in {".", ".."}
    assert PurePosixPath(name).name == name == PureWindowsPath(name).name
    assert not any(unicodedata.category(letter) in {"Cc", "Cf", "Cs"} for letter in name)
    assert name_for(name, "image/png") == name
    assert read_path(f"/files/{ID}/{name}") == (ID, name)


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("image/png", "image.png"), ("image/jpeg", "image.jpg"), ("video/mp4", "video.mp4"),
        ("audio/wav", "audio.wav"), ("text/plain", "text.txt"), ("application/zip", "file.zip"),
        ("application/x-unheard-of", "file.bin"), ("application/json", "file.json"),
    ],
)  # fmt: skip
def test_a_file_without_a_name_gets_one_from_its_type(content_type, name):
    assert name_for(None, content_type) == name


def test_an_address_has_the_id_and_the_name_encoded():
    assert FILE.path == f"/files/{ID}/a%20cat.png"


@pytest.mark.parametrize(
    ("path", "read"),
    [
        (f"/files/{ID}", (ID, None)),
        (f"/files/{ID}/", (ID, None)),
        (f"/files/{ID}/a cat.png", (ID, "a cat.png")),
        (f"/files/{ID}/a/b", None),
        (f"/files/{ID}/../x", None),
        (f"/files/{ID.upper()}", None),
        (f"/files/{ID}0", None),
        (f"/files/{ID[:-1]}", None),
        (f"/files/{ID[:-1]}\n", None),
        (f"/files/../files/{ID}", None),
        (f"/files//{ID}", None),
        (f"files/{ID}", None),
        ("/files/", None),
        ("/files/.", None),
    ],
)
def test_an_address_is_read_strictly(path, read):
    assert read_path(path) == read


@pytest.mark.parametrize(
    ("url", "id_"),
    [
        (f"http://127.0.0.1:8080/files/{ID}/a%20cat.png", ID),
        (f"https://any.example/files/{ID}?x=1#y", ID),
        (f"HTTPS://any.example/files/{ID}", ID),
        (f"ftp://any.example/files/{ID}", None),
        (f"/files/{ID}", None),
        (f"https://any.example/other/files/{ID}", None),
        ("https://[::1/files", None),
        ("data:text/plain,x", None),
    ],
)
def test_an_id_is_found_in_a_url_of_our_form(url, id_):
    assert id_in_url(url) == id_


@pytest.mark.parametrize("text", ["", "0", "g" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n", "../" + "0" * 29])
def test_what_is_no_id_has_not_its_form(text):
    assert not is_id(text)


# --- cards ----------------------------------------------------------------------------------------------------


def test_a_card_tells_what_was_written():
    assert StoredFile.from_card(FILE.to_card(), ID) == FILE


@A7
@pytest.mark.parametrize(
    "wrong",
    [
        {"digest": "../../keys.json"},
        {"digest": "AB" * 32},
        {"digest": ["ab"]},
        {"size": -1},
        {"size": "3"},
        {"size": 3.5},
        {"size": None},
        {"created_at": "yesterday"},
        {"expires_at": float("inf")},
        {"expires_at": float("nan")},
        {"expires_at": 10**400},
    ],
    ids=str,
)
def test_a_card_with_other_values_is_none(wrong):
    card = json.loads(FILE.to_card()) | wrong

    with pytest.raises(ValueError, match="card"):
        StoredFile.from_card(json.dumps(card).encode(), ID)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 4_000, b'{"size": 1}'])
def test_what_is_no_card_is_none(text):
    with pytest.raises(ValueError, match=r"."):
        StoredFile.from_card(text, ID)


@A7
def test_a_card_cannot_say_where_its_bytes_lie_nor_give_a_path_for_a_name():
    card = json.loads(FILE.to_card()) | {
        "name": "../../../etc/passwd",
        "content_type": "Text/HTML; x=y",
        "id": "x",
    }

    file = StoredFile.from_card(json.dumps(card).encode(), ID)

    assert (file.id, file.name, file.content_type) == (ID, "passwd", "text/html")
