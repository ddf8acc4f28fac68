"""The browser rig: Debian's Chromium, driven by Playwright, and strict about what a page complains of.

Each test has a page in a context of its own. What the browser writes as an error to its console, what a script throws
and nobody catches, and what a content security policy stops, all fail the test, unless it said `complaints.expect(…)`.

A browser serves one file of tests: while Playwright is open, its event loop is the thread's, and `asyncio.run`, which
other files call, would refuse to work.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.browser import CHROMIUM, FLAGS, Complaints, need_chromium
from tests.support.server import PATIENCE_S


#: Seconds a test may take: the first of a file starts a browser and a server.
TIMEOUT_S = 180

#: Seconds a browser may take to start; Playwright's own 30 are for a machine that has nothing else to do.
LAUNCH_S = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(pathlib.Path(__file__).parent) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=LAUNCH_S * 1_000)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> Complaints:
    """What the pages of this test complained of; `complaints.expect(pattern)` for what they shall."""
    return Complaints()


@pytest.fixture
def context(browser: Browser, complaints: Complaints) -> Iterator[BrowserContext]:
    """A browser that nobody has used: no cookies, no storage, no cache."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_S * 1_000)
    complaints.listen_to(context)
    yield context
    context.close()
    complaints.judge()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
