"""How a tab gets its key and where it keeps it; and links that let others watch one request."""

import re
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.support.official import key_of, users_environment
from tests.support.server import PATIENCE_S, ROOT, running_server
from tests.support.toxic import Toxic

SHOWS = ROOT / "tests/browser/models/shows.py"

expect.set_options(timeout=PATIENCE_S * 1_000)

pytestmark = pytest.mark.timeout(240)

STORES = (
    "({ session: JSON.stringify(sessionStorage), local: JSON.stringify(localStorage), cookie: document.cookie })"
)


@pytest.fixture(scope="module")
def server():
    with running_server(SHOWS, args=()) as server:
        yield server


def new_link(server) -> str:
    return server.post("/v1/page-link", {}, {"Authorization": f"Key {key_of(server)}"}).json["url"]


def another_key(server) -> str:
    command = [sys.executable, "-m", "headrace", "keys", "create", "--data-dir", str(server.folder / "data")]
    made = subprocess.run(
        command, env=users_environment(server), capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    return made.stdout.strip()


def finished(page: Page):
    card = page.locator("article.card").first
    expect(card).to_have_attribute("data-state", "done")
    return card


def test_a_link_opens_the_page_and_its_code_leaves_the_address_bar(server, page):
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))

    page.goto(new_link(server))
    expect(page.get_by_role("heading", name="Apps")).to_be_visible()

    assert page.url == f"{server.url}/"
    page.get_by_role("link", name="test/shows").click()
    page.locator(".actions").get_by_role("button", name="Stream").click()
    finished(page)
    kept = page.evaluate(STORES)
    session = re.search(r"page:[\w-]{43}", kept["session"])[0]
    assert (kept["local"], kept["cookie"]) == ("{}", "")
    assert [url for url in urls if session in url or session[5:] in url or "code=" in url] == []
    assert session not in page.locator(".snippets").inner_text()
    assert "$HEADRACE_KEY" in page.locator(".snippets").inner_text()
    page.go_back()
    assert "code" not in page.url


def test_a_used_link_is_told_plainly_with_what_to_do(server, page, context, complaints):
    complaints.expect("401")
    link = new_link(server)
    page.goto(link)
    expect(page.get_by_role("heading", name="Apps")).to_be_visible()

    second = context.new_page()
    second.goto(link)

    expect(second.get_by_role("alert")).to_contain_text("used before, or is older than ten minutes")
    expect(second.locator("main")).to_contain_text("headrace page")
    assert second.url == f"{server.url}/"
    page.goto(link)  # who has a key has lost nothing by it
    expect(page.get_by_role("heading", name="Apps")).to_be_visible()


def test_without_a_link_the_key_is_asked_for_once_and_kept_in_the_tab(server, page, context, complaints):
    complaints.expect("401")
    page.goto(f"{server.url}/test/shows")
    expect(page.get_by_role("heading", name="A key, please")).to_be_visible()
    assert page.get_by_label("Key").get_attribute("type") == "password"

    page.get_by_label("Key").fill(key_of(server))
    page.get_by_role("button", name="Open the page").click()

    expect(page.get_by_role("heading", name="test/shows")).to_be_visible()
    page.goto(f"{server.url}/")
    expect(page.get_by_role("heading", name="Apps")).to_be_visible()
    kept = page.evaluate(STORES)
    assert (key_of(server) in kept["session"], kept["local"], kept["cookie"]) == (True, "{}", "")
    other = context.new_page()
    other.goto(f"{server.url}/")
    expect(other.get_by_role("heading", name="A key, please")).to_be_visible()


def test_a_wrong_key_is_told_and_another_can_be_given(server, page, complaints):
    complaints.expect("401")
    page.goto(server.url)
    page.get_by_label("Key").fill("hr_aaaaaaaaaaaa:wrong")
    page.get_by_role("button", name="Open the page").click()

    expect(page.get_by_role("alert")).to_contain_text("not good any more")
    assert page.evaluate(STORES)["session"] == "{}"
    page.get_by_label("Key").fill(key_of(server))
    page.get_by_role("button", name="Open the page").click()
    expect(page.get_by_role("heading", name="Apps")).to_be_visible()


def test_a_tab_sees_what_its_user_began_elsewhere(server, page):
    answer = server.post("/test/shows", {"prompt": "from elsewhere"}, {"Authorization": f"Key {key_of(server)}"})
    page.goto(new_link(server))
    expect(page.get_by_role("heading", name="Apps")).to_be_visible()

    page.goto(f"{server.url}/test/shows#request={answer.headers['x-fal-request-id']}")

    assert finished(page).locator(".text").inner_text() == "from elsewhere"


def test_a_link_with_a_token_shows_one_request_to_who_has_no_key(server, page, browser, complaints):
    complaints.expect("401")
    page.goto(new_link(server).replace("/#", "/test/shows#"))
    page.get_by_label("Prompt").fill("shared with you")
    page.locator(".actions").get_by_role("button", name="Stream").click()
    card = finished(page)
    card.get_by_role("button", name="Share").click()
    field = card.get_by_label("Link to watch this request")
    assert re.fullmatch(rf"{server.url}/test/shows#request=[\w-]+", field.input_value())
    card.get_by_role("button", name="Make it work without a key").click()
    expect(field).to_have_value(re.compile("&token="))

    others = browser.new_context()
    complaints.listen_to(others)
    guest = others.new_page()
    guest.goto(field.input_value())

    assert finished(guest).locator(".text").inner_text() == "shared with you"
    assert guest.locator("form").count() == 0
    guest.goto(re.sub("&token=.*", "", field.input_value()))
    expect(guest.get_by_role("heading", name="A key, please")).to_be_visible()
    others.close()


def test_a_link_with_a_token_goes_by_it_in_a_tab_that_has_another_key_too(server, page):
    key = {"Authorization": f"Key {key_of(server)}"}
    answer = server.post("/test/shows", {"prompt": "not yours"}, key)
    id_ = answer.headers["x-fal-request-id"]
    token = server.post(f"/test/shows/requests/{id_}/token", {}, key).json["token"]
    page.add_init_script(f"sessionStorage.setItem('headrace.key', '{another_key(server)}')")

    page.goto(f"{server.url}/test/shows#request={id_}&token={token}")

    expect(page.get_by_role("heading", name="test/shows")).to_be_visible()
    assert finished(page).locator(".text").inner_text() == "not yours"


def test_a_session_ends_with_the_server(page, complaints):
    complaints.expect("401")
    # Both servers are behind one port of ours: theirs, once it is free, may be another process's at once.
    with Toxic(0) as wire:
        with running_server(SHOWS, args=()) as server:
            wire.upstream_port = server.port
            page.goto(new_link(server).replace(f":{server.port}/", f":{wire.port}/"))
            expect(page.get_by_role("heading", name="Apps")).to_be_visible()
            data = server.folder / "data"
            page.goto("about:blank")  # the page asks from time to time, and there is nobody to answer
        with running_server(SHOWS, args=(), data_dir=data) as again:
            wire.upstream_port = again.port
            page.goto(f"http://127.0.0.1:{wire.port}")

            expect(page.get_by_role("alert")).to_contain_text("ends with the server")
            page.goto("about:blank")
