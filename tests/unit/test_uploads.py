"""Unfinished uploads: what is promised, to whom, and what ends them. Time and chance are passed in."""

from __future__ import annotations

import itertools

import pytest

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.core.limits import Limits
from headrace.core.stored_file import FileId, NewFile, StoredPart
from headrace.core.uploads import FINISHED_MAX, Upload, Uploads, part_number, parts_in_order

ADA, BOB = KeyId("hr_aaaaaaaaaaaa"), KeyId("hr_bbbbbbbbbbbb")
LIMITS = Limits(
    file_bytes_max=100,
    uploads_max=3,
    uploads_coming_max=2,
    uploads_bytes_max=200,
    upload_parts_max=50,
    upload_idle_s=60.0,
    upload_part_bytes_min=4,
)
FILE = NewFile(content_type="image/png", name="a cat.png", id=FileId("f" * 32))

_counter = itertools.count(1)


def begun(uploads: Uploads, owner: KeyId | None = ADA, *, has_parts: bool = True, now: float = 0.0) -> Upload:
    random = next(_counter).to_bytes(48, "little")
    return uploads.begin(owner, FILE, has_parts=has_parts, random=random, now=now)


def arrived(uploads: Uploads, upload: Upload, number: int, size: int) -> None:
    uploads.take(upload.owner, size)
    uploads.keep_part(upload, number, StoredPart(size, f"e{number}"))


def status_of(refused: pytest.ExceptionInfo[RequestError]) -> tuple[int, str]:
    return refused.value.status, refused.value.type


def test_a_promise_tells_where_the_file_will_be_and_a_key_that_is_not_its_id():
    upload = begun(Uploads(LIMITS))

    assert upload.file_path == f"/files/{'f' * 32}/a%20cat.png"
    assert (len(upload.id), len(upload.key)) == (32, 43)
    assert upload.key not in repr(upload)
    assert [upload.opens(key) for key in (upload.key, upload.key[:-1], "", upload.id, "\udcff")] == [
        True, False, False, False, False,
    ]  # fmt: skip


def test_an_upload_is_found_until_it_is_over_or_nothing_came_for_too_long():
    uploads = Uploads(LIMITS)
    kept, left = begun(uploads), begun(uploads)
    uploads.end(left, is_finished=False)

    assert uploads.find(kept.id, 60.0) is kept
    for id_, now in [(kept.id, 60.1), (left.id, 0.0), ("0" * 32, 0.0)]:
        with pytest.raises(RequestError) as refused:
            uploads.find(id_, now)
        assert status_of(refused) == (404, "upload_not_found")


def test_what_is_in_use_is_not_cleared_away():
    uploads = Uploads(LIMITS)
    used, idle = begun(uploads), begun(uploads)
    used.users = 1

    assert uploads.too_old(61.0) == [idle]
    assert uploads.find(used.id, 61.0) is used


def test_the_end_of_a_finished_one_is_remembered_for_a_while_and_of_so_many():
    uploads = Uploads(LIMITS)
    first = begun(uploads)
    uploads.end(first, is_finished=True)

    assert uploads.find(first.id, 60.0).is_over
    uploads.too_old(61.0)
    with pytest.raises(RequestError):
        uploads.find(first.id, 0.0)
    for _ in range(FINISHED_MAX + 1):
        last = begun(uploads)
        uploads.end(last, is_finished=True)
    assert uploads.find(last.id, 0.0) is last
    assert len(uploads._finished) == FINISHED_MAX


def test_one_key_may_have_so_many_unfinished_ones_and_another_key_as_many():
    uploads = Uploads(LIMITS)
    mine = [begun(uploads) for _ in range(3)]

    with pytest.raises(RequestError) as refused:
        begun(uploads)
    assert status_of(refused) == (429, "overloaded")
    begun(uploads, BOB)
    uploads.end(mine[0], is_finished=True)
    begun(uploads)


def test_one_key_may_take_half_of_the_room_and_all_of_them_the_whole():
    uploads = Uploads(LIMITS)
    uploads.take(ADA, 100)

    with pytest.raises(RequestError) as refused:
        uploads.take(ADA, 1)
    assert status_of(refused) == (429, "overloaded")
    uploads.take(BOB, 100)
    with pytest.raises(RequestError):
        uploads.take(None, 1)
    uploads.give_back(BOB, 100)
    uploads.take(None, 1)
    assert uploads.bytes_taken == 101


def test_one_key_may_have_so_many_bodies_that_come_in_and_another_key_as_many():
    uploads = Uploads(LIMITS)
    for _ in range(2):
        uploads.arrive(ADA)

    with pytest.raises(RequestError) as refused:
        uploads.arrive(ADA)
    assert status_of(refused) == (429, "overloaded")
    uploads.arrive(BOB)
    uploads.leave(ADA)
    uploads.arrive(ADA)


def test_a_part_that_comes_again_takes_the_place_of_the_first_and_an_end_gives_all_back():
    uploads = Uploads(LIMITS)
    upload = begun(uploads)
    for number, size in [(1, 10), (2, 20), (1, 5)]:
        arrived(uploads, upload, number, size)

    assert (uploads.bytes_taken, upload.parts[1].size) == (25, 5)
    uploads.end(upload, is_finished=False)
    assert (uploads.bytes_taken, len(uploads)) == (0, 0)


def test_a_part_counts_as_a_file_of_its_own_however_small_it_is():
    uploads = Uploads(LIMITS)
    upload = begun(uploads)
    for number in (1, 2, 1):
        uploads.take(ADA, uploads.cost_of(1))
        uploads.keep_part(upload, number, StoredPart(1, "e"))

    assert (uploads.bytes_taken, uploads.cost_of(0), uploads.cost_of(5)) == (8, 4, 5)
    uploads.end(upload, is_finished=True)
    assert uploads.bytes_taken == 0


def said(*numbers: int) -> list[dict[str, object]]:
    return [{"partNumber": number, "etag": f'"e{number}"'} for number in numbers]


def test_parts_are_put_in_order_and_an_etag_may_have_its_quotes_or_not():
    uploads = Uploads(LIMITS)
    upload = begun(uploads)
    for number in (3, 1, 7):
        arrived(uploads, upload, number, 10)

    assert parts_in_order(said(7, 1, 3), upload, LIMITS) == [1, 3, 7]
    assert parts_in_order([{"partNumber": 3, "etag": "e3"}], upload, LIMITS) == [3]


@pytest.mark.parametrize(
    ("parts", "type_"),
    [
        (None, "list_type"),
        ([], "list_type"),
        ("1", "list_type"),
        ([7], "part_unknown"),
        ([{"partNumber": 2, "etag": "e2"}], "part_unknown"),
        ([{"partNumber": "1", "etag": "e1"}], "part_unknown"),
        ([{"partNumber": True, "etag": "e1"}], "part_unknown"),
        ([{"partNumber": [1], "etag": "e1"}], "part_unknown"),
        ([{"partNumber": 1, "etag": "e2"}], "part_changed"),
        ([{"partNumber": 1, "etag": None}], "part_changed"),
        ([{"partNumber": 1}], "part_changed"),
        ([*said(1), *said(1)], "part_twice"),
    ],
)
def test_parts_that_did_not_come_are_named(parts, type_):
    uploads = Uploads(LIMITS)
    upload = begun(uploads)
    arrived(uploads, upload, 1, 10)

    with pytest.raises(RequestError) as refused:
        parts_in_order(parts, upload, LIMITS)

    assert status_of(refused) == (422, "validation_error")
    assert refused.value.detail[0]["type"] == type_
    assert refused.value.detail[0]["loc"][:2] == ["body", "parts"]


def test_parts_that_make_too_large_a_file_are_refused():
    upload = begun(Uploads(LIMITS))
    upload.parts |= {1: StoredPart(60, "e1"), 2: StoredPart(41, "e2")}

    with pytest.raises(RequestError) as refused:
        parts_in_order(said(1, 2), upload, LIMITS)

    assert status_of(refused) == (413, "payload_too_large")


@pytest.mark.parametrize("text", ["0", "51", "00000000001", "1234567", "²", "-1", "x", ""])
def test_a_parts_number_has_its_bounds(text):
    assert [part_number(good, LIMITS) for good in ("1", "50", "07")] == [1, 50, 7]
    with pytest.raises(RequestError, match="from 1 to 50"):
        part_number(text, LIMITS)


def test_the_bounds_must_leave_room_for_a_file():
    with pytest.raises(ValueError, match="uploads_bytes_max: a file must fit twice"):
        Limits(file_bytes_max=100, uploads_bytes_max=199)
