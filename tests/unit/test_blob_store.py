"""The node's files: taken in as they come, without a trace of what did not end, and never on the loop."""

import asyncio
import dataclasses
import threading
import time

import pytest

from headrace.core.limits import Limits
from headrace.core.stored_file import NewFile
from headrace.files.folder import translated
from headrace.files.sweep import Swept
from headrace.store import blobs
from headrace.store.blobs import BlobStore
from headrace.store.file_port import FileTooLarge
from headrace.store.port import StoreBusy, StoreUnavailable

PNG = NewFile(content_type="image/png", name="cat.png")
NOW = 1_000_000.0
LIMITS = Limits(file_bytes_max=1_000_000, files_spare_bytes=0, files_keep_s=100)


async def pieces(*contents):
    for content in contents:
        await asyncio.sleep(0)
        yield content


def lying_in(store):
    return sorted(
        str(path.relative_to(store.folder.root)) for path in store.folder.root.rglob("*") if path.is_file()
    )


def with_store(tmp_path, scene, limits=LIMITS):
    async def play():
        store = BlobStore(tmp_path / "files", limits)
        try:
            return await scene(store)
        finally:
            await store.close()

    return asyncio.run(play())


async def until(is_true):
    async with asyncio.timeout(30):
        while not is_true():
            await asyncio.sleep(0.01)


def test_what_comes_in_pieces_is_kept_and_read_in_pieces(tmp_path):
    content = bytes(range(256)) * 3_000

    async def scene(store):
        file = await store.put(
            pieces(*(content[at : at + 7_000] for at in range(0, len(content), 7_000))), PNG, now=NOW
        )
        found = await store.find(file.id, now=NOW)
        opened = await store.open(file.id, now=NOW)
        parts = [await opened.read(at, 500_000) for at in (0, 500_000)]
        opened.close()
        return file, found, b"".join(parts), await store.remove(file.id), await store.open(file.id, now=NOW)

    file, found, read, was_there, gone = with_store(tmp_path, scene)

    assert file == found
    assert read == content
    assert was_there
    assert gone is None


@pytest.mark.parametrize("bytes_max", [None, 10])
def test_more_than_a_file_may_have_is_refused_while_it_comes(tmp_path, bytes_max):
    taken = []

    async def endless():
        while True:
            taken.append(1)
            yield b"x" * 100_000

    async def scene(store):
        with pytest.raises(FileTooLarge) as caught:
            await store.put(endless(), PNG, now=NOW, bytes_max=bytes_max)
        await until(lambda: not lying_in(store))
        return caught.value.bytes_max

    assert with_store(tmp_path, scene) == (bytes_max or 1_000_000)
    assert len(taken) < 20


def test_what_its_sender_breaks_off_leaves_nothing(tmp_path):
    async def broken():
        yield b"x" * 300_000
        raise ConnectionResetError("gone")

    async def scene(store):
        with pytest.raises(ConnectionResetError):
            await store.put(broken(), PNG, now=NOW)
        await until(lambda: not lying_in(store))

    with_store(tmp_path, scene)


def test_what_is_cancelled_leaves_nothing(tmp_path):
    async def stalled():
        yield b"x" * 300_000
        await asyncio.Event().wait()

    async def scene(store):
        putting = asyncio.create_task(store.put(stalled(), PNG, now=NOW))
        await until(lambda: lying_in(store))
        putting.cancel()
        await asyncio.wait([putting])
        await until(lambda: not lying_in(store))
        return putting.cancelled()

    assert with_store(tmp_path, scene)


def test_a_full_disk_is_told_as_a_store_that_cannot(tmp_path):
    async def scene(store):
        with pytest.raises(StoreUnavailable, match="bytes are free"):
            await store.put(pieces(b"x"), PNG, now=NOW)

    with_store(tmp_path, scene, Limits(files_spare_bytes=1 << 62))


def test_a_disk_that_does_not_answer_is_given_up_and_the_loop_goes_on(tmp_path, monkeypatch):
    is_in, hangs = threading.Event(), threading.Event()
    monkeypatch.setattr(blobs, "ANSWER_TIMEOUT_S", 0.05)
    monkeypatch.setattr(blobs.FileFolder, "find", lambda *_, **__: is_in.set() or hangs.wait(30))

    async def scene(store):
        while not is_in.is_set():  # one whose thread was late is taken back
            finding = asyncio.create_task(store.do(lambda: store.folder.find("", now=NOW), timeout_s=0.05))
            await until(lambda: is_in.is_set() or finding.done())
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await finding
        hangs.set()

    with_store(tmp_path, scene)


def test_no_more_wait_for_the_disk_than_may(tmp_path):
    async def scene(store):
        store._threads._places = threading.BoundedSemaphore(1)
        hangs = threading.Event()
        waiting = asyncio.create_task(store.do(lambda: hangs.wait(30)))
        await asyncio.sleep(0)
        with pytest.raises(StoreBusy):
            await store.find("0" * 32, now=NOW)
        hangs.set()
        await waiting
        return await store.find("0" * 32, now=NOW)

    assert with_store(tmp_path, scene) is None


def test_a_file_that_became_shorter_while_it_was_read_is_told(tmp_path):
    async def scene(store):
        file = await store.put(pieces(b"0123456789"), PNG, now=NOW)
        opened = await store.open(file.id, now=NOW)
        with store.folder.path_of(file.id).open("r+b") as data:
            data.truncate(3)
        with pytest.raises(StoreUnavailable, match="shorter"):
            await opened.read(0, 10)
        opened.close()

    with_store(tmp_path, scene)


def test_a_store_that_is_closed_says_so(tmp_path):
    async def scene(store):
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.find("0" * 32, now=NOW)

    with_store(tmp_path, scene)


def test_what_went_before_its_time_is_told_once_also_when_the_next_sweep_fails(tmp_path, caplog, monkeypatch):
    sweeps = iter([Swept(crowded_out=3)])

    def sweep(*_, **__):
        with translated():
            if (swept := next(sweeps, None)) is None:
                raise OSError(5, "Input/output error")
        return swept

    monkeypatch.setattr(blobs, "sweep", sweep)

    async def scene(store):
        sweeping = asyncio.create_task(store.run())
        await until(lambda: caplog.text.count("not swept away") > 2)
        sweeping.cancel()
        await asyncio.wait([sweeping])

    with_store(tmp_path, scene, dataclasses.replace(LIMITS, files_sweep_every_s=0.001))

    assert caplog.text.count("3 files went before their time") == 1


def test_it_sweeps_by_itself(tmp_path):
    async def scene(store):
        file = await store.put(pieces(b"x"), PNG, now=time.time() - 200)
        kept = await store.put(pieces(b"y"), PNG, now=time.time())
        sweeping = asyncio.create_task(store.run())
        await until(lambda: store.swept.expired)
        sweeping.cancel()
        await asyncio.wait([sweeping])
        return await store.find(file.id, now=0.0), await store.find(kept.id, now=time.time()), store.swept.files

    gone, kept, count = with_store(tmp_path, scene)

    assert gone is None
    assert kept is not None
    assert count == 1
