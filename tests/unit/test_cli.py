"""The command line without a server: help, the reading of input, how items look, and exit statuses."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from headrace.cli import app
from headrace.cli.client import read_arguments
from headrace.cli.failures import Failure
from headrace.cli.screen import PipeScreen, TerminalScreen, plain

COMMANDS = [
    [], ["serve"], ["demo"], ["stream"], ["run"], ["apps"], ["submit"], ["status"], ["logs"], ["result"], ["cancel"],
    ["attach"], ["upload"], ["page"], ["conformance"], ["env"], ["doctor"],
    ["keys"], ["keys", "create"], ["keys", "list"], ["keys", "revoke"],
    ["models"], ["models", "pull"], ["models", "list"],
    ["webhooks"], ["webhooks", "list"], ["webhooks", "retry"],
]  # fmt: skip

#: What a help page has no use for: servers, HTTP libraries, the terminal's toolkit, the event loop.
HEAVY = {"asyncio", "aiohttp", "urllib3", "pydantic", "starlette", "uvicorn", "rich", "xllamacpp", "ssl"}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Keep every command away from this user's keys, models and settings."""
    for name in [name for name in os.environ if name.startswith(("HEADRACE_", "FAL_"))]:
        monkeypatch.delenv(name)
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)


def headrace(*words, stdin=""):
    return CliRunner().invoke(app, list(words), input=stdin)


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_page_ends_with_an_example(words):
    shown = headrace(*words, "--help")

    assert 0 == shown.exit_code
    assert re.search(r"Examples?:\n    headrace |Examples?:\n  headrace ", shown.stdout)
    assert "\b" not in shown.stdout


def test_the_list_of_commands_here_is_all_of_them():
    names = {words[0] for words in COMMANDS if len(words) == 1}
    shown = headrace("--help").stdout.partition("Commands:")[2].partition("Examples:")[0]

    assert names == {line.split()[0] for line in shown.splitlines() if re.match(r"  \S", line)}


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from headrace.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}

    assert set() == loaded & HEAVY


def test_serve_help_names_every_variable_and_default():
    shown = " ".join(headrace("serve", "--help").stdout.split())

    assert "[HEADRACE_PORT; default 8080]" in shown
    assert "[HEADRACE_DATA_DIR; default ~/.local/share/headrace]" in shown


# --- exit statuses ------------------------------------------------------------------------------------------


def test_an_unknown_command_is_2():
    assert 2 == headrace("swim").exit_code


def test_a_setting_that_cannot_be_used_is_2_and_one_line():
    shown = headrace("serve", "app.py", "--port", "x")

    assert 2 == shown.exit_code
    assert "headrace: --port: expected a port from 1 to 65535, or 0 for any free one, not 'x'\n" == shown.stderr


def test_nothing_to_serve_is_1_and_says_what_to_do():
    shown = headrace("serve")

    assert 1 == shown.exit_code
    assert "headrace: nothing to serve; name a file, such as `headrace serve app.py`\n" == shown.stderr


@pytest.mark.parametrize(("words", "part"), [(["serve", "app.py"], "uvicorn"), (["keys", "list"], "uvicorn")])
def test_a_client_install_says_how_to_add_the_server(words, part):
    script = f"import sys; sys.modules[{part!r}] = None; from headrace.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=50)

    assert 1 == done.returncode
    expected = f"headrace: this install is the client alone ({part} is missing); for the server: pip install 'headrace[serve]'\n"
    assert expected == done.stderr


def test_the_demo_says_how_to_add_its_engine():
    script = "import sys; sys.modules['xllamacpp'] = None; from headrace.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "demo"], capture_output=True, text=True, timeout=50)

    assert (1, "headrace: the demo's engine, xllamacpp, is not installed: pip install 'headrace[llm]'\n") == (
        done.returncode,
        done.stderr,
    )


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_key_stands_alone_on_the_last_line_and_is_saved_for_the_client(tmp_path):
    shown = headrace("keys", "create", "--name", "laptop")
    key = shown.stdout.splitlines()[-1]

    assert 0 == shown.exit_code
    assert re.fullmatch(r"hr_[a-z2-7]{12}:[A-Za-z0-9_-]{43}", key)
    saved = json.loads((tmp_path / "XDG_CONFIG_HOME/headrace/credentials").read_text())
    assert {"http://127.0.0.1:8080": key} == saved


def test_a_second_key_leaves_the_saved_one_that_works(tmp_path):
    first = headrace("keys", "create").stdout.strip()
    shown = headrace("keys", "create", "--name", "somebody else")

    saved = json.loads((tmp_path / "XDG_CONFIG_HOME/headrace/credentials").read_text())
    assert [first] == list(saved.values())
    assert "still works and stays" in shown.stderr


def test_a_new_key_takes_the_place_of_a_revoked_one(tmp_path):
    first = headrace("keys", "create").stdout.strip()
    headrace("keys", "revoke", first.split(":")[0])
    second = headrace("keys", "create").stdout.strip()

    saved = json.loads((tmp_path / "XDG_CONFIG_HOME/headrace/credentials").read_text())
    assert [second] == list(saved.values())


def test_a_key_is_printed_even_where_it_cannot_be_saved(tmp_path):
    folder = tmp_path / "XDG_CONFIG_HOME/headrace"
    folder.mkdir(parents=True)
    (folder / "credentials").write_text("{")
    shown = headrace("keys", "create")

    assert 0 == shown.exit_code
    assert "not saved" in shown.stderr
    assert re.fullmatch(r"hr_[a-z2-7]{12}:[A-Za-z0-9_-]{43}", shown.stdout.splitlines()[-1])


def test_the_list_shows_names_and_states_and_no_secret():
    first = headrace("keys", "create", "--name", "laptop").stdout.strip()
    second = headrace("keys", "create", "--name", "desktop").stdout.strip()
    headrace("keys", "revoke", first.split(":")[0])
    lines = headrace("keys", "list").stdout.splitlines()

    assert [("laptop", True), ("desktop", False)] == [(line.split()[-1], "revoked" in line) for line in lines]
    assert [first.split(":")[0], second.split(":")[0]] == [line.split()[0] for line in lines]
    assert first.split(":")[1] not in "".join(lines)


def test_revoking_what_is_not_there_is_1():
    shown = headrace("keys", "revoke", "hr_nobody")

    assert (1, "headrace: there is no key 'hr_nobody'; `headrace keys list` shows the ids\n") == (
        shown.exit_code,
        shown.stderr,
    )


def test_a_name_that_would_break_the_list_is_refused():
    assert 1 == headrace("keys", "create", "--name", "a\nb").exit_code


# --- the input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=5", 5),
        ("a=-0.5", -0.5),
        ("a=true", True),
        ("a=null", None),
        ('a="5"', "5"),
        ("a=hello", "hello"),
        ("a=hello = world", "hello = world"),
        ("a=", ""),
        ("a= 5", 5),
        ("a=[1, 2]", [1, 2]),
        ('a={"b": 1}', {"b": 1}),
        ("a={b", "{b"),
        ("a=NaN", "NaN"),
        ("a=Infinity", "Infinity"),
        ("a=1e999", "1e999"),
        ("a=True", "True"),
        ("a=007", "007"),
        ("a=ü", "ü"),
    ],
)
def test_a_value_is_json_where_it_reads_as_json(word, value):
    assert {"a": value} == read_arguments([word], None)


@pytest.mark.parametrize("words", [["a"], ["=5"], ["a=1", "a=2"]])
def test_words_that_are_no_input_are_refused(words):
    with pytest.raises(Failure):
        read_arguments(words, None)


def test_words_go_over_the_file(tmp_path):
    (tmp_path / "input.json").write_text('{"prompt": "hi", "seed": 1}')

    assert {"prompt": "hi", "seed": 2} == read_arguments(["seed=2"], str(tmp_path / "input.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "must hold one JSON object"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_input_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "input.json").write_bytes(content)

    with pytest.raises(Failure, match=f"input.json {message}"):
        read_arguments(None, str(tmp_path / "input.json"))


# --- the screen ---------------------------------------------------------------------------------------------


def test_a_pipe_gets_one_line_of_utf8_json_for_each_item():
    output = io.TextIOWrapper(raw := io.BytesIO(), encoding="ascii")
    screen = PipeScreen(output)
    screen.show({"delta": "grün\n"})
    screen.show({"progress": 0.5})

    assert '{"delta":"grün\\n"}\n{"progress":0.5}\n'.encode() == raw.getvalue()


def test_a_terminal_joins_pieces_and_does_not_repeat_their_text():
    output = io.StringIO()
    screen = TerminalScreen(output)
    for item in ({"delta": "Hel"}, {"delta": "lo"}, {"output": "Hello", "tokens": 2}):
        screen.show(item)
    screen.close()

    assert 'Hello\n{"tokens":2}\n' == output.getvalue()


def test_a_result_that_only_repeats_the_text_is_not_shown():
    output = io.StringIO()
    screen = TerminalScreen(output)
    screen.show({"delta": "Hello"})
    screen.show({"output": "Hello"})
    screen.close()

    assert "Hello\n" == output.getvalue()


def test_a_stream_that_fails_in_the_middle_leaves_a_whole_line():
    output = io.StringIO()
    screen = TerminalScreen(output)
    screen.show({"delta": "Hel"})
    screen.close()

    assert "Hel\n" == output.getvalue()


def test_a_picture_in_the_result_is_cut_short():
    output = io.StringIO()
    screen = TerminalScreen(output)
    screen.show({"images": [{"url": "data:image/png;base64," + "A" * 10_000}], "seed": 5})

    assert 400 > len(output.getvalue())
    assert '"seed":5' in output.getvalue()


def test_progress_is_a_bar_aside_from_the_output(capfd):
    output = io.StringIO()
    screen = TerminalScreen(output)
    screen.show({"progress": 0.25, "message": "step 1"})
    screen.show({"progress": 0.5, "message": "step [2]"})
    screen.show({"done": True})
    screen.close()

    assert '{"done":true}\n' == output.getvalue()


@pytest.mark.parametrize(
    ("values", "fractions"),
    [
        ([0.0, 0.5, 1.0], [0, 0.5, 1]),
        ([0, 25, 100], [0, 0.25, 1]),
        ([0, 1, 2, 50], [0, 0.01, 0.02, 0.5]),
        ([0.1, 1], [0.1, 1]),
        ([-5, 250.0], [0, 1]),
    ],
)
def test_fractions_and_percents_both_move_the_bar(values, fractions, capfd):
    screen = TerminalScreen(io.StringIO())
    moved = []
    for value in values:
        screen.show({"progress": value})
        moved.append(screen._bar._progress.tasks[0].completed)
    screen.close()

    assert fractions == pytest.approx(moved)


def test_what_a_model_says_cannot_steer_the_terminal():
    assert "\\x1b[2Jhi\\x07\n\tthere\\x9b1mü\\x7f" == plain("\x1b[2Jhi\x07\n\tthere\x9b1mü\x7f")
