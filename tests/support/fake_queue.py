"""A small server with fal's queue (protocol section 7), whose requests do what a test says.

A request goes through `steps`, one more at each look at its status; the status stream tells them one after another.
`failures` are played before an operation is answered: a status (503), a status with headers ((503, {…})), RESET,
CUT (half an answer), or SILENCE until the client leaves.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

DEADLINE_S = 20.0

RESET = "reset"
CUT = "cut"
SILENCE = "silence"


@dataclass(frozen=True)
class Step:
    """A status, and the log lines that are new with it. A step that `holds` is not left but by a cancel."""

    status: str
    logs: tuple[str, ...] = ()
    position: int = 0
    error: str | None = None
    error_type: str | None = None
    holds: bool = False


STEPS = (
    Step("IN_QUEUE", position=1),
    Step("IN_PROGRESS", logs=("one",)),
    Step("IN_PROGRESS", logs=("two", "three")),
    Step("COMPLETED", logs=("four",)),
)
WAITING = (Step("IN_QUEUE", position=3, holds=True),)


@dataclass
class Call:
    """A request as it came over the wire."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        if self.method == "POST":
            return "submit"
        end = self.path.rpartition("/requests/")[2].partition("/")[2]
        return end or "result"


@dataclass
class Job:
    """One accepted request."""

    id: str
    app: str
    steps: tuple[Step, ...]
    at: int = 0

    @property
    def lines(self) -> list[str]:
        return [line for step in self.steps[: self.at + 1] for line in step.logs]

    def move(self) -> None:
        if self.at + 1 < len(self.steps) and not self.steps[self.at].holds:
            self.at += 1


@dataclass
class FakeQueue:
    """The running server, as a test sees it."""

    port: int
    steps: tuple[Step, ...] = STEPS
    result: tuple[int, Any] = (200, {"sum": 3})
    #: What `GET …/status/stream` is: True, or the status or content type of another answer.
    stream: bool | int | str = True
    #: After how many statuses each status stream is cut, one number a connection; then none is.
    cuts: list[int] = field(default_factory=list)
    failures: dict[str, list[Any]] = field(default_factory=dict)
    #: The address in the links, where it is not the one that was called.
    public_url: str | None = None
    calls: list[Call] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    keys: dict[str, Job] = field(default_factory=dict)
    #: Held while an answer is made.
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def operations(self) -> list[str]:
        return [call.operation for call in self.calls]

    def submit(self, call: Call) -> Job:
        key = call.headers.get("idempotency-key")
        if key in self.keys:
            return self.keys[key]
        app = "/".join(call.path.removeprefix("/queue/").split("/")[:2])
        job = Job(f"r{len(self.jobs) + 1}", app, self.steps)
        self.jobs[job.id] = job
        if key is not None:
            self.keys[key] = job
        return job

    def links(self, job: Job) -> dict[str, str]:
        base = f"{self.public_url or f'{self.url}/queue'}/{job.app}/requests/{job.id}"
        return {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}

    def told(self, job: Job, lines: list[str] | None) -> dict[str, Any]:
        """A status object with these log lines."""
        step = job.steps[job.at]
        told: dict[str, Any] = {"status": step.status, "request_id": job.id} | self.links(job)
        if step.status == "IN_QUEUE":
            return told | {"queue_position": step.position}
        told["logs"] = None if lines is None else [line_of(line) for line in lines]
        if step.status == "COMPLETED":
            told["metrics"] = {"inference_time": 0.5}
            if step.error:
                told |= {"error": step.error, "error_type": step.error_type}
        return told


def line_of(message: str) -> dict[str, str]:
    """A log line."""
    return {"message": message, "timestamp": "2026-01-01T00:00:00Z", "level": "INFO", "source": "USER"}


@contextlib.contextmanager
def fake_queue(**settings: Any) -> Iterator[FakeQueue]:
    """Run the server in threads until the block ends."""
    open_sockets: set[socket.socket] = set()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = True
        request_queue_size = 128  # as many as call at once; beyond it, the kernel lets them wait for seconds

        def process_request(self, request: Any, client_address: Any) -> None:
            open_sockets.add(request)
            super().process_request(request, client_address)

        def shutdown_request(self, request: Any) -> None:
            open_sockets.discard(request)
            super().shutdown_request(request)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that left is no news."""

    server = Server(("127.0.0.1", 0), _handler_of(lambda: queue))
    queue = FakeQueue(server.server_address[1], **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        queue.stopping.set()
        server.shutdown()
        for connection in list(open_sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the fake queue did not stop"


def _handler_of(queue_of: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            self._serve()

        do_GET = do_PUT = do_POST

        def _serve(self) -> None:
            queue: FakeQueue = queue_of()
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            call = Call(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
            with queue.lock:
                queue.calls.append(call)
                failures = queue.failures.get(call.operation, [])
                failure = failures.pop(0) if failures else None
            if failure is not None and not self._fail(queue, call, failure):
                return
            self._answer_to(queue, call)

        def _fail(self, queue: FakeQueue, call: Call, failure: Any) -> bool:
            """Play a failure; return whether the call is to be answered after all."""
            if failure in (RESET, CUT, SILENCE) and call.operation == "submit":
                queue.submit(call)  # accepted, and the answer is lost
            if failure == SILENCE:
                self.connection.settimeout(DEADLINE_S)
                with contextlib.suppress(OSError):
                    self.connection.recv(1)
            elif failure == RESET:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif failure == CUT:
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"status"')
            else:
                status, more = failure if isinstance(failure, tuple) else (failure, {})
                self._send(status, {"detail": f"a scripted {status}"}, **more)
                return False
            self.close_connection = True
            return False

        def _answer_to(self, queue: FakeQueue, call: Call) -> None:
            if call.operation == "submit":
                with queue.lock:
                    job = queue.submit(call)
                self._send(
                    200, {"status": "IN_QUEUE", "request_id": job.id, "queue_position": 0} | queue.links(job)
                )
                return
            job = queue.jobs.get(call.path.rpartition("/requests/")[2].partition("/")[0])
            if job is None:
                self._send(404, {"detail": "There is no such request.", "error_type": "request_not_found"})
                return
            over = job.steps[job.at].status == "COMPLETED"
            with_logs = call.query.get("logs") in {"1", "true"}
            if call.operation == "status":
                told = queue.told(job, job.lines if with_logs else None)
                job.move()  # before the answer is out: the next look may come by another thread
                self._send(200 if over else 202, told)
            elif call.operation == "status/stream":
                self._stream(queue, job, with_logs)
            elif call.operation == "cancel" and over:
                self._send(400, {"status": "ALREADY_COMPLETED"})
            elif call.operation == "cancel":
                job.steps = (Step("COMPLETED", error="cancelled", error_type="client_cancelled"),)
                job.at = 0
                self._send(202, {"status": "CANCELLATION_REQUESTED"})
            elif over:
                self._send(*queue.result)
            else:
                self._send(400, {"detail": "Request is still in progress"})

        def _stream(self, queue: FakeQueue, job: Job, with_logs: bool) -> None:
            if queue.stream is not True:
                if isinstance(queue.stream, str):
                    self._send(200, {}, **{"Content-Type": queue.stream})
                else:
                    self._send(queue.stream or 404, {"detail": "there is no status stream here"})
                return
            with queue.lock:
                statuses_left = queue.cuts.pop(0) if queue.cuts else None
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            told = 0
            while statuses_left != 0 and not queue.stopping.is_set():
                step = job.steps[job.at]
                if step.status == "IN_QUEUE" or not with_logs:
                    lines = None
                else:
                    lines, told = job.lines[told:], len(job.lines)
                self._chunk(b": ping\n")
                self._chunk(b"data: " + json.dumps(queue.told(job, lines)).encode() + b"\n\n")
                statuses_left = None if statuses_left is None else statuses_left - 1
                while job.steps[job.at] is step and step.holds:
                    if queue.stopping.wait(0.02):
                        return
                    self._chunk(b": ping\n")
                if step.status == "COMPLETED":
                    self.wfile.write(b"0\r\n\r\n")
                    return
                if job.steps[job.at] is step:
                    job.move()
            self.close_connection = True

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        def _send(self, status: int, value: Any, **headers: str) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", "x-fal-request-id": "req-1", **headers}.items():
                if text is not None:
                    self.send_header(name, text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
