"""The decoder of the SDK for JavaScript, in Chromium."""

from tests.support.browser import site
from tests.support.javascript import SCRIPTS, assert_all_decoded, sse_cases
from tests.support.server import running_server

JUDGE = """async ([sdk, cases]) => {
    const [{ EventDecoder }, { judge }] = await Promise.all([import(sdk), import("/decoding.mjs")]);
    return judge(EventDecoder, cases);
}"""


def test_a_stream_means_the_same_however_it_is_cut(page):
    with running_server() as server, site({"/decoding.mjs": (SCRIPTS / "decoding.mjs").read_text()}) as pages:
        page.goto(pages.url)
        judged = page.evaluate(JUDGE, [f"{server.url}/sdk/headrace.js", sse_cases()])

    assert_all_decoded(judged)
