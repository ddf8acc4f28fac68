"""Streams that are cut and resumed, against a real server: nothing is lost, nothing comes twice, nothing starts again."""

import itertools
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from headrace import Client
from headrace.client import errors
from tests.support.bystander import bystander
from tests.support.leaving import waiting
from tests.support.official import key_of, users_environment
from tests.support.resuming import SHELLS, cut_wire
from tests.support.server import PATIENCE_S, eventually, running_server
from tests.support.shells import no_credentials  # noqa: F401

#: Streams read at once: each waits a tenth of a second behind a cut.
AT_ONCE = 8

#: Seconds, of a grace of 30, that a busy machine may take.
LONG_BEFORE_S = 20

names = (f"resumed-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server():
    with running_server() as server:
        yield server


def items_of(n: int) -> list[dict[str, int]]:
    return [*({"i": i} for i in range(n)), {"total": n}]


@dataclass(frozen=True)
class Read:
    """One stream that was read through a wire that is cut."""

    shell: str
    cuts: list[int]
    n: int
    pause: float
    path: str = "zoo/zoo/async"


def read(server, one: Read) -> tuple[int, list]:
    """Return how often its stream was resumed, and what is not as it should be: nothing at best."""
    name = next(names)
    arguments = {"n": one.n, "pause": one.pause, "name": name}
    with cut_wire(server.port, one.cuts, resets=sum(one.cuts) % 2 == 1) as wire:
        outcome = SHELLS[one.shell](wire.url, one.path, arguments)
    starts = server.notes().count(f"start {name}")
    is_right = (outcome.items, outcome.error, starts) == (items_of(one.n), None, 1)
    return wire.connections - 1, [] if is_right else [(one, starts, outcome)]


def read_all(server, streams: list[Read]) -> tuple[int, list]:
    """Read them, some at once; return how often one was resumed, and all differences."""
    with bystander(server, gap_s=30), ThreadPoolExecutor(AT_ONCE) as readers:
        done = list(readers.map(lambda one: read(server, one), streams))
    return sum(resumed for resumed, _ in done), [wrong for _, each in done for wrong in each]


@pytest.mark.promise("P1")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_stream_cut_behind_any_byte_is_handed_over_once_and_started_once(server, shell, count, figures):
    turns = count(smoke=30, full=1500)
    with server.open("/zoo/zoo/async/stream", {"n": 17, "pause": 0.002}, {"X-Headrace-Event-Ids": "1"}) as whole:
        size = len(whole.read_until(b"\r\n0\r\n\r\n"))
    # Where all events come in one write, as after a hold-up, a stream is shorter: by the ends of their chunks.
    least = len(whole.head) + 4 + len(b"%x\r\n%b\r\n0\r\n\r\n" % (len(whole.body), whole.body))
    cuts = [turn * size // turns for turn in range(turns)]

    resumed, wrong = read_all(server, [Read(shell, [cut], 17, 0.002) for cut in cuts])

    assert wrong == []
    assert resumed >= sum(cut < least for cut in cuts) >= turns * 0.85
    figures("P1", offsets=turns, bytes=size, resumed=resumed, differences=len(wrong))


@pytest.mark.promise("P2")
def test_a_stream_cut_several_times_is_handed_over_once_and_started_once(server, count, figures):
    def stream(seed: int) -> Read:
        dice = random.Random(seed)
        cuts = [dice.randrange(900) for _ in range(dice.randint(2, 5))]
        return Read(dice.choice(list(SHELLS)), cuts, dice.randint(20, 60), dice.choice([0.0, 0.002]))

    seeds = count(smoke=20, full=1000)

    resumed, wrong = read_all(server, [stream(seed) for seed in range(seeds)])

    assert wrong == []
    assert resumed >= seeds * 2
    figures("P2", seeds=seeds, resumed=resumed, differences=len(wrong))


@pytest.mark.promise("P3")
def test_a_stream_cut_while_its_model_goes_on_joins_without_a_seam(server, count, figures):
    def stream(seed: int) -> Read:
        dice = random.Random(f"P3 {seed}")
        path = dice.choice(["zoo/zoo", "zoo/zoo/async"])
        return Read(dice.choice(list(SHELLS)), [dice.randrange(300, 15_000)], 250, 0.001, path)

    turns = count(smoke=16, full=500)

    resumed, wrong = read_all(server, [stream(seed) for seed in range(turns)])

    assert wrong == []
    assert resumed >= turns * 0.95
    figures("P3", cuts=turns, resumed=resumed, differences=len(wrong))


@pytest.mark.promise("P3")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_fast_model_waits_for_the_reader_that_it_lost(server, shell, count):
    for turn in range(count(smoke=1, full=10)):
        with cut_wire(server.port, [200_000 + turn]) as wire:
            outcome = SHELLS[shell](wire.url, "zoo/zoo/burst", {"n": 20_000})

        assert outcome.error is None
        assert [item["i"] for item in outcome.items] == list(range(20_000))


# --- leaving on purpose, and being killed ---------------------------------------------------------------------------


def test_leaving_on_purpose_stops_the_model_long_before_its_grace(server, count):
    with Client(server.url) as client:
        for _ in range(count(smoke=3, full=50)):
            name = next(names)
            for _ in client.stream("zoo/zoo/async", {"n": 10_000, "pause": 0.02, "name": name}, resume=True):
                break

            eventually(server.saw(f"finally {name}"), "the model stops", seconds=LONG_BEFORE_S)


def test_leaving_before_the_first_event_stops_the_model_long_before_its_grace(server, count):
    with Client(server.url) as client:
        for _ in range(count(smoke=1, full=10)):
            holds, waits = next(names), next(names)
            with client.stream("zoo/single", {"pause": 60, "name": holds}, resume=True) as first:
                next(first)
                with pytest.raises(errors.EventTimeout):
                    next(client.stream("zoo/single", {"pause": 60, "name": waits}, resume=True, event_timeout=0.3))
                eventually(lambda: waiting(server, "zoo/single") == 0, "no place is held", seconds=LONG_BEFORE_S)

            eventually(server.saw(f"let go {holds}"), "the first lets go", seconds=LONG_BEFORE_S)
            next(client.stream("zoo/single", {"name": next(names)}, event_timeout=LONG_BEFORE_S))
            assert f"hold {waits}" not in server.notes()


READER = """
import sys, headrace
stream = headrace.Client(sys.argv[1]).stream("zoo/zoo/async", {"n": 200, "pause": 0.02, "name": sys.argv[2]}, resume=True)
for _ in stream:
    print(stream.request_id, flush=True)
"""


def test_a_program_that_is_killed_has_its_grace_and_another_goes_on(server):
    name = next(names)
    reader = subprocess.Popen([sys.executable, "-c", READER, server.url, name], stdout=subprocess.PIPE, text=True)
    with reader:
        id_ = reader.stdout.readline().strip()
        reader.kill()

    with Client(server.url) as other:
        items = list(other.attach("zoo/zoo", id_))

    assert items == items_of(200)
    assert server.notes().count(f"start {name}") == 1


def test_the_wait_for_a_first_event_is_measured_for_a_reader_with_ids_too():
    with running_server() as server:
        measured = 'headrace_first_event_seconds_count{app="zoo/zoo"}'

        def value() -> float:
            lines = server.request("GET", "/metrics").body.decode().splitlines()
            return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(measured))

        stream = server.post("/zoo/zoo/async/stream", {}, {"X-Headrace-Event-Ids": "1"})
        server.request("GET", f"/zoo/zoo/requests/{stream.headers['x-fal-request-id']}/stream")

        assert value() == 1


# --- ids that are none ----------------------------------------------------------------------------------------------


ABSENT = "0f8fad5b-d9cb-469f-a165-70867728950e"
SPELLINGS = [
    "7", "-1", "0", "null", "undefined", "../../etc/passwd", "%00", "%0d%0aSet-Cookie:x", "a.b.c", "1.1.1", ".", "..", ".1.1",
    "x" * 500, "x" * 7_000, "*", "' or 1=1 --", "<script>", "{}", "[]", "\\", "/", "//", "a b", "\t", "${id}", "~", "'", '"',
    "\0", "a\0b", "\r\n", "a\r\nX-Evil: 1", "a\nb", "\x7f", "é", "٣", "１", "🌅", "\u2028",
    "{id}", "{id}.", "{id}.1", "{id}.1.", "{id}..1", "{id}.0.1", "{id}.1.-1", "{id}.1.+1", "{id}.1.01", "{id}.1.1.1", "{id}.1.1 ;",
    "{id}.1.x", "{id}.1.1e3", "{id}.1.١", "{id}.01.1", "{id}.2.0", "{id}.1.99", "{id}.1.999999999999999999",
    "{id}.1.9999999999999999999", "{id}.99999999.0", "{id}.999999999.0", "{other}.1.1", "{absent}.1.1", "{upper}.1.1",
]  # fmt: skip


@pytest.mark.promise("P4")
def test_a_wrong_last_id_is_refused_before_any_event_and_shows_nobodys_data(server, count, figures):
    turns = count(smoke=len(SPELLINGS), full=len(SPELLINGS))
    answered = [server.post("/zoo/zoo/async", {"n": 3}).headers["x-fal-request-id"] for _ in range(2)]
    ids = {"id": answered[0], "other": answered[1], "absent": ABSENT, "upper": answered[0].upper()}
    leaks, told = [], {}

    with Client(server.url) as client:
        for spelling in SPELLINGS:
            text = spelling
            for name, id_ in ids.items():
                text = text.replace("{" + name + "}", id_)
            try:
                leaks.append((spelling, list(client.attach("zoo/zoo", answered[0], after=text))))
            except ValueError:
                told[spelling] = "not sent"
            except errors.APIError as error:
                told[spelling] = error.status_code

    assert leaks == []
    assert set(told.values()) == {"not sent", 400, 412}
    assert {name for name, status in told.items() if status == 412} == {
        "{id}.2.0", "{id}.1.99", "{id}.1.999999999999999999", "{id}.99999999.0", "{other}.1.1", "{absent}.1.1",
    }  # fmt: skip
    figures("P4", spellings=turns, leaks=len(leaks))


@pytest.mark.promise("P4")
def test_another_keys_request_is_as_unknown_as_none(count):
    count(smoke=1, full=1)
    with running_server(args=()) as server:
        mine, other = key_of(server), new_key(server)
        with Client(server.url, mine) as owner, Client(server.url, other) as stranger:
            stream = owner.stream("zoo/zoo/async", {"n": 3}, resume=True)
            assert list(stream) == items_of(3)
            id_ = stream.request_id

            for after in (None, f"{id_}.1.0", f"{id_}.1.3", f"{id_}.7.9"):
                with pytest.raises(errors.NotFound):
                    list(stranger.attach("zoo/zoo", id_, after=after))
            with pytest.raises(errors.APIError) as refused:
                list(stranger.stream("zoo/zoo/async", {}, headers={"Last-Event-ID": f"{id_}.1.0"}))

    assert (412, "replay_gone") == (refused.value.status_code, refused.value.error_type)


def new_key(server) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "headrace", "keys", "create", "--name", "other", "--data-dir", str(server.folder / "data")],
        env=users_environment(server), capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    found = re.search(r"hr_[a-z2-7]{12}:\S+", made.stdout)
    assert found, made.stdout
    return found[0]


@pytest.mark.promise("P4")
def test_a_last_id_whose_events_are_gone_is_refused(count):
    count(smoke=1, full=1)
    with running_server(limits={"replay_bytes_max": 20_000, "window_bytes": 10_000}) as server:
        with Client(server.url) as client:
            stream = client.stream("zoo/zoo/burst", {"n": 500})
            assert len(list(stream)) == 500

            with pytest.raises(errors.APIError) as refused:
                list(client.attach("zoo/zoo", stream.request_id, after=f"{stream.request_id}.1.3"))

    assert (412, "replay_gone") == (refused.value.status_code, refused.value.error_type)
