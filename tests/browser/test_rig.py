"""The rig itself: what a page complains of is heard, and fails a test."""

import re

import pytest

from tests.support.browser import Complaints, site


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("console.error('oh')", "^oh "),
        ("setTimeout(() => { throw new Error('late') })", "^uncaught: .*late"),
        ("Promise.reject(new Error('lost'))", "^uncaught: .*lost"),
        ("fetch('/nowhere').catch(() => {})", "404"),
        ("eval('1')", "^content security policy: script-src stops eval"),
    ],
)
def test_what_a_page_complains_of_is_heard(context, complaints, script, expected):
    policy = {"Content-Security-Policy": "default-src 'self'; script-src 'self'"}
    with site({"/": '<!doctype html><script src="/script.js"></script>', "/script.js": script}, policy) as pages:
        page = context.new_page()
        page.goto(pages.url, wait_until="networkidle")

    complaints.expect(".")
    assert [] != [text for text in complaints.heard if re.search(expected, text)], complaints.heard


def test_a_complaint_that_nobody_expects_fails_the_test():
    complaints = Complaints(heard=["oh"])

    with pytest.raises(AssertionError):
        complaints.judge()


def test_an_expected_complaint_that_does_not_come_fails_it_too():
    complaints = Complaints(heard=["oh"], expected=["oh", "dear"])

    with pytest.raises(AssertionError):
        complaints.judge()


def test_a_context_knows_nothing_of_the_one_before(browser):
    with site({}) as pages:
        values = []
        for _ in range(2):
            context = browser.new_context()
            page = context.new_page()
            page.goto(pages.url)
            values.append(
                page.evaluate("() => { const was = localStorage.x; localStorage.x = 1; return was ?? null }")
            )
            context.close()

    assert [None, None] == values
