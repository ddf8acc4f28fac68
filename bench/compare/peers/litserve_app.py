"""The model behind LitServe: one API and one worker, which runs the plain or the async generator.

    litserve_app.py PORT sync|async [restart]

LitServe reads its routes' types from the annotations of these methods and takes no iterators there, so they are bare.
"""

import json
import sys

import litserve
from bench.compare.model import Model


class Stream(litserve.LitAPI):
    """Serves the plain generator."""

    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return request

    def predict(self, input):
        yield from self.model.sync(input)

    def encode_response(self, output):
        for item in output:
            yield f"data: {json.dumps(item)}\n\n"


class AsyncStream(litserve.LitAPI):
    """Serves the async generator."""

    def setup(self, device):
        self.model = Model()

    async def decode_request(self, request):
        return request

    async def predict(self, input):
        async for item in self.model.asynchronous(input):
            yield item

    async def encode_response(self, output):
        async for item in output:
            yield f"data: {json.dumps(item)}\n\n"


if __name__ == "__main__":
    port, colour, *restart = sys.argv[1:]
    if colour == "sync":
        api = Stream(stream=True, api_path="/sync")
    else:
        api = AsyncStream(stream=True, enable_async=True, api_path="/async")
    server = litserve.LitServer(api, accelerator="cpu", restart_workers=bool(restart))
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False)
