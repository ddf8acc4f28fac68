"""The rig itself: what a page complains of is heard, and fails a test."""

import re

import pytest

from tests.support import browser as rig
from tests.support.browser import Complaints, need_chromium, site
from tests.support.server import eventually


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
        page.goto(pages.url)
        eventually(
            lambda: page.wait_for_timeout(20) or [text for text in complaints.heard if re.search(expected, text)],
            "it is heard",
        )

    complaints.expect(".")


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


@pytest.mark.parametrize(("ci", "outcome"), [(None, pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_without_a_browser_tests_are_skipped_and_in_ci_they_fail(monkeypatch, ci, outcome):
    monkeypatch.setattr(rig, "CHROMIUM", "/nowhere/chromium")
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)

    with pytest.raises(outcome, match="/nowhere/chromium is missing"):
        need_chromium()
