"""What each frame from the node does, from HELLO to the process's leaving.

    HELLO -> SETUP -> setup() -> READY -> CHECK, START, WINDOW, CANCEL -> SIGTERM or EOF -> teardown()

Whoever leaves and why, every call is cancelled and closed, and `teardown` runs, within the node's `kill_grace_s`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

import orjson

from headrace.app import App, keeper
from headrace.app.describe import LoadedApp
from headrace.core.errors import FileFault, RequestError
from headrace.core.file_room import FileRoom
from headrace.core.frames import VERSION, BadFrame, Kind
from headrace.core.limits import Limits
from headrace.runner import output
from headrace.runner.blame import error_of, error_payload, log, traceback_of
from headrace.runner.call import RunningCall, Start, ToldCall
from headrace.runner.files import RunnerFiles
from headrace.runner.inputs import InputReader
from headrace.runner.invoke import Served, begin
from headrace.runner.link import Link
from headrace.runner.load import fault_of
from headrace.runner.threads import Crew, in_own_thread

#: How the time between TERM and KILL is shared: calls to end, teardown, the last bytes. The rest is the exit's.
CALLS_SHARE: Final = 0.4
TEARDOWN_SHARE: Final = 0.4
LAST_BYTES_SHARE: Final = 0.1

#: Seconds between looks at whether the calls have ended, while leaving: they end in threads of their own.
LOOK_AGAIN_S: Final = 0.005


async def serve(sock: socket.socket, apps: Mapping[str, LoadedApp], limits: Limits) -> tuple[int, bool]:
    """Serve one of `apps` over `sock` until the node hangs up or sends SIGTERM.

    Returns the exit status, and whether all of the author's code has ended.
    """
    runner = Runner(apps, limits)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, runner.leaving.set)
    await loop.create_unix_connection(lambda: runner.link, sock=sock)
    runner.greet()
    await runner.leaving.wait()
    return runner.exit_status, await runner.leave()


class Runner:
    """One process's end of the contract in `core.frames`."""

    def __init__(self, apps: Mapping[str, LoadedApp], limits: Limits) -> None:
        self._apps = apps
        self._limits = limits
        self.leaving = asyncio.Event()
        self.exit_status = 0
        self.link = Link(self._receive, self.leaving.set, limits)
        self._app: App | None = None
        self._is_ready = False
        self._served: dict[str, Served] = {}
        self._calls: dict[int, RunningCall] = {}
        self._crew = Crew()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.SETUP: self._setup,
            Kind.CHECK: self._check,
            Kind.START: self._start,
            Kind.WINDOW: self._window,
            Kind.CANCEL: self._cancel,
            Kind.PING: lambda stream, payload: self.link.post(Kind.PONG, stream, payload),
        }

    def greet(self) -> None:
        """Say HELLO."""
        specs = [app.spec.to_wire() for app in self._apps.values()]
        hello = {"version": VERSION, "pid": os.getpid(), "apps": specs}
        self.link.post(Kind.HELLO, 0, json.dumps(hello).encode("ascii"))

    def _receive(self, kind: int, stream: int, payload: bytes) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            raise BadFrame(f"a runner does not take frames of kind {kind}")
        handler(stream, payload)

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- setup ----------------------------------------------------------------------------------------------

    def _setup(self, _stream: int, payload: bytes) -> None:
        try:
            fields = orjson.loads(payload)
            name, token = str(fields["app"]), fields.get("output_token")
            room = FileRoom.from_wire(fields["files"]) if "files" in fields else None
        except (ValueError, TypeError, KeyError) as error:
            raise BadFrame(f"a SETUP that cannot be read: {error!r}") from None
        if self._app is not None or name not in self._apps:
            raise BadFrame(f"SETUP for {name!r}; there are {', '.join(self._apps)}, and one is set up once")
        if isinstance(token, str):
            output.mark(token, self._limits)
        files = RunnerFiles(room, self._limits) if room is not None else None
        keeper.install(files)
        self._own(asyncio.get_running_loop().create_task(self._become(self._apps[name], files)))

    async def _become(self, loaded: LoadedApp, files: RunnerFiles | None) -> None:
        try:
            self._app = loaded.cls()
            for path, endpoint in loaded.endpoints.items():
                method = getattr(self._app, endpoint.method)
                self._served[path] = Served(endpoint, method, InputReader(endpoint.input))
            if files is not None and any(served.reader.has_files for served in self._served.values()):
                await in_own_thread(files.prepare)
            await _run_hook(self._app.setup)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit in setup() is a failed setup()
            self._fail(fault_of(error, loaded.spec.file, loaded.spec.line), error)
            return
        self._is_ready = True
        self.link.post(Kind.READY, 0)

    def _fail(self, fault: FileFault, error: BaseException) -> None:
        self.link.post(Kind.FAULT, 0, fault_payload(fault, error))
        self.exit_status = 1
        self.leaving.set()

    # --- requests -------------------------------------------------------------------------------------------

    def _endpoint(self, path: str) -> Served:
        served = self._served.get(path)
        if served is None:
            raise RequestError("not_found", f"The app has no endpoint {path!r}.")
        return served

    def _check(self, stream: int, payload: bytes) -> None:
        start = Start.from_payload(payload)
        served = self._served.get(start.path)
        if served is not None and not served.reader.is_quick:
            self._own(asyncio.get_running_loop().create_task(self._check_in_thread(stream, start)))
        else:
            self._answer_check(stream, self._wrong_with(start))

    async def _check_in_thread(self, stream: int, start: Start) -> None:
        self._answer_check(stream, await in_own_thread(lambda: self._wrong_with(start)))

    def _wrong_with(self, start: Start) -> RequestError | None:
        try:
            self._endpoint(start.path).reader.read(start.body)
        except BaseException as error:  # a validator of the author's may raise anything
            return error_of(error, start.request_id)
        return None

    def _answer_check(self, stream: int, error: RequestError | None) -> None:
        self.link.post(Kind.CHECKED, stream, error_payload(error) if error is not None else b"")

    def _start(self, stream: int, payload: bytes) -> None:
        start = Start.from_payload(payload)
        if stream in self._calls:
            raise BadFrame(f"START on stream {stream}, which is running")
        try:
            if self.leaving.is_set():
                raise RequestError("shutting_down", "The runner is leaving.")
            if not self._is_ready:
                raise RequestError("runner_scheduling_failure", "The runner is not ready.")
            served = self._endpoint(start.path)
        except RequestError as error:
            self.link.post(Kind.ERROR, stream, error_payload(error))
            return
        kind = ToldCall if start.has_item_lines else RunningCall
        call = kind(self.link, stream, start, self._limits, self._calls.pop)
        self._calls[stream] = call
        begin(call, served, self.link, self._crew)

    def _window(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise BadFrame(f"a WINDOW of {len(payload)} bytes")
        call = self._calls.get(stream)
        if call is not None:  # else it has just ended: the frames crossed
            call.grant(int.from_bytes(payload, "big"))

    def _cancel(self, stream: int, payload: bytes) -> None:
        call = self._calls.get(stream)
        if call is not None:
            call.cancel(payload.decode("ascii", "replace"))

    # --- leaving --------------------------------------------------------------------------------------------

    async def leave(self) -> bool:
        """Cancel every call, run teardown, hang up, each within its share of `kill_grace_s`.

        Returns whether all of the author's code has ended.
        """
        grace_s = self._limits.kill_grace_s
        for task in self._tasks:
            task.cancel()
        for call in list(self._calls.values()):
            call.cancel("shutting_down")
        deadline = monotonic() + grace_s * CALLS_SHARE
        while self._calls and monotonic() < deadline:
            await asyncio.sleep(LOOK_AGAIN_S)
        has_ended = not self._calls
        if self._is_ready and self._app is not None:
            has_ended &= await self._teardown(self._app, grace_s * TEARDOWN_SHARE)
        self.link.close()
        await asyncio.wait([self.link.closed], timeout=grace_s * LAST_BYTES_SHARE)
        return has_ended and (self._is_ready or self._app is None or self.exit_status != 0)

    async def _teardown(self, app: App, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await _run_hook(app.teardown)
        except TimeoutError as error:
            log(f"teardown() took more than {timeout_s:g} seconds", error)
            return False
        except BaseException as error:  # leaving goes on whatever it raised
            log("teardown() failed", error)
        return True


async def _run_hook(hook: Callable[[], object]) -> None:
    """Run `setup` or `teardown`: an `async def` here, a `def` in a thread, since it may take minutes."""
    if inspect.iscoroutinefunction(hook):
        await hook()
        return
    made = await in_own_thread(hook)
    if inspect.isawaitable(made):  # a def that hands out a coroutine
        await made


def fault_payload(fault: FileFault, error: BaseException) -> bytes:
    """Return the payload of FAULT."""
    fields = {
        "file": fault.file,
        "line": fault.line,
        "message": fault.message,
        "traceback": traceback_of(error),
    }
    return json.dumps(fields).encode("ascii")
