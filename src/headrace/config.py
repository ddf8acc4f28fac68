"""What a node is told: flags, over the environment, over `headrace.toml` in the current folder, over defaults.

What there is to set stands in `headrace.settings`, how a value is read in `headrace.values`. `load` reads the
sources once and returns a frozen `Config`; nobody else looks at them.

This file does not know what the settings do. The client's own (`HEADRACE_URL`, `HEADRACE_KEY`) are
`headrace.client`'s.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headrace.core.limits import Limits
from headrace.core.netguard import Policy
from headrace.settings import SETTINGS, Setting

#: Read from the current folder when it is there.
FILE_NAME: Final = "headrace.toml"


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
    durability: str = "full"
    no_auth: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "info"
    origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    runner_env: tuple[str, ...] = ()
    clean_env: bool = False
    devices: tuple[str, ...] | None = None
    outbound_http: bool = False
    outbound_ports: tuple[int, ...] = (80, 443, 8080, 8443)
    outbound_networks: tuple[str, ...] = ()
    reload: bool = False
    tls: bool = False
    tls_port: int = 8443
    tls_names: tuple[str, ...] = ()
    impersonate: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return _is_loopback(self.host)

    @property
    def files_folder(self) -> Path:
        """Where the files are that models make and callers send."""
        return Path(self.data_dir).absolute() / "files"

    @property
    def outbound_policy(self) -> Policy:
        """Where the URLs of callers may lead: those of webhooks, and those in inputs."""
        networks = tuple(map(ipaddress.ip_network, self.outbound_networks))
        return Policy(self.outbound_http, frozenset(self.outbound_ports), networks)

    @property
    def url(self) -> str:
        """Where a client on this machine finds the server: `http://host:port`, without a final slash."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - told, not bound
        return f"http://{_authority(host, self.port)}"

    @property
    def tls_authority(self) -> str:
        """Where it finds it by TLS: `host:port`. By name, where `localhost` leads to the host listened on."""
        by_name = self.host in {"127.0.0.1", "::1", "0.0.0.0", "::"}  # noqa: S104 - told, not bound
        return _authority("localhost" if by_name else self.host, self.tls_port)


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
    try:
        config = Config(**chosen, limits=Limits(**limits))  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigFault(f"limits.{error}") from None
    _check_exposure(config, origin)
    _check_tls(config, origin)
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


def _check_tls(config: Config, origin: Mapping[str, str]) -> None:
    """A name for a certificate that nobody makes is a wish unheard."""
    idle = [name for name in ("tls_names", "impersonate") if getattr(config, name) and not config.tls]
    if idle:
        raise ConfigFault(f"{origin[idle[0]]}: is for the certificate of --tls; add --tls")


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _shown(value: object) -> str:
    """Return a value short enough for one line, whatever somebody put there."""
    text = ", ".join(map(repr, value)) if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
