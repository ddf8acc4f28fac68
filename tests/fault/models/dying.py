"""Models whose runners die, fail to load, go deaf or grow. Each notes what it did, and when, in the file $ZOO_NOTES.

The times are CLOCK_MONOTONIC's, which every process of a machine shares: a test may subtract its own from them.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import headrace
from pydantic import BaseModel

#: Of this process; `PyDLL`, unlike `CDLL`, keeps the interpreter's lock during a call.
C, C_WITH_THE_LOCK = ctypes.CDLL(None), ctypes.PyDLL(None)

#: How a process can leave without a word.
DEATHS = {
    "segv": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),  # what the kernel's OOM killer does
}


class Ask(BaseModel):
    n: int = 3
    pause: float = 0.0
    name: str = "x"
    how: str = "kill"


def note(what: str, name: str, value: float | None = None) -> None:
    with open(os.environ["ZOO_NOTES"], "a") as file:
        file.write(f"{what} {name} {time.monotonic() if value is None else value}\n")


def mood(cls: type) -> str:
    """What the test wants of a class at present: the text of the file of its name in $MOODS, or `work`."""
    path = Path(os.environ["MOODS"]) / cls.__name__
    return path.read_text() if path.exists() else "work"


def wait_for_reader(name: str) -> None:
    """Wait until the reader of a request with a name has its first event, and says so (`Server.release`)."""
    while name != "x" and not os.path.exists(f"{os.environ['ZOO_NOTES']}.{name}"):
        time.sleep(0.01)


def die_once_ready() -> None:
    """Leave as soon as the node has said that this runner is ready: it says so in the log beside the notes."""
    log = Path(os.environ["ZOO_NOTES"]).with_name("server.log")
    while f"is ready (runner {os.getpid()})" not in log.read_text(errors="replace"):
        time.sleep(0.05)
    DEATHS["exit"]()


def hold_the_lock(seconds: float) -> None:
    """Keep the interpreter's lock in one call of C."""
    C_WITH_THE_LOCK.usleep(int(seconds * 1_000_000))


class Dying(headrace.App, name="test/dying", max_multiplexing=4):
    """Every way to lose a process."""

    @headrace.endpoint("/")
    async def words(self, input: Ask) -> AsyncIterator[dict]:
        """Count, and tell in every event which process does."""
        for i in range(input.n):
            yield {"i": i, "pid": os.getpid()}
            await asyncio.sleep(input.pause)

    @headrace.endpoint("/pid")
    def pid(self, input: Ask) -> dict:
        time.sleep(input.pause)
        return {"pid": os.getpid()}

    @headrace.endpoint("/end")
    def end(self, input: Ask) -> Iterator[dict]:
        """One event, then the end of the process."""
        yield {"i": 0, "pid": os.getpid()}
        wait_for_reader(input.name)  # what has not left the process dies with it
        note("dies", input.name)
        DEATHS[input.how]()
        yield {"i": 1}

    @headrace.endpoint("/busy")
    def busy(self, input: Ask) -> Iterator[dict]:
        """One event, then a call of C that lets nothing else run, then another event."""
        yield {"i": 0, "pid": os.getpid()}
        wait_for_reader(input.name)
        note("busy", input.name)
        hold_the_lock(input.pause)
        yield {"i": 1}


class Narrow(Dying, name="test/narrow", max_multiplexing=1):
    """One slot."""


class Heavy(headrace.App, name="test/heavy", memory_limit=160 * 2**20):
    """May hold 160 MiB."""

    @headrace.endpoint("/")
    def take(self, input: Ask) -> Iterator[dict]:
        """Take `n` bytes of memory, and keep them for `pause` seconds."""
        yield {"i": 0, "pid": os.getpid()}
        wait_for_reader(input.name)
        taken = bytearray(b"x") * input.n
        time.sleep(input.pause)
        yield {"taken": len(taken)}


# --- those that load badly --------------------------------------------------------------------------------------


class Moody(headrace.App, name="test/moody"):
    """Loads, or does not, as its mood is."""

    def setup(self) -> None:
        print("the last words of a runner")
        wanted = mood(type(self))  # before the note: the test may change it behind that
        note("try", type(self).__name__)
        match wanted:
            case "raise":
                raise RuntimeError("no model today")
            case "leave":
                sys.exit("no model at all")
            case "segv":
                DEATHS["segv"]()
            case "die soon":
                threading.Thread(target=die_once_ready).start()
            case "hold the lock":
                hold_the_lock(6.0)

    @headrace.endpoint("/")
    def work(self, input: Ask) -> dict:
        if mood(type(self)) == "die of a request":
            DEATHS["exit"]()
        return {"pid": os.getpid()}


class Leaves(Moody, name="test/leaves"):
    """For a second mood."""


class Crashes(Moody, name="test/crashes"):
    """For a third mood."""


class Lazy(Moody, name="test/lazy", min_concurrency=0):
    """Set up by its first request."""


# --- those that are deaf ----------------------------------------------------------------------------------------


def start_child() -> subprocess.Popen[bytes]:
    """Start a process that starts another; both ignore what this one ignores, and wait."""
    return subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300; true"])


class Deaf(headrace.App, name="test/deaf", max_multiplexing=4):
    """Heeds neither TERM nor cancelling, and has a child and a grandchild that do not either."""

    async def setup(self) -> None:  # in the main thread, the only one that may say this
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.child = start_child()

    def teardown(self) -> None:
        time.sleep(300)

    @headrace.endpoint("/")
    async def words(self, input: Ask) -> AsyncIterator[dict]:
        """Count; a request with a name until its reader says so."""
        for i in range(input.n):
            yield {"i": i, "pid": os.getpid()}
            if os.path.exists(f"{os.environ['ZOO_NOTES']}.{input.name}"):
                return
            await asyncio.sleep(input.pause)

    @headrace.endpoint("/stuck")
    def stuck(self, input: Ask) -> Iterator[dict]:
        yield {"i": 0, "pid": os.getpid()}
        C.usleep(int(input.pause * 1_000_000))
        yield {"i": 1}

    @headrace.endpoint("/busy")
    def busy(self, input: Ask) -> Iterator[dict]:
        yield {"i": 0, "pid": os.getpid()}
        wait_for_reader(input.name)
        note("busy", input.name)
        hold_the_lock(input.pause)
        yield {"i": 1}

    @headrace.endpoint("/escape")
    def escape(self, input: Ask) -> dict:
        """Start a process with a session of its own."""
        return {"pid": subprocess.Popen(["sleep", "300"], start_new_session=True).pid}


class Brief(Deaf, name="test/brief", request_timeout=5.0):
    """Deaf, and its requests may run five seconds."""
