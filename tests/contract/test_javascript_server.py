"""The SDK for JavaScript, in Node, against a real server: its calls, its endings, and what leaving does to a model."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.javascript import JavaScriptError, running_node
from tests.support.server import ROOT, ZOO, eventually, running_server
from tests.support.toxic import Toxic

TELLER = ROOT / "tests" / "contract" / "models" / "teller.py"
FAL = 'const fal = sdk.createFalClient({ baseUrl: given.url, credentials: "id:secret" });\n'

names = (f"js-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def node():
    with running_node() as node:
        yield node


@pytest.fixture(scope="module")
def server():
    # The cut behind an error event comes late: Node loses what it has not read by then.
    limits = {"heartbeat_s": 0.2, "headers_hold_s": 0.2, "cut_delay_s": 10.0}
    with running_server(ZOO, TELLER, limits=limits) as server:
        yield server


def items_of(n: int) -> list[dict[str, int]]:
    return [*({"i": i} for i in range(n)), {"total": n}]


# --- run and stream -------------------------------------------------------------------------------------------------


def test_run_returns_the_last_item_and_the_requests_id(node, server) -> None:
    told = node.run(FAL + 'return await fal.run("zoo/zoo", { input: { n: 2 } });', url=server.url)

    assert {"total": 2} == told["data"]
    assert 36 == len(told["requestId"])


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(("id", "path"), [("zoo/zoo", None), ("zoo/zoo/async", None), ("zoo/zoo", "/talk")])
def test_a_stream_is_every_item(node, server, id: str, path: str | None, resume: bool) -> None:
    options = {"input": {"n": 3}, "resume": resume, **({"path": path} if path else {})}

    outcome = node.read(server.url, id, options=options)

    assert (items_of(3)[: 3 if path else 4], None) == (outcome["items"], outcome["error"])


def test_characters_of_all_scripts_come_as_they_are(node, server) -> None:
    assert [{"text": "é 🌅 \u2028 日本"}] == node.read(server.url, "zoo/zoo/text")["items"]


@pytest.mark.parametrize("n", [700_000])
def test_a_large_event_comes_whole(node, server, n: int) -> None:
    items = node.read(server.url, "zoo/zoo/big", options={"input": {"n": n}})["items"]

    assert (n, {"length": n}) == (len(items[0]["text"]), items[1])


@pytest.mark.parametrize(
    ("id", "input", "items", "error"),
    [
        ("zoo/zoo", {"n": -1}, [], {"name": "ValidationError", "status": 422, "errorType": "validation_error"}),
        ("zoo/nobody", {}, [], {"name": "ApiError", "status": 404, "errorType": "not_found", "retryable": False}),
        ("zoo/zoo/field", {}, [], {"status": 404}),
        ("zoo/zoo/raise-first", {}, [], {"status": 500, "errorType": "runner_server_error"}),
        ("zoo/zoo/raise-later", {}, [{"i": 0}, {"i": 1}], {"status": 500, "errorType": "runner_server_error"}),
        ("zoo/zoo/die", {"n": 1}, [{"i": 0}], {"errorType": "runner_disconnected", "retryable": True}),
    ],
)
def test_failures_are_thrown_behind_the_items_before_them(node, server, id, input, items, error) -> None:
    outcome = node.read(server.url, id, options={"input": input})

    assert items == outcome["items"]
    assert error == {name: outcome["error"].get(name) for name in error}
    assert outcome["error"]["requestId"] == outcome["requestId"] is not None
    eventually(server.is_ready, "the runner is back")


def test_run_throws_the_models_own_words(node, server) -> None:
    with pytest.raises(JavaScriptError) as caught:
        node.run(FAL + 'await fal.run("zoo/zoo/refuse");', url=server.url)

    assert ("no pictures today", 409) == (caught.value.facts["message"], caught.value.facts["status"])


# --- leaving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("way", ["break", "stream.abort()", "controller.abort()"])
def test_who_leaves_stops_the_model_at_once(node, server, way: str, resume: bool) -> None:
    name = next(names)
    script = (
        FAL
        + f"""
        const controller = new AbortController();
        const input = {{ n: 100000, pause: 0.01, name: given.name }};
        // With resume, the request would outlive its readers for good, but for being stopped.
        const headers = given.resume ? {{ "x-headrace-on-disconnect": "finish" }} : {{}};
        const options = {{ input, headers, signal: controller.signal, resume: given.resume }};
        const stream = await fal.stream("zoo/zoo/async", options);
        try {{ for await (const _ of stream) {way}; }} catch (error) {{ return error.name; }}
    """
    )

    told = node.run(script, url=server.url, name=name, resume=resume)

    assert (None if way == "break" else "AbortError") == told
    eventually(server.saw(f"finally {name}"), "the model is stopped")


# --- the queue ------------------------------------------------------------------------------------------------------

SUBSCRIBE = (
    FAL
    + """
    const [enqueued, updates] = [[], []];
    const result = await fal.subscribe(given.id, {
      onEnqueue: (id) => enqueued.push(id),
      onQueueUpdate: (update) => updates.push(update),
      ...given.options,
    });
    return { ...result, enqueued, updates };
"""
)


@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_subscribe_follows_a_request_and_returns_its_result(node, server, mode: str) -> None:
    options = {"input": {"n": 4}, "mode": mode, "logs": True, "pollInterval": 100}

    told = node.run(SUBSCRIBE, url=server.url, id="line/teller", options=options)

    assert {"i": 3} == told["data"]
    assert [told["requestId"]] == told["enqueued"]
    states = [update["status"] for update in told["updates"]]
    assert "COMPLETED" == states[-1]
    assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].index)
    assert [f"line {i} of 4" for i in range(4)] == [line["message"] for line in told["updates"][-1]["logs"]]
    counts = [len(update["logs"]) for update in told["updates"] if update.get("logs")]
    assert counts == sorted(counts)  # all so far, each time


@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_a_queued_request_that_fails_throws_what_it_failed_with(node, server, mode: str) -> None:
    for id, status in (("zoo/zoo/raise-later", 500), ("zoo/zoo/refuse", 409), ("zoo/zoo/field", 422)):
        with pytest.raises(JavaScriptError) as caught:
            node.run(SUBSCRIBE, url=server.url, id=id, options={"mode": mode})

        assert status == caught.value.facts["status"]


@pytest.mark.parametrize("mode", ["polling", "streaming"])
@pytest.mark.parametrize(
    ("limit", "told"), [("timeout: 1500", "TimeoutError"), ("abortSignal: controller.signal", "AbortError")]
)
def test_who_gives_up_on_a_queued_request_stops_it(node, server, mode: str, limit: str, told: str) -> None:
    name = next(names)
    script = (
        FAL
        + f"""
        const controller = new AbortController();
        const input = {{ n: 100000, pause: 0.01, name: given.name }};
        const onQueueUpdate = ({{ status }}) => {{ if (status === "IN_PROGRESS") controller.abort(); }};
        return await fal.subscribe("zoo/zoo/async", {{ input, mode: given.mode, onQueueUpdate, {limit} }})
          .catch((error) => error.name);
    """
    )

    assert told == node.run(script, url=server.url, mode=mode, name=name)
    eventually(lambda: f"start {name}" not in server.notes() or server.saw(f"finally {name}")(), "it is stopped")


def test_the_queue_by_hand(node, server) -> None:
    script = (
        FAL
        + """
        const { request_id: requestId, status_url } = await fal.queue.submit("zoo/zoo/def", { input: { n: 5 } });
        const streamed = [];
        for await (const { status } of await fal.queue.streamStatus("zoo/zoo/def", { requestId })) streamed.push(status);
        const { status } = await fal.queue.status("zoo/zoo/def", { requestId, logs: true });
        const { data } = await fal.queue.result("zoo/zoo", { requestId });
        const failure = await fal.queue.cancel("zoo/zoo", { requestId }).catch((error) => error.body.status);
        return { requestId, status_url, streamed, status, data, failure };
    """
    )

    told = node.run(script, url=server.url)

    assert f"{server.url}/queue/zoo/zoo/requests/{told['requestId']}/status" == told["status_url"]
    assert ("COMPLETED", "COMPLETED", {"total": 5}) == (told["streamed"][-1], told["status"], told["data"])
    assert "ALREADY_COMPLETED" == told["failure"]


def test_attach_watches_what_somebody_else_began(node, server) -> None:
    script = (
        FAL
        + """
        const { request_id: requestId } = await fal.queue.submit("zoo/zoo/async", { input: { n: 3, pause: 0.1 } });
        const watch = async (options) => {
          const items = [];
          for await (const item of await fal.attach("zoo/zoo/async", { requestId, ...options })) items.push(item);
          return items;
        };
        const all = await watch({});
        return [all, await watch({ lastEventId: `${requestId}.1.1` }), await watch({ lastEventId: `${requestId}.1.3` })];
    """
    )

    assert [items_of(3), items_of(3)[2:], []] == node.run(script, url=server.url)


def test_what_cannot_be_resumed_is_told(node, server) -> None:
    unknown = "0f8fad5b-d9cb-469f-a165-70867728950e"
    script = (
        FAL
        + """
        const { request_id: requestId } = await fal.queue.submit("zoo/zoo/def");
        const told = async (options) => {
          try { for await (const _ of await fal.attach("zoo/zoo", options)); } catch (error) { return error.status; }
        };
        return [
          await told({ requestId: given.unknown }),
          await told({ requestId, lastEventId: `${given.unknown}.1.0` }),
          await told({ requestId, lastEventId: "nonsense" }),
        ];
    """
    )

    assert [404, 412, 400] == node.run(script, url=server.url, unknown=unknown)


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_file_is_uploaded_and_an_input_names_it(node, server) -> None:
    script = (
        FAL
        + """
        const text = "é".repeat(100_000);
        const file = new File([text], "words.txt", { type: "text/plain" });
        const url = await fal.storage.upload(file);
        const kept = await (await fetch(url)).text();
        const { data } = await fal.run("zoo/zoo/request", { input: { file, n: 1 } });
        const again = await (await fetch(data.input.file)).text();
        return { url, isSame: [kept === text, again === text], n: data.input.n };
    """
    )

    told = node.run(script, url=server.url)

    assert ([True, True], 1) == (told["isSame"], told["n"])
    assert told["url"].startswith(f"{server.url}/files/")


# --- a bad network --------------------------------------------------------------------------------------------------


@pytest.mark.promise("P3")
def test_streams_through_a_network_that_cuts_them_come_whole_and_once(node, server) -> None:
    def read(turn: int) -> list[Any]:
        name = next(names)
        options = {"input": {"n": 60, "pause": 0.02, "name": name}, "resume": True}
        with Toxic(server.port, seed=turn) as proxy:
            begun = node.begin("return await read(given);", url=f"http://127.0.0.1:{proxy.port}",
                               id="zoo/zoo/async", options=options)  # fmt: skip
            for _ in range(3):
                opened = proxy.opened
                eventually(lambda: proxy.opened > opened or begun.done() or proxy.connections, "a connection")
                eventually(server.saw(f"start {name}"), "the model has begun")
                proxy.add(
                    "reset_peer" if turn % 2 else "limit_data", **({"ms": 50} if turn % 2 else {"bytes_max": 900})
                )
                eventually(lambda: proxy.opened > opened or begun.done(), "the cut, and another connection")
                proxy.clear()
            outcome = begun.result(50)
        starts = server.notes().count(f"start {name}")
        is_right = (outcome["items"], outcome["error"], starts) == (items_of(60), None, 1)
        return [] if is_right else [(turn, starts, outcome)]

    with ThreadPoolExecutor(4) as readers:
        assert [] == [wrong for turn in readers.map(read, range(8)) for wrong in turn]
