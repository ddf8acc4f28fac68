"""The page for every eye, hand and ear: sizes, colours, names, and what a screen reader is told."""

import pytest
from playwright.sync_api import Page, expect

from tests.support.server import PATIENCE_S, ROOT, running_server

SHOWS = ROOT / "tests/browser/models/shows.py"

expect.set_options(timeout=PATIENCE_S * 1_000)

pytestmark = pytest.mark.timeout(240)

PHONE = {"width": 390, "height": 844}

#: Controls without a name, images without a word, references to nothing, ids that are not unique, levels left out.
FAULTS = """() => {
  const faults = [];
  const named = (element) => element.labels?.length || element.ariaLabel || element.getAttribute("aria-labelledby")
    || element.textContent.trim();
  for (const element of document.querySelectorAll("button, input:not([type=file]), select, textarea, a, summary")) {
    if (!named(element)) faults.push(`no name: ${element.outerHTML.slice(0, 120)}`);
  }
  for (const element of document.querySelectorAll("[role=group], [role=img], nav, section, article")) {
    if (!element.ariaLabel && !element.getAttribute("aria-labelledby")) faults.push(`no name: ${element.className}`);
  }
  for (const image of document.images) if (!image.hasAttribute("alt")) faults.push(`no alt: ${image.src.slice(0, 60)}`);
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of element.getAttribute(attribute).split(" ")) {
        if (!document.getElementById(id)) faults.push(`${attribute} leads nowhere: ${id}`);
      }
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  if (new Set(ids).size < ids.length) faults.push("an id twice");
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((element) => Number(element.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) faults.push("not one h1");
  if (!document.documentElement.lang || !document.title) faults.push("no language or title");
  if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
  for (const element of document.querySelectorAll("[style]")) {
    if (!/^(height|transform)/.test(element.getAttribute("style"))) faults.push("a style of its own");
  }
  return faults;
}"""

#: The contrast of every text with what is behind it (WCAG 2.2, 1.4.3), where it is below 4.5.
FAINT = """() => {
  const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (...colours) => {
    brush.clearRect(0, 0, 1, 1);
    for (const colour of colours) { brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1); }
    return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest(".unseen, .pairs legend")) continue;
    const behind = [];
    for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
    const [a, b] = [light(over(...behind, getComputedStyle(element).color)), light(over(...behind))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) faint.push([node.data.slice(0, 40), ((a + .05) / (b + .05)).toFixed(2)]);
  }
  return faint;
}"""


@pytest.fixture(scope="module")
def server():
    with running_server(SHOWS) as server:
        yield server


def with_a_request(page: Page, server, endpoint: str) -> None:
    page.goto("about:blank")
    page.goto(f"{server.url}/test/shows#endpoint={endpoint}")
    page.locator(".actions button").first.click()
    expect(page.locator("article.card")).not_to_have_attribute("data-state", "live")
    page.get_by_role("button", name="Share").click()


PLACES = ["", "/", "/pictures", "/everything"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_everything_has_a_name_and_can_be_read(server, page, scheme, place):
    page.emulate_media(color_scheme=scheme)
    if place:
        with_a_request(page, server, place)
        if page.get_by_text("More settings").count():
            page.get_by_text("More settings").click()
            for add in page.get_by_role("button", name="Add").all():
                add.click()
    else:
        page.goto(server.url)
        expect(page.get_by_role("link", name="test/shows")).to_be_visible()

    assert page.evaluate(FAULTS) == []
    assert page.evaluate(FAINT) == []


@pytest.mark.parametrize("width", [320, 390, 700, 1000, 1400])
def test_no_width_scrolls_sideways(server, page, width):
    page.set_viewport_size({"width": width, "height": 844})
    for place in PLACES:
        if place:
            with_a_request(page, server, place)
        else:
            page.goto(server.url)
            expect(page.get_by_role("link", name="test/shows")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (place, width)


def test_on_a_phone_a_new_request_comes_into_view(server, page):
    page.set_viewport_size(PHONE)
    page.goto(f"{server.url}/test/shows")

    page.locator(".actions button").first.click()

    expect(page.locator("article.card")).to_have_attribute("data-state", "done")
    expect(page.locator("article.card h2")).to_be_in_viewport()


def test_the_colours_follow_the_system_until_the_switch_is_used_and_stay_then(server, page):
    background = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    page.goto(server.url)
    dark = page.evaluate(background)
    switch = page.get_by_role("button", name="Dark colours")
    expect(switch).to_have_attribute("aria-pressed", "true")

    switch.click()

    light = page.evaluate(background)
    assert light != dark
    expect(switch).to_have_attribute("aria-pressed", "false")
    page.reload()
    assert page.evaluate(background) == light
    expect(page.get_by_role("button", name="Dark colours")).to_have_attribute("aria-pressed", "false")


def test_a_screen_reader_hears_how_it_goes_and_not_every_token(server, page):
    page.goto(f"{server.url}/test/shows#endpoint=/fast")
    page.locator(".actions button").first.click()
    expect(page.locator("article.card")).to_have_attribute("data-state", "done")

    live = page.locator("article.card :is([role=status], [role=alert], [aria-live])")
    assert "Done in" in " ".join(live.all_inner_texts())
    assert (
        page.locator("article.card .text").evaluate(
            "text => text.closest('[role=status], [role=alert], [aria-live]')"
        )
        is None
    )
    assert (
        page.locator("article.card .events").evaluate("list => list.closest('[role=status], [aria-live]')") is None
    )


def test_who_wants_less_motion_has_none(server, page):
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{server.url}/test/shows")
    page.get_by_label("Wait for").fill("nobody-ever-writes-this")
    page.locator(".actions button").first.click()
    expect(page.locator("article.card .text")).to_have_text("one two")

    assert (
        page.locator(".card .state").evaluate("state => getComputedStyle(state, '::before').animationName")
        == "none"
    )
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article.card")).to_have_attribute("data-state", "stopped")
