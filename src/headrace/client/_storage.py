"""What is said of a file when it is uploaded: for how long it is kept, and who may read it (protocol 13.4).

Values in, values out. The names and the meanings are fal-client's; which of them a server honours is the server's.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

#: What a reader who may not read a file is told: nothing (404), or that it is forbidden (403).
StorageACLDecision = Literal["hide", "forbid", "allow"]
#: How long a file is kept, by name or in seconds.
ObjectExpiration = Literal["never", "immediate", "1h", "1d", "7d", "30d", "1y"] | int

#: Seconds to each name. 0 would mean "for ever" to fal, so "immediate" is a minute.
_EXPIRATIONS: Final[Mapping[str, int | None]] = {
    "never": None,
    "immediate": 60,
    "1h": 3_600,
    "1d": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
    "1y": 31_536_000,
}

#: fal's CDN looks for the first, its storage for the second.
_HEADERS: Final = ("X-Fal-Object-Lifecycle", "X-Fal-Object-Lifecycle-Preference")


@dataclass(frozen=True)
class StorageACLRule:
    """What one user may do with a file."""

    user: str
    decision: StorageACLDecision


@dataclass(frozen=True)
class StorageACL:
    """Who may read a file: `rules` for some, `default` for everyone else."""

    default: StorageACLDecision | None = None
    rules: Sequence[StorageACLRule] | None = None


@dataclass(frozen=True)
class StorageSettings:
    """How an uploaded file is kept.

    - `expires_in`: "immediate" (a minute), "1h", "1d", "7d", "30d", "1y", or whole seconds over 0; "never" and
      None leave it to the server
    - `initial_acl`: who may read it; None: whoever has its URL

    Raises `ValueError` for an `expires_in` that is none of these.
    """

    expires_in: ObjectExpiration | None = None
    initial_acl: StorageACL | None = None

    def __post_init__(self) -> None:
        if self.expires_in is not None:
            seconds_of(self.expires_in)


def seconds_of(expires_in: ObjectExpiration) -> int | None:
    """Return the seconds that an `expires_in` stands for, None for ever. Raises `ValueError` for what is none."""
    if isinstance(expires_in, int) and not isinstance(expires_in, bool):
        if expires_in <= 0:
            raise ValueError(f"expires_in={expires_in} must be over 0 seconds")
        return expires_in
    if not isinstance(expires_in, str) or expires_in not in _EXPIRATIONS:
        raise ValueError(f"expires_in={expires_in!r} must be one of {', '.join(_EXPIRATIONS)}, or whole seconds")
    return _EXPIRATIONS[expires_in]


def lifecycle_headers(settings: StorageSettings | None) -> dict[str, str]:
    """Return the headers that carry the settings; none where they say nothing."""
    said: dict[str, Any] = {}
    if settings is not None and settings.expires_in is not None:
        seconds = seconds_of(settings.expires_in)
        said |= {} if seconds is None else {"expiration_duration_seconds": seconds}
    if settings is not None and settings.initial_acl is not None:
        acl = _acl(settings.initial_acl)
        said |= {"initial_acl": acl} if acl else {}
    return dict.fromkeys(_HEADERS, orjson.dumps(said).decode()) if said else {}


def _acl(acl: StorageACL) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if acl.default is not None:
        said["default"] = acl.default
    if acl.rules:
        said["rules"] = [{"user": rule.user, "decision": rule.decision} for rule in acl.rules]
    return said


def encode(data: str | bytes, content_type: str) -> str:
    """Return a data URL, which goes where a file's URL goes: into the input itself, for what is small.

    A text is UTF-8.
    """
    content = data.encode() if isinstance(data, str) else data
    return f"data:{content_type};base64,{base64.b64encode(content).decode('ascii')}"
