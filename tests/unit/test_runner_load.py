"""From a target to apps: every way it fails is one clear line with the author's own file and line."""

import os
import pickle
import sys

import pytest

from headrace.core.errors import FileFault
from headrace.runner.load import fault_of, load
from tests.support.pretend_node import PretendNode

GOOD = """\
import headrace
class Good(headrace.App, name='t/good'):
    @headrace.endpoint()
    def run(self): return {}
"""

FAULTS = {
    "syntax error": ("import headrace\nx = = 1\n", 2, "SyntaxError: invalid syntax"),
    "indentation": ("if True:\nx = 1\n", 2, "IndentationError: expected an indented block"),
    "missing module": ("import headrace\n\nimport no_such_module\n", 3, "ModuleNotFoundError: No module named 'no_such"),
    "missing name": ("from headrace import Nope\n", 1, "ImportError: cannot import name 'Nope'"),
    "any exception": ("def f():\n    return 1 / 0\n\nf()\n", 2, "ZeroDivisionError: division by zero"),
    "below the file": ("import json\n\n\njson.loads('{')\n", 4, "JSONDecodeError: Expecting property name"),
    "exit": ("import sys\nsys.exit('no weights')\n", 2, "SystemExit: no weights"),
    "interrupt": ("raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
    "many lines": ("raise ValueError('one\\ntwo')\n", 1, "ValueError: one"),
    "no app": ("import headrace\n", 1, "no headrace.App is defined here"),
    "imported app": ("from good import Good\n", 1, "no headrace.App is defined here"),
    "no endpoint": ("import headrace\n\nclass A(headrace.App): pass\n", 3, "A has no endpoint"),
    "knob": ("import headrace\nclass A(headrace.App, max_multi=2): pass\n", 2, "unknown class keyword 'max_multi'"),
    "two inputs": (
        "import headrace\nclass A(headrace.App):\n  @headrace.endpoint()\n  def run(self, a, b): ...\n",
        4,
        "an endpoint takes nothing or one input",
    ),
    "two of one name": (GOOD + GOOD.replace("import headrace\n", "").replace("Good", "Other"), 5, "'t/good' is also defined"),
    "two of one path": (
        GOOD + "    @headrace.endpoint()\n    def again(self): return {}\n",
        6,
        "claims /t/good, which is the run view of",
    ),
    "null byte": ("x = '\0'\n", 1, "ource code"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def untouched_interpreter(monkeypatch, tmp_path):
    """What load() changes in its process, put back; an importable `good.py` beside the file."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "argv", sys.argv[:])
    modules = dict(sys.modules)
    (tmp_path / "good.py").write_text(GOOD)
    yield
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_file_line_and_reason(tmp_path, name):
    text, line, told = FAULTS[name]
    file = tmp_path / "model.py"
    file.write_text(text)

    with pytest.raises(FileFault) as caught:
        load(str(file))

    assert (str(file), line) == (caught.value.file, caught.value.line)
    assert told in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere.py", "there is no such file"),
        ("nowhere.py:App", "there is no such file"),
        ("no_such_module_at_all:App", "there is no module 'no_such_module_at_all'"),
        ("json", "expected path/file.py, path/file.py:Class or module:Class"),
        ("", "expected path/file.py"),
        (":App", "expected path/file.py"),
        ("json:", "expected path/file.py"),
        ("json:JSONDecoder", "there is no headrace.App named 'JSONDecoder'; there is none"),
    ],
)
def test_a_bad_target_is_told_in_one_line(target, told):
    with pytest.raises(FileFault) as caught:
        load(target)

    assert told in caught.value.message


def test_a_fault_in_a_helper_module_is_at_the_line_that_imports_it(tmp_path):
    (tmp_path / "helper.py").write_text("\n\n1 / 0\n")
    (tmp_path / "model.py").write_text("import headrace\nimport helper\n")

    with pytest.raises(FileFault, match=r"model\.py:2: ZeroDivisionError"):
        load(str(tmp_path / "model.py"))


def test_a_syntax_error_in_a_helper_module_is_at_its_own_line(tmp_path):
    (tmp_path / "helper.py").write_text("\n\nx = = 1\n")
    (tmp_path / "model.py").write_text("import headrace\nimport helper\n")

    with pytest.raises(FileFault, match=r"helper\.py:3: SyntaxError"):
        load(str(tmp_path / "model.py"))


def test_every_app_of_a_file_is_loaded_and_a_bare_base_is_not_one(tmp_path):
    file = tmp_path / "models.py"
    file.write_text(
        "import headrace\n"
        "class Base(headrace.App, max_multiplexing=3):\n"
        "    def setup(self): self.x = 1\n"
        "class One(Base, name='t/one'):\n"
        "    @headrace.endpoint()\n"
        "    def run(self): return {}\n"
        "class Two(One, name='t/two'): pass\n"
    )

    apps = load(str(file))

    assert {"t/one": 3, "t/two": 3} == {name: app.spec.max_multiplexing for name, app in apps.items()}
    assert ["t/two"] == list(load(f"{file}:Two"))


def test_a_module_is_loaded_by_name(tmp_path):
    sys.path.insert(0, str(tmp_path))

    assert ["t/good"] == list(load("good:Good"))


def test_a_broken_module_is_a_fault_of_its_file(tmp_path):
    sys.path.insert(0, str(tmp_path))
    (tmp_path / "broken_one.py").write_text("\nimport no_such_module\n")

    with pytest.raises(FileFault, match=r"broken_one\.py:2: ModuleNotFoundError"):
        load("broken_one:App")


def test_the_file_sees_what_a_script_sees(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    (tmp_path / "script.py").write_text(f"import sys, beside\nSEEN = sys.path[0], sys.argv\n{GOOD}")

    load(str(tmp_path / "script.py"))

    assert (str(tmp_path), [str(tmp_path / "script.py")]) == sys.modules["script"].SEEN


def test_an_edit_is_seen_however_soon_and_small_it_is(tmp_path, monkeypatch):
    """Python's kept bytecode is of the same file when size and second are: the file is compiled anew each time."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "edited.py"
    seen = []
    for word in ("one", "two"):
        file.write_text(f"WORD = {word!r}\n{GOOD}")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        load(str(file))
        seen.append(sys.modules.pop("edited").WORD)

    assert ["one", "two"] == seen


def test_a_files_classes_can_be_pickled_and_have_type_hints(tmp_path):
    (tmp_path / "my-model.py").write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        f"{GOOD}\n@dataclasses.dataclass\nclass Point:\n    x: int\n"
    )
    load(str(tmp_path / "my-model.py"))
    point = sys.modules["my_model"].Point(3)

    assert point == pickle.loads(pickle.dumps(point))


def test_a_file_named_like_a_library_hides_nothing(tmp_path):
    (tmp_path / "json.py").write_text(f"import dataclasses\n{GOOD}")
    before = sys.modules["json"]

    assert ["t/good"] == list(load(str(tmp_path / "json.py")))
    assert before is sys.modules["json"]


def test_a_relative_path_is_told_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert str(tmp_path / "good.py") == load("good.py")["t/good"].spec.file
    assert os.getcwd() == str(tmp_path)


def test_a_fault_outside_the_file_stands_at_the_given_line():
    assert ("m.py", 9, "ValueError: x") == (
        lambda fault: (fault.file, fault.line, fault.message)
    )(fault_of(ValueError("x"), "m.py", 9))  # fmt: skip


def test_a_runner_tells_its_fault_and_leaves(tmp_path):
    file = tmp_path / "model.py"
    file.write_text("import headrace\nprint('hello')\n1 / 0\n")
    with PretendNode(str(file)) as node:
        fault = node.fault()
        status = node.exit_status()

        assert (str(file), 3, "ZeroDivisionError: division by zero", 1) == (
            fault["file"], fault["line"], fault["message"], status,
        )  # fmt: skip
        assert "model.py" in fault["traceback"]
        assert "hello\n" == node.log  # the standard output is the author's
