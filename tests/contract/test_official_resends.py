"""fal's JavaScript client sends a call again that the network took from it: the model starts once, if it goes on."""

import dataclasses

from tests.support.leaving import MODELS, noted
from tests.support.official import JAVASCRIPT, official_server, outcome
from tests.support.server import eventually
from tests.support.toxic import Toxic

#: How often it sends a call that the network takes each time.
CALLS = 4


def test_the_four_calls_that_javascript_makes_of_one_stream_start_its_model_once():
    with official_server(f"{MODELS}:Finish") as served, Toxic(served.tls_port) as network:
        led_there = {**served.environment, "HEADRACE_REDIRECT": f"https://localhost:{network.port}"}
        through = dataclasses.replace(served, environment=led_there)
        with JAVASCRIPT.streaming(through, "test/finish/ponders", {"name": "resent", "n": 1}) as client:
            noted(served.server, "start", "resent")
            for call in range(1, CALLS):
                eventually(lambda: network.opened >= call, f"call {call} is made")  # noqa: B023 - called here
                if network.opened > call:
                    continue  # it was lost like the one before it: the client was back before the network was well
                network.add("reset_peer")
                eventually(lambda: network.connections == 0, "its connection is lost")
                network.clear()
            eventually(lambda: network.opened == CALLS, "the last call is made")
            (served.server.folder / "notes.resent").touch()
            told = outcome(client)
        notes = [note.split()[:2] for note in served.server.notes()]

    assert (told.error, told.items) == (None, [{"i": 0, "pad": ""}, {"total": 1}])
    assert notes.count(["start", "resent"]) == 1
