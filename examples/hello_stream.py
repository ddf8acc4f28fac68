"""The smallest app that streams: words, one by one, and the whole text as the result."""

import time
from collections.abc import Iterator

import headrace


class Hello(headrace.App, name="demo/hello", max_multiplexing=4):
    @headrace.endpoint("/")
    def hello(self, input: dict[str, str]) -> Iterator[dict[str, str]]:
        words = ["Hello", *input.get("name", "world").split()]
        for word in words:
            yield {"word": word}
            time.sleep(0.2)
        yield {"text": " ".join(words)}
