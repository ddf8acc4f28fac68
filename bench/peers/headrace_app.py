"""The model as a Headrace app: `headrace serve bench/peers/headrace_app.py`."""

import headrace
from bench.workloads import Model


class Bench(headrace.App, name="bench/events", max_multiplexing=512):
    """Serves each workload at `/bench/events/NAME/stream`."""

    beat = Model.beat
    tick = headrace.endpoint("/tick")(Model.tick)
    step = headrace.endpoint("/step")(Model.step)
    paced = headrace.endpoint("/paced")(Model.paced)
    sync = headrace.endpoint("/sync")(Model.sync)
    short = headrace.endpoint("/short")(Model.short)
    silent = headrace.endpoint("/silent")(Model.silent)
