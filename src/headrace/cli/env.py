"""`headrace env`: the lines that lead fal's own clients in a shell to the server on this machine.

    eval "$(headrace env)"          fal_client for Python, curl, our own
    eval "$(headrace env --node)"   and @fal-ai/client for Node

Only `export` lines go to stdout. The files with certificates that they name are written beside the CA.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from headrace import config
from headrace.cli import parts
from headrace.cli.failures import Failure, told
from headrace.cli.help import examples
from headrace.settings import SETTINGS

if TYPE_CHECKING:
    from headrace.config import Config

EXAMPLES = examples(
    "headrace env --tls-port 9443 --data-dir /srv/headrace",
    'eval "$(headrace env)"',
    'eval "$(headrace env --node)"',
)

#: What Node loads before a program, so that what it fetches from fal's hosts is fetched here.
REDIRECT: Final = Path(__file__).with_name("redirect.mjs")


@told
def env(
    data_dir: Annotated[Path | None, typer.Option(help=SETTINGS["data_dir"].help)] = None,
    tls_port: Annotated[str | None, typer.Option(help=SETTINGS["tls_port"].help)] = None,
    url: Annotated[str | None, typer.Option(help="The server by http. [as `headrace serve` would]")] = None,
    node: Annotated[
        bool, typer.Option("--node", help="Also lead fal's JavaScript client here, without a change to it.")
    ] = False,
) -> None:
    """Print shell lines that lead fal's official clients to this server."""
    settings = config.load({"data_dir": data_dir, "tls_port": tls_port})
    lines = {
        "FAL_KEY": _key(settings),
        "FAL_RUN_HOST": settings.tls_authority,
        "FAL_QUEUE_RUN_HOST": f"{settings.tls_authority}/queue",
        "HEADRACE_URL": _url(settings, url),
        **_certificates(settings),
    }
    if node:
        lines |= {"NODE_OPTIONS": _node_options(), "HEADRACE_REDIRECT": f"https://{settings.tls_authority}"}
    for name, value in lines.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def _url(settings: Config, url: str | None) -> str:
    from headrace.client import credentials

    if settings.tls_port == 0:
        raise Failure("which port is https on? Name it with --tls-port; `headrace serve` prints it")
    if url is None and settings.port == 0:
        raise Failure("which port is http on? Name the server with --url; `headrace serve` prints it")
    try:
        return credentials.server_url(url or settings.url)
    except ValueError as error:
        raise Failure(str(error)) from error


def _key(settings: Config) -> str:
    """Return a key of this user's that the server takes: the one saved for its address, or any other."""
    from headrace.client import BadCredentials, credentials

    keys = parts.node().keys(settings)
    try:
        saved = [credentials.find_key(settings.url), *sorted(credentials.saved_keys())]
    except BadCredentials as error:
        raise Failure(str(error)) from error
    for key in saved:
        if key is not None and keys.verify(key) is not None:
            return key
    raise Failure(
        f"you have no key for the server whose data is in {settings.data_dir}; "
        "run `headrace serve --tls` or `headrace keys create` first"
    )


def _certificates(settings: Config) -> dict[str, str]:
    """Return the variables for clients that must trust the CA, whatever else they are told to trust already."""
    folder = parts.node().tls(settings)
    if not folder.ca.is_file():
        raise Failure(f"there is no local CA in {folder.folder}; run `headrace serve --tls` first")

    def joined(name: str, others: list[Path]) -> str:
        try:
            return str(folder.write_trust(name, others))
        except OSError as error:
            raise Failure(f"{error.filename or folder.folder}: {error.strerror}") from error

    return {
        "SSL_CERT_FILE": joined("bundle.pem", [*_public_roots(), *_named_by("SSL_CERT_FILE")]),
        "NODE_EXTRA_CA_CERTS": _node_extra(folder.ca, joined),
    }


def _node_extra(ca: Path, joined: Callable[[str, list[Path]], str]) -> str:
    """Return the CA alone, since Node adds it to its roots; or with what the user has Node add besides."""
    others = [path for path in _named_by("NODE_EXTRA_CA_CERTS") if path != ca]
    return joined("node-extra.pem", others) if others else str(ca)


def _named_by(variable: str) -> Iterator[Path]:
    if value := os.environ.get(variable):
        path = Path(value).absolute()
        if not path.is_file():
            raise Failure(f"{variable} names {value}, which is not there; unset it or mend it")
        yield path


def _public_roots() -> list[Path]:
    """Return the files of the CAs that the world trusts: certifi's, as Python clients use, or the system's."""
    try:
        import certifi
    except ImportError:
        import ssl

        paths = ssl.get_default_verify_paths()
        if Path(paths.openssl_cafile).is_file():
            return [Path(paths.openssl_cafile)]
        return sorted(Path(paths.openssl_capath).glob("*.[0-9]"))  # as `openssl rehash` names them
    return [Path(certifi.where())]


def _node_options() -> str:
    """Return Node's options as they are, and ours behind them."""
    ours = f"--import {REDIRECT.as_uri()}"
    present = os.environ.get("NODE_OPTIONS", "")
    return present if ours in present else f"{present} {ours}".strip()
