"""The composition root: builds a node in order, runs it, drains it, and takes it down in reverse.

    load     a runner per target imports it and says what is in it; faults end here, before anything listens
    listen   sockets, keys, the gateway
    run      the catalog keeps its runners up until a signal
    drain    nothing new; running requests finish, or are ended when `drain_s` is over

This is the one file that knows every room of the server. It owns signals and tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from headrace.config import Config
from headrace.core.errors import FileFault
from headrace.core.file_room import FileRoom
from headrace.core.keys import KeyFault
from headrace.core.routes import RouteTable
from headrace.core.uploads import Uploads
from headrace.data_dir import (
    StartFault,
    key_for_the_user,
    keys,
    keys_for_the_user,
    open_files,
    open_store,
    tls,
    tls_context,
    tls_names,
)
from headrace.gateway.addresses import Addresses
from headrace.gateway.app import Door, Gateway, Rooms
from headrace.gateway.auth import Authenticator
from headrace.gateway.files import FileView
from headrace.gateway.guard import Guard, is_loopback
from headrace.gateway.listen import Listeners, bind, next_free_port
from headrace.gateway.origins import Origins
from headrace.gateway.page_sessions import PageSessions, link
from headrace.gateway.queue import QueueView
from headrace.gateway.tokens import ReadingTokens
from headrace.gateway.uploads import UploadView
from headrace.gateway.webhooks import WebhookView
from headrace.outbound.exchange import Outbound
from headrace.store.blobs import BlobStore
from headrace.store.port import RequestStore, StoreBusy, StoreUnavailable
from headrace.store.token_file import TokenFile
from headrace.store.webhook_key import WebhookKey
from headrace.supervisor.catalog import Catalog, LoadFault, load_all, unload
from headrace.supervisor.devices import Devices, device_order, find_devices
from headrace.supervisor.dispatch import Dispatcher
from headrace.supervisor.guardian import Guardian
from headrace.supervisor.meters import Meters, Reading
from headrace.supervisor.outbox import Outbox
from headrace.supervisor.process import Launcher
from headrace.supervisor.queue import Queue

if TYPE_CHECKING:
    import ssl

__all__ = ["check", "key_for_the_user", "keys", "next_free_port", "serve", "tls"]

_log = logging.getLogger(__name__)

#: The exit status for whatever keeps a node from starting.
EXIT_FAULT = 2


def serve(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0 after a drain, 2 when it could not start."""
    _log_to_stderr(config.log_level)
    with Guardian() as guardian:
        return _run(lambda: Node(config, guardian).run())


def check(config: Config) -> int:
    """Load the files, print their apps and views, and listen to nothing. Returns 0, or 2 for a fault."""
    _log_to_stderr(config.log_level)
    return _run(lambda: _check(config))


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
    except (FileFault, LoadFault, StartFault, KeyFault) as fault:
        print(f"headrace: {fault}", file=sys.stderr)  # noqa: T201 - the operator's terminal
        return EXIT_FAULT


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr)
    # uvicorn tells each malformed request as a warning; such a client is answered, not an event.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


async def _load(config: Config, meters: Meters, guardian: Guardian | None = None) -> Catalog:
    """Have every target imported, and return the catalog of what is in them."""
    ids = find_devices(os.environ) if config.devices is None else config.devices
    devices = Devices(ids, device_order(os.environ))
    meters.watch(lambda: _device_readings(devices))
    room = FileRoom(str(config.files_folder), config.outbound_policy)
    launcher = Launcher(config.limits, config.runner_env, config.clean_env, devices, guardian, room)
    loaded = await load_all(config.targets, launcher, config.limits)
    try:
        return Catalog(loaded, config.aliases, launcher, config.limits, meters)
    except BaseException as error:
        await unload(loaded)
        if isinstance(error, ValueError):
            raise StartFault(str(error)) from None
        raise


async def _check(config: Config) -> int:
    catalog = await _load(config, Meters())
    _print_apps(catalog.routes, config.url)
    await catalog.unload()
    return 0


def _print_apps(routes: RouteTable, url: str) -> None:
    for app in routes.apps.values():
        also = [new for new, old in routes.aliases.items() if old == app.name]
        print(app.name + (f"  (also {', '.join(also)})" if also else ""))  # noqa: T201
        for endpoint in app.endpoints:
            for view, path in (("run", endpoint.run_path), ("stream", endpoint.stream_path)):
                if path is not None:
                    print(f"  {view:<7}POST {url}/{app.name}{path}")  # noqa: T201
            print(f"  queue  POST {url}/queue/{app.name}{endpoint.queue_path}")  # noqa: T201


class Node:
    """One gateway with its pools of runners."""

    def __init__(self, config: Config, guardian: Guardian) -> None:
        self._config = config
        self._guardian = guardian
        self._limits = config.limits
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        """Build, serve until told to stop, drain, take down."""
        meters = Meters()
        catalog = await _load(self._config, meters, self._guardian)
        async with contextlib.AsyncExitStack() as opened:
            try:
                sockets = self._sockets()
                door, page = self._door()
                # The store first: it has the lock on DATA_DIR, and nothing of another node's may be touched.
                store = open_store(self._config)
                opened.push_async_callback(store.close)
                files = open_files(self._config)
                opened.push_async_callback(files.close)
                dispatcher = Dispatcher(catalog, meters, node=secrets.randbits(16), limits=self._limits)
                queue = Queue(store, dispatcher, self._limits)
                rooms, outbox = self._rooms(queue, dispatcher, store, files, meters)
                gateway = Gateway(rooms, door, self._limits)
                listeners = Listeners(gateway, self._guard(), self._limits, dispatcher.new_id)
                await self._take_over(queue)
                for sock, context in sockets:
                    await listeners.open(sock, context)
            except BaseException:
                await catalog.unload()
                raise
            meters.watch(lambda: [Reading("headrace_connections", {}, listeners.connections)])
            meters.watch(lambda: _file_readings(files, rooms.uploads.uploads))
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(catalog.run(reload=self._config.reload), name="catalog"),
                    group.create_task(listeners.keep_date(), name="date"),
                    group.create_task(dispatcher.hold_within_bounds(), name="memory"),
                    group.create_task(queue.run(), name="queue"),
                    group.create_task(outbox.run(), name="webhooks"),
                    group.create_task(files.run(), name="files"),
                    group.create_task(rooms.uploads.run(), name="uploads"),
                ]
                _keep_what_is_loaded()
                self._announce(catalog.routes, page)
                self._watch_signals()
                await self._stop_asked.wait()
                await self._drain(dispatcher, listeners)
                for task in tasks:
                    task.cancel()
        return 0

    async def _take_over(self, queue: Queue) -> None:
        """Have the queue take over what a node before us left."""
        try:
            await queue.open()
        except (StoreUnavailable, StoreBusy) as fault:
            raise StartFault(
                f"{self._config.data_dir}: what is queued there cannot be taken over ({fault}); check the disk, "
                "or choose another folder with --data-dir"
            ) from None

    def _rooms(
        self, queue: Queue, dispatcher: Dispatcher, store: RequestStore, files: BlobStore, meters: Meters
    ) -> tuple[Rooms, Outbox]:
        """Build what the routes lead to, and who delivers webhooks."""
        config, folder = self._config, Path(self._config.data_dir)
        key = WebhookKey(folder / "webhook-key.pem")
        outbox = Outbox(store, Outbound(config.outbound_policy), key.sign, queue.now)
        queue.on_webhook = outbox.look
        tokens = TokenFile(folder / "reading-tokens.json")
        rooms = Rooms(
            dispatcher=dispatcher,
            queue=QueueView(queue, store, dispatcher, config.outbound_policy, self._limits),
            webhooks=WebhookView(store, outbox),
            files=FileView(files, self._limits),
            uploads=UploadView(files, files.parts, dispatcher, self._limits, secret=tokens.secret),
            tokens=ReadingTokens(tokens),
            jwks=key.jwks,
            meters=meters,
        )
        return rooms, outbox

    def _sockets(self) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
        """Bind what the node listens on: http, and with --tls https. From then on the ports are known."""
        config = self._config
        sock = _bind(config.host, config.port, "--port")
        self._config = dataclasses.replace(self._config, port=sock.getsockname()[1])
        if not config.tls:
            return [(sock, None)]
        tls_sock = _bind(config.host, config.tls_port, "--tls-port")
        self._config = dataclasses.replace(self._config, tls_port=tls_sock.getsockname()[1])
        return [(sock, None), (tls_sock, tls_context(config))]

    def _door(self) -> tuple[Door, str]:
        """Return who may come in, and the address of the page; on a terminal, it brings its reader in."""
        config = self._config
        url = config.public_url or config.url
        page = f"{url}/"
        sessions: PageSessions | None = None
        if not config.no_auth:
            key_file, own_key = keys_for_the_user(config)
            sessions = PageSessions(key_file)
            # As with the first key: what is not a terminal may be a log.
            if own_key is not None and sys.stdout.isatty():
                page = f"{link(url, sessions.new_code(own_key)[0])}  (once, within ten minutes)"
        origins = Origins(loopback_only=is_loopback(config.host), allowed=frozenset(config.origins))
        addresses = Addresses(config.public_url, tuple(map(ipaddress.ip_network, config.trusted_proxies)))
        return Door(Authenticator(sessions), sessions, origins, addresses), page

    def _guard(self) -> Guard:
        config = self._config
        allowed_hosts = set(config.allowed_hosts)
        loopback_only = is_loopback(config.host)
        if allowed_hosts or loopback_only:  # else every name is good, and a list would end that
            if config.public_url is not None:
                allowed_hosts.add(urlsplit(config.public_url).hostname or "")
            allowed_hosts.update(tls_names(config).hosts if config.tls else ())
        return Guard(self._limits, loopback_only=loopback_only, allowed_hosts=frozenset(allowed_hosts))

    def _announce(self, routes: RouteTable, page: str) -> None:
        print(f"Headrace serves on {self._config.url}")  # noqa: T201
        if self._config.tls:
            print(f"Headrace serves on https://{self._config.tls_authority}")  # noqa: T201
        print(f"Its page is {page}")  # noqa: T201
        _print_apps(routes, self._config.url)
        sys.stdout.flush()

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        """The first signal drains, the second one hurries."""
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    async def _drain(self, dispatcher: Dispatcher, listeners: Listeners) -> None:
        """Let running requests finish, for `drain_s` at most; then end them and close what is left."""
        dispatcher.drain()
        listeners.close()
        if dispatcher.live:
            _log.info("stopping: %d requests may finish within %g s", dispatcher.live, self._limits.drain_s)
        # Answers are not all: a request may go on without a reader, and its app wants it to.
        await asyncio.gather(
            listeners.finished(self._limits.drain_s, self._hurry),
            dispatcher.finished(self._limits.drain_s, self._hurry),
        )
        dispatcher.end_all()
        # Time to tell each stream how it ended, and to flush that.
        await listeners.finished(1.0, asyncio.Event())
        listeners.hang_up()


def _file_readings(files: BlobStore, uploads: Uploads) -> Iterable[Reading]:
    yield Reading("headrace_files", {}, files.swept.files)
    yield Reading("headrace_files_bytes", {}, files.swept.bytes)
    yield Reading("headrace_uploads", {}, len(uploads))
    yield Reading("headrace_uploads_bytes", {}, uploads.bytes_taken)


def _device_readings(devices: Devices) -> Iterable[Reading]:
    yield Reading("headrace_devices", {"state": "free"}, devices.free)
    yield Reading("headrace_devices", {"state": "leased"}, devices.total - devices.free)


def _keep_what_is_loaded() -> None:
    """Leave out of garbage collection what is there now, and stays: a walk through it holds all streams up."""
    gc.collect()
    gc.freeze()


def _bind(host: str, port: int, flag: str) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = next_free_port(host, port)
            advice = f"; {free} is free: add {flag} {free}" if free else ""
            raise StartFault(f"port {port} on {host} is in use{advice}") from None
        raise StartFault(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
