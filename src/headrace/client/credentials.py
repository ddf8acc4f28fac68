"""Which server, and which key: what the caller, the environment and the credentials file say.

    server   the `url` argument, HEADRACE_URL, FAL_RUN_HOST (https, no scheme), http://127.0.0.1:8080
    queue    FAL_QUEUE_RUN_HOST (https, no scheme) where FAL_RUN_HOST would count, else /queue of the server
    key      the `key` argument, HEADRACE_KEY, FAL_KEY, FAL_KEY_ID and FAL_KEY_SECRET, the credentials file

The file is JSON, `{"<server url>": "<key>"}`, for its owner's eyes alone: `$XDG_CONFIG_HOME/headrace/credentials`,
by default `~/.config/headrace/credentials`. `headrace keys` writes it, and every client of that server reads it.
Nothing here connects to anything.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from headrace.client.errors import BadCredentials

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: One machine, three names: a key that was made for one of them works for all.
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and where it was found: "the argument `key`", "HEADRACE_KEY", a file. It stays out of `repr`."""

    text: str = field(repr=False)
    source: str


def server_url(url: str | None = None) -> str:
    """Return the server's base URL without a slash at its end. Raises `ValueError`, naming where it came from."""
    source = "url"
    if url is None:
        source, url = "HEADRACE_URL", os.environ.get("HEADRACE_URL") or None
    if url is None and (host := os.environ.get("FAL_RUN_HOST")):
        source, url = "FAL_RUN_HOST", f"https://{host}"
    return _checked_url(DEFAULT_URL if url is None else url, source)


def own_queue_url(url: str | None = None) -> str | None:
    """Return the queue's address where it has one of its own, else None: it is the server's, with /queue.

    FAL_QUEUE_RUN_HOST counts where FAL_RUN_HOST would. Whoever names a server, by `url` or HEADRACE_URL, means
    that server's queue, and the key is for no other. Raises `ValueError`.
    """
    host = os.environ.get("FAL_QUEUE_RUN_HOST")
    if not host or url is not None or os.environ.get("HEADRACE_URL"):
        return None
    return _checked_url(f"https://{host}", "FAL_QUEUE_RUN_HOST")


def origin_of(url: str) -> str:
    """Return one spelling for all ways to write one origin: lower case, no default port, one loopback name.

    Raises `ValueError` for a port that is none.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = "127.0.0.1" if host in _LOOPBACK else host
    host = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != _DEFAULT_PORTS.get(parts.scheme):
        host = f"{host}:{parts.port}"
    return f"{parts.scheme}://{host}"


def resolve_key(url: str, key: str | None = None) -> Key | None:
    """Return the key for a server, or None: then none is sent.

    Raises `ValueError` for a key that cannot stand in a header, `BadCredentials` for a file that cannot be read.
    """
    if key is not None:
        return _checked_key(key, "the argument `key`")
    for name in ("HEADRACE_KEY", "FAL_KEY"):
        if text := os.environ.get(name):
            return _checked_key(text, name)
    key_id, secret = os.environ.get("FAL_KEY_ID"), os.environ.get("FAL_KEY_SECRET")
    if key_id and secret:
        return _checked_key(f"{key_id}:{secret}", "FAL_KEY_ID and FAL_KEY_SECRET")
    if text := find_key(url):
        return _checked_key(text, str(credentials_path()))
    return None


def key_sources() -> str:
    """Return the places that `resolve_key` looks in, in words."""
    return f"the argument `key`, HEADRACE_KEY, FAL_KEY, FAL_KEY_ID with FAL_KEY_SECRET, and {credentials_path()}"


def credentials_path() -> Path:
    """Return where the credentials file is, or would be (XDG Base Directory Specification)."""
    config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    base = config if config.is_absolute() else Path.home() / ".config"
    return base / "headrace" / "credentials"


def find_key(url: str) -> str | None:
    """Return the key that the credentials file has for this server, or None. Raises `BadCredentials`."""
    return _read(credentials_path()).get(_normal(url))


def saved_keys() -> frozenset[str]:
    """Return every key in the credentials file, for whatever server. Raises `BadCredentials`."""
    return frozenset(_read(credentials_path()).values())


def save_key(url: str, key: str) -> Path:
    """Keep a key for this server, and return the file.

    The file appears whole or not at all, readable by its owner alone (0600, its folder 0700), whatever its
    permissions were before. Raises `ValueError` for a bad URL or key, `BadCredentials` if the present file is
    damaged (it is left as it is), `OSError` if it cannot be written.
    """
    _checked_key(key, "the key to save")
    path = credentials_path()
    keys = _read(path) | {_normal(_checked_url(url, "url")): key}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".credentials-")  # made with 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(keys, file, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadCredentials(f"{path} cannot be read: {error.strerror}") from error
    try:
        keys = json.loads(text)
    except ValueError as error:
        raise BadCredentials(f"{path} is damaged: not JSON ({error}); repair it or remove it") from None
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise BadCredentials(f'{path} is damaged: expected {{"<server url>": "<key>"}}; repair it or remove it')
    return keys


def _checked_url(url: str, source: str) -> str:
    wanted = f"expected http://HOST[:PORT] or https://HOST[:PORT], such as {DEFAULT_URL}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port  # `port` raises for what is none
        (host or "").encode("idna")  # and so does this for labels that DNS cannot have
    except ValueError as error:
        raise ValueError(f"{source}={url!r} is not a server's address ({error}); {wanted}") from None
    if parts.scheme not in _DEFAULT_PORTS or not host or port == 0:
        raise ValueError(f"{source}={url!r} is not a server's address; {wanted}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{source}={url!r} has more than an address; {wanted}, and the key on its own")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{source}={url!r} has characters that a URL cannot have; {wanted}")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _checked_key(key: str, source: str) -> Key:
    """A header's value: visible ASCII. The key itself is never shown."""
    text = key.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"the key from {source} is not a key: expected <key_id>:<secret>, visible ASCII, no spaces"
        )
    return Key(text, source)


def _normal(url: str) -> str:
    """Return one spelling for all ways to write one server: its origin and path, no slash at its end."""
    return origin_of(url) + urlsplit(url).path.rstrip("/")
