"""The SDK for JavaScript in Chromium, from a page of another origin than the server's: it streams, throws, leaves."""

from __future__ import annotations

import pytest

from tests.support.browser import site
from tests.support.official import key_of
from tests.support.resuming import cut_wire
from tests.support.server import eventually, running_server

ITEMS = [{"i": 0}, {"i": 1}, {"i": 2}, {"total": 3}]

READ = """async ([sdk, settings, call, id, options]) => {
    const { createFalClient } = await import(sdk);
    const items = [];
    try {
        const stream = await createFalClient(settings)[call](id, options);
        for await (const item of stream) items.push(item);
        return { items, requestId: stream.requestId };
    } catch (error) {
        const { name, message, status, errorType, requestId } = error;
        return { items, error: { name, message, status, errorType }, requestId };
    }
}"""


@pytest.fixture(scope="module")
def server():
    with running_server(args=()) as server:  # with authentication
        yield server


@pytest.fixture
def read(page, server):
    """Read a stream from a page: `read("zoo/zoo", {…})`; `url` is the server's unless given."""
    with site({}) as pages:
        page.goto(pages.url)

        def read(id, options, *, call="stream", **settings):
            settings = {"credentials": key_of(server), **settings}
            return page.evaluate(READ, [f"{server.url}/sdk/headrace.js", settings, call, id, options])

        yield read


def test_a_page_streams_from_the_server_that_it_loaded_the_module_from(read):
    told = read("zoo/zoo", {"input": {"n": 3}})

    assert ITEMS == told["items"]
    assert 36 == len(told["requestId"])


def test_characters_of_all_scripts_come_as_they_are(read):
    assert [{"text": "é 🌅 \u2028 日本"}] == read("zoo/zoo/text", {})["items"]


def test_a_failure_is_thrown_behind_the_items_before_it(read, complaints):
    complaints.allow("ERR_INCOMPLETE_CHUNKED_ENCODING")

    told = read("zoo/zoo/raise-later", {})

    assert [{"i": 0}, {"i": 1}] == told["items"]
    assert ("ApiError", "runner_server_error", 500) == tuple(
        told["error"][name] for name in ("name", "errorType", "status")
    )
    assert 36 == len(told["requestId"])


def test_a_refusal_is_told_in_the_servers_words(read, complaints):
    complaints.expect("422")
    complaints.expect("401")

    wrong = read("zoo/zoo", {"input": {"n": -1}})
    stranger = read("zoo/zoo", {}, credentials="no:body")

    assert ("ValidationError", 422) == (wrong["error"]["name"], wrong["error"]["status"])
    assert wrong["error"]["message"].startswith("n: ")
    assert ("ApiError", 401, "unauthorized") == tuple(
        stranger["error"][name] for name in ("name", "status", "errorType")
    )


@pytest.mark.parametrize("cuts", [[0], [700], [500, 500, 500], [300, 0, 900, 1000]])
def test_a_stream_that_is_cut_goes_on(read, server, complaints, cuts):
    complaints.allow("ERR_|blocked by CORS policy")
    with cut_wire(server.port, cuts) as wire:
        told = read("zoo/zoo/async", {"input": {"n": 3, "name": f"cut {cuts}"}, "resume": True}, baseUrl=wire.url)

    assert ITEMS == told["items"]
    assert 1 == server.notes().count(f"start cut {cuts}")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("leave", ["break", "stream.abort()"])
def test_who_leaves_stops_the_model(page, server, leave, resume):
    name = f"{leave} {resume}"
    script = f"""async ([sdk, credentials, options]) => {{
        const {{ createFalClient }} = await import(sdk);
        const stream = await createFalClient({{ credentials }}).stream("zoo/zoo/async", options);
        try {{ for await (const _ of stream) {leave}; }} catch (error) {{ return error.name; }}
    }}"""
    # With resume, the request would outlive its readers for good, but for being stopped.
    headers = {"x-headrace-on-disconnect": "finish"} if resume else {}
    options = {"input": {"n": 100_000, "pause": 0.01, "name": name}, "headers": headers, "resume": resume}
    with site({}) as pages:
        page.goto(pages.url)
        told = page.evaluate(script, [f"{server.url}/sdk/headrace.js", key_of(server), options])

        assert (None if leave == "break" else "AbortError") == told
        eventually(
            server.saw(f"finally {name}"), "the model is stopped", seconds=15
        )  # the grace would be twice that


@pytest.mark.parametrize("resume", [False, True])
def test_a_page_that_is_closed_leaves_nothing_running_without_resuming(context, server, resume):
    name = f"closed {resume}"
    script = """([sdk, credentials, options]) => import(sdk).then(({ createFalClient }) =>
        createFalClient({ credentials }).stream("zoo/zoo/async", options)).then(() => {})"""
    options = {"input": {"n": 100_000, "pause": 0.01, "name": name}, "resume": resume}
    with site({}) as pages:
        page = context.new_page()
        page.goto(pages.url)
        page.evaluate(script, [f"{server.url}/sdk/headrace.js", key_of(server), options])
        eventually(server.saw(f"start {name}"), "the model runs")
        page.close()

        if not resume:  # else the server waits for it, for its grace
            eventually(server.saw(f"finally {name}"), "the model is stopped")


def test_subscribe_and_the_queue_in_a_page(page, server):
    script = """async ([sdk, credentials]) => {
        const { fal } = await import(sdk);
        fal.config({ credentials });
        const states = {};
        const results = [];
        for (const mode of ["polling", "streaming"]) {
            const onQueueUpdate = ({ status }) => (states[mode] ??= new Set()).add(status);
            const { data } = await fal.subscribe("zoo/zoo/async", { input: { n: 2, pause: 0.2 }, mode, onQueueUpdate });
            results.push(data, [...states[mode]].at(-1));
        }
        return results;
    }"""
    with site({}) as pages:
        page.goto(pages.url)
        told = page.evaluate(script, [f"{server.url}/sdk/headrace.js", key_of(server)])

    assert [{"total": 2}, "COMPLETED"] * 2 == told


def test_a_page_uploads_a_file(page, server):
    script = """async ([sdk, credentials]) => {
        const { createFalClient } = await import(sdk);
        const fal = createFalClient({ credentials });
        const url = await fal.storage.upload(new File(["hello"], "a.txt", { type: "text/plain" }));
        return [url, await (await fetch(url)).text()];
    }"""
    with site({}) as pages:
        page.goto(pages.url)
        url, text = page.evaluate(script, [f"{server.url}/sdk/headrace.js", key_of(server)])

    assert "hello" == text
    assert url.startswith(f"{server.url}/files/")


def test_pages_of_elsewhere_may_load_the_module_and_call_nothing(page, server, complaints):
    complaints.expect("blocked by CORS policy")
    complaints.expect("ERR_FAILED|403")
    with site({}) as pages:
        page.goto(f"http://elsewhere.example:{pages.port}")
        sdk = f"{server.url}/sdk/headrace.js"
        names = page.evaluate("sdk => import(sdk).then((module) => Object.keys(module))", sdk)
        told = page.evaluate(READ, [sdk, {"credentials": key_of(server)}, "stream", "zoo/zoo", {}])

    assert "createFalClient" in names
    assert ([], "ConnectionLost") == (told["items"], told["error"]["name"])
