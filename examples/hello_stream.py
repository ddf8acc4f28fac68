import time

import headrace


class Hello(headrace.App, name="demo/hello"):
    @headrace.endpoint("/")
    def hello(self, input: dict[str, str]):
        words = ["Hello", *input.get("name", "world").split()]
        for word in words:
            yield {"word": word}
            time.sleep(0.2)
        yield {"text": " ".join(words)}
