"""The types of the SDK for JavaScript: they say what the module has, and a program in TypeScript can live with them."""

import re
import shutil
import subprocess

import pytest

from tests.support.javascript import SDK, running_node
from tests.support.official import CLIENTS, need_node

TYPES = SDK.with_name("headrace.d.ts")


@pytest.mark.timeout(200)  # the compiler reads the whole of the browser's types
def test_a_program_in_typescript_is_checked_as_it_should_be(tmp_path):
    compiler = need_node() / "node_modules" / "typescript" / "bin" / "tsc"
    for file in (SDK, TYPES, CLIENTS / "typed.ts"):
        shutil.copy(file, tmp_path)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler"]
    options += ["--lib", "es2023,dom,dom.iterable,dom.asynciterable"]

    checked = subprocess.run(
        ["node", str(compiler), *options, "typed.ts"], cwd=tmp_path, capture_output=True, text=True, timeout=150
    )

    assert (0, "") == (checked.returncode, checked.stdout)


def test_the_types_name_what_the_module_has_and_nothing_else():
    declared = re.findall(r"^export (?:class|function|const) (\w+)", TYPES.read_text(), re.MULTILINE)
    with running_node() as node:
        exported = node.run("return Object.keys(sdk);")
        calls = node.run(
            "return [Object.keys(sdk.fal), Object.keys(sdk.fal.queue), Object.keys(sdk.fal.storage)];"
        )

    assert sorted(declared) == sorted(exported)
    assert [["queue", "storage", "run", "stream", "attach", "subscribe", "config"],
            ["submit", "status", "result", "cancel", "streamStatus", "subscribeToStatus"], ["upload"]] == calls  # fmt: skip
    assert [] == [name for names in calls for name in names if not re.search(rf"\b{name}\b", TYPES.read_text())]
