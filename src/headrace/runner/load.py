"""From a target to apps: imports an author's file and reads the `App` classes in it.

    path/file.py          every app that the file defines
    path/file.py:Class    that one
    module:Class          that one, from an importable module

Whatever goes wrong is a `FileFault` with the line of the author's own file. This file knows no link.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from types import CodeType, ModuleType
from typing import Final, TypeGuard

from headrace.app import App
from headrace.app.describe import LoadedApp, describe, has_endpoints
from headrace.core.errors import FileFault
from headrace.core.routes import RouteTable
from headrace.runner.blame import legible

#: Characters of the one line that says what went wrong.
MESSAGE_CHARS_MAX: Final = 500

_EXPECTED: Final = "expected path/file.py, path/file.py:Class or module:Class"


def load(target: str) -> dict[str, LoadedApp]:
    """Return the apps of a target by name. Raises `FileFault`."""
    source, class_name = _split(target)
    is_path = source.endswith(".py")
    file = os.path.abspath(source) if is_path else source  # noqa: PTH100  # no symlink resolved, as python does
    try:
        module = _import_file(file) if is_path else _import_module(source)
    except ModuleNotFoundError as error:
        if error.name == source:
            raise FileFault(target, 1, f"there is no module {source!r}") from None
        raise fault_of(error, file if is_path else _origin(source)) from error
    except BaseException as error:  # an author's file may raise anything, SystemExit too
        raise fault_of(error, file if is_path else _origin(source)) from error
    apps = [describe(cls) for cls in _apps_in(module, class_name)]
    RouteTable(app.spec for app in apps)  # two apps of one name, two views of one path
    return {app.spec.name: app for app in apps}


def fault_of(error: BaseException, file: str, line: int = 1) -> FileFault:
    """Return where an exception began, as far as the author's own `file` goes: its deepest line there.

    `line` stands when no line of that file took part.
    """
    if isinstance(error, FileFault):
        return error
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):  # noqa: PTH113
        return FileFault(error.filename, error.lineno or 1, f"{type(error).__name__}: {error.msg}")
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == file:
            line = frame.lineno or line
    text = str(error).strip()
    message = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    return FileFault(file, line, legible(message, MESSAGE_CHARS_MAX))


def _split(target: str) -> tuple[str, str | None]:
    if target.endswith(".py"):
        return target, None
    source, colon, class_name = target.rpartition(":")
    if not colon or not source or not class_name.isidentifier():
        raise FileFault(target, 1, _EXPECTED)
    return source, class_name


class _AsItStands(importlib.machinery.SourceFileLoader):
    """Runs a file as it stands, never from bytecode kept beside it.

    Python tells a file from the one it kept by size and whole second: a second edit within one would go unseen.
    """

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # importlib's signature
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_file(file: str) -> ModuleType:
    """Import a file as `python file.py` would see it, but under its own name, so that its classes pickle."""
    if not os.path.isfile(file):  # noqa: PTH113
        raise FileFault(file, 1, "there is no such file")
    folder, base = os.path.split(file)
    sys.path.insert(0, folder)
    sys.argv = [file]
    name = re.sub(r"\W", "_", base.removesuffix(".py"))
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"_headrace_{name}"
    spec = importlib.util.spec_from_file_location(name, file, loader=_AsItStands(name, file))
    assert spec is not None  # its name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    """Import a module by name, from the current folder too. The node starts us with -P, without it."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    return importlib.import_module(name)


def _apps_in(module: ModuleType, class_name: str | None) -> list[type[App]]:
    file = module.__file__ or module.__name__
    if class_name is not None:
        cls = getattr(module, class_name, None)
        if not _is_app(cls):
            there = ", ".join(name for name, value in vars(module).items() if _is_app(value)) or "none"
            raise FileFault(file, 1, f"there is no headrace.App named {class_name!r}; there is {there}")
        return [cls]
    classes = list(dict.fromkeys(cls for cls in vars(module).values() if _is_app(cls)))
    own = [cls for cls in classes if cls.__module__ == module.__name__]
    # A class that others here derive from and that is marked nowhere itself is their base, not an app.
    apps = [cls for cls in own if not _is_bare_base(cls, own)]
    if not apps:
        raise FileFault(file, 1, "no headrace.App is defined here: class Name(headrace.App, name='owner/alias')")
    return apps


def _is_app(value: object) -> TypeGuard[type[App]]:
    return isinstance(value, type) and issubclass(value, App) and value is not App


def _is_bare_base(cls: type[App], others: list[type[App]]) -> bool:
    return not has_endpoints(cls) and any(other is not cls and issubclass(other, cls) for other in others)


def _origin(module_name: str) -> str:
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        spec = None
    return spec.origin if spec is not None and spec.origin else module_name
