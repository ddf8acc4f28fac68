"""A network that loses what matters most: the answer to the first request."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
from pathlib import Path

from tests.support.server import PATIENCE_S, Server, eventually


class LosingTheFirst:
    """A network to a server that brings it the first request, and loses both connections before any answer."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._thread = threading.Thread(target=self._serve)
        self._pumps: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._is_over = False
        self.port = self._listener.getsockname()[1]
        self.lost = 0

    def __enter__(self) -> LosingTheFirst:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join(PATIENCE_S)
        for pump in self._pumps:
            pump.join(PATIENCE_S)
        for one in (self._listener, *self._open):
            one.close()

    def _serve(self) -> None:
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                client.settimeout(PATIENCE_S)
                upstream = socket.create_connection(("127.0.0.1", self._server.port), timeout=PATIENCE_S)
                self._open += [client, upstream]
                if self.lost:
                    for one, other in ((client, upstream), (upstream, client)):
                        self._pumps.append(threading.Thread(target=self._pump, args=(one, other)))
                        self._pumps[-1].start()
                else:
                    self._lose(client, upstream)

    def _lose(self, client: socket.socket, upstream: socket.socket) -> None:
        request = b""
        while not (match := re.search(rb"content-length: ([0-9]+)", request)) or len(
            request.partition(b"\r\n\r\n")[2]
        ) < int(match[1]):
            request += client.recv(65_536)
        # The server reads it when its connection is gone already: it cannot have answered.
        self._server.process.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: is_stopped(self._server.process.pid), "the server stands still")
            upstream.sendall(request)
            reset(upstream)
        finally:
            self._server.process.send_signal(signal.SIGCONT)
        self.lost += 1
        reset(client)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def reset(connection: socket.socket) -> None:
    """Leave by RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
