"""A model that says things in every way there is: printed, logged, raw, from threads, tasks and processes."""

import asyncio
import logging
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel

import headrace

FOLDER = pathlib.Path(os.environ["ZOO_NOTES"]).parent if "ZOO_NOTES" in os.environ else None

print("said while the file is imported")


class Said(BaseModel):
    name: str = ""
    times: int = 1
    bytes: int = 0
    pause: float = 0.0


class Words(headrace.App, name="zoo/words", max_multiplexing=4):
    """Says things."""

    def setup(self) -> None:
        print("said in setup")

    @headrace.endpoint("/print")
    def print(self) -> dict:
        print("one")
        print("two", "and a half", sep=", ", end="")
        print("", flush=True)
        print("schön 🌅 \u2028 \x1b[1m \x00")
        print("half of a pair: \ud800")
        print("three\nfour\n\nfive\r\n", end="")
        sys.stderr.write("to stderr\n")
        sys.stdout.writelines(["a ", "list\n"])
        print("the end, without an end", end="")
        return {}

    @headrace.endpoint("/log")
    def log(self) -> dict:
        log = logging.getLogger("author")
        log.setLevel(logging.DEBUG)
        log.debug("nobody listens to this")  # Python's last resort begins with warnings
        log.warning("a warning")
        log.error("an error of %d words", 4)
        handler = logging.StreamHandler()
        log.addHandler(handler)
        try:
            log.debug("a detail")
            log.info("a word")
            log.critical("two\nlines")
        finally:
            log.removeHandler(handler)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("soft ground", stacklevel=1)
        return {}

    @headrace.endpoint("/threads")
    def threads(self, input: Said) -> dict:
        def say(number: int) -> None:
            for turn in range(20):
                print(f"{input.name} {number}.{turn}")

        threads = [threading.Thread(target=say, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(say, (3, 4)))
        return {}

    @headrace.endpoint("/tasks")
    async def tasks(self, input: Said) -> AsyncIterator[dict]:
        async def say(number: int) -> None:
            for turn in range(20):
                print(f"{input.name} {number}.", end="")
                print(turn)
                await asyncio.sleep(0.002)

        await asyncio.gather(
            *(say(number) for number in range(3)), asyncio.to_thread(print, input.name, "to_thread")
        )
        yield {}

    @headrace.endpoint("/fork")
    def fork(self, input: Said) -> dict:
        child = multiprocessing.get_context("fork").Process(target=print, args=(f"{input.name} forked",))
        child.start()
        child.join()
        return {}

    @headrace.endpoint("/bar")
    def bar(self) -> dict:
        for percent in range(0, 101, 10):
            sys.stderr.write(f"\r{percent:3}%")
            sys.stderr.flush()
        sys.stderr.write("\n")
        for percent in (50, 100):
            print(f"done {percent}", end="\r")
        return {}

    @headrace.endpoint("/flood")
    def flood(self, input: Said) -> dict:
        print("before the flood")
        line = "x" * 99 + "\n"
        for _ in range(input.bytes // 100_000):
            sys.stdout.write(line * 1_000)
        print("y" * input.bytes)
        time.sleep(1.1)
        print("after the flood")
        return {}

    @headrace.endpoint("/raw")
    def raw(self, input: Said) -> dict:
        os.write(1, f"{input.name} by number\n".encode())
        subprocess.run(["echo", f"{input.name} by echo"], check=True)
        subprocess.run(f"echo {input.name} to 2 >&2", shell=True, check=True)
        print(f"{input.name} printed")
        until(input.name)
        os.write(1, f"{input.name} last".encode())
        return {}

    @headrace.endpoint("/hold")
    def hold(self, input: Said) -> Iterator[dict]:
        yield {"held": True}
        until(input.name)

    @headrace.endpoint("/steps")
    def steps(self, input: Said) -> Iterator[dict]:
        print("begins")
        for number in range(input.times):
            time.sleep(input.pause)
            yield {"progress": number / input.times, "message": f"step {number}"}
        yield {"progress": 1.0}

    @headrace.endpoint("/tries")
    def tries(self) -> dict:
        attempt = self.current_request.attempt
        print(f"attempt {attempt}")
        if attempt == 1:
            raise headrace.AppException("not yet", status_code=503)
        return {}

    @headrace.endpoint("/raises")
    def raises(self) -> dict:
        print("said before")
        raise ValueError("a secret of the model")

    @headrace.endpoint("/dies")
    def dies(self) -> dict:
        if self.current_request.attempt == 1:
            print("the last word")
            os.kill(os.getpid(), signal.SIGSEGV)
        return {}

    @headrace.endpoint("/late")
    def late(self, input: Said) -> dict:
        def say() -> None:
            until(input.name)
            print(f"{input.name} is late")

        threading.Thread(target=say).start()
        print(f"{input.name} is on time")
        return {}

    @headrace.endpoint("/own")
    def own(self) -> dict:
        stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
        try:
            print("into the author's own stream")
        finally:
            sys.stdout.close()
            sys.stdout = stdout
        print(stdout.encoding, stdout.fileno(), stdout.isatty(), stdout.mode, stdout.writable())
        stdout.buffer.write(b"through the buffer\n")
        stdout.flush()
        return {}


class Quiet(headrace.App, name="zoo/quiet", log_items=False):
    """Its items are no lines."""

    @headrace.endpoint("/")
    def steps(self) -> Iterator[dict]:
        yield {"progress": 0.5}
        print("printed")
        yield {"message": "done"}


def until(name: str) -> None:
    """Wait until the test has made the file `$ZOO_NOTES.NAME`, if there is a test (`Server.release`)."""
    deadline = time.monotonic() + 60
    while name and FOLDER is not None and not (FOLDER / f"notes.{name}").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody lets {name} go on")
        time.sleep(0.005)
