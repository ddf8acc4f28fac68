"""What a node is told: flags, over the environment, over `headrace.toml` in the current folder, over defaults.

`SETTINGS` is the one table of all there is to set; `--help` and docs/reference/settings.md say what it says.
`load` reads the sources once and returns a frozen `Config`; nobody else looks at them.

This file does not know what the settings do. The client's own (`HEADRACE_URL`, `HEADRACE_KEY`) are
`headrace.client`'s.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from headrace.core.limits import Limits

#: Read from the current folder when it is there.
FILE_NAME: Final = "headrace.toml"

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

#: Limits that may be 0: "at once". For any other, 0 would mean a busy loop or a server that serves nothing.
_MAY_BE_ZERO: Final = frozenset({"drain_s", "cut_delay_s", "cancel_grace_s", "headers_hold_s"})

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class ConfigFault(Exception):
    """A setting that cannot be used, in one line: where it came from, and what was expected."""


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$XDG_DATA_HOME/headrace`, or `~/.local/share/headrace`.

    A relative value does not count (XDG base directory specification, section 2).
    """
    home = Path(environ.get("XDG_DATA_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "share") / "headrace"


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one node. `SETTINGS` says what each means."""

    targets: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    data_dir: Path = field(default_factory=default_data_dir)
    no_auth: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "info"
    origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    runner_env: tuple[str, ...] = ()
    clean_env: bool = False
    reload: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return _is_loopback(self.host)

    @property
    def url(self) -> str:
        """Where a client on this machine finds the server: `http://host:port`, without a final slash."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - told, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


# --- reading values: each takes what a flag, a variable or TOML gave, and returns it or says what it wants ---


def _read_host(value: object) -> str:
    if isinstance(value, str):
        try:
            return str(ipaddress.ip_address(value.removeprefix("[").removesuffix("]")))
        except ValueError:
            if _HOST_NAME.fullmatch(value):
                return value
    raise ValueError("an address or a host name, without scheme and port")


def _read_port(value: object) -> int:
    port = _whole_number(value)
    if port is None or not 0 <= port <= 65535:
        raise ValueError("a port from 1 to 65535, or 0 for any free one")
    return port


def _read_folder(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("the path of a folder")
    return Path(value).expanduser().absolute()


def _read_switch(value: object) -> bool:
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


def _read_targets(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list | tuple) or not all(isinstance(target, str) and target for target in value):
        raise ValueError("a list of FILE, FILE:Class or module:Class")
    return tuple(value)


def _read_aliases(value: object) -> dict[str, str]:
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


def _read_origins(value: object) -> tuple[str, ...]:
    origins = _words(value)
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}".lower():
            raise ValueError("origins as browsers send them, such as https://app.example.org")
    return tuple(origins)


def _read_hosts(value: object) -> tuple[str, ...]:
    hosts = _words(value)
    if not all(_HOST_NAME.fullmatch(host) for host in hosts):
        raise ValueError("host names without a port, such as api.example.org")
    return tuple(host.lower() for host in hosts)


def _read_url(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError("the address that clients use, such as https://api.example.org")
    return str(value).rstrip("/")


def _read_networks(value: object) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(word)) for word in _words(value))
    except ValueError:
        raise ValueError("addresses or networks, such as 127.0.0.1 or 10.0.0.0/8") from None


def _read_names(value: object) -> tuple[str, ...]:
    names = _words(value)
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
        raise ValueError("names of variables, such as HF_TOKEN")
    return tuple(names)


def _read_log_level(value: object) -> str:
    if not isinstance(value, str) or value.lower() not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
    return value.lower()


def _limit_reader(name: str, *, whole: bool) -> Callable[[object], float]:
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


# --- the table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: where a setting may come from, and what it means."""

    name: str  # the field of `Config`, or `limits.` and the field of `Limits`; the key in headrace.toml too
    default: str  # as it is shown
    meaning: str
    read: Callable[[object], object]
    flag: str | None = None  # of `headrace serve`
    env: str | None = None

    @property
    def help(self) -> str:
        """The line that `--help` shows."""
        sources = [self.env] if self.env else []
        return f"{self.meaning} [{'; '.join([*sources, f'default {self.default}'])}]"


def _limit_settings() -> Iterator[Setting]:
    for limit in dataclasses.fields(Limits):
        whole = limit.type in {"int", int}
        yield Setting(
            f"limits.{limit.name}",
            str(limit.default),
            "See core/limits.py for its reason.",
            _limit_reader(limit.name, whole=whole),
            env="HEADRACE_DRAIN_S" if limit.name == "drain_s" else None,
        )


SETTINGS: Final[Mapping[str, Setting]] = {
    setting.name: setting
    for setting in (
        Setting(
            "targets",
            "none",
            "What to serve: FILE, FILE:Class or module:Class, one or more.",
            _read_targets,
            "TARGET…",
        ),
        Setting(
            "host",
            "127.0.0.1",
            "Address to listen on; 0.0.0.0 for every one.",
            _read_host,
            "--host",
            "HEADRACE_HOST",
        ),
        Setting("port", "8080", "Port to listen on; 0 for any free one.", _read_port, "--port", "HEADRACE_PORT"),
        Setting(
            "data_dir",
            "~/.local/share/headrace",
            "Folder of the keys; $XDG_DATA_HOME counts.",
            _read_folder,
            "--data-dir",
            "HEADRACE_DATA_DIR",
        ),
        Setting(
            "no_auth",
            "false",
            "Answer without a key. On a loopback host only.",
            _read_switch,
            "--no-auth",
            "HEADRACE_NO_AUTH",
        ),
        Setting(
            "aliases",
            "none",
            "A further name for an app, NEW=OLD; may be repeated.",
            _read_aliases,
            "--alias",
            "HEADRACE_ALIAS",
        ),
        Setting(
            "log_level",
            "info",
            f"One of {', '.join(LOG_LEVELS)}.",
            _read_log_level,
            "--log-level",
            "HEADRACE_LOG_LEVEL",
        ),
        Setting(
            "origins",
            "none",
            "Pages of this origin may call, such as https://app.example.org; may be repeated.",
            _read_origins,
            "--origin",
            "HEADRACE_ORIGIN",
        ),
        Setting(
            "allowed_hosts",
            "none",
            "A further host name to answer to; may be repeated.",
            _read_hosts,
            "--allowed-host",
            "HEADRACE_ALLOWED_HOST",
        ),
        Setting(
            "public_url",
            "the request's own",
            "The address that clients use, for the URLs we give out.",
            _read_url,
            "--public-url",
            "HEADRACE_PUBLIC_URL",
        ),
        Setting(
            "trusted_proxies",
            "none",
            "Address or network of a proxy whose X-Forwarded-Proto and -Host count; may be repeated.",
            _read_networks,
            "--trusted-proxy",
            "HEADRACE_TRUSTED_PROXY",
        ),
        Setting(
            "runner_env",
            "none",
            "A variable that runners get although it is withheld (HEADRACE_*, FAL_KEY*, or all by --clean-env).",
            _read_names,
            "--env",
            "HEADRACE_ENV",
        ),
        Setting(
            "clean_env",
            "false",
            "Give runners a bare environment: PATH, HOME, LANG and what --env names.",
            _read_switch,
            "--clean-env",
            "HEADRACE_CLEAN_ENV",
        ),
        Setting(
            "reload",
            "false",
            "Load a file again when it changes; running streams finish on the old one.",
            _read_switch,
            "--reload",
            "HEADRACE_RELOAD",
        ),
        *_limit_settings(),
    )
}


# --- the sources --------------------------------------------------------------------------------------------


def load(
    flags: Mapping[str, object], *, environ: Mapping[str, str] = os.environ, folder: Path | None = None
) -> Config:
    """Return the settings: `flags` by name of setting, over `environ`, over `folder`'s file, over defaults.

    A flag that is None or empty was not given, and so is an empty variable. `folder` is the current one
    unless named. Raises `ConfigFault` for the first value that cannot be used.
    """
    chosen: dict[str, object] = {"data_dir": default_data_dir(environ)}
    origin: dict[str, str] = {}
    for source, raw in (*_file_values(folder or Path.cwd()), *_variables(environ), *_flags(flags)):
        setting, where = source
        try:
            chosen[setting.name] = setting.read(raw)
        except ValueError as error:
            raise ConfigFault(f"{where}: expected {error}, not {_shown(raw)}") from None
        origin[setting.name] = where
    limits: dict[str, Any] = {
        name.removeprefix("limits."): chosen.pop(name) for name in list(chosen) if name.startswith("limits.")
    }
    config = Config(**chosen, limits=Limits(**limits))  # type: ignore[arg-type]
    _check_exposure(config, origin)
    return config


#: A value as its source gave it, with the setting it is for and the words for where it stood.
_Given = tuple[tuple[Setting, str], object]


def _flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        if value is not None and value not in ((), [], {}):
            setting = SETTINGS[name]
            yield (setting, setting.flag or name), value


def _variables(environ: Mapping[str, str]) -> Iterator[_Given]:
    for setting in SETTINGS.values():
        if setting.env and (value := environ.get(setting.env)):
            yield (setting, f"the variable {setting.env}"), value


def _file_values(folder: Path) -> Iterator[_Given]:
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigFault(f"{path}: not TOML: {error}") from error
    limits = document.pop("limits", {})
    if not isinstance(limits, dict):
        raise ConfigFault(f"{path}: limits: expected a table, not {_shown(limits)}")
    for key, value in (document | {f"limits.{name}": limit for name, limit in limits.items()}).items():
        setting = SETTINGS.get(key)
        if setting is None:
            near = difflib.get_close_matches(key, SETTINGS, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(SETTINGS)}"
            raise ConfigFault(f"{path}: {key}: there is no such setting{meant}")
        yield (setting, f"{path}: {key}"), value


def _check_exposure(config: Config, origin: Mapping[str, str]) -> None:
    """Without a key, whoever reaches the port runs the model; so only this machine may reach it (A13, A14)."""
    if config.no_auth and not config.is_loopback:
        raise ConfigFault(
            f"{origin['no_auth']}: serving without keys is for a loopback host (127.0.0.1, ::1, localhost) only, "
            f"not {config.host}; leave it out and make a key with `headrace keys create`"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _shown(value: object) -> str:
    """Return a value short enough for one line, whatever somebody put there."""
    text = ", ".join(map(repr, value)) if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
