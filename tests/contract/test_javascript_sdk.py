"""The SDK for JavaScript, in Node: what it sends, what an answer means to it, and how its streams are read and left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.javascript import SDK, JavaScriptError, running_node
from tests.support.resuming import cut_wire
from tests.support.scripted import (
    CLOSE,
    HOLD,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    STRETCHES,
    TAKEN,
    Beat,
    Wait,
    answer,
    chunk,
    event,
    scripted,
)
from tests.support.server import eventually

FAILED = (
    b'event: error\ndata: {"error": {"type": "runner_disconnected", "message": "it died", '
    b'"request_id": "req-9", "retryable": true, "status": 503}}\n\n'
)
FIELDS = b'{"detail": [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]}'
THREE = event(b'{"i": 0}') + event(b'{"i": 1}') + event(b'{"i": 2}')

FAL = 'const fal = sdk.createFalClient({ baseUrl: given.url, credentials: "id:secret" });\n'
STREAM = FAL + 'const stream = await fal.stream("me/app", given.options ?? {});\n'


@pytest.fixture(scope="module")
def node():
    with running_node() as node:
        yield node


def test_the_module_has_at_most_400_lines_and_none_is_long() -> None:
    lines = SDK.read_text().splitlines()

    assert len(lines) <= 400
    assert [] == [line for line in lines if len(line) > 120]


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_a_stream_is_a_post_with_a_key(node) -> None:
    with scripted([STREAM_HEAD + THREE + LAST_CHUNK]) as server:
        outcome = node.read(
            server.url, "me/app/fast", options={"input": {"prompt": "é"}, "headers": {"X-Own": "1"}}
        )
    request = server.requests[0]

    assert ([{"i": 0}, {"i": 1}, {"i": 2}], None, "req-1") == (
        outcome["items"],
        outcome["error"],
        outcome["requestId"],
    )
    assert "POST /me/app/fast/stream HTTP/1.1" == request.line
    assert {"prompt": "é"} == json.loads(request.body)
    assert "application/json" == request.headers["content-type"]
    assert "text/event-stream" == request.headers["accept"]
    assert ("Key id:secret", "1") == (request.headers["authorization"], request.headers["x-own"])
    assert not {"idempotency-key", "last-event-id"} & request.headers.keys()


@pytest.mark.parametrize(
    ("id", "options", "path"),
    [
        ("me/app", {}, "/me/app/stream"),
        ("/me/app/", {}, "/me/app/stream"),
        ("me/app/stream", {}, "/me/app/stream"),
        ("me/app", {"path": "/talk"}, "/me/app/talk"),
        ("me/app/x", {"path": ""}, "/me/app/x"),
        ("workflows/me/flow/a b", {"queryParams": {"q": "1&2"}}, "/workflows/me/flow/a%20b/stream?q=1%262"),
        ("123-app", {}, "/123/app/stream"),
    ],
)
def test_an_id_becomes_a_path(node, id: str, options: dict[str, Any], path: str) -> None:
    with scripted([STREAM_HEAD + LAST_CHUNK]) as server:
        node.read(server.url, id, options=options)

    assert f"POST {path} HTTP/1.1" == server.requests[0].line


@pytest.mark.parametrize("id", ["me", "", "me//x", "me/../x", "workflows/me"])
def test_an_id_that_is_none_is_told_before_anything_is_sent(node, id: str) -> None:
    with scripted([]) as server:
        outcome = node.read(server.url, id)

    assert "TypeError" == outcome["error"]["name"]
    assert [] == server.requests


def test_what_the_caller_has_among_the_headers_goes_before_ours(node) -> None:
    headers = {"Authorization": "Bearer x", "IDEMPOTENCY-KEY": "mine", "x-headrace-on-disconnect": "finish"}
    with scripted([STREAM_HEAD + THREE + LAST_CHUNK]) as server:
        node.read(server.url, options={"resume": True, "headers": headers})

    sent = server.requests[0].headers
    assert headers == {name: sent[name.lower()] for name in headers}


def test_credentials_may_be_a_function_and_the_server_may_have_a_path(node) -> None:
    script = """
        const fal = sdk.createFalClient({ baseUrl: given.url + "/deep/", credentials: async () => "k:" + 1 });
        return await fal.run("me/app", { input: {} });
    """
    with scripted([answer(200, b'{"x": 0}')]) as server:
        assert {"data": {"x": 0}, "requestId": "req-1"} == node.run(script, url=server.url)

    assert "POST /deep/me/app HTTP/1.1" == server.requests[0].line
    assert "Key k:1" == server.requests[0].headers["authorization"]


def test_fals_own_client_is_configured_at_any_time(node) -> None:
    script = """
        sdk.fal.config({ baseUrl: given.url, credentials: "a:b" });
        return (await sdk.fal.run("me/app")).data;
    """
    with scripted([answer(200, b"[0]")]) as server:
        assert [0] == node.run(script, url=server.url)

    assert b"{}" == server.requests[0].body


# --- what an answer means -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "items", "error"),
    [
        pytest.param([STREAM_HEAD + THREE + chunk(FAILED), CLOSE], 3, {
            "name": "ApiError", "message": "it died", "status": 503, "errorType": "runner_disconnected",
            "requestId": "req-9", "retryable": True}, id="an error event"),
        pytest.param([STREAM_HEAD + THREE + chunk(FAILED) + LAST_CHUNK], 3, {"name": "ApiError"}, id="and a clean end"),
        pytest.param([STREAM_HEAD + THREE + event(b'{"error": {"type": "x", "message": "y"}}') + LAST_CHUNK], 3,
            {"name": "ApiError", "message": "y", "errorType": "x", "requestId": "req-1"}, id="an error by its data"),
        pytest.param([STREAM_HEAD + chunk(b"event: error\ndata: oh\n\n"), CLOSE], 0, {"name": "ProtocolError"},
            id="an error that is no JSON"),
        pytest.param([STREAM_HEAD + chunk(b'event: error\ndata: "oh"\n\n'), CLOSE], 0,
            {"name": "ApiError", "message": '"oh"'}, id="an error that is a text"),
        pytest.param([STREAM_HEAD + THREE, CLOSE], 3, {"name": "ConnectionLost", "retryable": True, "requestId": "req-1"},
            id="a cut between events"),
        pytest.param([STREAM_HEAD + THREE + chunk(b"data: {"), CLOSE], 3, {"name": "ConnectionLost"}, id="in an event"),
        pytest.param([STREAM_HEAD + THREE + chunk(b"data: {}") + LAST_CHUNK], 3, {"name": "ConnectionLost"},
            id="an end inside an event"),
        pytest.param([STREAM_HEAD + THREE, TAKEN, Wait(0.1), RESET], 3, {"name": "ConnectionLost"}, id="a reset"),
        pytest.param([STREAM_HEAD + LAST_CHUNK], 0, {"name": "ConnectionLost"}, id="an end without one event"),
        pytest.param([CLOSE], 0, {"name": "ConnectionLost", "requestId": None}, id="no answer"),
        pytest.param([STREAM_HEAD + THREE + event(b"nonsense") + LAST_CHUNK], 3, {"name": "ProtocolError"}, id="no JSON"),
        pytest.param([answer(200, b"{}")], 0, {"name": "ProtocolError", "requestId": "req-1"}, id="JSON, not a stream"),
        pytest.param([answer(422, FIELDS)], 0, {
            "name": "ValidationError", "message": "prompt: Field required", "status": 422, "retryable": False,
            "fields": json.loads(FIELDS)["detail"], "body": json.loads(FIELDS)}, id="422"),
        pytest.param([answer(429, b'{"detail": "full", "error_type": "overloaded"}', "Retry-After: 7",
            "X-Fal-Needs-Retry: 1")], 0, {"name": "ApiError", "message": "full", "errorType": "overloaded",
            "retryable": True, "retryAfter": 7}, id="429"),
        pytest.param([answer(503, b'{"detail": "no", "error_type": "app_error"}')], 0,
            {"status": 503, "retryable": False}, id="503 that says what it is"),
        pytest.param([answer(503, b"<html>", content_type="text/html")], 0,
            {"status": 503, "retryable": True, "body": "<html>", "message": "<html>"}, id="503 of a proxy"),
        pytest.param([answer(404, b"")], 0, {"status": 404, "message": "HTTP 404"}, id="404 without a word"),
        pytest.param([answer(307, b"", "Location: /elsewhere")], 0, {"name": "ConnectionLost"}, id="a redirect"),
    ],
)  # fmt: skip
def test_what_became_of_a_stream(node, script, items: int, error: dict[str, Any]) -> None:
    with scripted(script) as server:
        outcome = node.read(server.url)

    assert [{"i": i} for i in range(items)] == outcome["items"]
    assert error == {name: outcome["error"].get(name) for name in error}
    assert 1 == len(server.requests)


def test_falsy_items_and_split_characters_survive(node) -> None:
    data = 'data: 0\n\ndata: ""\n\ndata: false\n\ndata: null\n\ndata: "é🌅日"\n\n'.encode()
    drops = [chunk(data[at : at + 1]) for at in range(len(data))]
    with scripted([STREAM_HEAD, *drops, LAST_CHUNK]) as server:
        assert [0, "", False, None, "é🌅日"] == node.read(server.url)["items"]


def test_what_came_before_a_cut_is_handed_over_to_a_slow_reader(node) -> None:
    script = (
        STREAM
        + """
        const items = [];
        try {
          for await (const item of stream) {
            items.push(item);
            await new Promise((resolve) => setTimeout(resolve, 300)); // all has come by then, and the cut
          }
        } catch (error) { items.push(error.name, error.message); }
        return items;
    """
    )
    with scripted(
        [STREAM_HEAD + event(b'{"i": 0}'), Wait(0.05), event(b'{"i": 2}') + chunk(FAILED), CLOSE]
    ) as server:
        items = node.run(script, url=server.url)

    assert [{"i": 0}, {"i": 2}, "ApiError", "it died"] == items


# --- silence --------------------------------------------------------------------------------------------------------


def test_a_timeout_is_an_idle_timeout(node) -> None:
    for script in ([HOLD], [STREAM_HEAD, HOLD], [STREAM_HEAD + THREE, HOLD]):
        for stretch in STRETCHES:
            with scripted(script) as server:
                outcome = node.read(server.url, options={"timeout": 300 * stretch})
                if server.requests:
                    server.wait_for_leavers()
                    break  # else it took longer than that to send the request

        assert ("IdleTimeout", True) == (outcome["error"]["name"], outcome["error"]["retryable"])


def test_heartbeats_are_bytes(node) -> None:
    for stretch in STRETCHES:
        beats = [step for _ in range(12) for step in (chunk(b": ping\n"), Wait(0.1 * stretch))]
        with scripted([STREAM_HEAD, *beats, THREE + LAST_CHUNK]) as server:
            outcome = node.read(server.url, options={"timeout": 900 * stretch})
        if (outcome["error"] or {}).get("name") != "IdleTimeout":
            break  # else a heartbeat may have been held up for longer than that

    assert (3, None) == (len(outcome["items"]), outcome["error"])


def test_a_reader_that_takes_its_time_is_not_silence(node) -> None:
    script = (
        STREAM
        + """
        const items = [];
        const pause = 2 * given.options.timeout;
        try {
          for await (const item of stream) { items.push(item); await new Promise((go) => setTimeout(go, pause)); }
        } catch (error) { if (items.length || error.name !== "IdleTimeout") throw error; }
        return items.length;
    """
    )
    for stretch in STRETCHES:
        with scripted([STREAM_HEAD + THREE + LAST_CHUNK]) as server:
            count = node.run(script, url=server.url, options={"timeout": 200 * stretch})
        if count:
            break  # else the answer itself took longer than that

    assert 3 == count


@pytest.mark.parametrize("timeout", [0, -1, "soon"])
def test_a_timeout_that_is_no_time_is_told(node, timeout) -> None:
    with pytest.raises(JavaScriptError, match="timeout must be milliseconds over 0"):
        node.run(STREAM, url="http://127.0.0.1:1", options={"timeout": timeout})


def test_no_timer_is_started_for_an_event(node) -> None:
    script = """
        let timers = 0;
        const [timeout, interval] = [setTimeout, setInterval];
        globalThis.setTimeout = (...all) => (timers += 1, timeout(...all));
        globalThis.setInterval = (...all) => (timers += 1, interval(...all));
        try { return [(await read(given)).items.length, timers < 20]; }
        finally { Object.assign(globalThis, { setTimeout: timeout, setInterval: interval }); }
    """
    with scripted([STREAM_HEAD, *[event(b"{}")] * 500, LAST_CHUNK]) as server:
        assert [500, True] == node.run(script, url=server.url, options={"timeout": 60_000})


# --- readers --------------------------------------------------------------------------------------------------------


def test_a_loop_that_begins_late_gets_all_and_a_second_one_ends_at_once(node) -> None:
    script = (
        STREAM
        + """
        await new Promise((resolve) => setTimeout(resolve, 200));
        const loops = [[], []];
        for (const items of loops) for await (const item of stream) items.push(item.i);
        return [...loops, await stream.done()];
    """
    )
    with scripted([STREAM_HEAD + THREE + LAST_CHUNK]) as server:
        assert [[0, 1, 2], [], {"i": 2}] == node.run(script, url=server.url)


def test_a_second_loop_over_a_failure_throws_it_again(node) -> None:
    script = (
        STREAM
        + """
        const seen = [];
        for (let turn = 0; turn < 2; turn += 1) {
          try { for await (const item of stream) seen.push(item.i); } catch (error) { seen.push(error.errorType); }
        }
        await stream.done().catch((error) => seen.push(error.errorType));
        return seen;
    """
    )
    with scripted([STREAM_HEAD + THREE + chunk(FAILED), CLOSE]) as server:
        assert [0, 1, 2, *["runner_disconnected"] * 3] == node.run(script, url=server.url)


def test_two_loops_at_once_and_a_loop_behind_listeners_are_refused(node) -> None:
    two = (
        STREAM
        + """
        const [one, other] = [stream[Symbol.asyncIterator](), stream[Symbol.asyncIterator]()];
        await one.next();
        try { await other.next(); } catch (error) { stream.abort(); return error.name; }
    """
    )
    behind = (
        STREAM
        + """
        await stream.done();
        try { for await (const _ of stream); } catch (error) { return error.name; }
    """
    )
    with scripted([STREAM_HEAD + THREE + LAST_CHUNK]) as server:
        assert ["TypeError", "TypeError"] == [node.run(script, url=server.url) for script in (two, behind)]


def test_listeners_hear_everything_and_done_gives_the_last(node) -> None:
    script = (
        STREAM
        + """
        const heard = [];
        for (const type of ["data", "error", "done"]) stream.on(type, (value) => heard.push([type, value.i ?? value.name]));
        const last = await stream.done().catch((error) => error.name);
        await new Promise((resolve) => setTimeout(resolve, 0));
        return [heard, last];
    """
    )
    with scripted([STREAM_HEAD + THREE + LAST_CHUNK]) as whole, scripted([STREAM_HEAD + THREE, CLOSE]) as cut:
        heard = [["data", 0], ["data", 1], ["data", 2]]

        assert [[*heard, ["done", 2]], {"i": 2}] == node.run(script, url=whole.url)
        assert [[*heard, ["error", "ConnectionLost"]], "ConnectionLost"] == node.run(script, url=cut.url)


def test_done_and_listeners_may_be_there_before_a_loop_that_begins_at_once(node) -> None:
    script = (
        STREAM
        + """
        const [items, heard] = [[], []];
        stream.on("data", (item) => heard.push(item.i));
        const last = stream.done();
        for await (const item of stream) items.push(item.i);
        return [items, heard, await last];
    """
    )
    with scripted([STREAM_HEAD + THREE + LAST_CHUNK]) as server:
        assert [[0, 1, 2], [0, 1, 2], {"i": 2}] == node.run(script, url=server.url)


def test_nobody_has_to_ask_how_a_stream_ended(node) -> None:
    """An unhandled rejection would end Node, and the test with it."""
    with scripted([answer(500, b'{"detail": "no"}')]) as server:
        node.run(STREAM + "stream.on('data', () => {}); stream.on('done', () => {});", url=server.url)
        eventually(lambda: server.requests, "the request")
        node.run("await new Promise((resolve) => setTimeout(resolve, 100));")


def test_who_takes_nothing_holds_the_model_up(node) -> None:
    piece = event(b'{"pad": "%b"}' % (b"x" * 60_000))
    with scripted([STREAM_HEAD, Beat(piece, 0.001)]) as server:
        node.run("globalThis.held = null;" + STREAM + "globalThis.held = stream;", url=server.url)
        script = "const used = process.memoryUsage(); return used.heapUsed + used.external + used.arrayBuffers;"
        before = node.run(script)
        node.run("await new Promise((resolve) => setTimeout(resolve, 1500));")
        after = node.run(script)
        node.run("globalThis.held.abort();")

    assert after - before < 40_000_000


# --- leaving --------------------------------------------------------------------------------------------------------


#: Behind the last item, when the reader waits.
ABORTS_SOON = "stream.on('data', ({ i }) => i === 2 && setTimeout(() => stream.abort(), 50));"


@pytest.mark.parametrize(
    ("leave", "told"),
    [
        ("for await (const _ of stream) break; return 'out';", "out"),
        ("for await (const _ of stream) stream.abort();", "AbortError: the stream was left"),
        ("for await (const _ of stream) stream.abort(new RangeError('mine'));", "RangeError: mine"),
        (f"{ABORTS_SOON} await stream.done();", "AbortError: the stream was left"),
        (f"{ABORTS_SOON} for await (const _ of stream);", "AbortError: the stream was left"),
    ],
)
def test_leaving_closes_the_connection_at_once(node, leave: str, told: str) -> None:
    script = (
        STREAM
        + f"return await (async () => {{ {leave} }})().catch((error) => `${{error.name}}: ${{error.message}}`);"
    )
    with scripted([STREAM_HEAD + THREE, HOLD]) as server:
        assert told == node.run(script, url=server.url)

        server.wait_for_leavers()


def test_nothing_is_handed_over_behind_an_abort(node) -> None:
    script = (
        STREAM
        + """
        const [items, heard] = [[], []];
        stream.on("data", (item) => heard.push(item));
        try { for await (const item of stream) { items.push(item); stream.abort(); } } catch {}
        return [items.length, heard.length <= 3];
    """
    )
    with scripted([STREAM_HEAD + THREE, HOLD]) as server:
        assert [1, True] == node.run(script, url=server.url)


def test_an_abort_behind_a_chunk_without_a_whole_event_ends_the_stream(node) -> None:
    script = """
        const body = ({ signal }) => new ReadableStream({
          start(queue) { signal.addEventListener("abort", () => queue.error(signal.reason)); },
          pull(queue) { queue.enqueue(new TextEncoder().encode(": ping\\n")); queueMicrotask(() => stream.abort()); },
        }, { highWaterMark: 0 });
        const fetch = async (request) => new Response(body(request), { headers: { "content-type": "text/event-stream" } });
        const stream = await sdk.createFalClient({ fetch }).stream("me/app");
        const late = new Promise((resolve) => setTimeout(resolve, 30_000, "it never ends"));
        return await Promise.race([stream.done().catch((error) => error.name), late]);
    """

    assert "AbortError" == node.run(script)


# --- what is sent again ---------------------------------------------------------------------------------------------

SUBMITTED = b'{"request_id": "r-1", "status": "IN_QUEUE"}'
FULL = answer(503, b'{"detail": "full", "error_type": "overloaded"}', "X-Fal-Needs-Retry: 1")
ID = 'const requestId = "0f8fad5b-d9cb-469f-a165-70867728950e";\n'


def test_a_submit_says_what_fals_does_and_has_a_key_of_its_own(node) -> None:
    script = (
        FAL
        + """
        const webhookUrl = "https://me.example/hook?x=1&y";
        const options = { input: { a: 1 }, webhookUrl, priority: "low", hint: "runner-7", startTimeout: 2.5 };
        return [await fal.queue.submit("me/app/fast", options), await fal.queue.submit("me/app/fast", options)];
    """
    )
    with scripted([answer(200, SUBMITTED)]) as server:
        assert ["r-1", "r-1"] == [told["request_id"] for told in node.run(script, url=server.url)]

    first, second = server.requests
    assert "POST /queue/me/app/fast?fal_webhook=https%3A%2F%2Fme.example%2Fhook%3Fx%3D1%26y HTTP/1.1" == first.line
    sent = first.headers
    assert ("low", "runner-7", "2.5") == tuple(
        sent[name] for name in ("x-fal-queue-priority", "x-fal-runner-hint", "x-fal-request-timeout")
    )
    assert sent["idempotency-key"] != second.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("call", "script", "requests"),
    [
        pytest.param('fal.queue.submit("me/app")', [FULL], 3, id="a submit that is refused for now"),
        pytest.param('fal.queue.submit("me/app")', [CLOSE], 3, id="a submit that nobody answered"),
        pytest.param('fal.queue.submit("me/app")', [answer(422, FIELDS)], 1, id="a submit that is wrong"),
        pytest.param('fal.queue.cancel("me/app", { requestId })', [CLOSE], 3, id="a cancel that nobody answered"),
        pytest.param('fal.queue.result("me/app", { requestId })', [FULL], 1, id="a result that is the model's own 503"),
        pytest.param('fal.run("me/app")', [FULL], 1, id="a run that is refused for now"),
        pytest.param('fal.run("me/app")', [CLOSE], 1, id="a run that nobody answered"),
    ],
)  # fmt: skip
def test_what_is_sent_again_and_how_often(node, call: str, script, requests: int) -> None:
    with scripted(script) as server:
        with pytest.raises(JavaScriptError):
            node.run(FAL + ID + f"await {call};", url=server.url)

    assert requests == len(server.requests)
    assert 1 == len({request.headers.get("idempotency-key") for request in server.requests})


@pytest.mark.parametrize("limit", ["timeout: 1500", "abortSignal: AbortSignal.timeout(1500)"])
def test_who_gives_up_before_the_submit_is_answered_has_the_request_cancelled(node, limit: str) -> None:
    silent_once = iter([HOLD])
    with scripted([lambda _: next(silent_once, answer(200, SUBMITTED))]) as server:
        with pytest.raises(JavaScriptError, match="TimeoutError"):
            node.run(FAL + f'await fal.subscribe("me/app", {{ {limit} }});', url=server.url)
        eventually(lambda: len(server.requests) == 3, "the cancel")

    first, again, cancel = server.requests
    assert "POST /queue/me/app HTTP/1.1" == first.line == again.line
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert "PUT /queue/me/app/requests/r-1/cancel HTTP/1.1" == cancel.line


@pytest.mark.parametrize(
    "call",
    [
        'fal.subscribe("me/app", { timeout: 1500 })',
        'fal.subscribe("me/app", { abortSignal: AbortSignal.timeout(1500) })',
        'fal.queue.subscribeToStatus("me/app", { requestId, timeout: 1500 })',
        'fal.stream("me/app", { signal: AbortSignal.timeout(1500) }).then((stream) => stream.done())',
    ],
)
def test_a_limit_of_time_is_kept_whatever_the_collector_of_garbage_takes(node, call: str) -> None:
    script = (
        FAL
        + ID
        + f"""
        (await import("node:v8")).setFlagsFromString("--expose-gc");
        const collecting = setInterval((await import("node:vm")).runInNewContext("gc"), 100);
        return await {call}.catch(({{ name }}) => name).finally(() => clearInterval(collecting));
    """
    )
    with scripted([HOLD]) as server:
        assert "TimeoutError" == node.run(script, url=server.url)


def test_who_gives_up_before_there_is_a_call_has_called_nothing(node) -> None:
    script = (
        FAL
        + """
        const input = { file: new Blob(["hello"]) };
        const calls = [{ abortSignal: AbortSignal.abort() }, { input, timeout: 1500 }];
        return await Promise.all(calls.map((options) => fal.subscribe("me/app", options).catch(({ name }) => name)));
    """
    )
    with scripted([HOLD]) as server:
        assert ["AbortError", "TimeoutError"] == node.run(script, url=server.url)
        server.wait_for_leavers()

    assert ["/storage/upload/initiate"] == [one.line.split()[1].partition("?")[0] for one in server.requests]


def test_a_status_stream_that_is_cut_is_followed_by_questions(node) -> None:
    script = (
        FAL
        + ID
        + """
        const updates = [];
        const onQueueUpdate = ({ status }) => updates.push(status);
        const { status } = await fal.queue.subscribeToStatus("me/app", { requestId, mode: "streaming", onQueueUpdate });
        return [status, updates];
    """
    )
    streamed = STREAM_HEAD + event(b'{"status": "IN_PROGRESS"}')
    with scripted([streamed, CLOSE]) as before, scripted([answer(200, b'{"status": "COMPLETED"}')]) as after:
        with cut_wire([before.port, after.port], []) as wire:
            told = node.run(script, url=wire.url)

    assert ["COMPLETED", ["IN_PROGRESS", "COMPLETED"]] == told
    assert "/status?" not in before.requests[0].line and "/status/stream" in before.requests[0].line
    assert after.requests[0].line.split()[1].endswith("/status")


# --- storage --------------------------------------------------------------------------------------------------------


def test_a_blob_is_uploaded_and_a_url_stands_for_it_in_an_input(node) -> None:
    script = (
        FAL
        + """
        const file = new File(["hello"], "a.txt", { type: "text/plain" });
        await fal.run("me/app", { input: { files: [file, file], nested: { blob: new Blob(["x"]), n: 0, no: null } } });
        return await fal.storage.upload(file);
    """
    )
    told = b'{"upload_url": "/up?sig=1", "file_url": "http://files/1"}'
    with scripted([answer(200, told)]) as server:
        assert "http://files/1" == node.run(script, url=server.url)

    lines = [request.line.split()[:2] for request in server.requests]
    initiate = ["POST", "/storage/upload/initiate?storage_type=fal-cdn-v3"]
    assert 3 == lines.count(initiate) == lines.count(["PUT", "/up?sig=1"])
    put = next(request for request in server.requests if b"hello" == request.body)
    assert "text/plain" == put.headers["content-type"]
    assert "authorization" not in put.headers
    told_of = [json.loads(request.body) for request in server.requests if request.line.split()[:2] == initiate]
    assert 2 == told_of.count({"content_type": "text/plain", "file_name": "a.txt"})
    run = next(request for request in server.requests if "/me/app" in request.line)
    url = "http://files/1"
    assert {"files": [url, url], "nested": {"blob": url, "n": 0, "no": None}} == json.loads(run.body)


def test_the_key_of_an_upload_is_in_no_error(node) -> None:
    told = answer(200, b'{"upload_url": "/up?key=secret", "file_url": "http://files/1"}')
    with scripted([lambda request: CLOSE if request.line.startswith("PUT") else told]) as server:
        with pytest.raises(JavaScriptError, match="ConnectionLost: /up: ") as caught:
            node.run(FAL + 'await fal.storage.upload(new Blob(["hello"]));', url=server.url)

    assert "secret" not in json.dumps(caught.value.facts)


def test_an_upload_stays_with_the_server_that_was_called_whatever_it_is_called_elsewhere(node) -> None:
    told = b'{"upload_url": "https://public.example/up?key=1", "file_url": "https://public.example/files/1"}'
    with scripted([answer(200, told)]) as server:
        url = node.run(FAL + 'return await fal.storage.upload(new Blob(["hello"]));', url=server.url)

    assert "https://public.example/files/1" == url
    assert ("PUT /up?key=1 HTTP/1.1", b"hello") == (server.requests[1].line, server.requests[1].body)
