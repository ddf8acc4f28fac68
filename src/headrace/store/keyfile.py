"""The keys of a node, in DATA_DIR/keys.json: one small file that the server and `headrace keys` share.

    {"version": 1, "keys": [{"id", "name", "hash", "created", "revoked"}, …]}

The file has mode 0600 and holds hashes only. It is replaced whole and atomically, so a reader sees the old
one or the new one; writers take turns by a lock file beside it. A server sees a change within
`RECHECK_S` seconds, without a restart.

A file that cannot be understood is never written over: whatever it still holds is the operator's to save.
This file does not know HTTP, nor how a key is made (`core.keys`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from headrace.core.keys import KEY_RANDOM_BYTES, KeyFault, KeyId, KeyRecord, make_key, verify_key
from headrace.store import files

#: Seconds between two looks at the file's stat. One stat costs about 2 µs, so it is done inline; once a
#: second keeps it out of a flood of requests and a revoked key out within two.
RECHECK_S: Final = 1.0

#: Bytes of a key file: some 50,000 keys. More is not a key file.
FILE_BYTES_MAX: Final = 10 * 1024 * 1024

#: Letters of a key's name, which lists and logs show.
NAME_LETTERS_MAX: Final = 100

_VERSION: Final = 1

#: What tells one state of the file from another: modified (ns), size, inode. None: there is no file.
_Stamp = tuple[int, int, int] | None

_log = logging.getLogger(__name__)


class KeyFile:
    """The keys in one file. Safe to share between processes; in one process, use it from one thread."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read `path`, which need not exist yet. Raises `KeyFault` when it is damaged or not ours to read."""
        self.path = path
        self._clock = clock
        self._stamp = _stamp_of(path)
        self._records = _read(path)
        self._checked_at = clock()

    def verify(self, text: str) -> KeyId | None:
        """Return whose key `text` is, or None: unknown, wrong or revoked."""
        self._recheck()
        return verify_key(text, self._records)

    def knows(self, id_: KeyId) -> bool:
        """Whether there is such a key, and it was not revoked."""
        self._recheck()
        record = self._records.get(id_)
        return record is not None and record.revoked is None

    def list(self) -> list[KeyRecord]:
        """Return every key ever made, oldest first, revoked ones included."""
        return list(_read(self.path).values())

    def create(self, name: str) -> tuple[KeyRecord, str]:
        """Make a key, keep its hash, and return its record and its text. The text is nowhere else.

        Works before the server's first start. Raises `KeyFault` when the file is damaged or cannot be
        written, or when `name` is not one short line.
        """
        if not name.isprintable() or len(name) > NAME_LETTERS_MAX:
            raise KeyFault(f"a key's name is one line of at most {NAME_LETTERS_MAX} letters")
        record, text = make_key(secrets.token_bytes(KEY_RANDOM_BYTES), name=name, now=int(time.time()))
        with self._changing() as records:
            records[record.id] = record
        return record, text

    def revoke(self, id: str) -> KeyRecord:
        """Revoke a key and return its record. One that was revoked before stays as it is.

        Raises `KeyFault` when there is no such key, or as `create` does.
        """
        with self._changing() as records:
            record = records.get(KeyId(id))
            if record is None:
                raise KeyFault(f"there is no key {id!r}; `headrace keys list` shows the ids")
            if record.revoked is None:
                record = dataclasses.replace(record, revoked=int(time.time()))
            records[record.id] = record
        return record

    def _recheck(self) -> None:
        now = self._clock()
        if now - self._checked_at >= RECHECK_S:
            self._checked_at = now
            self._refresh()

    def _refresh(self) -> None:
        stamp = _stamp_of(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._records = _read(self.path)
        except KeyFault:
            # Callers with good keys must not suffer for it, and nothing can have been revoked in a file
            # that `headrace keys` refuses to write.
            _log.exception("the keys read before stay in force")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[KeyId, KeyRecord]]:
        """Give the keys to change, alone among all processes, and write them when the block ends well."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with files.locked(self.path.with_name(f"{self.path.name}.lock")):
                records = _read(self.path)
                yield records
                files.replace(self.path, _encode(records))
        except files.FileBusy as busy:
            raise KeyFault(str(busy)) from None
        except OSError as error:
            raise KeyFault(
                f"{self.path}: cannot be written ({error.strerror}); check the folder's owner and free space, "
                "or choose another with --data-dir"
            ) from error
        self._records = records
        self._stamp = _stamp_of(self.path)


def _stamp_of(path: Path) -> _Stamp:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        # Unreadable for now is a change as well: `_read` says what is wrong.
        return (0, 0, 0)
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _read(path: Path) -> dict[KeyId, KeyRecord]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeyFault(f"{path}: cannot be read ({error.strerror}); run as the user that owns it") from error
    try:
        return _decode(content)
    except (ValueError, TypeError, RecursionError) as error:
        raise KeyFault(
            f"{path}: damaged, nothing was changed ({error}); restore it from a backup, or move it away and "
            "make new keys with `headrace keys create`"
        ) from error


def _decode(content: bytes) -> dict[KeyId, KeyRecord]:
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"over {FILE_BYTES_MAX} bytes")
    document: Any = json.loads(content)
    if not isinstance(document, dict) or document.get("version") != _VERSION or "keys" not in document:
        raise ValueError(f"not a key file of version {_VERSION}")
    records = [KeyRecord(**fields) for fields in document["keys"]]
    by_id = {record.id: record for record in records}
    if len(by_id) != len(records):
        raise ValueError("the same id twice")
    return by_id


def _encode(records: Mapping[KeyId, KeyRecord]) -> bytes:
    keys = [dataclasses.asdict(record) for record in records.values()]
    return json.dumps({"version": _VERSION, "keys": keys}, indent=1).encode("ascii") + b"\n"
