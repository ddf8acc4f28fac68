"""`headrace serve`: start a node, or with `--check` say what it would serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace import config
from headrace.cli import parts
from headrace.cli.failures import Failure, told
from headrace.cli.help import examples
from headrace.settings import SETTINGS

EXAMPLES = examples(
    "headrace serve app.py",
    "headrace serve app.py:Chat models/flux.py --port 9000",
    "headrace serve app.py --alias fal-ai/flux=me/flux",
    "headrace serve app.py --tls",
    "headrace serve app.py --check",
)


def _flag(setting: str) -> str:
    return SETTINGS[setting].help


@told
def serve(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="TARGET", help=_flag("targets"), show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option(help=_flag("host"))] = None,
    port: Annotated[str | None, typer.Option(help=_flag("port"))] = None,
    data_dir: Annotated[Path | None, typer.Option(help=_flag("data_dir"))] = None,
    durability: Annotated[str | None, typer.Option(metavar="full|fast", help=_flag("durability"))] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help=_flag("no_auth"))] = False,
    alias: Annotated[list[str] | None, typer.Option(metavar="NEW=OLD", help=_flag("aliases"))] = None,
    log_level: Annotated[str | None, typer.Option(help=_flag("log_level"))] = None,
    origin: Annotated[list[str] | None, typer.Option(metavar="ORIGIN", help=_flag("origins"))] = None,
    allowed_host: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_flag("allowed_hosts"))] = None,
    public_url: Annotated[str | None, typer.Option(metavar="URL", help=_flag("public_url"))] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help=_flag("trusted_proxies"))
    ] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_flag("runner_env"))] = None,
    clean_env: Annotated[bool, typer.Option("--clean-env", help=_flag("clean_env"))] = False,
    device: Annotated[list[str] | None, typer.Option(metavar="ID", help=_flag("devices"))] = None,
    outbound_http: Annotated[bool, typer.Option("--outbound-http", help=_flag("outbound_http"))] = False,
    outbound_port: Annotated[list[str] | None, typer.Option(metavar="PORT", help=_flag("outbound_ports"))] = None,
    outbound_network: Annotated[
        list[str] | None, typer.Option(metavar="NETWORK", help=_flag("outbound_networks"))
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help=_flag("reload"))] = False,
    tls: Annotated[bool, typer.Option("--tls", help=_flag("tls"))] = False,
    tls_port: Annotated[str | None, typer.Option(help=_flag("tls_port"))] = None,
    tls_name: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_flag("tls_names"))] = None,
    impersonate: Annotated[bool, typer.Option("--impersonate", help=_flag("impersonate"))] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Load the files, print their apps and views, and leave.")
    ] = False,
) -> int:
    """Serve the apps in the files or modules named, until Ctrl-C."""
    settings = config.load(
        {
            "targets": targets,
            "host": host,
            "port": port,
            "data_dir": data_dir,
            "durability": durability,
            "no_auth": no_auth or None,
            "aliases": alias,
            "log_level": log_level,
            "origins": origin,
            "allowed_hosts": allowed_host,
            "public_url": public_url,
            "trusted_proxies": trusted_proxy,
            "runner_env": env,
            "clean_env": clean_env or None,
            "devices": device,
            "outbound_http": outbound_http or None,
            "outbound_ports": outbound_port,
            "outbound_networks": outbound_network,
            "reload": reload or None,
            "tls": tls or None,
            "tls_port": tls_port,
            "tls_names": tls_name,
            "impersonate": impersonate or None,
        }
    )
    if not settings.targets:
        raise Failure("nothing to serve; name a file, such as `headrace serve app.py`")
    node = parts.node()
    status: int = node.check(settings) if check else node.serve(settings)
    return status
