"""The model as a BentoML service: `bentoml serve bench.compare.peers.bentoml_app:Compare`."""

import json
from collections.abc import AsyncGenerator, Generator

import bentoml
from bench.compare.model import Model


@bentoml.service
class Compare:
    """Streams text, which BentoML sends as `text/event-stream`; the events' framing is its user's work."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(route="/sync")
    def sync(self, options: dict, /) -> Generator[str, None, None]:
        """Stream the plain generator."""
        for item in self.model.sync(options):
            yield f"data: {json.dumps(item)}\n\n"

    @bentoml.api(route="/async")
    async def asynchronous(self, options: dict, /) -> AsyncGenerator[str, None]:
        """Stream the async generator."""
        async for item in self.model.asynchronous(options):
            yield f"data: {json.dumps(item)}\n\n"
