"""The page in a browser: what streams is shown as what it is, and can be stopped, cut, shared and taken up again."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.support.server import PATIENCE_S, ROOT, eventually, running_server
from tests.support.toxic import Toxic

SHOWS = ROOT / "tests/browser/models/shows.py"

expect.set_options(timeout=PATIENCE_S * 1_000)

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server():
    with running_server(SHOWS) as server:
        yield server


def open_app(page: Page, url: str, endpoint: str = "/") -> None:
    page.goto(f"{url}/test/shows#endpoint={endpoint}")
    expect(page.get_by_role("heading", name="test/shows")).to_be_visible()


def press(page: Page, name: str) -> None:
    page.locator(".actions").get_by_role("button", name=name, exact=True).click()


def card(page: Page, state: str | None = None):
    """The newest request on the page, once it is in a state."""
    newest = page.locator("article.card").first
    if state is not None:
        expect(newest).to_have_attribute("data-state", state)
    return newest


def let_go(server, word: str) -> None:
    with (server.folder / "notes").open("a") as notes:
        notes.write(f"{word}\n")


def has_figure(page: Page, name: str, value: str) -> None:
    """Expect a figure of the newest request, which is drawn with the next frame: later than it is done."""
    expect(card(page).locator(f".figures div:has(dt:text-is('{name}')) dd")).to_have_text(value)


def test_text_grows_and_the_result_does_not_repeat_it(server, page):
    open_app(page, server.url)
    page.get_by_label("Prompt").fill("the quick brown fox")
    page.get_by_label("Wait for").fill("brown")

    press(page, "Stream")
    expect(card(page).locator(".text")).to_have_text("the quick")
    expect(card(page).locator(".state")).to_have_text("Streaming")
    let_go(server, "brown")

    card(page, "done")
    assert card(page).locator(".text").inner_text() == "the quick brown fox"
    assert card(page).locator(".facts").inner_text().split() == ["words", "4"]
    assert re.fullmatch(r"Done in [\d.]+ m?s", card(page).locator(".state").inner_text())


def test_text_that_comes_whole_each_time_grows_too(server, page):
    open_app(page, server.url, "/cumulative")
    page.get_by_label("Prompt").fill("ha ha ha")

    press(page, "Stream")

    card(page, "done")
    assert card(page).locator(".text").inner_text() == "ha ha ha"


def test_pictures_sharpen_in_place_under_a_bar_of_progress(server, page):
    open_app(page, server.url, "/pictures")
    page.get_by_label("Wait for").fill("sharper")

    press(page, "Stream")
    expect(card(page).locator(".progress")).to_have_text("Step 2 of 4")
    expect(card(page).locator(".pictures img")).to_have_count(1)
    early = card(page).locator(".pictures img").get_attribute("src")
    assert float(card(page).locator("progress").evaluate("bar => bar.value")) == 0.5
    let_go(server, "sharper")

    card(page, "done")
    expect(card(page).locator(".progress")).to_be_hidden()
    expect(card(page).locator(".pictures img")).to_have_count(1)
    eventually(lambda: card(page).locator(".pictures img").get_attribute("src") != early, "another picture")
    assert card(page).locator(".pictures img").evaluate("image => image.naturalWidth") == 24
    assert card(page).locator(".facts").inner_text().split() == ["seed", "7"]


def test_sound_can_be_played_as_it_comes_and_what_plays_is_not_cut_short(server, page):
    open_app(page, server.url, "/sound")
    page.get_by_label("Wait for").fill("rest")

    press(page, "Stream")
    player = card(page).get_by_label("audio", exact=True)
    eventually(lambda: player.evaluate("player => player.duration") == 1.5, "the first piece is there")
    # Slowly, so that it still plays when the whole comes, however late that is.
    player.evaluate("player => { player.muted = true; player.playbackRate = 0.1; player.play(); }")
    let_go(server, "rest")
    card(page, "done")

    # It plays to its end; then the whole, which came meanwhile, follows by itself.
    heard = player.evaluate("""player => new Promise((resolve) => {
        const pieces = [player.duration];
        player.addEventListener("durationchange", () => pieces.push(player.duration));
        player.addEventListener("ended", () => { if (player.duration === 3) resolve(pieces.filter(Boolean)); });
        player.playbackRate = 1;
    })""")
    assert (heard[0], heard[-1]) == (1.5, 3)
    assert card(page).locator(".facts").inner_text().split() == ["seconds", "3"]


def test_run_shows_the_result_and_needs_no_stream_view(server, page):
    open_app(page, server.url, "/only-run")
    page.get_by_label("Prompt").fill("loud")
    assert page.locator(".actions").get_by_role("button").all_inner_texts() == ["Run", "Queue"]

    press(page, "Run")

    card(page, "done")
    assert card(page).locator(".text").inner_text() == "LOUD"


def test_a_queued_request_is_followed_with_its_log(server, page):
    # The page waits three seconds for the last words; on a busy machine they may take longer.
    page.add_init_script(
        "const soon = window.setTimeout;"
        "window.setTimeout = (job, ms, ...more) => soon(job, ms === 3_000 ? 300_000 : ms, ...more);"
    )
    open_app(page, server.url)

    press(page, "Queue")

    card(page, "done")
    assert card(page).locator(".text").inner_text() == "one two three"
    expect(card(page).locator(".logs pre")).to_contain_text("said it all")


def test_stop_ends_the_model_and_keeps_what_there_is(server, page):
    open_app(page, server.url)
    page.get_by_label("Wait for").fill("nobody-ever-writes-this")

    press(page, "Stream")
    expect(card(page).locator(".text")).to_have_text("one two")
    id_ = card(page).locator(".request-id").inner_text()
    card(page).get_by_role("button", name="Stop").click()

    card(page, "stopped")
    assert card(page).locator(".text").inner_text() == "one two"
    eventually(
        lambda: server.request("PUT", f"/test/shows/requests/{id_}/cancel").json["status"] == "ALREADY_COMPLETED",
        "the request is over",
    )


def test_stop_before_a_submit_is_answered_ends_the_request_that_it_made(server, page):
    open_app(page, server.url)
    page.get_by_label("Wait for").fill("nobody-ever-writes-this")
    answers = []

    def hold_back(route) -> None:
        answers.append((route, route.fetch()))

    page.route("**/queue/test/shows", hold_back)
    press(page, "Queue")
    with page.expect_request("**/cancel") as cancel:
        card(page, "live").get_by_role("button", name="Stop").click()
        eventually(lambda: page.wait_for_timeout(20) or answers, "the submit has its answer")
        route, answer = answers[0]
        route.fulfill(response=answer)

    card(page, "stopped")
    assert f"/requests/{answer.json()['request_id']}/cancel" in cancel.value.url


def test_a_queued_request_that_cannot_be_followed_is_told_no_status_any_more(server, page, complaints):
    complaints.expect("404")
    complaints.allow("ERR_")
    told = []
    page.route("**/queue/**/status/stream*", lambda route: told.append(route))  # and no answer
    page.route(
        re.compile(r"/shows/requests/[^/]+/stream"),
        lambda route: route.fulfill(status=404, json={"detail": "gone"}),
    )
    open_app(page, server.url)

    with page.expect_event("requestfailed", lambda request: "/status/stream" in request.url):
        press(page, "Queue")

    card(page, "failed")
    assert 1 == len(told)
    assert card(page).locator(".state").inner_text().startswith("Failed after")


def test_a_stream_that_is_cut_goes_on_without_a_gap(server, page, complaints):
    complaints.allow("ERR_")
    words = " ".join(f"w{n}" for n in range(40))
    with Toxic(server.port) as wire:
        open_app(page, f"http://127.0.0.1:{wire.port}")
        page.get_by_label("Prompt").fill(words)
        page.get_by_label("Wait for").fill("mended")
        press(page, "Stream")
        expect(card(page).locator(".text")).to_have_text("w0 w1")
        wire.add("reset_peer")
        eventually(lambda: wire.connections == 0, "the connection is cut")
        wire.clear()
        let_go(server, "mended")

        card(page, "done")
        assert card(page).locator(".text").inner_text() == words
        has_figure(page, "events", "41")


def test_an_error_on_the_way_is_told_and_what_came_before_stays(server, page, complaints):
    complaints.allow("ERR_INCOMPLETE_CHUNKED_ENCODING")  # a cut, which the console may tell
    open_app(page, server.url, "/fails")

    press(page, "Stream")

    card(page, "failed")
    assert card(page).locator(".failure strong").inner_text() == "app_error"
    expect(card(page).locator(".failure")).to_contain_text("The kiln is cold")
    expect(card(page).locator(".failure")).to_contain_text("may work another time")
    assert card(page).locator(".text").inner_text() == "so far so good"


def test_items_of_odd_shapes_are_shown_as_far_as_they_go(server, page):
    open_app(page, server.url, "/odd")
    page.get_by_label("Wait for").fill("odd")

    press(page, "Stream")
    expect(card(page).locator(".progress")).to_be_visible()
    assert card(page).locator("progress").evaluate("bar => bar.value") == 0
    let_go(server, "odd")

    card(page, "done")
    assert card(page).locator(".text").inner_text() == "still here"
    expect(card(page).locator(".pictures img")).to_have_count(1)
    expect(card(page).locator("audio")).to_have_count(0)
    lines = [line.strip() for line in card(page).locator(".logs pre").text_content().splitlines()]
    assert ["null", "a bare line", "at no time"] == lines[:3]
    has_figure(page, "events", "5")


def test_a_fault_in_drawing_is_reported_and_ends_neither_the_stream_nor_the_rest(server, page, complaints):
    complaints.expect("the pen is broken")
    complaints.expect("the log is full")
    open_app(page, server.url, "/odd")
    page.evaluate("""() => {
        CharacterData.prototype.appendData = () => { throw new Error("the pen is broken"); };
        HTMLPreElement.prototype.append = (...lines) => { if (lines.length) throw new Error("the log is full"); };
    }""")

    press(page, "Stream")

    card(page, "done")
    has_figure(page, "events", "5")


def test_ten_thousand_fast_events_do_not_freeze_the_page(server, page):
    open_app(page, server.url, "/fast")

    press(page, "Stream")

    card(page, "done")
    has_figure(page, "events", "10,000")
    expect(card(page).locator(".events .quiet")).to_have_text("10,000 events, the first 5,000 left out here")
    assert card(page).locator(".text").inner_text().split()[-1] == "9999"
    assert page.locator(".row").count() < 60
    list_ = card(page).locator(".events-list")
    list_.evaluate("list => { list.scrollTop = 0; }")
    expect(list_.locator(".row").first).to_contain_text('{"token":"5000 "}')


@pytest.mark.promise("A8")
def test_nothing_that_a_model_says_runs_or_becomes_an_element(server, page):
    open_app(page, server.url, "/sly")

    press(page, "Stream")

    card(page, "done")
    expect(card(page).locator(".text")).to_have_text(re.compile("<script>alert"))
    assert card(page).locator("script, a, .text img, .facts img").count() == 0


def test_a_fifth_stream_is_refused_with_the_reason(server, page):
    open_app(page, server.url)
    page.get_by_label("Wait for").fill("nobody-ever-writes-this")
    for number in range(4):
        press(page, "Stream")
        expect(page.locator('article[data-state="live"] .text:text-is("one two")')).to_have_count(number + 1)

    press(page, "Stream")

    expect(page.locator(".ask > .problem")).to_contain_text("4 streams open")
    assert page.locator("article.card").count() == 4
    page.locator("article.card").first.get_by_role("button", name="Stop").click()
    card(page, "stopped")
    press(page, "Stream")
    expect(page.locator("article.card")).to_have_count(5)
    for _ in range(4):
        page.locator('article[data-state="live"]').first.get_by_role("button", name="Stop").click()
    expect(page.locator('article[data-state="live"]')).to_have_count(0)


def test_finished_requests_make_room_for_new_ones(server, page):
    open_app(page, server.url)
    for number in range(14):
        press(page, "Run")
        expect(page.locator("article.card")).to_have_count(min(number + 1, 12))
        card(page, "done")

    card(page).get_by_role("button", name="Close").click()

    expect(page.locator("article.card")).to_have_count(11)


def test_two_windows_watch_one_request(server, page, context):
    open_app(page, server.url)
    page.get_by_label("Wait for").fill("both")
    press(page, "Stream")
    expect(card(page).locator(".text")).to_have_text("one two")
    id_ = card(page).locator(".request-id").inner_text()
    card(page).get_by_role("button", name="Share").click()
    link = card(page).get_by_label("Link to watch this request").input_value()
    assert link == f"{server.url}/test/shows#request={id_}"

    second = context.new_page()
    second.goto(f"{server.url}/test/shows")
    second.goto(link)  # pasted over where one was already
    expect(card(second).locator(".text")).to_have_text("one two")
    expect(card(second).get_by_role("button", name="Leave")).to_be_visible()
    let_go(server, "both")

    for window in (page, second):
        card(window, "done")
        assert card(window).locator(".text").inner_text() == "one two three"


def test_the_list_of_apps_leads_to_each(server, page):
    page.goto(server.url)

    entry = page.get_by_role("listitem").filter(has_text="test/shows")
    expect(entry).to_contain_text("Everything the page can show.")
    expect(entry).to_contain_text("ready")
    expect(entry).to_contain_text("run, stream, queue")
    entry.get_by_role("link").click()

    expect(page.get_by_role("heading", name="test/shows")).to_be_visible()
    assert page.title() == "test/shows · Headrace"


def test_an_app_says_each_endpoints_views(server, page):
    open_app(page, server.url, "/pictures")

    assert page.locator(".views code").all_inner_texts() == [
        "POST /test/shows/pictures/stream",
        "POST /test/shows/pictures",
        "POST /queue/test/shows/pictures",
    ]
    page.get_by_role("navigation", name="Endpoints").get_by_role("button", name="/only-run").click()
    assert page.locator(".views code").all_inner_texts() == [
        "POST /test/shows/only-run",
        "POST /queue/test/shows/only-run",
    ]
    assert page.url.endswith("#endpoint=%2Fonly-run")
