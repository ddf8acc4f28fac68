"""A library that calls back after each step, served as a stream.

Image pipelines take such a callback (diffusers calls it `callback_on_step_end`). Here the library is twenty lines
of heat spreading over a plate, so that the example runs anywhere:

    headrace serve examples/steps_by_callback.py
    curl -N -X POST localhost:8080/demo/heat/stream -H 'content-type: application/json' -d '{"size": 24}'
"""

from collections.abc import Callable

from pydantic import BaseModel, Field

import headrace

Plate = list[list[float]]


def spread_heat(size: int, steps: int, on_step: Callable[[int, Plate, float], None]) -> Plate:
    """Jacobi's iteration on a plate with one hot edge. It knows nothing of Headrace."""
    plate = [[100.0] * size] + [[0.0] * size for _ in range(size - 1)]
    for step in range(1, steps + 1):
        new = [row[:] for row in plate]
        for y in range(1, size - 1):
            for x in range(1, size - 1):
                new[y][x] = (plate[y - 1][x] + plate[y + 1][x] + plate[y][x - 1] + plate[y][x + 1]) / 4
        change = max(
            abs(a - b) for old, now in zip(plate, new, strict=True) for a, b in zip(old, now, strict=True)
        )
        plate = new
        on_step(step, plate, change)
    return plate


class Job(BaseModel):
    size: int = Field(16, ge=3, le=200)
    steps: int = Field(100, ge=1, le=10_000)
    every: int = Field(10, ge=1)


class Step(BaseModel):
    step: int
    change: float
    centre: float


class Result(BaseModel):
    centre: float
    plate: Plate


class Heat(headrace.App, name="demo/heat", max_multiplexing=2):
    @headrace.endpoint("/", emits=Step)
    def run(self, input: Job) -> Result:
        middle = input.size // 2

        def on_step(step: int, plate: Plate, change: float) -> None:
            if (
                step % input.every == 0
            ):  # emit raises Cancelled, and so ends the job, once the last reader has left
                headrace.emit(Step(step=step, change=change, centre=plate[middle][middle]))

        plate = spread_heat(input.size, input.steps, on_step)
        return Result(centre=plate[middle][middle], plate=plate)
