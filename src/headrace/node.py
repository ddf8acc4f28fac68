"""The composition root: builds a node in order, runs it, drains it, and takes it down in reverse.

    load     a runner per file imports it and says what is in it; faults end here, before anything listens
    listen   sockets, the guarded protocol, the gateway
    run      pools keep their runners up until a signal
    drain    nothing new; running requests finish, or are ended when `drain_s` is over

This is the one file that knows every room of the server. It owns signals, listeners and tasks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import email.utils
import errno
import functools
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from uvicorn import Config as UvicornConfig
from uvicorn.server import ServerState

from headrace.client.credentials import find_key, save_key, saved_keys
from headrace.client.errors import BadCredentials
from headrace.config import Config
from headrace.core.errors import FileFault, RequestError
from headrace.core.keys import KeyFault
from headrace.core.routes import RouteTable
from headrace.core.spec import AppSpec
from headrace.gateway.app import Gateway
from headrace.gateway.auth import Authenticator
from headrace.gateway.guard import Guard, is_loopback
from headrace.gateway.protocol import GuardedProtocol
from headrace.store.keyfile import KeyFile
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.pool import Pool
from headrace.supervisor.process import RunnerProcess

_log = logging.getLogger(__name__)

#: The exit status for whatever keeps a node from starting.
EXIT_FAULT = 2


class StartFault(Exception):
    """Why a node cannot start, in one line for the operator."""


def serve(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0 after a drain, 2 when it could not start."""
    _log_to_stderr(config.log_level)
    return _run(lambda: Node(config).run())


def check(config: Config) -> int:
    """Load the files, print their apps and views, and listen to nothing. Returns 0, or 2 for a fault."""
    _log_to_stderr(config.log_level)
    return _run(lambda: _check(config))


def keys(config: Config) -> KeyFile:
    """Return the keys of the node whose data lies in `config.data_dir`. Raises `KeyFault` when damaged."""
    return KeyFile(Path(config.data_dir) / "keys.json")


def _run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        import uvloop
    except ImportError:
        new_loop = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(main())
    except (FileFault, StartFault, KeyFault) as fault:
        print(f"headrace: {fault}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        return EXIT_FAULT


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr)
    # uvicorn tells each malformed request as a warning; such a client is answered, not an event.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


# --- load -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A target that a runner has imported, and that runner."""

    target: str
    process: RunnerProcess
    apps: tuple[AppSpec, ...]


async def _load(config: Config) -> list[Loaded]:
    """Have each target imported by a runner of its own. A fault ends them all and is raised."""
    loading = [asyncio.create_task(_load_one(target, config)) for target in config.targets]
    try:
        return list(await asyncio.gather(*loading))
    except BaseException:
        for task in loading:
            task.cancel()
        for outcome in await asyncio.gather(*loading, return_exceptions=True):
            if isinstance(outcome, Loaded):
                await outcome.process.kill()
        raise


async def _load_one(target: str, config: Config) -> Loaded:
    process = await RunnerProcess.start(target, config.limits)
    try:
        apps = await asyncio.wait_for(process.link.hello, config.limits.load_timeout_s)
    except BaseException as error:
        await process.kill()
        if isinstance(error, RequestError):
            raise StartFault(f"{target}: the process that imports it died; its output stands above") from None
        if isinstance(error, TimeoutError):
            limit_s = config.limits.load_timeout_s
            raise StartFault(f"{target}: importing it took longer than {limit_s:g} s") from None
        raise
    return Loaded(target, process, apps)


def _routes(loaded: Sequence[Loaded], config: Config) -> RouteTable:
    try:
        return RouteTable([app for one in loaded for app in one.apps], config.aliases)
    except ValueError as error:
        raise StartFault(str(error)) from None


async def _check(config: Config) -> int:
    loaded = await _load(config)
    try:
        _print_apps(_routes(loaded, config), config.url)
    finally:
        await asyncio.gather(*(one.process.kill() for one in loaded))
    return 0


def _print_apps(routes: RouteTable, url: str) -> None:
    for app in routes.apps.values():
        also = [new for new, old in routes.aliases.items() if old == app.name]
        print(app.name + (f"  (also {', '.join(also)})" if also else ""))  # noqa: T201
        for endpoint in app.endpoints:
            for view, path in (("run", endpoint.run_path), ("stream", endpoint.stream_path)):
                if path is not None:
                    print(f"  {view:<7}POST {url}/{app.name}{path}")  # noqa: T201


# --- the node -------------------------------------------------------------------------------------------


class Node:
    """One gateway with its pools of runners."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._limits = config.limits
        self._state = ServerState()
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        """Build, serve until told to stop, drain, take down."""
        loaded = await _load(self._config)
        pools: dict[str, Pool] = {}
        starts: list[Coroutine[Any, Any, None]] = []
        try:
            routes = _routes(loaded, self._config)
            sock = _bind(self._config)
            self._config = dataclasses.replace(self._config, port=sock.getsockname()[1])
            key_file = None if self._config.no_auth else _keys_for_the_user(self._config)
        except BaseException:
            await asyncio.gather(*(one.process.kill() for one in loaded))
            raise
        for one in loaded:
            for number, app in enumerate(one.apps):
                pool = pools[app.name] = Pool(app, one.target, self._limits)
                starts.append(pool.run(one.process if number == 0 else None))
        dispatcher = Dispatcher(pools, node=secrets.randbits(16), limits=self._limits)
        gateway = Gateway(routes, dispatcher, Authenticator(key_file), self._limits)
        server = await self._listen(sock, gateway, dispatcher)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(start) for start in starts]
            tasks.append(group.create_task(self._keep_date()))
            self._announce(routes)
            self._watch_signals()
            await self._stop_asked.wait()
            server.close()
            await self._drain(dispatcher)
            for task in tasks:
                task.cancel()
        return 0

    async def _listen(self, sock: socket.socket, gateway: Gateway, dispatcher: Dispatcher) -> asyncio.Server:
        settings = UvicornConfig(
            gateway,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(self._limits.idle_timeout_s),
        )
        settings.load()
        guard = Guard(self._limits, loopback_only=is_loopback(self._config.host))
        protocol = functools.partial(
            GuardedProtocol, settings, self._state, {}, guard=guard, new_id=dispatcher.new_id
        )
        return await asyncio.get_running_loop().create_server(protocol, sock=sock, backlog=2048)

    async def _keep_date(self) -> None:
        """Renew the Date header once a second, as an origin server with a clock must (RFC 9110, 6.6.1)."""
        while True:
            self._state.default_headers = [(b"date", email.utils.formatdate(usegmt=True).encode())]
            await asyncio.sleep(1.0)

    def _announce(self, routes: RouteTable) -> None:
        print(f"Headrace serves on {self._config.url}")  # noqa: T201
        _print_apps(routes, self._config.url)
        sys.stdout.flush()

    # --- stopping ---------------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        """The first signal drains, the second one hurries."""
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    async def _drain(self, dispatcher: Dispatcher) -> None:
        """Let running requests finish, for `drain_s` at most; then end them and close what is left."""
        dispatcher.is_draining = True
        for connection in tuple(self._state.connections):
            connection.shutdown()
        if dispatcher.live:
            _log.info("stopping: %d requests may finish within %g s", dispatcher.live, self._limits.drain_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_s):
                while self._state.tasks and not self._hurry.is_set():
                    await asyncio.wait({*self._state.tasks}, timeout=0.1)
        dispatcher.end_all()
        if self._state.tasks:
            await asyncio.wait({*self._state.tasks}, timeout=1.0)
        for connection in tuple(self._state.connections):
            connection.transport.close()


# --- keys ------------------------------------------------------------------------------------------------


def _keys_for_the_user(config: Config) -> KeyFile:
    """Return the node's keys, one of which the user who starts it has in the credentials file.

    The first start makes that key. A later one, perhaps on another port, finds it again among those the user
    keeps, and makes no second one.
    """
    key_file = keys(config)
    try:
        if not key_file.list():
            _, text = key_file.create("default")
            print(f"Made the first key: {text}")  # noqa: T201
            print(f"It is kept in {save_key(config.url, text)}, where our clients find it.")  # noqa: T201
        elif not key_file.verify(find_key(config.url) or ""):
            for text in filter(key_file.verify, sorted(saved_keys())):
                save_key(config.url, text)
                break
    except (BadCredentials, OSError) as error:
        _log.warning("the key could not be kept for your clients: %s", error)
    return key_file


# --- sockets --------------------------------------------------------------------------------------------


def _bind(config: Config) -> socket.socket:
    try:
        return _listening_socket(config.host, config.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = next_free_port(config.host, config.port)
            advice = f"; {free} is free: add --port {free}" if free else ""
            raise StartFault(f"port {config.port} on {config.host} is in use{advice}") from None
        raise StartFault(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}") from None


def next_free_port(host: str, port: int) -> int | None:
    """Return the next port after `port` that can be listened on, or None."""
    for candidate in range(port + 1, min(port + 100, 65_536)):
        with suppress(OSError):
            _listening_socket(host, candidate).close()
            return candidate
    return None


def _listening_socket(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Bound but deaf, a port can be bound by another with SO_REUSEADDR; listening settles it.
        sock.listen(2048)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
