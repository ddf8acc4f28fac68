"""The bound: a bare uvloop Protocol that runs the model on its own loop and makes one write per event.

Not a server. No routing, no parsing worth the name, no isolation of the model, no back-pressure (a window lasts a
second and its reader keeps up): what is left is the generator, orjson, and the kernel.
"""

import asyncio
import sys

import orjson
import uvloop
from bench.workloads import Model

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Bound(asyncio.Protocol):
    """One connection; a request is taken to arrive in one piece."""

    model = Model()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.answer: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        workload = head.split(b" ", 2)[1].decode().removeprefix("/")
        self.answer = asyncio.get_running_loop().create_task(self.stream(workload, orjson.loads(body)))

    async def stream(self, workload: str, options: dict) -> None:
        self.transport.write(HEAD)
        async for event in getattr(self.model, workload)(options):
            text = b"data: %b\n\n" % orjson.dumps(event)
            self.transport.write(b"%x\r\n%b\r\n" % (len(text), text))
        self.transport.write(b"0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer is not None:
            self.answer.cancel()


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Bound, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
