"""docs/reference/metrics.md, rendered from the table in supervisor/meters.py.

python -m tests.support.metrics_page     writes the page; tests/unit/test_meters.py fails while it is stale
"""

from __future__ import annotations

from pathlib import Path

from headrace.supervisor.meters import BUCKETS_S, ENDINGS, METRICS, RUNNER_ENDS, Labels, Metric

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"

TOP = """# Metrics

`GET /metrics` answers in Prometheus' text format. It needs a key, as every call does that tells about your work:

```yaml
scrape_configs:
  - job_name: headrace
    authorization:
      type: Key
      credentials: "<key_id>:<secret>"  # headrace keys create; or credentials_file
    static_configs:
      - targets: ["127.0.0.1:8080"]
```

| metric | type | labels | unit | meaning |
|---|---|---|---|---|
"""

MIDDLE = """
On Linux the node's own process is there too, under the names that dashboards know: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`, `process_max_fds` and
`process_start_time_seconds`. They are the node's alone; runners are processes of their own.

Counters and histograms start at zero with the node. A request is counted under its app when it ends, with all its
events at once, and so is one that its app could not take (a full waiting room, an app that cannot start). One that is
refused before that, for its key or its body, is nobody's and is not counted. Gauges are read at each scrape.

| `reason` of `headrace_runner_ends_total` | meaning |
|---|---|
"""

BOUNDED = """
## How many series

No label takes a value from a caller: apps are the ones you serve (an alias counts as the app it names), and every
other label has the values above. An app has {series} series, all from the start, so that `increase()` sees even the
first failure; one that a reload removed keeps its counters until the node ends. The buckets of every histogram end,
in seconds, at {bounds} and `+Inf`.
"""

QUERIES = """
## Three questions

How long do callers wait for the first event, at worst (the 99th percentile, for each app)?

```promql
histogram_quantile(0.99, sum by (app, le) (rate(headrace_first_event_seconds_bucket[5m])))
```

How long does a request run on, on average, after its reader has left? Under 0.1 s, unless `on_disconnect` lets it.

```promql
sum by (app) (rate(headrace_work_after_leave_seconds_total[1h]))
  / sum by (app) (rate(headrace_requests_total{ending="client_disconnected"}[1h]))
```

What share of the requests failed, but for those that their callers gave up?

```promql
sum by (app) (rate(headrace_requests_total{ending!~"completed|client_.*"}[5m]))
  / sum by (app) (rate(headrace_requests_total[5m]))
```
"""


def render() -> str:
    """Return the page."""
    bounded = BOUNDED.format(
        series=series_of_an_app(),
        bounds=", ".join(f"{bound:g}" for bound in BUCKETS_S),
    )
    rows = "".join(row(name, metric) for name, metric in METRICS.items())
    reasons = "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in RUNNER_ENDS.items())
    return TOP + rows + MIDDLE + reasons + bounded + QUERIES


def row(name: str, metric: Metric) -> str:
    labels = "; ".join(_told(label, values) for label, values in metric.labels.items())
    return f"| `{name}` | {metric.type} | {labels} | {metric.unit} | {metric.meaning} |\n"


def _told(label: str, values: Labels) -> str:
    if values == ENDINGS:
        return f"`{label}`: `completed` or a [type of error](errors.md)"
    return f"`{label}`" + (": " + ", ".join(f"`{value}`" for value in values) if values else "")


def series_of_an_app() -> int:
    """Return how many series one app has; a histogram is its buckets, the one for `+Inf`, a sum and a count."""
    lines = {"counter": 1, "gauge": 1, "histogram": len(BUCKETS_S) + 3}
    return sum(
        lines[metric.type] * len(list(metric.series("owner/app")))
        for metric in METRICS.values()
        if "app" in metric.labels
    )


if __name__ == "__main__":
    PAGE.write_text(render())
