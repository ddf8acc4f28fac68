"""How a queued request is, in fal's words: `IN_QUEUE`, `IN_PROGRESS`, `COMPLETED` (protocol section 7.3).

Failed and cancelled ones are COMPLETED too, with an `error`; what they failed with is their result's to say. As a
stream of events each tells only the log lines that are new, since fal's JavaScript client adds them up.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

import orjson

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.core.request import FINAL, RequestId, State
from headrace.gateway.calls import Call
from headrace.gateway.events import HEARTBEAT, stream_headers
from headrace.store.port import LogLine, RequestStore, StoreBusy, StoreUnavailable
from headrace.supervisor.queue import Queue
from headrace.supervisor.tickets import Ticket

#: Lines of a log in one answer.
LOG_LINES_MAX: Final = 10_000

#: Seconds between two looks at a request's place in line, while its status is streamed.
_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Urls:
    """Where a request is found."""

    own: str  # our address, with `/queue` where that is how we are called
    app: str
    id: RequestId

    def told(self) -> dict[str, str]:
        """Return the three URLs that fal's Python client follows."""
        base = f"{self.own}/{self.app}/requests/{self.id}"
        return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}


class StatusTeller:
    """Tells how one request is."""

    def __init__(self, queue: Queue, store: RequestStore, urls: Urls) -> None:
        self._queue = queue
        self._store = store
        self._urls = urls
        self._lines_told = 0

    async def tell(self, *, with_logs: bool) -> dict[str, Any]:
        """Return the status object; with its log lines, all of them at first and then the new ones."""
        told: dict[str, Any] = {"status": "IN_PROGRESS", "request_id": self._urls.id} | self._urls.told()
        ticket = self._queue.ticket(self._urls.id)
        if ticket is not None and ticket.waits:  # else it runs, or its ending is on its way to the store
            return told | {"status": "IN_QUEUE", "queue_position": self._queue.position(ticket) or 0}
        told["logs"] = await self._logs() if with_logs else None
        if ticket is not None and self._queue.ticket(self._urls.id) is not None:
            return told
        if ticket is not None and with_logs:  # it ended while we read: what it logged last may be missing
            told["logs"] += await self._logs()
        return told | await self._ending()

    async def _ending(self) -> dict[str, Any]:
        record = await self._store.get(self._urls.id)
        if record is None:
            raise RequestError("request_not_found", "There is no such request, or not any more.")
        if record.state not in FINAL:  # the store has it, and the queue is about to take it up
            return {"status": "IN_QUEUE", "queue_position": 0}
        ending: dict[str, Any] = {"status": "COMPLETED", "metrics": {}}
        if record.started_at is not None and record.finished_at is not None:
            ending["metrics"] = {"inference_time": round(record.finished_at - record.started_at, 6)}
        if record.state is not State.COMPLETED:
            ending |= {"error": record.error, "error_type": record.error_type}
        return ending

    async def _logs(self) -> list[dict[str, str]]:
        page = await self._store.logs(self._urls.id, self._lines_told, limit=LOG_LINES_MAX)
        if page is None:
            return []
        lines = [_told(line) for _, line in page.lines]
        if page.lines:
            self._lines_told = page.lines[-1][0] + 1
        return lines

    async def _tell_or(self, last: dict[str, Any], *, with_logs: bool) -> dict[str, Any]:
        """Return the status, or the last one while the store cannot be read: it heals, and then there is news."""
        lines_told = self._lines_told
        try:
            return await self.tell(with_logs=with_logs)
        except (StoreUnavailable, StoreBusy):
            self._lines_told = lines_told
            return last

    async def stream(self, call: Call, limits: Limits, *, with_logs: bool) -> None:
        """Write a status event at each change, and heartbeats, until the request has ended or the client left."""
        outlet = call.outlet
        gone = asyncio.Event()
        outlet.on_lost = gone.set
        outlet.start(200, [*stream_headers(self._urls.id), *call.extra])
        last: dict[str, Any] = {}
        silent_s = 0.0
        while not gone.is_set():
            ticket = self._queue.ticket(self._urls.id)
            try:
                told = await self._tell_or(last, with_logs=with_logs)
            except RequestError:  # it is not kept any more, and a status has been sent: all that is left is a cut
                await outlet.cut(limits)
                return
            if told != last or told.get("logs"):
                last, silent_s = told | ({"logs": []} if told.get("logs") else {}), 0.0
                outlet.write(b"data: %b\n\n" % orjson.dumps(told))
            elif silent_s >= limits.heartbeat_s:
                silent_s = 0.0
                outlet.write(HEARTBEAT)
            if told.get("status") == "COMPLETED":
                outlet.end()
                return
            if self._queue.is_stopping and ticket is not None and ticket.waits:
                await outlet.cut(limits)  # its next status is the next node's to tell
                return
            await outlet.catch_up(limits)
            silent_s += await _until_changed(ticket, gone)


async def _until_changed(ticket: Ticket | None, gone: asyncio.Event) -> float:
    """Wait until a request's status has changed, its reader is gone, or it is time to look; return the seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    waits = [asyncio.ensure_future(gone.wait())]
    if ticket is not None:
        waits.append(asyncio.ensure_future(ticket.changed.wait()))
    try:
        await asyncio.wait(waits, timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return loop.time() - began


def _told(line: LogLine) -> dict[str, str]:
    at = dt.datetime.fromtimestamp(line.at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"message": line.message, "timestamp": at, "level": line.level, "source": line.source}
