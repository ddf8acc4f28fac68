"""What is counted is told, nothing that the table does not have can be counted, and no number lies."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.core.errors import ERROR_TYPES
from headrace.supervisor.meters import BUCKETS_S, METRICS, RUNNER_ENDS, VIEWS, Meters, Reading
from headrace.supervisor.runner import Leaving
from tests.support import metrics_page

APP = "me/chat"


def scraped(meters: Meters) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample, as Prometheus' own parser reads it."""
    families = text_string_to_metric_families(meters.text()[1].decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def sample(meters: Meters, name: str, **labels: str) -> float:
    return scraped(meters)[name, frozenset(labels.items())]


# --- what is counted ---------------------------------------------------------------------------------------


def test_an_ended_request_is_counted_once_with_its_ending_its_events_and_its_time():
    meters = Meters()

    meters.app(APP).request_ended("stream", "completed", 2.0, 64)
    meters.app(APP).request_ended("stream", "runner_disconnected", 0.5, 3)

    assert sample(meters, "headrace_requests_total", app=APP, view="stream", ending="completed") == 1
    assert sample(meters, "headrace_requests_total", app=APP, view="stream", ending="runner_disconnected") == 1
    assert sample(meters, "headrace_requests_total", app=APP, view="run", ending="completed") == 0
    assert sample(meters, "headrace_events_total", app=APP) == 67
    assert sample(meters, "headrace_request_seconds_count", app=APP, view="stream") == 2
    assert sample(meters, "headrace_request_seconds_sum", app=APP, view="stream") == 2.5


def test_waits_first_events_and_wasted_work_are_measured_in_seconds():
    meters = Meters()
    app = meters.app(APP)

    app.waited(0.25)
    app.first_event(1.5)
    app.worked_after_leave(0.0625)
    app.worked_after_leave(0.0625)

    assert sample(meters, "headrace_slot_wait_seconds_sum", app=APP) == 0.25
    assert sample(meters, "headrace_first_event_seconds_sum", app=APP) == 1.5
    assert sample(meters, "headrace_work_after_leave_seconds_total", app=APP) == 0.125


def test_runners_readers_and_dropped_output_are_counted():
    meters = Meters()
    app = meters.app(APP)

    app.runner_started()
    app.runner_ended("died")
    app.output_dropped(4096)
    app.output_dropped(1)
    app.reader_stalled()
    meters.shed(3)

    assert sample(meters, "headrace_runner_starts_total", app=APP) == 1
    assert sample(meters, "headrace_runner_ends_total", app=APP, reason="died") == 1
    assert sample(meters, "headrace_runner_ends_total", app=APP, reason="idle") == 0
    assert sample(meters, "headrace_output_dropped_bytes_total", app=APP) == 4097
    assert sample(meters, "headrace_readers_stalled_total", app=APP) == 1
    assert sample(meters, "headrace_requests_shed_total") == 3


@pytest.mark.parametrize(
    ("seconds", "le"),
    [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (1.0, "1.0"), (3600.0, "3600.0"), (3600.1, "+Inf")],
)
def test_a_duration_falls_into_the_first_bucket_whose_bound_it_does_not_exceed(seconds, le):
    meters = Meters()
    bounds = [*map(str, BUCKETS_S), "+Inf"]

    meters.app(APP).first_event(seconds)

    counted = [sample(meters, "headrace_first_event_seconds_bucket", app=APP, le=bound) for bound in bounds]
    assert counted == [0] * bounds.index(le) + [1] * (len(bounds) - bounds.index(le))


def test_the_same_app_is_counted_by_the_same_meters():
    meters = Meters()

    assert meters.app(APP) is meters.app(APP)


def test_two_nodes_in_one_process_count_apart():
    one, other = Meters(), Meters()

    one.app(APP).runner_started()
    other.app(APP)

    assert sample(one, "headrace_runner_starts_total", app=APP) == 1
    assert sample(other, "headrace_runner_starts_total", app=APP) == 0


# --- gauges ------------------------------------------------------------------------------------------------


def test_a_gauge_is_read_anew_at_each_scrape():
    meters, open_now = Meters(), [5]
    meters.watch(lambda: [Reading("headrace_connections", {}, open_now[0])])

    first = sample(meters, "headrace_connections")
    open_now[0] = 7

    assert (first, sample(meters, "headrace_connections")) == (5, 7)


def test_two_pools_of_one_app_add_up_while_it_is_reloaded():
    meters = Meters()
    meters.watch(lambda: [Reading("headrace_runners", {"app": APP, "state": "working"}, 1)])
    meters.watch(lambda: [Reading("headrace_runners", {"state": "working", "app": APP}, 2)])

    assert sample(meters, "headrace_runners", app=APP, state="working") == 3


def test_a_gauge_that_cannot_be_read_fails_the_scrape_instead_of_telling_an_old_value():
    meters = Meters()
    meters.watch(lambda: [Reading("headrace_connections", {}, len([][0]))])

    with pytest.raises(IndexError):
        meters.text()


# --- nothing outside the table -----------------------------------------------------------------------------


def test_every_series_of_the_table_is_there_from_the_start_at_zero():
    meters = Meters()
    meters.app(APP)

    numbers = {key: value for key, value in scraped(meters).items() if key[0].startswith("headrace_")}

    assert set(numbers.values()) == {0}
    for ending in ("completed", *ERROR_TYPES):
        for view in VIEWS:
            labels = {"app": APP, "view": view, "ending": ending}
            assert ("headrace_requests_total", frozenset(labels.items())) in numbers
    for reason in RUNNER_ENDS:
        assert ("headrace_runner_ends_total", frozenset({("app", APP), ("reason", reason)})) in numbers


@pytest.mark.parametrize(("view", "ending"), [("queue", "completed"), ("run", "ok"), ("run", "")])
def test_a_view_or_an_ending_that_the_table_does_not_have_is_refused_and_nothing_is_counted(view, ending):
    meters = Meters()
    app = meters.app(APP)
    before = scraped(meters)

    with pytest.raises(KeyError):
        app.request_ended(view, ending, 1.0, 1)

    ours = [
        key for key, value in scraped(meters).items() if key[0].startswith("headrace_") and value != before[key]
    ]
    assert ours == []


def test_every_reason_for_which_a_fleet_ends_a_runner_has_a_series():
    assert {why.value for why in Leaving} | {"load_failed"} == set(RUNNER_ENDS)


def test_a_runner_cannot_end_for_a_reason_that_the_table_does_not_have():
    with pytest.raises(KeyError):
        Meters().app(APP).runner_ended("bored")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("headrace_made_up", {}),
        ("headrace_events_total", {"app": APP}),  # no gauge
        ("headrace_connections", {"app": APP}),
        ("headrace_runners", {"state": "working"}),
        ("headrace_runners", {"app": APP, "state": "happy"}),
        ("headrace_held_bytes", {"kind": "events", "caller": "10.0.0.7"}),
    ],
)
def test_a_reading_that_the_table_does_not_have_cannot_be_made(name, labels):
    with pytest.raises(ValueError):
        Reading(name, labels, 1)


def test_how_many_series_there_are_depends_on_the_apps_alone():
    meters = Meters()
    for name in ("me/one", "me/two"):
        meters.app(name)
    gauges = [name for name, metric in METRICS.items() if metric.type == "gauge" and "app" in metric.labels]
    read = [
        Reading(name, dict(zip(METRICS[name].labels, labels)), 1)
        for name in gauges
        for app in ("me/one", "me/two")
        for labels in METRICS[name].series(app)
    ]
    meters.watch(lambda: read)

    meters.app("me/one").request_ended("run", "validation_error", 1.0, 0)
    meters.app("me/one").runner_ended("memory")

    of_apps = [labels for name, labels in scraped(meters) if "app" in dict(labels)]
    assert len(of_apps) == 2 * metrics_page.series_of_an_app()


# --- the text and the page ---------------------------------------------------------------------------------


def test_the_text_is_what_prometheus_reads_and_has_the_tables_words():
    content_type, body = Meters().text()
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}

    assert content_type == b"text/plain; version=0.0.4; charset=utf-8"
    for name, metric in METRICS.items():
        assert f"# HELP {name} {metric.meaning}\n# TYPE {name} {metric.type}\n" in body.decode()
    assert "process_resident_memory_bytes" in families


def test_everything_that_is_told_is_in_the_table_or_is_the_process():
    told = set(re.findall(r"^# TYPE (\S+)", Meters().text()[1].decode(), re.MULTILINE))

    assert {name for name in told if not name.startswith("process_")} == set(METRICS)


def test_the_page_of_metrics_is_up_to_date():
    """Mend it with: python -m tests.support.metrics_page"""
    assert metrics_page.render() == metrics_page.PAGE.read_text()


def test_every_metric_that_is_told_stands_on_the_page():
    told = re.findall(r"^# TYPE (\S+)", Meters().text()[1].decode(), re.MULTILINE)

    assert [name for name in told if f"`{name}`" not in metrics_page.PAGE.read_text()] == []


def test_every_metric_that_the_page_asks_for_exists():
    asked = re.findall(r"(headrace_\w+)[\[{]", metrics_page.QUERIES)

    assert len(asked) == 5
    assert [name for name in asked if name.removesuffix("_bucket") not in METRICS] == []
