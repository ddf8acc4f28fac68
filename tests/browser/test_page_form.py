"""The form that a schema becomes, the same input as JSON, and the same call as code."""

import json
import subprocess

import pytest
from playwright.sync_api import Page, expect

from tests.support.server import PATIENCE_S, ROOT, running_server

SHOWS = ROOT / "tests/browser/models/shows.py"

expect.set_options(timeout=PATIENCE_S * 1_000)

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server():
    with running_server(SHOWS) as server:
        yield server


@pytest.fixture
def form(server, page):
    """The form with every kind of field, unfolded."""
    page.goto(f"{server.url}/test/shows#endpoint=/everything")
    page.get_by_text("More settings").click()
    return page.locator("form")


def sent(page: Page) -> dict:
    """What the page sends for the form as it is: `/everything` gives it back."""
    page.locator(".actions").get_by_role("button", name="Run").click()
    expect(page.locator("article.card").first).to_have_attribute("data-state", "done")
    with page.expect_response("**/everything") as answer:
        page.locator(".actions").get_by_role("button", name="Run").click()
    return answer.value.request.post_data_json


def code(page: Page, language: str) -> str:
    page.locator(".snippets").get_by_role("button", name=language).click()
    return page.locator(".snippets code").inner_text()


def test_a_form_begins_with_the_schemas_defaults_and_examples(form, page):
    assert sent(page) == {
        "prompt": "A river at dusk",
        "steps": 4,
        "guidance": 3.5,
        "size": "wide",
        "format": "jpeg",
        "fast": True,
    }


def test_a_number_with_both_bounds_has_a_slider_and_the_bounds(form):
    steps, slider = form.get_by_label("Steps", exact=True), form.get_by_label("Steps, slider")
    assert [steps.get_attribute(name) for name in ("type", "min", "max", "step")] == ["number", "1", "50", "1"]
    assert [slider.get_attribute(name) for name in ("type", "min", "max")] == ["range", "1", "50"]

    slider.focus()
    slider.press("ArrowRight")
    assert steps.input_value() == "5"
    steps.fill("30")
    assert slider.input_value() == "30"


def test_a_number_over_millions_has_no_slider(form):
    assert form.get_by_label("Seed").get_attribute("max") == "4294967295"
    assert form.get_by_label("Seed, slider").count() == 0


def test_every_kind_of_field_is_sent_as_the_schema_has_it(form, page):
    form.get_by_label("Prompt").fill('a\'b "c"\nd')
    form.get_by_label("Seed").fill("7")
    form.get_by_label("Format").select_option("png")
    form.get_by_label("Fast").uncheck()
    form.get_by_label("Size").select_option(label="Size …")
    form.get_by_label("Width", exact=True).fill("100")
    tags = form.get_by_role("group", name="Tags")
    tags.get_by_role("button", name="Add").click()
    tags.get_by_label("Tags 1", exact=True).fill("x")
    tags.get_by_role("button", name="Add").click()
    tags.get_by_role("button", name="Remove Tags 2").click()
    messages = form.get_by_role("group", name="Messages", exact=True)
    messages.get_by_role("button", name="Add").click()
    messages.get_by_label("Content").fill("hello")
    form.get_by_label("Extra (JSON)").fill('{"a": [1]}')
    form.get_by_label("Image", exact=True).fill("https://example.org/a.png")

    assert sent(page) == {
        "prompt": 'a\'b "c"\nd',
        "steps": 4,
        "guidance": 3.5,
        "seed": 7,
        "size": {"width": 100, "height": 512},
        "format": "png",
        "fast": False,
        "messages": [{"role": "user", "content": "hello"}],
        "tags": ["x"],
        "extra": {"a": [1]},
        "image_url": "https://example.org/a.png",
    }


def test_what_may_be_true_or_false_or_nothing_is_a_choice(form, page):
    public = form.get_by_label("Is public")
    assert ["–", "true", "false"] == public.locator("option").all_inner_texts()

    for label, value in (("true", True), ("false", False), ("–", None)):
        public.select_option(label=label)
        assert sent(page).get("is_public") is value
    assert "is_public" not in sent(page)


def test_the_same_input_can_be_written_as_json_and_back(form, page):
    form.get_by_label("Steps", exact=True).fill("9")
    toggle = page.get_by_role("button", name="JSON", exact=True)
    toggle.click()
    raw = form.get_by_label("Input (JSON)")
    value = json.loads(raw.input_value())
    assert value["steps"] == 9

    raw.fill(json.dumps({**value, "steps": 11, "size": {"width": 64, "height": 65}}))
    toggle.click()

    assert form.get_by_label("Steps", exact=True).input_value() == "11"
    assert form.get_by_label("Height", exact=True).input_value() == "65"


def test_json_that_is_none_says_so_and_is_not_sent(form, page):
    page.get_by_role("button", name="JSON", exact=True).click()
    raw = form.get_by_label("Input (JSON)")
    raw.fill("{no")

    page.locator(".actions").get_by_role("button", name="Run").click()
    page.get_by_role("button", name="JSON", exact=True).click()

    expect(form.locator(".problem").first).to_contain_text("This is not JSON")
    expect(raw).to_be_visible()
    assert page.locator("article.card").count() == 0


def test_what_the_server_finds_wrong_is_said_at_its_field_which_gets_the_focus(form, page, complaints):
    complaints.expect("422")
    form.get_by_label("Prompt").fill("x")
    form.get_by_label("Size").select_option(label="Size …")
    form.get_by_label("Width", exact=True).fill("5000")

    page.locator(".actions").get_by_role("button", name="Run").click()

    prompt, width = form.get_by_label("Prompt"), form.get_by_label("Width", exact=True)
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(width).to_have_attribute("aria-invalid", "true")
    expect(form.get_by_text("at least 3 characters")).to_be_visible()
    expect(form.get_by_text("less than or equal to 2048")).to_be_visible()
    expect(prompt).to_be_focused()
    prompt.fill("long enough")
    width.fill("64")
    page.locator(".actions").get_by_role("button", name="Run").click()
    expect(prompt).to_have_attribute("aria-invalid", "false")


def test_curl_as_it_is_copied_makes_the_same_call(form, page):
    form.get_by_label("Prompt").fill('it\'s a "test" $HOME\nover lines')

    done = subprocess.run(
        ["sh", "-c", code(page, "curl")], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )

    assert json.loads(done.stdout)["echo"]["prompt"] == 'it\'s a "test" $HOME\nover lines'


def test_python_and_javascript_say_the_same_call(form, page, server):
    python, javascript = code(page, "Python"), code(page, "JavaScript")

    compile(python, "snippet", "exec")
    assert f'headrace.Client(url="{server.url}")' in python
    assert '"fast": True,' in python
    assert 'client.run("test/shows/everything", {' in python
    assert 'await fal.run("test/shows/everything", { input: {' in javascript
    assert f'from "{server.url}/sdk/headrace.js"' in javascript


def test_python_as_it_is_copied_makes_the_same_call(server, page, tmp_path):
    page.goto(f"{server.url}/test/shows")
    page.get_by_label("Prompt").fill("from the snippet")
    namespace: dict = {}

    lines = []
    exec(compile(code(page, "Python"), "snippet", "exec"), {"print": lines.append, **namespace})

    assert lines[-1] == {"output": "from the snippet", "words": 3}


def test_a_run_by_keyboard_alone(server, page):
    page.goto(f"{server.url}/test/shows")
    expect(page.get_by_label("Prompt")).to_be_visible()
    focused = "document.activeElement.labels?.[0]?.textContent ?? document.activeElement.textContent"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "Prompt":
            break
    page.keyboard.press("Control+A")
    page.keyboard.type("by hand")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate(focused) == "Stream":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")

    expect(page.locator("article.card")).to_have_attribute("data-state", "done")
    assert page.locator("article.card .text").inner_text() == "by hand"
    assert outline == "solid"


def test_a_file_that_is_chosen_or_dropped_is_uploaded_and_its_url_sent(form, page, server):
    image = form.get_by_label("Image", exact=True)
    form.locator("input[type=file]").set_input_files(
        {"name": "a picture.png", "mimeType": "image/png", "buffer": b"\x89PNG first"}
    )
    expect(form.get_by_text("a picture.png is uploaded.")).to_be_visible()
    first = image.input_value()

    page.evaluate("""() => {
        const drop = document.querySelector(".drop");
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["second"], "b.png", { type: "image/png" }));
        drop.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }""")
    expect(form.get_by_text("b.png is uploaded.")).to_be_visible()

    assert first.startswith(f"{server.url}/files/")
    assert server.request("GET", first.removeprefix(server.url)).body == b"\x89PNG first"
    assert server.request("GET", image.input_value().removeprefix(server.url)).body == b"second"
    assert sent(page)["image_url"] == image.input_value() != first


def test_a_file_that_cannot_be_uploaded_says_so_at_its_field(form, page, complaints):
    complaints.expect("ERR_FAILED")
    page.route("**/storage/**", lambda route: route.abort())

    form.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"x"})

    expect(form.get_by_text("a.png was not uploaded")).to_be_visible()
    assert form.get_by_label("Image", exact=True).input_value() == ""


def test_a_file_is_uploaded_to_a_server_that_elsewhere_has_another_name(page):
    """The page may talk to nobody but where it comes from."""
    with running_server(SHOWS, args=("--no-auth", "--public-url", "https://public.example")) as server:
        page.goto(f"{server.url}/test/shows#endpoint=/everything")
        page.locator("input[type=file]").set_input_files(
            {"name": "a.png", "mimeType": "image/png", "buffer": b"\x89PNG"}
        )

        expect(page.get_by_text("a.png is uploaded.")).to_be_visible()
        url = page.get_by_label("Image", exact=True).input_value()
        assert url.startswith("https://public.example/files/")
        assert server.request("GET", url.removeprefix("https://public.example")).body == b"\x89PNG"
        page.goto("about:blank")  # it may still wish for its icon, when there is nobody left to ask
