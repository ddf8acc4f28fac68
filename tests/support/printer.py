"""A model that prints, a little and a lot."""

import sys

import headrace


class Printer(headrace.App, name="zoo/printer"):
    """Prints."""

    @headrace.endpoint("/")
    def talk(self, input: dict) -> dict:
        print("hello from the model", flush=True)
        sys.stderr.write("x" * 1_000_000 + "\n")
        sys.stderr.flush()
        print("after the flood", flush=True)
        return {}
