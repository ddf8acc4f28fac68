"""The example model for tests: its modules, loaded without leaving their folder on the path, and facts of pictures."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from tests.support.server import ROOT

FOLDER = ROOT / "examples" / "landscapes"

_loaded: dict[str, ModuleType] = {}


def module(name: str) -> ModuleType:
    """Return `examples/landscapes/NAME.py`, imported as its neighbours import it."""
    if name not in _loaded:
        before = set(sys.modules)
        sys.path.insert(0, str(FOLDER))
        try:
            _loaded[name] = importlib.import_module(name)
        finally:
            sys.path.remove(str(FOLDER))
            for new in set(sys.modules) - before:
                if str(FOLDER) in str(getattr(sys.modules[new], "__file__", "")):
                    del sys.modules[new]  # names as plain as `model` and `words` are not for every test to find
    return _loaded[name]


def brightness(pixels: NDArray[np.uint8]) -> float:
    """The mean of a picture, from 0 to 255."""
    return float(pixels.mean())


def warmth(pixels: NDArray[np.uint8]) -> float:
    """How much more red than blue there is: from -255 to 255."""
    return float(pixels[..., 0].mean() - pixels[..., 2].mean())
