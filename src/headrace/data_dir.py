"""What lies in a node's data directory, opened: keys, certificates, the queue's store, files.

Half of the composition root (`headrace.node`): it knows what stands behind each port, and nothing that runs.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.client.credentials import find_key, save_key, saved_keys
from headrace.client.errors import BadCredentials
from headrace.config import Config
from headrace.core.keys import KeyId
from headrace.files.folder import FilesUnavailable
from headrace.store.blobs import BlobStore
from headrace.store.files import FileBusy
from headrace.store.keyfile import KeyFile
from headrace.store.port import StoreFault
from headrace.store.sqlite import Durability, SqliteStore, StoreSettings

if TYPE_CHECKING:
    import ssl

    from headrace.store.certificates import Names
    from headrace.store.tls import TlsFolder

_log = logging.getLogger(__name__)


class StartFault(Exception):
    """Why a node cannot start, in one line for the operator."""


def keys(config: Config) -> KeyFile:
    """Return the keys of the node whose data lies in `config.data_dir`. Raises `KeyFault` when damaged."""
    return KeyFile(Path(config.data_dir) / "keys.json")


def tls(config: Config) -> TlsFolder:
    """Return the local CA and the certificate of the node whose data lies in `config.data_dir`."""
    from headrace.store.tls import TlsFolder  # the cryptography behind it takes a while to import

    return TlsFolder(Path(config.data_dir) / "tls")


def open_store(config: Config) -> SqliteStore:
    """Open the queue's store."""
    limits = config.limits
    settings = StoreSettings(
        durability=Durability(config.durability),
        result_age_s=limits.result_age_s,
        large_result_age_s=limits.large_result_age_s,
        large_result_bytes=limits.large_result_bytes,
        bytes_max=limits.store_bytes_max,
        events_bytes_max=limits.stored_events_bytes_max,
        logs_bytes_max=limits.stored_logs_bytes_max,
        dead_letter_age_s=limits.dead_letter_age_s,
    )
    try:
        return SqliteStore(Path(config.data_dir), settings)
    except StoreFault as fault:
        raise StartFault(str(fault)) from None


def open_files(config: Config) -> BlobStore:
    """Open the folder of files."""
    try:
        return BlobStore(config.files_folder, config.limits)
    except FilesUnavailable as fault:
        raise StartFault(
            f"{config.files_folder}: cannot be made ready ({fault}); choose another with --data-dir"
        ) from None


def tls_names(config: Config) -> Names:
    """Return the names that the certificate is for."""
    from headrace.store.certificates import names_of

    return names_of(config.host, config.tls_names, impersonate=config.impersonate)


def tls_context(config: Config) -> ssl.SSLContext:
    """Return what the https listener needs, once the certificates are as they should be."""
    folder = tls(config)
    try:
        told = folder.prepare(tls_names(config), dt.datetime.now(dt.UTC))
        if told is not None:
            print(told)  # noqa: T201
            print('Clients learn of it by: eval "$(headrace env)"')  # noqa: T201
        return folder.context()
    except (OSError, FileBusy) as error:
        raise StartFault(f"no certificate for --tls: {error}") from None


def key_for_the_user(config: Config) -> str:
    """Return a key of this node that the user has in the credentials file; make and keep one if there is none.

    Raises `KeyFault` or `BadCredentials` for a damaged file, `OSError` for one that cannot be written.
    """
    key_file = keys(config)
    text = _kept_key(config, key_file)
    if text is None:
        _, text = key_file.create("demo")
        save_key(config.url, text)
    return text


def keys_for_the_user(config: Config) -> tuple[KeyFile, KeyId | None]:
    """Return the node's keys, and which of them the user has, if any.

    The first start makes one and keeps it for the user; no later one makes a second.
    """
    key_file = keys(config)
    text: str | None = None
    try:
        if not key_file.list():
            _, text = key_file.create("default")
            # Its text is for a person's eyes: what is not a terminal may be a log.
            shown = f": {text}" if sys.stdout.isatty() else ""
            print(f"Made the first key{shown}")  # noqa: T201
            print(f"It is kept in {save_key(config.url, text)}, where our clients find it.")  # noqa: T201
        else:
            text = _kept_key(config, key_file)
    except (BadCredentials, OSError) as error:
        _log.warning("the key could not be kept for your clients: %s", error)
    return key_file, None if text is None else key_file.verify(text)


def _kept_key(config: Config, key_file: KeyFile) -> str | None:
    """Return a key of this node that the user keeps, if any, and see that it is found under this URL too."""
    kept = find_key(config.url)
    if kept is not None and key_file.verify(kept):
        return kept
    for text in filter(key_file.verify, sorted(saved_keys())):
        save_key(config.url, text)
        return text
    return None
