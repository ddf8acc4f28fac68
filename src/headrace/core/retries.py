"""Whether a queued request that failed is tried again, and when (protocol section 7.5).

fal retries what may work another time (503, 504, a lost runner), up to ten times, and leaves alone what the app
itself refused or broke (4xx, 500, 502). An app says otherwise of its own (`AppException(needs_retry=…)`); a
caller ends it with `X-Fal-No-Retry`. A start timeout is the caller's own deadline, and final.
"""

from __future__ import annotations

from typing import Final

from headrace.core.errors import RequestError
from headrace.core.scheduler import backoff_s

#: Attempts after the first one.
RETRIES_MAX: Final = 10

#: Seconds until the first retry, and at most (doubling).
FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0

_STATUSES: Final = frozenset({503, 504})

#: Ours, that nobody should try again: the deadlines that the app or the caller set for the whole of the request.
_FINAL_TYPES: Final = frozenset({"startup_timeout", "client_cancelled"})


def retry_in_s(error: RequestError, attempt: int, *, no_retry: bool) -> float | None:
    """Return the seconds until a request is tried again after its `attempt`-th attempt failed; None for never.

    `no_retry` is the caller's wish.
    """
    if no_retry or attempt > RETRIES_MAX or error.type in _FINAL_TYPES:
        return None
    wanted = error.retryable if error.type == "app_error" else error.status in _STATUSES
    return backoff_s(attempt, FIRST_RETRY_S, LONGEST_RETRY_S) if wanted else None
