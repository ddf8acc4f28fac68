"""What every run of the tests has: the option of a full one, and the recorder of promises."""

import pytest

from tests.support.recorder import Recorder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="repeat each fault as often as its promise asks, not as a smoke test"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config), "recorder")
