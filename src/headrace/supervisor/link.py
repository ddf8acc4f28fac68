"""The node's end of the socket to one runner: frames down, and up to the requests they belong to.

`data_received` is the hot path of the whole node: cut frames, append events, wake each touched request once.
A frame that breaks the format closes the link; what that means for the process is the pool's to decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import orjson

from headrace.core import frames
from headrace.core.errors import FileFault, RequestError
from headrace.core.frames import BadFrame, FrameReader, Kind
from headrace.core.limits import Limits
from headrace.core.spec import AppSpec
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)

LOST = "The runner's process died while it held the request."


class RunnerLink(asyncio.Protocol):
    """One runner's socket. Callbacks tell the pool what it must act on."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._reader = FrameReader(
            frame_bytes_max=limits.frame_bytes_max, message_bytes_max=limits.message_bytes_max
        )
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, LiveRequest] = {}
        self._numbers: dict[LiveRequest, int] = {}
        self._checks: dict[int, asyncio.Future[None]] = {}
        self._next_stream = 1
        loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[tuple[AppSpec, ...]] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.on_released: Callable[[], None] = lambda: None  # a slot became free

    @property
    def busy(self) -> int:
        """Slots in use."""
        return len(self._streams)

    @property
    def holds_wanted(self) -> bool:
        """Whether it holds a request that somebody still wants."""
        return any(not live.is_over for live in self._streams.values())

    # --- down -------------------------------------------------------------------------------------------

    def setup(self, app: str) -> None:
        """Tell the runner which of its apps to be."""
        self._send(Kind.SETUP, 0, orjson.dumps({"app": app}))

    def start(self, live: LiveRequest) -> None:
        """Give the runner a request; it takes a slot until DONE or ERROR."""
        stream = self._new_stream()
        self._streams[stream] = live
        self._numbers[live] = stream
        live.on_credit = lambda cost: self._send(Kind.WINDOW, stream, cost.to_bytes(4, "big"))
        self._send(Kind.START, stream, _message(live, self._limits.window_bytes))
        live.start()

    def cancel(self, live: LiveRequest, reason: str) -> None:
        """Tell the runner that nobody wants the rest; it answers with DONE or ERROR, and the slot is free."""
        self._send(Kind.CANCEL, self._numbers[live], reason.encode())

    async def check(self, live: LiveRequest) -> None:
        """Have the input validated without taking a slot. Raises the `RequestError` it deserves, if any."""
        stream = self._new_stream()
        answer = self._checks[stream] = asyncio.get_running_loop().create_future()
        try:
            self._send(Kind.CHECK, stream, _message(live, 0))
            await asyncio.wait_for(answer, self._limits.check_timeout_s)
        finally:
            self._checks.pop(stream, None)

    def close(self) -> None:
        """Hang up; the runner takes EOF as the word to leave."""
        if self._transport is not None:
            self._transport.close()

    def _new_stream(self) -> int:
        stream = self._next_stream
        self._next_stream = stream % 0xFFFF_FFFF + 1
        return stream

    def _send(self, kind: Kind, stream: int, payload: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if len(payload) <= self._limits.frame_bytes_max:
            self._transport.write(frames.encode(kind, stream, payload))
        else:
            self._transport.writelines(frames.pieces(kind, stream, payload, self._limits.frame_bytes_max))

    # --- up ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each frame on; wake every request that got events, once."""
        touched: list[LiveRequest] = []
        streams, event = self._streams, int(Kind.EVENT)
        try:
            for kind, stream, payload in self._reader.feed(data):
                if kind == event:
                    live = streams.get(stream)
                    if live is not None:
                        live.replay.append(payload)
                        if not live.is_touched:
                            live.is_touched = True
                            touched.append(live)
                else:
                    self._on_frame(kind, stream, payload)
        except (BadFrame, ValueError, KeyError, TypeError) as error:
            # The peer runs a stranger's code: whatever it sends, only its own link suffers.
            _log.error("a runner broke the frame format and is replaced: %s", error)
            self.close()
        for live in touched:
            # DONE in the same batch has woken them already.
            if live.is_touched:
                live.wake_readers()

    def _on_frame(self, kind: int, stream: int, payload: bytes) -> None:
        match kind:
            case Kind.DONE:
                if live := self._release(stream):
                    live.finish()
                    self.on_released()
            case Kind.ERROR:
                if live := self._release(stream):
                    live.fail(RequestError.from_wire(orjson.loads(payload)))
                    self.on_released()
            case Kind.CHECKED:
                self._on_checked(stream, payload)
            case Kind.HELLO:
                self._on_hello(orjson.loads(payload))
            case Kind.READY:
                _resolve(self.ready, None)
            case Kind.FAULT:
                self._on_fault(orjson.loads(payload))
            case Kind.PONG:
                pass
            case _:
                raise BadFrame(f"a frame of unknown kind {kind}")

    def _release(self, stream: int) -> LiveRequest | None:
        live = self._streams.pop(stream, None)
        if live is not None:
            del self._numbers[live]
            live.on_credit = live.on_cancel = None
        return live

    def _on_checked(self, stream: int, payload: bytes) -> None:
        answer = self._checks.get(stream)
        if answer is None or answer.done():
            return
        if payload:
            answer.set_exception(RequestError.from_wire(orjson.loads(payload)))
        else:
            answer.set_result(None)

    def _on_hello(self, hello: dict[str, Any]) -> None:
        if hello["version"] != frames.VERSION:
            raise BadFrame(f"the runner speaks version {hello['version']}, this node {frames.VERSION}")
        _resolve(self.hello, tuple(AppSpec.from_wire(app) for app in hello["apps"]))

    def _on_fault(self, fault: dict[str, Any]) -> None:
        error = FileFault(fault["file"], fault["line"], fault["message"])
        error.add_note(fault["traceback"])
        waited_for = self.ready if self.hello.done() else self.hello
        if not waited_for.done():
            waited_for.set_exception(error)
            waited_for.exception()  # the pool may have stopped waiting

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - EOF and error mean the same
        """The runner is gone: everything it held ends here, as its death notice."""
        for stream in tuple(self._streams):
            if live := self._release(stream):
                live.fail(RequestError("runner_disconnected", LOST))
        waiting: list[asyncio.Future[Any]] = [*self._checks.values(), self.hello, self.ready]
        for future in waiting:
            if not future.done():
                future.set_exception(RequestError("runner_disconnected", LOST))
                future.exception()
        _resolve(self.closed, None)


def _message(live: LiveRequest, window: int) -> bytes:
    head = {
        "request_id": live.id,
        "path": live.route.endpoint.path,
        "headers": live.headers,
        "attempt": 1,
        "window": window,
    }
    return orjson.dumps(head) + b"\n" + live.body


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
