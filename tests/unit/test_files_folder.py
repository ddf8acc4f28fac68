"""The folder of files: the same bytes are one blob, nothing leads out of it, and what is old or too much goes."""

import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading

import pytest

from headrace.core.stored_file import FileId, NewFile
from headrace.files import folder as folder_
from headrace.files.folder import FileBounds, FileFolder, FilesUnavailable, FileTooLarge
from headrace.files.sweep import ORPHAN_S, sweep

A7 = pytest.mark.promise("A7")
NOW = 1_000_000.0
BOUNDS = FileBounds(file_bytes_max=1_000, keep_s=100.0, spare_bytes=0)
PNG = NewFile(content_type="image/png", name="cat.png")


@pytest.fixture
def folder(tmp_path):
    return FileFolder(tmp_path / "files", BOUNDS)


def content_of(folder, id_, now=NOW):
    """What a reader gets; None when there is no such file."""
    opened = folder.open(id_, now=now)
    if opened is None:
        return None
    try:
        return opened.read(0, 10_000)
    finally:
        opened.close()


def lying_in(folder):
    """Every file in the folder, by its path below it."""
    return sorted(str(path.relative_to(folder.root)) for path in folder.root.rglob("*") if not path.is_dir())


def blobs_of(folder):
    return [path for path in lying_in(folder) if path.startswith("blobs/")]


def swept(folder, now=NOW, *, bytes_max=10**6, files_max=1_000):
    return sweep(folder, now=now, bytes_max=bytes_max, files_max=files_max, rest=lambda _: None)


# --- keeping and finding --------------------------------------------------------------------------------------


def test_what_is_kept_is_found_by_its_id(folder):
    file = folder.put(b"meow", PNG, now=NOW)

    assert (file.content_type, file.name, file.size, file.created_at, file.expires_at) == (
        "image/png", "cat.png", 4, NOW, NOW + 100,
    )  # fmt: skip
    assert file.digest == hashlib.sha256(b"meow").hexdigest()
    assert folder.find(file.id, now=NOW) == file
    assert content_of(folder, file.id) == b"meow"


def test_the_same_bytes_twice_are_two_files_and_one_blob(folder):
    first = folder.put(b"meow", PNG, now=NOW)
    second = folder.put(b"meow", NewFile(content_type="text/plain"), now=NOW)

    assert first.id != second.id
    assert first.digest == second.digest
    assert blobs_of(folder) == [f"blobs/{first.digest[:2]}/{first.digest}"]
    assert os.stat(folder.path_of(first.id)).st_ino == os.stat(folder.path_of(second.id)).st_ino
    assert folder.find(second.id, now=NOW).content_type == "text/plain"


def test_an_empty_file_is_a_file(folder):
    assert content_of(folder, folder.put(b"", PNG, now=NOW).id) == b""


def test_a_file_in_pieces_is_what_they_make_together(folder):
    with folder.incoming(PNG, 1_000) as incoming:
        for piece in (b"me", b"", b"ow"):
            incoming.write(piece)
        file = incoming.keep(now=NOW, durably=True)

    assert content_of(folder, file.id) == b"meow"
    assert file.id == folder.find(file.id, now=NOW).id


@pytest.mark.parametrize("durably", [True, False])
def test_what_is_kept_again_under_the_id_that_it_was_promised_is_the_file_that_is_there(folder, durably):
    promised = dataclasses.replace(PNG, id=FileId("f" * 32))

    def keep(content, now):
        with folder.incoming(promised, 100) as incoming:
            incoming.write(content)
            return incoming.keep(now=now, durably=durably)

    first = keep(b"meow", NOW)

    assert keep(b"meow", NOW + 10) == first
    with pytest.raises(FilesUnavailable, match="another file with this id"):
        keep(b"woof", NOW + 20)
    assert content_of(folder, first.id) == b"meow"
    assert list((folder.root / "new").iterdir()) == []


def test_what_is_not_kept_leaves_nothing(folder):
    with folder.incoming(PNG, 1_000) as incoming:
        incoming.write(b"meow")

    assert lying_in(folder) == []


@pytest.mark.parametrize("bytes_max", [10, 2_000])
def test_a_file_over_its_bound_is_refused_and_leaves_nothing(folder, bytes_max):
    with pytest.raises(FileTooLarge) as caught, folder.incoming(PNG, bytes_max) as incoming:
        for _ in range(11):
            incoming.write(b"x" * 100)

    assert caught.value.bytes_max == min(bytes_max, 1_000)
    assert lying_in(folder) == []


def test_a_lifetime_may_be_shorter_than_the_nodes_and_not_longer(folder):
    short = folder.put(b"a", NewFile(content_type="text/plain", lifetime_s=10), now=NOW)
    long = folder.put(b"b", NewFile(content_type="text/plain", lifetime_s=10_000), now=NOW)

    assert (short.expires_at, long.expires_at) == (NOW + 10, NOW + 100)
    assert folder.find(short.id, now=NOW + 9.9) == short
    assert folder.find(short.id, now=NOW + 10) is None
    assert content_of(folder, short.id, now=NOW + 10) is None


def test_what_is_removed_is_gone_and_others_with_its_bytes_are_not(folder):
    first, second = (folder.put(b"meow", PNG, now=NOW) for _ in range(2))

    assert folder.remove(first.id)
    assert not folder.remove(first.id)
    assert content_of(folder, first.id) is None
    assert content_of(folder, second.id) == b"meow"


def test_what_is_open_stays_readable_when_it_is_removed(folder):
    file = folder.put(b"meow", PNG, now=NOW)
    opened = folder.open(file.id, now=NOW)
    folder.remove(file.id)
    swept(folder)

    assert opened.read(0, 10) == b"meow"
    opened.close()
    opened.close()


def test_ids_have_128_random_bits(folder):
    ids = {folder.put(b"x", PNG, now=NOW).id for _ in range(64)}

    assert len(ids) == 64
    assert {len(id_) for id_ in ids} == {32}
    differing = [bin(int(a, 16) ^ int(b, 16)).count("1") for a, b in zip(ids, list(ids)[1:], strict=False)]
    assert 40 < sum(differing) / len(differing) < 88


def test_a_folder_that_somebody_cleared_away_is_made_again(folder):
    folder.put(b"a", PNG, now=NOW)
    for path in sorted(folder.root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    assert content_of(folder, folder.put(b"b", PNG, now=NOW).id) == b"b"


def test_many_threads_keep_the_same_bytes_at_once(folder):
    kept = []

    def put():
        kept.extend(folder.put(bytes([n % 5]), PNG, now=NOW).id for n in range(50))

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        swept(folder)
        thread.join()

    assert [len(content_of(folder, id_)) for id_ in kept] == [1] * 200
    swept(folder)
    assert len(blobs_of(folder)) == 5


def test_without_hard_links_every_id_has_bytes_of_its_own(folder, monkeypatch):
    def no_link(*_args, **_options):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_link)
    ids = [folder.put(b"meow", PNG, now=NOW).id for _ in range(2)]

    assert [content_of(folder, id_) for id_ in ids] == [b"meow", b"meow"]
    assert blobs_of(folder) == []
    assert swept(folder).bytes == 8


def test_a_blob_with_as_many_links_as_it_may_have_gets_a_successor(folder, monkeypatch):
    first = folder.put(b"meow", PNG, now=NOW)
    link, refused = os.link, []

    def full(source, target):
        if "blobs" in str(source) and not refused:
            refused.append(source)
            raise OSError(errno.EMLINK, "too many links")
        link(source, target)

    monkeypatch.setattr(os, "link", full)
    second = folder.put(b"meow", PNG, now=NOW)
    third = folder.put(b"meow", PNG, now=NOW)

    assert refused
    inodes = [os.stat(folder.path_of(file.id)).st_ino for file in (first, second, third)]
    assert inodes[0] != inodes[1] == inodes[2]
    assert [content_of(folder, file.id) for file in (first, second, third)] == [b"meow"] * 3


def test_a_blob_that_a_power_loss_cut_is_not_handed_out_and_is_replaced(folder):
    file = folder.put(b"meow", PNG, now=NOW)
    os.truncate(folder.blob_of(file.digest), 2)

    assert content_of(folder, file.id) is None
    assert content_of(folder, folder.put(b"meow", PNG, now=NOW).id) == b"meow"


WRITER = """
import pathlib, sys, time
from headrace.core.stored_file import NewFile
from headrace.files.folder import FileBounds, FileFolder
folder = FileFolder(pathlib.Path(sys.argv[1]), FileBounds(1 << 20, 1e9, 0))
print("begun", flush=True)
for n in range(10**9):
    print(folder.put(b"%d" % (n % 50) * 1_000, NewFile(content_type="text/plain"), now=time.time()).id, flush=True)
"""


def test_a_writer_that_is_killed_leaves_every_file_whole_or_none(folder):
    for kept in (1, 20, 60):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder.root)], stdout=subprocess.PIPE, text=True
        )
        told = [writer.stdout.readline().strip() for _ in range(1 + kept)]
        writer.kill()
        told += writer.stdout.read().split("\n")[:-1]  # a last line without its end was cut
        writer.stdout.close()
        writer.wait(30)

        for id_ in told[1:]:
            opened = folder.open(id_, now=NOW)
            assert hashlib.sha256(opened.read(0, 1 << 20)).hexdigest() == opened.file.digest
            opened.close()
    found = [path.stem for path in folder.root.glob("ids/*/*.json")]
    assert len(found) >= 81
    assert all(folder.open(id_, now=NOW) is not None for id_ in found)


# --- a disk that says no --------------------------------------------------------------------------------------


def test_files_leave_room_on_their_disk(tmp_path):
    folder = FileFolder(tmp_path, FileBounds(1_000, 100.0, spare_bytes=1 << 62))

    with pytest.raises(FilesUnavailable, match="bytes are free"):
        folder.put(b"meow", PNG, now=NOW)
    assert lying_in(folder) == []


@pytest.mark.parametrize("step", ["write", "link", "rename", "fsync"])
def test_a_disk_that_fails_at_any_step_is_one_typed_fault_and_leaves_nothing(folder, monkeypatch, step):
    def fail(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_.os if step != "rename" else folder_.Path, step, fail)
    with (
        pytest.raises(FilesUnavailable, match="^No space left on device$"),
        folder.incoming(PNG, 1_000) as incoming,
    ):
        incoming.write(b"meow")
        incoming.keep(now=NOW, durably=True)

    assert lying_in(folder) == []


def test_a_folder_that_cannot_be_written_is_one_typed_fault(tmp_path):
    (tmp_path / "files").write_bytes(b"a file stands in its place")

    with pytest.raises(FilesUnavailable):
        FileFolder(tmp_path / "files", BOUNDS).put(b"meow", PNG, now=NOW)


# --- a stranger in the folder ---------------------------------------------------------------------------------


@A7
@pytest.mark.parametrize(
    "id_",
    [
        "..", ".", "", "/", "../keys.json", "/etc/passwd", "ab/../../x", "x" * 5_000, "\0", "..%2f", "0" * 31,
        "0" * 33, "0" * 32 + "/", "0" * 32 + ".json", "G" * 32, "0" * 30 + "..", "/" * 32, "." * 32, "\\" * 32,
        "ＡＢ" * 16, "٠" * 32, "0" * 32 + "\n",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_id_opens_nothing(folder, id_):
    folder.put(b"x", PNG, now=NOW)
    before = lying_in(folder)

    assert folder.find(id_, now=NOW) is None
    assert folder.open(id_, now=NOW) is None
    assert not folder.remove(id_)
    assert lying_in(folder) == before


def planted(folder, secret):
    """An id whose card is right, and whose bytes are somewhere else."""
    file = folder.put(secret.read_bytes(), PNG, now=NOW)
    return file, folder.path_of(file.id)


@A7
@pytest.mark.parametrize("what", ["bytes", "card", "shard", "ids", "fifo", "folder", "dangling"])
def test_a_link_in_the_folder_leads_nowhere(folder, tmp_path, what):
    secret = tmp_path / "secret"
    secret.write_bytes(b"the keys")
    file, data = planted(folder, secret)
    elsewhere = tmp_path / "elsewhere"
    match what:
        case "bytes":
            data.unlink()
            data.symlink_to(secret)
        case "card":
            card = data.with_suffix(".json")
            card.rename(elsewhere)
            card.symlink_to(elsewhere)
        case "shard":
            data.parent.rename(elsewhere)
            data.parent.symlink_to(elsewhere)
        case "ids":
            data.parent.parent.rename(elsewhere)
            data.parent.parent.symlink_to(elsewhere)
        case "fifo":
            data.unlink()
            os.mkfifo(data)
        case "folder":
            data.unlink()
            data.mkdir()
        case "dangling":
            data.unlink()
            data.symlink_to(tmp_path / "nothing")

    assert folder.open(file.id, now=NOW) is None


@A7
def test_a_sweep_follows_no_link_out_of_the_folder(folder, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / ("0" * 32)).write_bytes(b"precious")
    (victim / ("0" * 32 + ".json")).write_bytes(b"precious")
    folder.put(b"x", PNG, now=NOW)
    (folder.root / "ids" / "00").symlink_to(victim)
    (folder.root / "blobs" / "ff").symlink_to(victim)
    (folder.root / "new" / "link").symlink_to(victim / ("0" * 32))

    swept(folder, NOW + 10 * ORPHAN_S)

    assert sorted(path.name for path in victim.iterdir()) == ["0" * 32, "0" * 32 + ".json"]


@A7
@pytest.mark.parametrize("card", [b"", b"{}", b"not json", b"x" * 10_000, b"\xff\xfe"])
def test_a_card_that_cannot_be_read_is_no_file_and_is_swept(folder, card):
    file = folder.put(b"x", PNG, now=NOW)
    folder.path_of(file.id).with_suffix(".json").write_bytes(card)

    assert folder.find(file.id, now=NOW) is None
    assert swept(folder).files == 0
    assert lying_in(folder) == []


def test_a_card_that_tells_another_size_hands_nothing_out(folder):
    file = folder.put(b"x", PNG, now=NOW)
    path = folder.path_of(file.id).with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": 2}))

    assert folder.open(file.id, now=NOW) is None


# --- sweeping -------------------------------------------------------------------------------------------------


def test_what_has_expired_goes_and_takes_its_bytes_along(folder):
    folder.put(b"old", NewFile(content_type="text/plain", lifetime_s=10), now=NOW)
    young = folder.put(b"young", PNG, now=NOW)

    told = swept(folder, NOW + 10)

    assert (told.files, told.bytes, told.expired, told.crowded_out) == (1, 5, 1, 0)
    assert len(lying_in(folder)) == 3
    assert content_of(folder, young.id, NOW + 10) == b"young"


def test_bytes_that_a_younger_file_shares_stay(folder):
    folder.put(b"same", NewFile(content_type="text/plain", lifetime_s=10), now=NOW)
    young = folder.put(b"same", PNG, now=NOW)

    swept(folder, NOW + 10)

    assert content_of(folder, young.id, NOW + 10) == b"same"


@pytest.mark.parametrize(
    ("bounds", "left"), [({"files_max": 2}, 2), ({"bytes_max": 35}, 3), ({"bytes_max": 0}, 0)]
)
def test_the_oldest_go_when_there_are_too_many(folder, bounds, left):
    files = [folder.put(b"%010d" % n, PNG, now=NOW + n) for n in range(5)]

    told = swept(folder, NOW + 5, **bounds)

    assert (told.files, told.crowded_out) == (left, 5 - left)
    assert [file.id for file in files if content_of(folder, file.id, NOW + 5)] == [
        file.id for file in files[5 - left :]
    ]


def test_shared_bytes_count_once(folder):
    for _ in range(4):
        folder.put(b"x" * 100, PNG, now=NOW)

    assert swept(folder, bytes_max=100).crowded_out == 0


def test_what_was_left_half_written_goes_after_an_hour(folder):
    file = folder.put(b"x", PNG, now=NOW)
    folder.path_of(file.id).with_suffix(".json").unlink()
    (folder.root / "new" / "abandoned").write_bytes(b"half")
    written_at = os.stat(folder.path_of(file.id)).st_ctime

    swept(folder, written_at + ORPHAN_S / 2)
    assert len(lying_in(folder)) == 3

    swept(folder, written_at + ORPHAN_S + 60)
    assert lying_in(folder) == []


def test_a_sweep_can_be_told_to_stop(folder):
    files = [folder.put(b"%d" % n, PNG, now=NOW) for n in range(400)]

    sweep(folder, now=NOW + 200, bytes_max=10, files_max=10, rest=lambda _: True)

    assert 0 < sum((folder.root / "ids" / file.id[:2] / file.id).exists() for file in files) < 400


def test_a_sweep_of_nothing_does_nothing(folder):
    assert swept(folder).files == 0


def test_a_file_says_who_it_is_by_its_name_not_by_its_card(folder):
    first, second = (folder.put(text, PNG, now=NOW) for text in (b"a", b"b"))
    card = folder.path_of(first.id).with_suffix(".json")
    card.write_bytes(folder.path_of(second.id).with_suffix(".json").read_bytes())

    assert folder.find(first.id, now=NOW).id == FileId(first.id)
