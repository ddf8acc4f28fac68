"""What a caller says of the files it sends: for how long they are to be kept, and who may read them.

    X-Fal-Object-Lifecycle: {"expiration_duration_seconds": 3600, "initial_acl": {"default": "allow"}}

fal's clients write it under two names (protocol section 13.4). Here whoever has the address of a file may read it:
there are no users whom a rule could name. A rule that would keep somebody out is refused, and not passed over in
silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

#: The header's names, in lower case; the first that is there counts.
HEADERS: Final = ("x-fal-object-lifecycle", "x-fal-object-lifecycle-preference")

#: A longer life than this (a hundred years) is none that anybody means.
_LIFETIME_S_MAX: Final = 100 * 365 * 86_400


def lifetime_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a caller wants a file kept for, None where it says nothing.

    Raises `ValueError`, in words for the caller, for what cannot be read or will not be done.
    """
    name = next((name for name in HEADERS if name in headers), None)
    if name is None:
        return None
    try:
        said = json.loads(headers[name])
        if not isinstance(said, dict):
            raise TypeError("not an object")
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"the header {name} must be a JSON object") from None
    if _keeps_somebody_out(said.get("initial_acl")):
        raise ValueError(
            f"the header {name} has an initial_acl that keeps somebody out; here whoever has a file's address may "
            "read it, so the file was not taken"
        )
    seconds = said.get("expiration_duration_seconds")
    if seconds is None:
        return None
    if type(seconds) not in {int, float} or not 0 < seconds <= _LIFETIME_S_MAX:
        raise ValueError(f"the header {name}: expiration_duration_seconds must be a number over 0")
    return float(seconds)


def _keeps_somebody_out(acl: Any) -> bool:
    if acl is None:
        return False
    if not isinstance(acl, dict):
        return True  # whatever it means, it was said to keep somebody out
    rules = acl.get("rules") or []
    if not isinstance(rules, list):
        return True
    decisions = [rule.get("decision") if isinstance(rule, dict) else None for rule in rules]
    return any(decision != "allow" for decision in (acl.get("default", "allow"), *decisions))
