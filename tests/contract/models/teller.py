"""A model that says what it does, one line for each item."""

from __future__ import annotations

import time
from collections.abc import Iterator

import headrace
from pydantic import BaseModel


class Count(BaseModel):
    n: int = 3


class Step(BaseModel):
    i: int


class Teller(headrace.App, name="line/teller", max_multiplexing=4):
    """Prints."""

    @headrace.endpoint("/")
    def tell(self, input: Count) -> Iterator[Step]:
        for i in range(input.n):
            print(f"line {i} of {input.n}")
            time.sleep(0.3)
            yield Step(i=i)
