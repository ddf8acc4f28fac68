"""The model as a Headrace app: `headrace serve bench/compare/peers/headrace_app.py`."""

import headrace
from bench.compare.model import Model


class Compare(headrace.App, name="bench/compare"):
    """Serves the generators at `/bench/compare/sync/stream` and `/bench/compare/async/stream`."""

    model = Model()

    @headrace.endpoint("/sync")
    def sync(self, input: dict):
        """Stream the plain generator."""
        yield from self.model.sync(input)

    @headrace.endpoint("/async")
    async def asynchronous(self, input: dict):
        """Stream the async generator."""
        async for item in self.model.asynchronous(input):
            yield item
