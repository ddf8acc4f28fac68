"""Ids of events: made, read back, and everything else refused."""

import pytest

from headrace.core.event_ids import EventId, Labels, parse_event_id
from headrace.core.sse import Decoder

REQUEST = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(("attempt", "number"), [(1, 0), (1, 7), (10, 12_345_678), (99_999_999, 10**18 - 1)])
def test_an_id_is_read_back_as_it_was_written(attempt, number):
    id_ = EventId(REQUEST, attempt, number)

    assert parse_event_id(str(id_)) == id_
    assert len(str(id_)) <= 64


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "7", "null", REQUEST, f"{REQUEST}.", f"{REQUEST}.1", f"{REQUEST}.1.", f"{REQUEST}.0.1",
        f"{REQUEST}.-1.1", f"{REQUEST}.1.-1", f"{REQUEST}.1.01", f"{REQUEST}.01.1", f"{REQUEST}.1.1.1",
        f"{REQUEST}.1.+1", f"{REQUEST}.1. 1", f" {REQUEST}.1.1", f"{REQUEST}.1.1 ", f"{REQUEST}.1.1\n",
        f"{REQUEST}.1.1\r\n", f"{REQUEST}.1.1\0", f"{REQUEST}.1.1e3", f"{REQUEST}.1.1_000", f"{REQUEST}.1.0x1",
        f"{REQUEST}.1.\u0661", f"{REQUEST}.\uff11.1", f"{REQUEST}.1.\u00b2", f"{REQUEST.upper()}.1.1",
        f"{REQUEST[:-1]}.1.1", f"{REQUEST}0.1.1", "../" + REQUEST + ".1.1", f"{REQUEST}/../x.1.1",
        "%2e%2e." + REQUEST + ".1.1", f"{REQUEST}.1.{10**18}", f"{REQUEST}.{10**8}.1", "x" * 10_000,
        f"{REQUEST}.1." + "9" * 5_000, f"{REQUEST};DROP.1.1", f"{REQUEST}.1.1,{REQUEST}.1.2", "{}", "[]", "\ufeff",
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_told_briefly(text):
    with pytest.raises(ValueError, match="no event id of ours") as refusal:
        parse_event_id(text)

    assert len(str(refusal.value)) < 700


def test_labelled_events_are_what_a_reader_of_the_format_reads():
    labels = Labels(REQUEST, 2)

    events = Decoder().feed(labels.framed(5, [b'{"a":1}', b'{"b":2}']))

    assert [(event.id, event.data) for event in events] == [
        (f"{REQUEST}.2.5", '{"a":1}'),
        (f"{REQUEST}.2.6", '{"b":2}'),
    ]
