"""The node's end of the socket to one runner: frames down, and up to the requests they belong to.

`data_received` is the hot path of the whole node: cut frames, append events, wake each touched request once.
A frame that breaks the format closes the link; what that means for the process is the pool's to decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

import orjson

from headrace.core import frames
from headrace.core.errors import FileFault, RequestError
from headrace.core.file_room import FileRoom
from headrace.core.frames import BadFrame, FrameReader, Kind
from headrace.core.limits import Limits
from headrace.core.replay import Overrun
from headrace.core.request import State
from headrace.core.spec import AppSpec
from headrace.supervisor.request_log import SETTLE_S, RequestLog
from headrace.supervisor.streams import LiveRequest

_log = logging.getLogger(__name__)

#: Hoisted: reading a member of an enum costs as much as cutting a frame.
_EVENT: Final = int(Kind.EVENT)

LOST = "The runner's process died while it held the request."


class RunnerLink(asyncio.Protocol):
    """One runner's socket. Callbacks tell the pool what it must act on."""

    def __init__(self, limits: Limits, output_token: str | None = None, files: FileRoom | None = None) -> None:
        self._limits = limits
        self._files = files
        self.output_token = output_token  # what the runner shall mark its output with (core.marks)
        self._reader = FrameReader(
            frame_bytes_max=limits.frame_bytes_max, message_bytes_max=limits.message_bytes_max
        )
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, LiveRequest] = {}
        self._numbers: dict[LiveRequest, int] = {}
        self._checks: dict[int, asyncio.Future[None]] = {}
        #: By stream, of the queued requests it holds or has just given back.
        self.logs: dict[int, RequestLog] = {}
        self._next_stream = 1
        self._outbox: list[bytes] = []
        self._flush_is_due = False
        loop = self._loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[tuple[AppSpec, ...]] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.on_released: Callable[[], None] = lambda: None  # a slot became free
        self.last_words = LOST  # what the requests it holds are told when it is gone
        self._was_heard = True
        self._was_used = False

    @property
    def busy(self) -> int:
        """Slots in use."""
        return len(self._streams)

    @property
    def holds_wanted(self) -> bool:
        """Whether it holds a request that somebody still wants."""
        return any(live.state is State.RUNNING for live in self._streams.values())

    # --- down -------------------------------------------------------------------------------------------

    def setup(self, app: str) -> None:
        """Tell the runner which of its apps to be."""
        told: dict[str, Any] = {"app": app}
        if self.output_token is not None:
            told["output_token"] = self.output_token
        if self._files is not None:
            told["files"] = self._files.to_wire()
        self._send(Kind.SETUP, 0, orjson.dumps(told))

    def start(self, live: LiveRequest) -> None:
        """Give the runner a request; it takes a slot until DONE or ERROR."""
        self._was_used = True
        stream = self._new_stream()
        self._streams[stream] = live
        if live.log is not None:
            self.logs[stream] = live.log
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

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._send(Kind.PING, 0, b"")

    def was_heard(self) -> bool:
        """Whether anything came from the runner since this was asked last."""
        was_heard, self._was_heard = self._was_heard, False
        return was_heard

    def was_used(self) -> bool:
        """Whether a request began or ended here since this was asked last."""
        was_used, self._was_used = self._was_used, False
        return was_used

    def close(self) -> None:
        """Hang up; the runner takes EOF as the word to leave."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up at once: a peer that does not read would keep `close` waiting for ever."""
        if self._transport is not None:
            self._transport.abort()

    def _new_stream(self) -> int:
        stream = self._next_stream
        self._next_stream = stream % 0xFFFF_FFFF + 1
        return stream

    def _send(self, kind: Kind, stream: int, payload: bytes) -> None:
        if len(payload) <= self._limits.frame_bytes_max:
            self._outbox.append(frames.encode(kind, stream, payload))
        else:
            self._outbox.extend(frames.pieces(kind, stream, payload, self._limits.frame_bytes_max))
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write all frames of this turn of the loop at once."""
        self._flush_is_due = False
        out, self._outbox = self._outbox, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    # --- up ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each frame on; append each request's events as one batch, and wake its readers once."""
        self._was_heard = True
        try:
            self._take(self._reader.feed(data))
        except (BadFrame, Overrun) as error:
            # The peer runs a stranger's code: whatever it sends, only its own link suffers.
            _log.error("a runner broke the rules of its link and is replaced: %s", error)
            self.abort()

    def _take(self, messages: list[tuple[int, int, bytes]]) -> None:
        batches: dict[int, list[bytes]] = {}
        for kind, stream, payload in messages:
            if kind == _EVENT:
                if stream in batches:
                    batches[stream].append(payload)
                else:
                    batches[stream] = [payload]
            else:
                # What ends a request finds its events in the log, and wakes for both at once.
                if (texts := batches.pop(stream, None)) and (live := self._streams.get(stream)):
                    live.replay.extend(texts)
                self._on_frame(kind, stream, payload)
        for stream, texts in batches.items():
            if live := self._streams.get(stream):
                live.replay.extend(texts)
                live.wake_readers()

    def _on_frame(self, kind: int, stream: int, payload: bytes) -> None:
        try:
            told = _read(kind, payload)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadFrame(f"a frame of kind {kind} that cannot be read: {error!r}") from None
        match kind:
            case Kind.DONE | Kind.ERROR:
                self._on_end(stream, told)
            case Kind.CHECKED:
                self._on_checked(stream, told)
            case Kind.HELLO:
                _resolve(self.hello, told)
            case Kind.READY:
                _resolve(self.ready, None)
            case Kind.FAULT:
                self._on_fault(told)

    def _on_end(self, stream: int, error: RequestError | None) -> None:
        live = self._release(stream)
        if live is None:
            return
        if error is None:
            live.finish()
        else:
            live.fail(error)
        self.on_released()

    def _release(self, stream: int) -> LiveRequest | None:
        live = self._streams.pop(stream, None)
        if live is not None:
            self._was_used = True
            del self._numbers[live]
            live.on_credit = live.on_cancel = None
            if live.log is not None:  # its last words may still be in the pipe
                self._loop.call_later(SETTLE_S, self.logs.pop, stream, None)
        return live

    def _on_checked(self, stream: int, error: RequestError | None) -> None:
        answer = self._checks.get(stream)
        if answer is None or answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(None)

    def _on_fault(self, fault: FileFault) -> None:
        waited_for: asyncio.Future[Any] = self.ready if self.hello.done() else self.hello
        if not waited_for.done():
            waited_for.set_exception(fault)
            waited_for.exception()  # the pool may have stopped waiting

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - EOF and error mean the same
        """The runner is gone: everything it held ends here, as its death notice."""
        for stream in tuple(self._streams):
            if live := self._release(stream):
                live.fail(RequestError("runner_disconnected", self.last_words))
        waiting: list[asyncio.Future[Any]] = [*self._checks.values(), self.hello, self.ready]
        for future in waiting:
            if not future.done():
                future.set_exception(RequestError("runner_disconnected", self.last_words))
                future.exception()
        _resolve(self.closed, None)


def _read(kind: int, payload: bytes) -> Any:
    """Return what a frame tells. Raises `BadFrame`, or what wrong values raise: none of it is trusted."""
    match kind:
        case Kind.ERROR:
            return RequestError.from_wire(orjson.loads(payload))
        case Kind.CHECKED:
            return RequestError.from_wire(orjson.loads(payload)) if payload else None
        case Kind.HELLO:
            hello = orjson.loads(payload)
            if hello["version"] != frames.VERSION:
                raise BadFrame(f"the runner speaks version {hello['version']}, this node {frames.VERSION}")
            return tuple(AppSpec.from_wire(app) for app in hello["apps"])
        case Kind.FAULT:
            fields = orjson.loads(payload)
            fault = FileFault(fields["file"], fields["line"], fields["message"])
            fault.add_note(fields["traceback"])
            return fault
        case Kind.DONE | Kind.READY | Kind.PONG:
            return None
        case _:
            raise BadFrame(f"a frame of unknown kind {kind}")


def _message(live: LiveRequest, window: int) -> bytes:
    head: dict[str, Any] = {
        "request_id": live.id,
        "path": live.route.endpoint.path,
        "headers": live.headers,
        "attempt": live.attempt,
        "window": window,
    }
    if live.base_url:
        head["base_url"] = live.base_url
    if live.log is not None:
        head |= {"is_queued": True, "log_items": live.route.app.log_items}
    return orjson.dumps(head) + b"\n" + live.body


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
