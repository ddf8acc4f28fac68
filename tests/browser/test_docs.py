"""The page that docs/how-to/browser.md has does in Chromium what it says."""

import re

from playwright.sync_api import expect

from tests.support.browser import site
from tests.support.official import key_of
from tests.support.server import PATIENCE_S, ROOT, running_server


def block(page: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_page_of_the_docs_shows_each_event(page, tmp_path):
    model = tmp_path / "count.py"
    model.write_text(block("docs/streaming.md", "python"))
    with running_server(model, args=()) as server:
        text = block("docs/how-to/browser.md", "html")
        for told, true in (("127.0.0.1:8080", f"127.0.0.1:{server.port}"), ("YOUR KEY", key_of(server))):
            assert told in text
            text = text.replace(told, true)
        with site({"/": text}) as pages:
            page.goto(pages.url)

            lines = ['{"n":1}', '{"n":2}', '{"counted":2}']
            expect(page.locator("#events li")).to_have_text(lines, timeout=PATIENCE_S * 1_000)
            page.goto("about:blank")  # it may still wish for an icon, when there is nobody left to ask
