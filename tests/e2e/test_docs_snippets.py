"""The programs on the pages about streaming do what the pages say.

A block of `python`, `js` or `sh` is run as it stands; a `text` block below it is what it prints, `…` for anything. A block
whose first line is a comment with a file's name is that file. The page's line `headrace serve …` is how it is served. All
that changes are the ports.
"""

import contextlib
import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.support.official import key_of, need_node, shell_after_headrace_env, tls_port_of, users_environment
from tests.support.server import PATIENCE_S, ROOT, running_server

PAGES = ("docs/streaming.md", "docs/how-to/official-clients.md", "docs/how-to/browser.md")

#: The ports that the pages speak of.
HTTP, HTTPS = "127.0.0.1:8080", "localhost:8443"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the output that stands below it."""

    page: str
    line: int
    language: str
    text: str
    output: str | None

    @property
    def file(self) -> str | None:
        """The name on its first line."""
        named = re.match(r"(?:#|//) (\w+\.(?:py|mjs))\n", self.text)
        return named[1] if named else None

    @property
    def serves(self) -> bool:
        return self.text.startswith("headrace serve ")

    @property
    def is_run(self) -> bool:
        return self.language in {"python", "js", "sh"} and not self.file and not self.serves


@functools.cache
def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    fenced = list(re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    found = []
    for block, below in zip(fenced, [*fenced[1:], None]):
        is_output = below is not None and below[1] == "text" and text[block.end() : below.start()].isspace()
        line = text.count("\n", 0, block.start()) + 1
        found.append(Block(page, line, block[1], block[2], below[2] if is_output else None))
    return found


ALL = [block for page in PAGES for block in blocks(page)]


@dataclass(frozen=True)
class Site:
    """A page's server, and its reader: a folder with the page's files, a fresh shell, and one after `headrace env`."""

    folder: pathlib.Path
    ports: Mapping[str, str]
    shell: Mapping[str, str]
    shell_after_env: Mapping[str, str]

    def run(self, block: Block) -> str:
        """Run a block to its end, and return what it printed."""
        text = _replaced(block.text, self.ports)
        command, given, environment = [sys.executable, "-"], text, self.shell_after_env
        if block.language == "sh":
            command, given, environment = ["bash", "-euo", "pipefail", "-c", text], None, self.shell
        elif block.language == "js":
            command = ["node", "--input-type=module", "-"]
            if "fal.config(" in text:  # it finds its way alone
                environment = {name: value for name, value in environment.items() if name != "NODE_OPTIONS"}
        if block.language == "js" or "node " in text:
            self._find_modules()
        program = subprocess.run(
            command, cwd=self.folder, env=environment, input=given, capture_output=True, text=True,
            timeout=PATIENCE_S,
        )  # fmt: skip
        assert program.returncode == 0, program.stderr
        return _replaced(program.stdout, {true: told for told, true in self.ports.items()})

    def _find_modules(self) -> None:
        modules = self.folder / "node_modules"
        if not modules.exists():
            modules.symlink_to(need_node() / "node_modules")


def _replaced(text: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def served(page: str, folder: pathlib.Path) -> Iterator[Site]:
    """Start a page's server as the page says, with the files that the pages have."""
    for block in ALL:
        if block.file:
            (folder / block.file).write_text(block.text)
    (serve,) = [block.text for block in blocks(page) if block.serves]
    _, _, target, *flags = shlex.split(serve)
    has_tls = "--tls" in flags
    args = (*flags, *(["--tls-port", "0"] if has_tls else []))
    # A Node that is held up between an error event and the cut behind it loses the event.
    with running_server(folder / target, args=args, limits={"cut_delay_s": 2}) as server:
        shell = users_environment(server) | {"HEADRACE_URL": server.url, "HEADRACE_KEY": key_of(server)}
        shell["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{shell['PATH']}"
        ports = {HTTP: f"127.0.0.1:{server.port}"}
        if not has_tls:
            yield Site(folder, ports, shell, shell)
            return
        tls_port = tls_port_of(server)
        ports[HTTPS] = f"localhost:{tls_port}"
        # What `headrace env` would know from its defaults.
        shell |= {"HEADRACE_PORT": str(server.port), "HEADRACE_TLS_PORT": str(tls_port)}
        shell["HEADRACE_DATA_DIR"] = str(server.folder / "data")
        yield Site(folder, ports, shell, shell_after_headrace_env(server, tls_port))


@pytest.fixture(scope="module")
def site_of(tmp_path_factory):
    """Return a function that gives a page's site, which is there until the last test."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda page: stack.enter_context(served(page, tmp_path_factory.mktemp("reader"))))


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.is_run], ids=lambda block: f"{block.page}:{block.line}"
)
def test_a_program_of_the_docs_prints_what_the_page_says(site_of, block):
    printed = site_of(block.page).run(block)

    if block.output is not None:
        expected = re.escape(block.output).replace("…", ".*")
        assert re.fullmatch(expected, printed), printed


def test_every_block_of_the_pages_is_run_served_or_compared():
    idle = [
        f"{block.page}:{block.line}"
        for before, block in zip([None, *ALL], ALL)
        if not (block.is_run or block.file or block.serves)
        and block.language != "html"  # tests/browser/test_docs.py opens those
        and not (block.language == "text" and before is not None and before.output == block.text)
    ]

    assert idle == []


def test_every_file_that_the_pages_name_is_used():
    used = "".join(block.text for block in ALL if not block.file)

    assert [block.file for block in ALL if block.file and block.file not in used] == []
