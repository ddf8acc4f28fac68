"""All there is to set on a node: one table, which `--help` and docs/reference/settings.md repeat.

This file does not know what the settings do, nor where a value came from (`headrace.config`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headrace.core.limits import Limits
from headrace.values import (
    LOG_LEVELS,
    limit_reader,
    read_aliases,
    read_devices,
    read_durability,
    read_folder,
    read_host,
    read_hosts,
    read_log_level,
    read_names,
    read_networks,
    read_origins,
    read_port,
    read_ports,
    read_switch,
    read_targets,
    read_tls_names,
    read_url,
)


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


#: Limits that a variable sets, too.
_LIMIT_VARIABLES: Final = {
    "drain_s": "HEADRACE_DRAIN_S",
    "result_age_s": "HEADRACE_RESULT_AGE_S",
    "large_result_age_s": "HEADRACE_LARGE_RESULT_AGE_S",
    "store_bytes_max": "HEADRACE_STORE_BYTES_MAX",
}


def _limit_settings() -> Iterator[Setting]:
    for limit in dataclasses.fields(Limits):
        whole = limit.type in {"int", int}
        yield Setting(
            f"limits.{limit.name}",
            str(limit.default),
            "See core/limits.py for its reason.",
            limit_reader(limit.name, whole=whole),
            env=_LIMIT_VARIABLES.get(limit.name),
        )


SETTINGS: Final[Mapping[str, Setting]] = {
    setting.name: setting
    for setting in (
        Setting(
            "targets",
            "none",
            "What to serve: FILE, FILE:Class or module:Class, one or more.",
            read_targets,
            "TARGET…",
        ),
        Setting(
            "host",
            "127.0.0.1",
            "Address to listen on; 0.0.0.0 for every one.",
            read_host,
            "--host",
            "HEADRACE_HOST",
        ),
        Setting("port", "8080", "Port to listen on; 0 for any free one.", read_port, "--port", "HEADRACE_PORT"),
        Setting(
            "data_dir",
            "~/.local/share/headrace",
            "Folder of the node: keys, certificates, queue, files; $XDG_DATA_HOME counts.",
            read_folder,
            "--data-dir",
            "HEADRACE_DATA_DIR",
        ),
        Setting(
            "durability",
            "full",
            "What an accepted request survives: full, a power cut too; fast, one but for the last second.",
            read_durability,
            "--durability",
            "HEADRACE_DURABILITY",
        ),
        Setting(
            "no_auth",
            "false",
            "Answer without a key. On a loopback host only.",
            read_switch,
            "--no-auth",
            "HEADRACE_NO_AUTH",
        ),
        Setting(
            "aliases",
            "none",
            "A further name for an app, NEW=OLD; may be repeated.",
            read_aliases,
            "--alias",
            "HEADRACE_ALIAS",
        ),
        Setting(
            "log_level",
            "info",
            f"One of {', '.join(LOG_LEVELS)}.",
            read_log_level,
            "--log-level",
            "HEADRACE_LOG_LEVEL",
        ),
        Setting(
            "origins",
            "none",
            "Pages of this origin may call, such as https://app.example.org; may be repeated.",
            read_origins,
            "--origin",
            "HEADRACE_ORIGIN",
        ),
        Setting(
            "allowed_hosts",
            "none",
            "A further host name to answer to; may be repeated.",
            read_hosts,
            "--allowed-host",
            "HEADRACE_ALLOWED_HOST",
        ),
        Setting(
            "public_url",
            "the request's own",
            "The address that clients use, for the URLs we give out.",
            read_url,
            "--public-url",
            "HEADRACE_PUBLIC_URL",
        ),
        Setting(
            "trusted_proxies",
            "none",
            "Address or network of a proxy whose X-Forwarded-Proto and -Host count; may be repeated.",
            read_networks,
            "--trusted-proxy",
            "HEADRACE_TRUSTED_PROXY",
        ),
        Setting(
            "runner_env",
            "none",
            "A variable that runners get although it is withheld (HEADRACE_*, FAL_KEY*, or all by --clean-env).",
            read_names,
            "--env",
            "HEADRACE_ENV",
        ),
        Setting(
            "clean_env",
            "false",
            "Give runners a bare environment: PATH, HOME, LANG and what --env names.",
            read_switch,
            "--clean-env",
            "HEADRACE_CLEAN_ENV",
        ),
        Setting(
            "devices",
            "those found",
            "A GPU that apps with num_gpus may lease: an index or UUID; may be repeated; 'none' for none.",
            read_devices,
            "--device",
            "HEADRACE_DEVICES",
        ),
        Setting(
            "outbound_http",
            "false",
            "Call http:// addresses too: for webhooks, and for the URLs in inputs.",
            read_switch,
            "--outbound-http",
            "HEADRACE_OUTBOUND_HTTP",
        ),
        Setting(
            "outbound_ports",
            "80, 443, 8080, 8443",
            "A port that webhooks, and the URLs in inputs, may lead to; may be repeated.",
            read_ports,
            "--outbound-port",
            "HEADRACE_OUTBOUND_PORT",
        ),
        Setting(
            "outbound_networks",
            "none",
            "A private network that webhooks, and the URLs in inputs, may lead to; may be repeated.",
            read_networks,
            "--outbound-network",
            "HEADRACE_OUTBOUND_NETWORK",
        ),
        Setting(
            "reload",
            "false",
            "Load a file again when it changes; running streams finish on the old one.",
            read_switch,
            "--reload",
            "HEADRACE_RELOAD",
        ),
        Setting(
            "tls",
            "false",
            "Serve https beside http, with a certificate of its own local CA.",
            read_switch,
            "--tls",
            "HEADRACE_TLS",
        ),
        Setting(
            "tls_port",
            "8443",
            "Port to listen on for https; 0 for any free one.",
            read_port,
            "--tls-port",
            "HEADRACE_TLS_PORT",
        ),
        Setting(
            "tls_names",
            "none",
            "A further host name or address in the certificate; may be repeated.",
            read_tls_names,
            "--tls-name",
            "HEADRACE_TLS_NAME",
        ),
        Setting(
            "impersonate",
            "false",
            "Put fal.run, queue.fal.run and rest.fal.ai into the certificate, and answer to them.",
            read_switch,
            "--impersonate",
            "HEADRACE_IMPERSONATE",
        ),
        *_limit_settings(),
    )
}
