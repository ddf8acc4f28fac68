"""Keys: how they are made and compared, and that nothing at rest can open anything."""

import json
import logging
import os
import stat
import subprocess
import sys
from hmac import compare_digest as real_compare_digest
from pathlib import Path

import pytest

from headrace.core import keys
from headrace.core.keys import KEY_RANDOM_BYTES, KeyFault, KeyRecord, make_key, parse_authorization, verify_key
from headrace.store.keyfile import RECHECK_S, KeyFile

RANDOM = bytes(range(KEY_RANDOM_BYTES))
OTHER_RANDOM = bytes(range(100, 100 + KEY_RANDOM_BYTES))


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- the text of a key --------------------------------------------------------------------------------------


def test_a_key_is_a_public_id_and_a_secret():
    record, text = make_key(RANDOM, name="laptop", now=1_700_000_000)

    assert "hr_aaaqeayeauda:CAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJic" == text
    assert KeyRecord("hr_aaaqeayeauda", "laptop", record.hash, 1_700_000_000, None) == record


def test_the_secret_holds_at_least_160_random_bits():
    secrets = {make_key(bytes(8) + bytes([n]) + bytes(31), name="", now=0)[1].split(":")[1] for n in range(256)}

    assert 256 == len(secrets)
    assert {43} == {len(secret) for secret in secrets}
    assert 160 <= 43 * 6 - 2


def test_too_little_randomness_is_refused():
    with pytest.raises(ValueError, match="40 random bytes, not 39"):
        make_key(bytes(39), name="", now=0)


def test_the_record_shows_neither_secret_nor_hash():
    record, text = make_key(RANDOM, name="laptop", now=0)

    assert text.split(":")[1] not in repr(record)
    assert record.hash not in repr(record)


def test_the_right_text_opens_and_says_whose_it_is():
    record, text = make_key(RANDOM, name="laptop", now=0)

    assert record.id == verify_key(text, {record.id: record})


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "hr_aaaqeayeauda",
        "hr_aaaqeayeauda:",
        "hr_aaaqeayeauda:wrong",
        "hr_bbbbbbbbbbbb:CAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJic",
        "CAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJic",
        "hr_aaaqeayeauda:CAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJic ",
        "hr_aaaqeayeauda:cAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJic",
        "HR_AAAQEAYEAUDA:CAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJic",
        "hr_aaaqeayeauda:\x00",
        "hr_aaaqeayeauda:\udcff",
        "é:é",
        "x" * 100_000,
    ],
)
def test_any_other_text_opens_nothing(text):
    record, _ = make_key(RANDOM, name="laptop", now=0)

    assert verify_key(text, {record.id: record}) is None


def test_the_hash_itself_opens_nothing():
    record, _ = make_key(RANDOM, name="laptop", now=0)

    assert verify_key(f"{record.id}:{record.hash}", {record.id: record}) is None


def test_a_revoked_key_opens_nothing():
    record, text = make_key(RANDOM, name="laptop", now=0)
    revoked = KeyRecord(record.id, record.name, record.hash, record.created, revoked=1)

    assert verify_key(text, {revoked.id: revoked}) is None


@pytest.mark.promise("A1")
@pytest.mark.parametrize("text", ["hr_aaaqeayeauda:wrong", "hr_bbbbbbbbbbbb:wrong", ""])
def test_digests_are_compared_in_constant_time_even_for_an_unknown_id(monkeypatch, text):
    record, _ = make_key(RANDOM, name="laptop", now=0)
    compared = []

    def compare_digest(mine, kept):
        compared.append((len(mine), len(kept)))
        return real_compare_digest(mine, kept)

    monkeypatch.setattr(keys.hmac, "compare_digest", compare_digest)
    verify_key(text, {record.id: record})

    assert [(64, 64)] == compared


@pytest.mark.promise("A1")
def test_no_secret_is_compared_with_double_equals():
    package = Path(keys.__file__).parents[1]
    suspects = [
        f"{path.name}:{number}"
        for path in package.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ("==" in line or "!=" in line) and any(word in line for word in ("secret", ".hash", "key.text"))
    ]

    assert [] == suspects


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Key a:b", "a:b"),
        ("key a:b", "a:b"),
        ("BEARER a:b", "a:b"),
        ("Bearer   a:b  ", "a:b"),
        ("Basic YTpi", None),
        ("a:b", None),
        ("Key", None),
        ("Key ", None),
        ("", None),
        ("Keya:b", None),
    ],
)
def test_an_authorization_header_names_its_scheme(value, text):
    assert text == parse_authorization(value)


# --- the file -----------------------------------------------------------------------------------------------


def test_the_first_key_is_made_before_anything_was_started(tmp_path):
    file = KeyFile(tmp_path / "data" / "keys.json")
    record, text = file.create("laptop")

    assert record.id == file.verify(text)
    assert [record] == KeyFile(file.path).list()


@pytest.mark.promise("A2")
def test_file_and_folder_are_the_owners_alone_after_every_operation(tmp_path):
    old = os.umask(0)
    try:
        file = KeyFile(tmp_path / "data" / "keys.json")
        record, _ = file.create("laptop")
        modes = [_mode(path) for path in (file.path, file.path.parent, tmp_path / "data" / "keys.json.lock")]
        file.path.chmod(0o644)
        file.revoke(record.id)
    finally:
        os.umask(old)

    assert [0o600, 0o700, 0o600] == modes
    assert 0o600 == _mode(file.path)


@pytest.mark.promise("A2")
def test_no_key_text_is_at_rest_or_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    file = KeyFile(tmp_path / "keys.json")
    texts = [file.create(f"caller {n}")[1] for n in range(5)]
    file.revoke(texts[0].split(":")[0])
    for text in texts:
        file.verify(text)
        file.verify(text + "x")

    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir()) + caplog.text.encode()
    assert [] == [text for text in texts if text.split(":")[1].encode() in everything]


def test_nothing_is_left_beside_the_file_and_its_lock(tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    file.create("a")
    file.create("b")

    assert ["keys.json", "keys.json.lock"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_running_server_sees_a_new_key_and_a_revoked_one_within_two_seconds(tmp_path):
    clock = Clock()
    server = KeyFile(tmp_path / "keys.json", clock=clock)
    operator = KeyFile(tmp_path / "keys.json")
    record, text = operator.create("laptop")

    clock.now += RECHECK_S
    seen = server.verify(text)
    operator.revoke(record.id)
    clock.now += RECHECK_S

    assert record.id == seen
    assert server.verify(text) is None
    assert RECHECK_S < 2


def test_the_file_is_looked_at_once_a_second_and_not_for_every_request(tmp_path, monkeypatch):
    clock = Clock()
    file = KeyFile(tmp_path / "keys.json", clock=clock)
    _, text = file.create("laptop")
    looks = []
    monkeypatch.setattr(file, "_refresh", lambda: looks.append(clock.now))
    for _ in range(1000):
        file.verify(text)
        clock.now += 0.01

    assert 9 <= len(looks) <= 10


def test_deleting_the_file_closes_every_door(tmp_path):
    clock = Clock()
    file = KeyFile(tmp_path / "keys.json", clock=clock)
    _, text = file.create("laptop")

    file.path.unlink()
    clock.now += RECHECK_S

    assert file.verify(text) is None


def test_revoking_twice_keeps_the_first_time(tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    record, _ = file.create("laptop")
    first = file.revoke(record.id)

    assert first == file.revoke(record.id)
    assert first.revoked is not None


def test_revoking_a_key_that_is_not_there_says_where_to_look(tmp_path):
    with pytest.raises(KeyFault, match="no key 'hr_nobody'; `headrace keys list`"):
        KeyFile(tmp_path / "keys.json").revoke("hr_nobody")


GOOD = {"id": "hr_aaaaaaaaaaaa", "name": "n", "hash": "0" * 64, "created": 1, "revoked": None}

DAMAGED = {
    "empty": b"",
    "cut short": b'{"version": 1, "keys": [{"id"',
    "not UTF-8": b"\xff\xfe",
    "another document": b"[]",
    "a later version": b'{"version": 2, "keys": []}',
    "no keys": b'{"version": 1}',
    "keys of the wrong shape": b'{"version": 1, "keys": 5}',
    "a short hash": json.dumps({"version": 1, "keys": [GOOD | {"hash": "00"}]}).encode(),
    "a missing field": json.dumps({"version": 1, "keys": [{"id": "hr_aaaaaaaaaaaa"}]}).encode(),
    "an unknown field": json.dumps({"version": 1, "keys": [GOOD | {"admin": True}]}).encode(),
    "an id of no kind": json.dumps({"version": 1, "keys": [GOOD | {"id": "root"}]}).encode(),
    "an id that is a list": json.dumps({"version": 1, "keys": [GOOD | {"id": []}]}).encode(),
    "a time that is a text": json.dumps({"version": 1, "keys": [GOOD | {"revoked": "no"}]}).encode(),
    "the same id twice": json.dumps({"version": 1, "keys": [GOOD, GOOD]}).encode(),
    "nested without end": b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_told_with_the_remedy_and_never_written_over(tmp_path, content):
    path = tmp_path / "keys.json"
    good = KeyFile(path)
    path.write_bytes(content)

    with pytest.raises(KeyFault, match="keys.json: damaged, nothing was changed .*backup.*headrace keys create"):
        KeyFile(path)
    with pytest.raises(KeyFault, match="damaged"):
        good.create("laptop")
    assert content == path.read_bytes()


def test_a_file_damaged_under_a_running_server_leaves_the_keys_it_knew_in_force(tmp_path, caplog):
    clock = Clock()
    file = KeyFile(tmp_path / "keys.json", clock=clock)
    record, text = file.create("laptop")

    file.path.write_bytes(b"{")
    clock.now += RECHECK_S
    verdicts = [file.verify(text), file.verify("hr_bbbbbbbbbbbb:x")]

    assert [record.id, None] == verdicts
    assert "the keys read before stay in force" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_with_the_remedy(tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")

    with pytest.raises(KeyFault, match="--data-dir|run as the user"):
        KeyFile(tmp_path / "data" / "keys.json").create("laptop")


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    file = KeyFile(tmp_path / "keys.json")
    record, _ = file.create("laptop")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headrace.store.files.os.fsync", full_disk)
    with pytest.raises(KeyFault, match="No space left on device"):
        file.create("desktop")

    assert [record] == KeyFile(file.path).list()
    assert ["keys.json", "keys.json.lock"] == sorted(path.name for path in tmp_path.iterdir())


def test_processes_that_create_keys_at_once_lose_none(tmp_path):
    script = (
        "import sys; from pathlib import Path; from headrace.store.keyfile import KeyFile\n"
        "for n in range(10): print(KeyFile(Path(sys.argv[1])).create(f'{sys.argv[2]}-{n}')[1])"
    )
    path = tmp_path / "keys.json"
    children = [
        subprocess.Popen([sys.executable, "-c", script, str(path), str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    texts = [line for child in children for line in child.communicate(timeout=50)[0].splitlines()]

    file = KeyFile(path)
    assert 40 == len(texts) == len(file.list())
    assert None not in [file.verify(text) for text in texts]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
