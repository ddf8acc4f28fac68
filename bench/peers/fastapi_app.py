"""The model behind FastAPI and a StreamingResponse, as its users write it, but with orjson instead of json."""

import sys
from collections.abc import AsyncIterator, Iterator

import orjson
import uvicorn
from bench.workloads import Model
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()
model = Model()


async def framed(events: AsyncIterator[dict]) -> AsyncIterator[bytes]:
    """Frame events from an async generator as SSE."""
    async for event in events:
        yield b"data: %b\n\n" % orjson.dumps(event)


def framed_sync(events: Iterator[dict]) -> Iterator[bytes]:
    """Frame events from a plain generator as SSE; Starlette pulls them through its thread pool."""
    for event in events:
        yield b"data: %b\n\n" % orjson.dumps(event)


@app.post("/sync")
async def sync(options: dict) -> StreamingResponse:
    """Stream the plain generator."""
    return StreamingResponse(framed_sync(model.sync(options)), media_type="text/event-stream")


@app.post("/{workload}")
async def stream(workload: str, options: dict) -> StreamingResponse:
    """Stream an async generator."""
    events = getattr(model, workload)(options)
    return StreamingResponse(framed(events), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", access_log=False)
