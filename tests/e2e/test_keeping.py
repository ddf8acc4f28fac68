"""What is kept of queued requests, how long, and how safely, is the operator's to say."""

import time

import pytest

from tests.support import disk
from tests.support.server import ZOO, eventually, running_server

ZOO_ALONE = f"{ZOO}:Zoo"


def result_of(server, id_):
    return server.request("GET", f"/queue/zoo/zoo/requests/{id_}")


def submitted(server, path="/async", **body) -> str:
    answer = server.post(f"/queue/zoo/zoo{path}", body)
    assert answer.status == 200, answer.body
    return answer.json["request_id"]


def ended(server, path="/async", **body) -> str:
    """Submit, and wait for the end; return its id."""
    id_ = submitted(server, path, **body)
    eventually(lambda: result_of(server, id_).status != 400, "it ends")
    return id_


# --- how long -----------------------------------------------------------------------------------------------------


def test_a_request_is_forgotten_at_the_age_that_was_set():
    with running_server(ZOO_ALONE, limits={"result_age_s": 1.0, "expire_every_s": 0.1}) as server:
        id_ = ended(server)

        eventually(lambda: result_of(server, id_).status == 404, "it is forgotten")
        assert server.request("GET", f"/queue/zoo/zoo/requests/{id_}/status").status == 404


def test_one_with_a_large_result_goes_sooner():
    limits = {"large_result_age_s": 0.5, "large_result_bytes": 5_000, "expire_every_s": 0.1}
    with running_server(ZOO_ALONE, limits=limits) as server:
        small, large = ended(server, n=1), ended(server, "/request", pad="x" * 5_000)

        eventually(lambda: result_of(server, large).status == 404, "the large one is forgotten")
        assert result_of(server, small).status == 200


def test_when_all_of_them_are_too_much_the_oldest_go_first():
    limits = {"store_bytes_max": 2_000_000, "expire_every_s": 0.1}
    with running_server(ZOO_ALONE, limits=limits) as server:
        ids = [ended(server, "/big", n=200_000) for _ in range(12)]

        eventually(lambda: result_of(server, ids[0]).status == 404, "the oldest is forgotten")
        assert result_of(server, ids[-1]).status == 200


def test_of_a_long_stream_the_last_events_are_stored_as_many_as_was_set():
    with running_server(ZOO_ALONE, limits={"stored_events_bytes_max": 3_000, "replay_s": 0.1}) as server:
        id_ = ended(server, n=200, pause=0.01)
        path = f"/zoo/zoo/requests/{id_}/stream"

        eventually(
            lambda: server.request("GET", path).status == 412, "only the store knows it, and not the first ones"
        )
        assert server.request("GET", f"{path}?after={id_}.1.198").body.count(b"data: ") == 2


# --- how safely ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(disk.COMPILER is None, reason="needs a C compiler")
@pytest.mark.parametrize("durability", ["full", "fast"])
def test_durability_says_whether_a_submit_waits_for_the_disk(tmp_path, durability):
    """Counted are the syncs of the write-ahead log: one a submit, or one a second."""
    submits, journal = 30, tmp_path / "journal"
    data = tmp_path / "data"
    data.mkdir()
    env = {**disk.environment(data, journal=journal), "HEADRACE_DURABILITY": durability}
    began = time.monotonic()
    with running_server(ZOO_ALONE, env=env, data_dir=data) as server:
        for _ in range(submits):
            submitted(server, n=0)
        syncs = sum(change.kind == "S" and change.path.endswith("-wal") for change in disk.read_journal(journal))
        took_s = time.monotonic() - began

    if durability == "full":
        assert syncs >= submits
    else:
        assert 0 < syncs <= took_s + 3  # its own once a second, and SQLite's before a checkpoint


def test_an_unknown_durability_stops_the_start():
    with pytest.raises(AssertionError, match="expected one of full, fast, not 'none'"):
        with running_server(ZOO_ALONE, args=("--no-auth", "--durability", "none")):
            raise RuntimeError("it started")
