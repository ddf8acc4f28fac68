"""docs/reference/settings.md, rendered from the table of settings and the reasons in core/limits.py.

python -m tests.support.settings_page     writes the page; tests/unit/test_config.py fails while it is stale
"""

from __future__ import annotations

import ast
import inspect
import itertools
from pathlib import Path

from headrace.settings import SETTINGS, Setting
from headrace.core import limits

PAGE = Path(__file__).parents[2] / "docs/reference/settings.md"

TOP = """# Settings

A setting comes from a flag of `headrace serve`, else from an environment variable, else from `headrace.toml` in
the folder the server is started in, else it has its default. A value that cannot be used stops the start with one
line that names its source.

| setting | flag | variable | default | meaning |
|---|---|---|---|---|
"""

MIDDLE = """
`headrace.toml` uses the names in the first column:

```toml
targets = ["chat.py", "models/flux.py:Flux"]
port = 9000

[aliases]
"fal-ai/flux" = "me/flux"

[limits]
drain_s = 20
```

`--no-auth` is refused unless the host is a loopback one (`127.0.0.1`, `::1`, `localhost`): without keys, whoever
reaches the port can run the model.

## Limits

Nothing grows or waits without a bound. Each can be set in the table `[limits]`; the defaults are what the promises
are tested with. Units are in the names: `_bytes`, `_s` (seconds), `_max` (a count).

| setting | variable | default | what it bounds |
|---|---|---|---|
"""

END = """
## The client's own

`headrace stream`, `run`, `apps` and the SDK look for the server in `--url` (the `url` argument), `HEADRACE_URL`,
`FAL_RUN_HOST`, then at `http://127.0.0.1:8080`; and for the key in `--key` (the `key` argument), `HEADRACE_KEY`,
`FAL_KEY`, `FAL_KEY_ID` with `FAL_KEY_SECRET`, then in `$XDG_CONFIG_HOME/headrace/credentials`, by server.
"""


def render() -> str:
    """Return the page."""
    reasons = _reasons()
    settings = [setting for setting in SETTINGS.values() if setting.name not in reasons]
    bounds = [(setting, reasons[setting.name]) for setting in SETTINGS.values() if setting.name in reasons]
    return (
        TOP
        + "".join(_row(setting.name, setting.flag, setting.env, setting.default, setting) for setting in settings)
        + MIDDLE
        + "".join(_row(setting.name, setting.env, setting.default, reason) for setting, reason in bounds)
        + END
    )


def _row(*cells: str | Setting | None) -> str:
    *codes, last = cells
    meaning = last.meaning if isinstance(last, Setting) else str(last)
    return f"| {' | '.join(f'`{code}`' if code else '' for code in codes)} | {meaning} |\n"


def _reasons() -> dict[str, str]:
    """Return the `#:` comment above each limit; fields that stand together share one."""
    source = inspect.getsource(limits)
    lines = source.splitlines()
    body = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)).body
    reasons, reason = {}, ""
    for field in body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            above = itertools.takewhile(
                lambda line: line.startswith("#: "), map(str.strip, lines[field.lineno - 2 :: -1])
            )
            reason = " ".join(line[3:] for line in reversed(list(above))) or reason
            reasons[f"limits.{field.target.id}"] = reason
    return reasons


if __name__ == "__main__":
    PAGE.write_text(render())
