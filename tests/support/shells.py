"""The two shells of the SDK behind one face, so that one table of cases runs on both."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace import AsyncClient, Client


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No key, no address and no proxy but what a test names itself. Import it, and it holds for the whole module.

    Whatever a test left open complains when it is collected: here, in the test that left it.
    """
    for name in list(os.environ):
        if (
            name.startswith(("HEADRACE_", "FAL_"))
            or name.lower().endswith("_proxy")
            or name.startswith("SSL_CERT")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield
    gc.collect()


@dataclass(frozen=True)
class Outcome:
    """What a call did: the items that were handed over, the result of a run, the error that ended it."""

    items: list[Any]
    result: Any = None
    error: BaseException | None = None


class SyncShell:
    name = "sync"
    client_class = Client

    @staticmethod
    def stream(url: str, arguments: Any = None, *, client: dict | None = None, **options: Any) -> Outcome:
        items: list[Any] = []
        try:
            with Client(url, **{"key": "id:secret", **(client or {})}) as made:
                for item in made.stream("me/app", arguments, **options):
                    items.append(item)
        except Exception as error:
            return Outcome(items, error=error)
        return Outcome(items)

    @staticmethod
    def run(url: str, arguments: Any = None, *, client: dict | None = None, **options: Any) -> Outcome:
        try:
            with Client(url, **{"key": "id:secret", **(client or {})}) as made:
                return Outcome([], made.run("me/app", arguments, **options))
        except Exception as error:
            return Outcome([], error=error)


class AsyncShell:
    name = "async"
    client_class = AsyncClient

    @staticmethod
    def stream(url: str, arguments: Any = None, *, client: dict | None = None, **options: Any) -> Outcome:
        items: list[Any] = []

        async def main() -> None:
            made = AsyncClient(url, **{"key": "id:secret", **(client or {})})
            async for item in made.stream("me/app", arguments, **options):
                items.append(item)

        try:
            asyncio.run(main())
        except Exception as error:
            return Outcome(items, error=error)
        return Outcome(items)

    @staticmethod
    def run(url: str, arguments: Any = None, *, client: dict | None = None, **options: Any) -> Outcome:
        async def main() -> Any:
            return await AsyncClient(url, **{"key": "id:secret", **(client or {})}).run(
                "me/app", arguments, **options
            )

        try:
            return Outcome([], asyncio.run(main()))
        except Exception as error:
            return Outcome([], error=error)


SHELLS = [SyncShell, AsyncShell]
