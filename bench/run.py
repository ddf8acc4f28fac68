"""`make bench`: measures us and our peers side by side, prints ratios, keeps the figures.

    python bench/run.py                     the whole comparison, some seven minutes
    python bench/run.py --quick             a smoke run: ours and the raw bound, one short window of each
    python bench/run.py --write PAGE        and write the reference page
    python bench/run.py --setup             only make the peers' environment

It fails when a server does not stream; it never fails for a figure. As root, `nice -n -10 make bench` steadies them.
"""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[0] = str(ROOT)  # run as a file, Python puts bench/ there

from bench import attach, environment, queued, report, sdk  # noqa: E402
from bench.measure import Load, Window, bytes_per_stream, call_window, percentile, stream_window  # noqa: E402
from bench.report import Row  # noqa: E402
from bench.servers import PEER_PYTHON, SERVERS, Running, Server, apart, running  # noqa: E402

LOCK = ROOT / "requirements" / "bench.txt"
RESULTS = ROOT / "bench" / "results"

#: Long streams, by the name their rows get.
STREAM_LOADS = {
    name: Load(name, streams) for name, streams in {"tick": 16, "step": 50, "paced": 20, "sync": 16}.items()
}
#: Short requests in a closed loop; the CPU of a request is taken from the last.
CALL_LOADS = {"1 at a time": Load("short", 1), "16 at a time": Load("short", 16)}

#: What can be measured, as `--only` names it.
SUBJECTS = (*(server.key for server in SERVERS), "sdk", *(disk.key for disk in queued.DISKS), "attach")

#: The windows of one server under one load.
Windows = Mapping[tuple[str, str], list[Window]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    chosen = [server for server in SERVERS if server.key in options.only]
    if options.setup or any(server.is_peer for server in chosen):
        set_up_peers()
    if options.setup:
        return

    rows = measure_sdk() if "sdk" in options.only else []
    if chosen:
        rows += measure_memory(chosen) + measure_servers(chosen, options.rounds, options.seconds)
    for disk in queued.DISKS:
        if disk.key in options.only and queued.can_measure(disk):
            rows += queued.measure(disk, options.rounds, options.seconds)
    if "attach" in options.only:
        rows += attach.measure(options.rounds, options.seconds)
    path = report.write_json(rows, options.results)
    print(report.text(rows))
    print(f"\n{report.machine()}\nkept in {path}")
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(report.page(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", action="store_true", help="only make the peers' environment")
    parser.add_argument("--only", type=_names, default=SUBJECTS, help=f"of {','.join(SUBJECTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each server and workload")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument(
        "--quick", action=_Quick, nargs=0, help="one window of 0.2 s, without peers, SDK and slow disk"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON file goes")
    parser.add_argument("--write", type=Path, help="write the reference page here")
    return parser


def _names(text: str) -> tuple[str, ...]:
    """Return the subjects in `text`, or raise ValueError."""
    names = tuple(text.split(","))
    if unknown := set(names) - set(SUBJECTS):
        raise ValueError(f"unknown: {unknown}")
    return names


class _Quick(argparse.Action):
    """`--quick` stands for three other options."""

    def __call__(self, parser: object, namespace: argparse.Namespace, *_: object) -> None:
        namespace.only, namespace.rounds, namespace.seconds = ("headrace", "raw", "queue", "attach"), 1, 0.2


def set_up_peers() -> None:
    """Make the peers' environment, unless it is the one the lock describes."""
    environment.set_up(PEER_PYTHON.parent.parent, LOCK)


def measure_servers(servers: Sequence[Server], rounds: int, seconds: float) -> list[Row]:
    """Start all servers on one core, load them from another, and return their rows.

    Windows are taken in turn (A B C, A B C), so that a drift of the machine hits all alike.
    """
    with apart(servers) as started:
        windows: Windows = defaultdict(list)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds} ...", file=sys.stderr)
            for name, load, one in _turn(started):
                take = stream_window if name in STREAM_LOADS else call_window
                windows[name, one.server.name].append(take(one, load, seconds))
        return [*stream_rows(windows), *call_rows(windows)]


def _turn(started: Iterable[Running]) -> Iterable[tuple[str, Load, Running]]:
    """Return the windows of one round in their order."""
    loads = STREAM_LOADS | CALL_LOADS
    return (
        (name, load, one)
        for name, load in loads.items()
        for one in started
        if load.workload not in one.server.skips
    )


def stream_rows(windows: Windows) -> list[Row]:
    """Return the CPU per event of every server under every long load."""
    rows = []
    for (name, server), taken in windows.items():
        if name in STREAM_LOADS:
            regime = sum(window.count for window in taken) / max(1, sum(window.receives for window in taken))
            rows.append(Row.of(name, server, [window.cpu_us for window in taken], "µs/event", regime))
    return rows


def call_rows(windows: Windows) -> list[Row]:
    """Return the CPU per short request, and the times of first events."""
    rows = []
    for (name, server), taken in windows.items():
        if name not in CALL_LOADS:
            continue
        if name == list(CALL_LOADS)[-1]:
            rows.append(Row.of("request", server, [window.cpu_us for window in taken], "µs"))
        for percent in (50, 99):
            times = [percentile(window.first_events_s, percent) * 1e3 for window in taken]
            rows.append(Row.of(f"p{percent}, {name}", server, times, "ms"))
    return rows


def measure_memory(servers: Iterable[Server]) -> list[Row]:
    """Return what an open, silent stream holds, each in a fresh server: a used one has freed memory to give."""
    rows = []
    for server in servers:
        with running(server, min(os.sched_getaffinity(0))) as one:
            rows.append(Row.of("memory", server.name, [bytes_per_stream(one) / 1024], "KiB/stream"))
    return rows


def measure_sdk() -> list[Row]:
    """Return what an event costs our client and fal-client's stack."""
    rows = []
    for client in sdk.measure():
        name, colour = client["name"].split(", ")
        subject = report.OURS if name == "headrace" else name
        rows.append(Row.of(f"SDK {colour}", subject, [client["us_per_event"]], "µs/event"))
    return rows


if __name__ == "__main__":
    main()
