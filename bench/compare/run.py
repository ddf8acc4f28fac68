"""`make compare`: breaks four servers in the same four ways, and prints what their clients see as a Markdown table.

    python bench/compare/run.py                     everything, some five minutes
    python bench/compare/run.py --write PAGE        and write the reference page
    python bench/compare/run.py --only headrace --quick

The first run installs the peers into .venv/compare. It fails when a server does not stream, never for an outcome.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[0] = str(ROOT)  # run as a file, Python puts bench/compare/ there

from bench import environment, report  # noqa: E402
from bench.compare import behaviours, servers  # noqa: E402
from bench.compare.servers import SERVERS, Running, Server, running  # noqa: E402
from bench.compare.table import ROWS, Column, Outcome, page, table  # noqa: E402

LOCK = ROOT / "requirements" / "compare.txt"

#: What is done to a server, by the name of its row.
BEHAVIOURS: Mapping[str, Callable[[Running], Outcome]] = {
    "raises": behaviours.model_raises,
    "leaves": behaviours.reader_leaves,
    "stalls": behaviours.reader_stalls,
    "killed": behaviours.model_is_killed,
}
#: The model's generators, in words.
COLOURS = {"sync": "plain generator", "async": "async generator"}
#: What bears on an outcome beside the defaults: the server, the generator, and the rows it is measured for.
OTHERS = (
    (servers.LITSERVE_RESTARTING, "sync", ("killed",)),
    (servers.FASTAPI_WORKERS, "sync", ("killed",)),
    (servers.FASTAPI_EVENTS, "sync", tuple(ROWS)),
    (servers.FASTAPI_EVENTS, "async", ("raises", "leaves")),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    chosen = [server for server in SERVERS if server.key in options.only]
    if any(server.is_peer for server in chosen):
        environment.set_up(servers.ENVIRONMENT, LOCK)

    plain = {_title(server): _column(server, "sync", ROWS) for server in chosen}
    print(table(plain), flush=True)
    if options.quick:
        return
    asynchronous = {_title(server): _column(server, "async", ROWS) for server in chosen}
    others = {
        f"{server.name}, {COLOURS[colour]}": _column(server, colour, names)
        for server, colour, names in OTHERS
        if server.key in options.only
    }
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(page(plain, asynchronous, others, report.machine()))


def _parser() -> argparse.ArgumentParser:
    keys = tuple(server.key for server in SERVERS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, help="which servers; all without it")
    parser.add_argument("--quick", action="store_true", help="the README's table alone: plain generators")
    parser.add_argument("--write", type=Path, help="write the reference page here")
    return parser


def _column(server: Server, colour: str, names: Iterable[str]) -> Column:
    """Break a fresh server in each way, and return what was seen."""
    column = {}
    for name in names:
        print(f"{server.name}, {colour}: {ROWS[name]} ...", file=sys.stderr)
        with running(server, colour) as one:
            column[name] = BEHAVIOURS[name](one)
    return column


def _title(server: Server) -> str:
    """Return a server's name with its version behind the first word."""
    first, _, rest = server.name.partition(" ")
    return f"{first} {servers.version_of(server)} {rest}".strip()


if __name__ == "__main__":
    main()
