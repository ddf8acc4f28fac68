"""fal's own JavaScript client in a browser, bundled as a page's author would, through the proxy route without a key."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.browser import site
from tests.support.official import need_node
from tests.support.server import running_server

ENTRY = 'import { fal } from "@fal-ai/client"; globalThis.fal = fal;'
PAGE = '<!doctype html><link rel=icon href=data:,><meta charset="utf-8"><script src="/fal.js"></script>'


@pytest.fixture(scope="module")
def bundle():
    folder = need_node()
    bundler = folder / "node_modules" / "esbuild" / "bin" / "esbuild"
    bundled = subprocess.run(
        ["node", str(bundler), "--bundle", "--format=iife", "--platform=browser", "--log-level=warning"],
        cwd=folder, input=ENTRY, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert (0, "") == (bundled.returncode, bundled.stderr)
    return bundled.stdout


@pytest.fixture(scope="module")
def server():
    with running_server(args=()) as server:  # with authentication
        yield server


@pytest.fixture
def at_page(page, bundle, server):
    """Run a script in a page that has `fal`, which calls by the proxy route."""
    with site({"/": PAGE, "/fal.js": bundle}) as pages:
        page.goto(pages.url)
        page.evaluate("proxyUrl => fal.config({ proxyUrl })", f"{server.url}/fal/proxy")
        yield page.evaluate


def test_it_streams(at_page):
    told = at_page("""async () => {
        const items = [];
        const stream = await fal.stream("zoo/zoo/async", { input: { n: 3, pause: 0.05 } });
        for await (const item of stream) items.push(item);
        return { items, last: await stream.done() };
    }""")

    assert {"items": [{"i": 0}, {"i": 1}, {"i": 2}, {"total": 3}], "last": {"total": 3}} == told


def test_it_runs_and_subscribes(at_page):
    told = at_page("""async () => {
        const run = await fal.run("zoo/zoo/def", { input: { n: 2 } });
        const results = [run.data];
        for (const mode of ["polling", "streaming"]) {
            const { data } = await fal.subscribe("zoo/zoo/async", { input: { n: 1 }, mode, pollInterval: 100 });
            results.push(data);
        }
        return results;
    }""")

    assert [{"total": 2}, {"total": 1}, {"total": 1}] == told


def test_it_is_told_what_is_wrong(at_page, complaints):
    complaints.expect("422")

    told = at_page("""() => fal.run("zoo/zoo", { input: { n: -1 } }).catch(({ name, status, fieldErrors }) =>
        ({ name, status, fields: fieldErrors.map(({ loc }) => loc) }))""")

    assert {"name": "ValidationError", "status": 422, "fields": [["body", "n"]]} == told
