"""The model behind FastAPI: `uvicorn bench.compare.peers.fastapi_app:app`.

`/sync` and `/async` answer with a StreamingResponse, as most of its users write it; `/events/…` with the newer
EventSourceResponse, which frames what a generator endpoint yields.
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

from bench.compare.model import Model
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse

app = FastAPI()
model = Model()


def framed(items: Iterator[dict]) -> Iterator[str]:
    """Frame a plain generator's items as SSE; Starlette pulls them through its thread pool."""
    for item in items:
        yield f"data: {json.dumps(item)}\n\n"


async def framed_async(items: AsyncIterator[dict]) -> AsyncIterator[str]:
    """Frame an async generator's items as SSE."""
    async for item in items:
        yield f"data: {json.dumps(item)}\n\n"


@app.post("/sync")
def sync(options: dict) -> StreamingResponse:
    """Stream the plain generator."""
    return StreamingResponse(framed(model.sync(options)), media_type="text/event-stream")


@app.post("/async")
async def asynchronous(options: dict) -> StreamingResponse:
    """Stream the async generator."""
    return StreamingResponse(framed_async(model.asynchronous(options)), media_type="text/event-stream")


@app.post("/events/sync", response_class=EventSourceResponse)
def events(options: dict) -> Iterable[dict]:
    """Stream the plain generator."""
    yield from model.sync(options)


@app.post("/events/async", response_class=EventSourceResponse)
async def events_async(options: dict) -> AsyncIterable[dict]:
    """Stream the async generator."""
    async for item in model.asynchronous(options):
        yield item


@app.get("/health")
def health() -> dict[str, bool]:
    """Say that the server lives; FastAPI brings no such endpoint of its own."""
    return {"ok": True}
