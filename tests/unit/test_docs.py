"""The docs keep up with the code: what a user can name is told, and what is told exists."""

import pathlib
import re

import pytest

import headrace
from headrace.core.errors import ERROR_TYPES
from tests.support import commands_page

ROOT = pathlib.Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def test_every_public_name_is_documented():
    missing = [name for name in headrace.__all__ if f"| `{name}` |" not in page("python.md")]

    assert missing == []


def test_every_error_type_is_documented_with_its_status_and_whether_to_retry():
    for name, row in ERROR_TYPES.items():
        retry = "yes" if row.retryable else "no"
        assert f"| `{name}` | {row.status} | {row.fault.value} | {retry} | {row.meaning} |" in page("errors.md")


def test_no_error_type_is_documented_that_does_not_exist():
    told = re.findall(r"^\| `([a-z_]+)` \| \d", page("errors.md"), re.MULTILINE)

    assert sorted(told) == sorted(ERROR_TYPES)


def test_every_route_of_the_gateway_is_documented():
    sources = "".join(path.read_text() for path in (ROOT / "src/headrace/gateway").glob("*.py"))
    routes = set(re.findall(r'path == "(/[a-z0-9/]+)"', sources)) | set(
        re.findall(r'^PATH.* = "(/.+)"', sources, re.M)
    )

    assert {"/health", "/ready", "/v1/apps", "/fal/proxy"} <= routes
    assert [route for route in routes if route not in page("http.md")] == []


def test_every_command_and_flag_is_documented():
    """Mend it with: python -m tests.support.commands_page"""
    assert commands_page.render() == commands_page.PAGE.read_text()


LINKS = [
    (path.relative_to(ROOT), link)
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    if not link.startswith(("http:", "https:"))
]


@pytest.mark.parametrize(("source", "link"), LINKS, ids=[f"{source}->{link}" for source, link in LINKS])
def test_every_link_in_the_docs_leads_somewhere(source, link):
    assert (ROOT / source.parent / link).exists()


def test_no_file_of_the_project_is_over_400_lines_but_for_a_reason():
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in (ROOT / "src").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    ]

    assert long == []
