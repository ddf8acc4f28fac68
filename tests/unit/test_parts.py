"""Parts of files that are still on their way: kept whole, read in the order that is asked for, gone when told."""

import asyncio
import hashlib
import threading

import pytest

from headrace.core.stored_file import FileId, NewFile, StoredPart
from headrace.files.folder import Incoming
from headrace.store.blobs import WRITE_BYTES, BlobStore
from headrace.store.file_port import FileTooLarge
from headrace.store.port import StoreUnavailable
from tests.unit.test_blob_store import LIMITS, NOW, lying_in, pieces, until, with_store

UPLOAD, OTHER = "a" * 32, "b" * 32


async def read(store, *numbers):
    return b"".join([piece async for piece in store.parts.read(UPLOAD, numbers)])


def test_parts_are_read_in_the_order_that_is_asked_for_and_the_last_of_a_number_counts(tmp_path):
    large = bytes(range(256)) * (WRITE_BYTES // 100)

    async def scene(store):
        first = await store.parts.put(UPLOAD, 2, pieces(b"two, ", b"old"))
        for number, content in [(10, b"ten"), (1, large), (2, b"two")]:
            await store.parts.put(UPLOAD, number, pieces(content))
        return first, await read(store, 1, 2, 10), await read(store, 2, 10, 2)

    first, ordered, other = with_store(tmp_path, scene)
    assert first == StoredPart(8, hashlib.sha256(b"two, old").hexdigest())
    assert (ordered, other) == (large + b"twoten", b"twotentwo")


def test_an_uploads_parts_go_and_no_others_and_dropping_nothing_is_no_fault(tmp_path):
    async def scene(store):
        await store.parts.put(UPLOAD, 1, pieces(b"x"))
        await store.parts.put(OTHER, 1, pieces(b"y"))
        await store.parts.drop(UPLOAD)
        await store.parts.drop(UPLOAD)
        with pytest.raises(StoreUnavailable):
            await read(store, 1)
        return lying_in(store)

    assert with_store(tmp_path, scene) == [f"parts/{OTHER}/1-2"]


def test_of_two_parts_with_one_number_that_come_at_once_the_one_whose_etag_is_told_last_counts(
    tmp_path, monkeypatch
):
    move, may_return = Incoming.move, threading.Event()

    def slowly(incoming, path):
        part = move(incoming, path)
        if part.size == len(b"first"):  # it is in its place, and its thread is held up
            assert may_return.wait(30)
        return part

    monkeypatch.setattr(Incoming, "move", slowly)

    async def scene(store):
        first = asyncio.create_task(store.parts.put(UPLOAD, 1, pieces(b"first")))
        await until(lambda: lying_in(store) and "parts" in lying_in(store)[-1])
        second = await store.parts.put(UPLOAD, 1, pieces(b"the second"))
        content = [await read(store, 1)]
        may_return.set()
        told = [second, await first]
        await until(lambda: len(lying_in(store)) == 1)
        return told, [*content, await read(store, 1)]

    told, contents = with_store(tmp_path, scene)
    assert contents == [b"the second", b"first"]
    assert [part.etag for part in told] == [hashlib.sha256(content).hexdigest() for content in contents]


def test_a_part_that_comes_again_while_the_file_is_made_is_none_of_that_file(tmp_path):
    async def scene(store):
        await store.parts.put(UPLOAD, 1, pieces(b"old"))
        reading = store.parts.read(UPLOAD, [1])
        await store.parts.put(UPLOAD, 1, pieces(b"new"))
        await until(lambda: len(lying_in(store)) == 1)
        with pytest.raises(StoreUnavailable):  # and not the new bytes, whose etag nobody has named
            await anext(reading)

    with_store(tmp_path, scene)


def test_a_part_that_does_not_come_whole_leaves_nothing(tmp_path):
    class Left(Exception):
        pass

    async def leaving():
        yield b"x" * 300_000
        raise Left

    async def scene(store):
        with pytest.raises(Left):
            await store.parts.put(UPLOAD, 1, leaving())
        with pytest.raises(FileTooLarge):
            await store.parts.put(UPLOAD, 1, pieces(b"x" * (LIMITS.file_bytes_max + 1)))
        await until(lambda: lying_in(store) == [])

    with_store(tmp_path, scene)


def test_a_store_that_is_opened_has_no_parts(tmp_path):
    async def scene(store):
        await store.parts.put(UPLOAD, 1, pieces(b"x"))

    with_store(tmp_path, scene)
    store = BlobStore(tmp_path / "files", LIMITS)

    assert lying_in(store) == []


def test_an_id_that_was_chosen_before_is_the_files_and_is_given_once(tmp_path):
    new = NewFile(content_type="text/plain", name="a.txt", id=FileId("c" * 32))

    async def scene(store):
        file = await store.put(pieces(b"first"), new, now=NOW)
        with pytest.raises(StoreUnavailable, match="this id already"):
            await store.put(pieces(b"second"), new, now=NOW)
        opened = await store.open(new.id, now=NOW)
        content = await opened.read(0, 5)
        opened.close()
        return file, content

    file, content = with_store(tmp_path, scene)
    assert (file.id, file.path, content) == (new.id, f"/files/{new.id}/a.txt", b"first")


def test_a_disk_that_fills_up_while_bytes_come_takes_no_more_of_them(tmp_path, monkeypatch):
    from headrace.files import folder

    looks = iter(range(100))

    def full_at_the_third_look(_):
        class Disk:
            f_bavail, f_frsize = (0 if next(looks) >= 2 else 1 << 40), 1

        return Disk

    async def scene(store):
        monkeypatch.setattr(folder.os, "statvfs", full_at_the_third_look)
        with pytest.raises(StoreUnavailable, match="bytes are free"):
            await store.parts.put(UPLOAD, 1, pieces(*[b"x" * WRITE_BYTES] * 3))
        await until(lambda: lying_in(store) == [])

    import dataclasses

    with_store(tmp_path, scene, dataclasses.replace(LIMITS, files_spare_bytes=1))
