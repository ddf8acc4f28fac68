"""What the SDK says of a file: the same as fal-client says, word for word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fal_client as theirs
import pytest
from fal_client.client import _normalize_upload_lifecycle

from headrace import fal_client as ours
from headrace.client._storage import lifecycle_headers

ACLS = [
    {},
    {"default": "hide"},
    {"rules": [("ada", "allow"), ("bob", "forbid")]},
    {"default": "forbid", "rules": [("ada", "allow")]},
]


def settings(module: Any, expires_in: Any, acl: dict[str, Any] | None) -> Any:
    if acl is None:
        return module.StorageSettings(expires_in=expires_in)
    rules = [module.StorageACLRule(user, decision) for user, decision in acl.get("rules", [])]
    made = module.StorageACL(default=acl.get("default"), rules=rules or None)
    return module.StorageSettings(expires_in=expires_in, initial_acl=made)


@pytest.mark.parametrize("acl", [None, *ACLS])
@pytest.mark.parametrize("expires_in", [None, "never", "immediate", "1h", "1d", "7d", "30d", "1y", 1, 90])
def test_the_lifecycle_is_fals(expires_in: Any, acl: Any) -> None:
    expected = _normalize_upload_lifecycle(settings(theirs, expires_in, acl))
    headers = lifecycle_headers(settings(ours, expires_in, acl))

    assert [expected] * 2 == [json.loads(text) for text in headers.values()] if expected else headers == {}


def test_it_goes_under_both_of_fals_names() -> None:
    headers = lifecycle_headers(ours.StorageSettings(expires_in="1h"))

    assert ["X-Fal-Object-Lifecycle", "X-Fal-Object-Lifecycle-Preference"] == list(headers)
    assert {} == lifecycle_headers(None)


@pytest.mark.parametrize("expires_in", [0, -1, True, False, "1H", "2d", "", 1.5, [1]])
def test_what_is_no_time_is_refused_where_it_is_said(expires_in: Any) -> None:
    with pytest.raises(ValueError, match="expires_in"):
        ours.StorageSettings(expires_in=expires_in)


class Painted:
    """What Pillow's images can do, as far as it is needed."""

    def save(self, fp: Any, format: str) -> None:
        fp.write(f"an image as {format}".encode())


def test_data_urls_are_fals(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_bytes(b"\x00\xffwords")
    nameless = tmp_path / "nameless"
    nameless.write_bytes(b"")

    def made(module: Any) -> list[str]:
        return [
            module.encode(b"\x00\xff", "image/png"),
            module.encode("é", "text/plain"),
            module.encode_file(note),
            module.encode_file(nameless),
            module.encode_image(Painted()),
            module.encode_image(Painted(), "png"),
        ]

    assert made(theirs) == made(ours)
    assert "data:text/plain;base64,w6k=" == ours.encode("é", "text/plain")


@pytest.mark.parametrize("wrong", ["gcs", "fal-v3"])
@pytest.mark.parametrize("argument", ["repository", "fallback_repository"])
def test_a_place_that_fal_does_not_have_is_refused(argument: str, wrong: str) -> None:
    with pytest.raises(ValueError, match="is not an upload repository"):
        ours.SyncClient(key="id:secret").upload(b"x", "text/plain", **{argument: wrong})


def test_the_old_name_of_a_place_is_warned_of() -> None:
    with pytest.warns(DeprecationWarning, match="'cdn' is an old name"), pytest.raises(TypeError):
        ours.SyncClient(key="id:secret").upload(7, "text/plain", repository="cdn")  # type: ignore[arg-type]
