"""The model behind LitServe with streaming: an async API with one worker, and a plain one with another.

Both in one server: the worker that is not asked sleeps on its queue, and costs nothing that can be measured.
LitServe reads its routes' types from the annotations of these methods and takes no iterators there, so they are bare.
"""

import sys

import litserve
import orjson
from bench.workloads import Model


class AsyncStream(litserve.LitAPI):
    """Serves the async generators; the workload's name travels in the body."""

    def setup(self, device):
        self.model = Model()

    async def decode_request(self, request):
        return request

    async def predict(self, input):
        async for event in getattr(self.model, input["workload"])(input):
            yield event

    async def encode_response(self, output):
        async for event in output:
            yield b"data: %b\n\n" % orjson.dumps(event)


class SyncStream(litserve.LitAPI):
    """Serves the plain generator."""

    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return request

    def predict(self, input):
        yield from self.model.sync(input)

    def encode_response(self, output):
        for event in output:
            yield b"data: %b\n\n" % orjson.dumps(event)


if __name__ == "__main__":
    apis = [
        AsyncStream(stream=True, enable_async=True, api_path="/async"),
        SyncStream(stream=True, api_path="/sync"),
    ]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
