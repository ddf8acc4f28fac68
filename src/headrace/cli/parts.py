"""The parts an install may lack, and the line that adds them."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from headrace.cli.failures import Failure


def node() -> ModuleType:
    """Return the composition root, `headrace.node`. A caller's install has no server in it."""
    try:
        from headrace import node as root
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("headrace"):
            raise
        raise Failure(
            f"this install is the client alone ({(error.name or '').partition('.')[0]} is missing); "
            "for the server: pip install 'headrace[serve]'"
        ) from error
    return root


def need_engine() -> None:
    """Raise `Failure` when the engine of the demo's model is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise Failure("the demo's engine, xllamacpp, is not installed: pip install 'headrace[llm]'")


def has_pictures() -> bool:
    """Whether the engine of the demo's pictures is installed: `headrace[landscapes]`."""
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "onnxruntime", "PIL"))
