"""Settings read as values: each function takes what a flag, a variable or TOML gave, and returns what it means.

What cannot be read raises `ValueError`, whose message says what was wanted; `headrace.config` says where it stood.
This file does not know which setting is which.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
DURABILITIES: Final = ("full", "fast")

#: Limits that may be 0: "at once". For any other, 0 would mean a busy loop or a server that serves nothing.
_MAY_BE_ZERO: Final = frozenset({"drain_s", "cut_delay_s", "cancel_grace_s", "headers_hold_s"})

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def read_host(value: object) -> str:
    """Read an address, in its one spelling, or a host name."""
    if isinstance(value, str):
        try:
            return str(ipaddress.ip_address(value.removeprefix("[").removesuffix("]")))
        except ValueError:
            if _HOST_NAME.fullmatch(value):
                return value
    raise ValueError("an address or a host name, without scheme and port")


def read_port(value: object) -> int:
    """Read a port."""
    port = _whole_number(value)
    if port is None or not 0 <= port <= 65535:
        raise ValueError("a port from 1 to 65535, or 0 for any free one")
    return port


def read_folder(value: object) -> Path:
    """Read a folder's path. One in the home may begin with ~; the result is absolute."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("the path of a folder")
    return Path(value).expanduser().absolute()


def read_switch(value: object) -> bool:
    """Read yes or no."""
    if isinstance(value, bool):
        return value
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("1 or 0, true or false")
    return words[value.lower()]


def read_targets(value: object) -> tuple[str, ...]:
    """Read what to serve: a list, or words in one text."""
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list | tuple) or not all(isinstance(target, str) and target for target in value):
        raise ValueError("a list of FILE, FILE:Class or module:Class")
    return tuple(value)


def read_aliases(value: object) -> dict[str, str]:
    """Read `NEW=OLD` words (a flag's), comma-separated ones (a variable's) or a table (the file's)."""
    if isinstance(value, Mapping):
        pairs = [(str(new), old) for new, old in value.items()]
    elif isinstance(value, str | list | tuple):
        words = value.split(",") if isinstance(value, str) else value
        pairs = [(new.strip(), old.strip()) for new, _, old in (str(word).partition("=") for word in words)]
    else:
        pairs = [("", "")]
    if not all(isinstance(old, str) and new and old and "=" not in old for new, old in pairs):
        raise ValueError("NEW=OLD, such as fal-ai/flux=me/flux")
    aliases = dict(pairs)
    if len(aliases) != len(pairs):
        raise ValueError("every NEW name once")
    return aliases


def _words(value: object) -> list[str]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        raise ValueError("one or more words")
    return [word.strip() for text in given for word in text.split(",")]


def read_origins(value: object) -> tuple[str, ...]:
    """Read the origins of web pages."""
    origins = _words(value)
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}".lower():
            raise ValueError("origins as browsers send them, such as https://app.example.org")
    return tuple(origins)


def read_hosts(value: object) -> tuple[str, ...]:
    """Read host names, in lower case."""
    hosts = _words(value)
    if not all(_HOST_NAME.fullmatch(host) for host in hosts):
        raise ValueError("host names without a port, such as api.example.org")
    return tuple(host.lower() for host in hosts)


def read_tls_names(value: object) -> tuple[str, ...]:
    """Read host names and addresses."""
    try:
        return tuple(read_host(word) for word in _words(value))
    except ValueError:
        raise ValueError("host names or addresses without a port, such as gpu.example.org") from None


def read_url(value: object) -> str:
    """Read a base URL, without a slash at its end."""
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError("the address that clients use, such as https://api.example.org")
    return str(value).rstrip("/")


def read_networks(value: object) -> tuple[str, ...]:
    """Read addresses and networks."""
    try:
        return tuple(str(ipaddress.ip_network(word)) for word in _words(value))
    except ValueError:
        raise ValueError("addresses or networks, such as 127.0.0.1 or 10.0.0.0/8") from None


def read_names(value: object) -> tuple[str, ...]:
    """Read names of environment variables."""
    names = _words(value)
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
        raise ValueError("names of variables, such as HF_TOKEN")
    return tuple(names)


def read_ports(value: object) -> tuple[int, ...]:
    """Read ports, each from 1 to 65535."""
    given = value if isinstance(value, list | tuple) else [value]
    words = [word for one in given for word in (_words(one) if isinstance(one, str) else [one])]
    ports = tuple(read_port(word) for word in words)
    if not ports or 0 in ports:
        raise ValueError("ports from 1 to 65535")
    return ports


def read_devices(value: object) -> tuple[str, ...]:
    """Read names of GPUs, as `CUDA_VISIBLE_DEVICES` takes them; `none` is the empty list."""
    names = _words(value)
    if names == ["none"]:
        return ()
    if not names or not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_/-]*", name) for name in names):
        raise ValueError("indices or UUIDs of GPUs, such as 0 or GPU-8a5c…, or 'none'")
    if len(set(names)) < len(names):
        raise ValueError("each GPU once")
    return tuple(names)


def read_log_level(value: object) -> str:
    """Read a log level, in lower case."""
    if not isinstance(value, str) or value.lower() not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
    return value.lower()


def read_durability(value: object) -> str:
    """Read what an accepted request is worth, in lower case."""
    if not isinstance(value, str) or value.lower() not in DURABILITIES:
        raise ValueError(f"one of {', '.join(DURABILITIES)}")
    return value.lower()


def limit_reader(name: str, *, whole: bool) -> Callable[[object], float]:
    """Return what reads the limit `name`: seconds, or where it is `whole` a count."""
    least = "at least 0" if name in _MAY_BE_ZERO else "above 0"

    def read(value: object) -> float:
        number = _whole_number(value) if whole else _number(value)
        if number is None or not number < float("inf") or number < 0 or (number == 0 and least == "above 0"):
            raise ValueError(f"a {'whole number' if whole else 'number of seconds'} {least}")
        return number

    return read


def _whole_number(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    return value if type(value) is int else None


def _number(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?", value):
        return float(value)
    return float(value) if type(value) in {int, float} else None  # type: ignore[arg-type]
