"""The process: what must be set before an author's file is imported, the loop, and a sure way out.

    python -m headrace.runner --fd 7 --target examples/hello_stream.py

`--fd` is a connected stream socket, inherited from the node. `--limits` is a JSON object of those fields of
`core.limits.Limits` that differ from the defaults. It exits with 0 after SIGTERM or the node's end, with 1 after
a FAULT. A crash of native code ends it by its signal, with the Python tracebacks on the standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from headrace.core.errors import FileFault
from headrace.core.frames import Kind, pieces
from headrace.core.limits import Limits
from headrace.runner import inherit, output
from headrace.runner.blame import log
from headrace.runner.load import load
from headrace.runner.serve import fault_payload, serve

#: Seconds that a thread of Python may hold the GIL while others want it. With the default of 5 ms and four
#: CPU-bound generators, a new stream's first event took 75 ms; with this, 4.
SWITCH_INTERVAL_S: Final = 0.000_5

#: Seconds the interpreter may take to end (atexit, threads that are not ours) before it is ended.
EXIT_S: Final = 0.5

_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Run one runner to its end and return the exit status."""
    arguments = _arguments()
    limits = Limits(**json.loads(arguments.limits))
    _prepare_process()
    sock = _take_socket(arguments.fd)
    if _has_hung_up(sock):  # the node died before the kernel was told to end us with it
        return 0
    inherit.install()
    output.install()
    try:
        apps = load(arguments.target)
    except FileFault as fault:
        with contextlib.suppress(OSError):  # the node is gone: nobody to tell
            payload = fault_payload(fault, fault.__cause__ or fault)
            sock.sendall(b"".join(pieces(Kind.FAULT, 0, payload, limits.frame_bytes_max)))
        return 1
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.get_loop().set_exception_handler(_report)
        status, has_ended = _run(runner.get_loop(), serve(sock, apps, limits))
        _leave_for_sure(status, after_s=EXIT_S if has_ended else 0)
    return status


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace.runner", description="A runner of one node.")
    parser.add_argument("--fd", type=int, required=True, help="the socket to the node")
    parser.add_argument("--target", required=True, help="path/file.py, path/file.py:Class or module:Class")
    parser.add_argument("--limits", default="{}", help="JSON: limits other than the defaults")
    return parser.parse_args()


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's to answer
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if sys.platform == "linux":  # a node killed with -9 takes its runners along, even one busy in an import
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):  # started without a standard error: nobody would read it
        # A descriptor of its own: the author's code may close number 2, and open a file that gets it.
        faulthandler.enable(os.dup(2), all_threads=True)


def _take_socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    # Neither a command nor a forked worker of the author's may hold the link open: its EOF is the death notice.
    os.set_inheritable(fd, False)
    os.register_at_fork(after_in_child=lambda: os.close(fd))
    return sock


def _has_hung_up(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False  # it is there, and says nothing yet
    except OSError:
        return True


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _run(loop: asyncio.AbstractEventLoop, serving: Coroutine[Any, Any, tuple[int, bool]]) -> tuple[int, bool]:
    """Run the loop until `serving` is over, whatever happens to other tasks.

    A task that raises SystemExit or KeyboardInterrupt has the loop stopped in its midst, beside telling whoever
    awaits it (asyncio's rule). A task of an author's is one request's; the others' streams are on this loop, too.
    """
    task = loop.create_task(serving)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as raised:
            if task.done():
                raise
            log("a task of the app's asked the process to exit; it goes on for the others", raised)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a callback of the author's raised."""
    # The default raises in its turn where sys.stderr was closed or replaced, and that would end the loop with
    # every stream on it.
    with contextlib.suppress(Exception):
        loop.default_exception_handler(context)


def _flush_outputs() -> None:
    """Let out what the author's code printed last."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except Exception:  # closed, or replaced by anything: the interpreter would exit with 120 over it
            setattr(sys, name, None)


def _leave_for_sure(status: int, *, after_s: float) -> None:
    """End the process after `after_s` seconds even if an author's thread does not let the interpreter end."""

    def end() -> None:
        time.sleep(after_s)
        _flush_outputs()
        os._exit(status)

    if after_s:
        threading.Thread(target=end, daemon=True).start()
    else:
        end()


if __name__ == "__main__":
    exit_status = main()
    _flush_outputs()
    sys.exit(exit_status)
