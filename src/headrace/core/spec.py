"""What a runner tells its node about the apps it loaded: plain values, read from HELLO.

The node never imports a user's file; all it knows of an app stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint of an app, and the paths of its views below `/{owner}/{alias}`."""

    path: str  # as the author wrote it, "/" or "/schnell": names the endpoint in CHECK and START
    run_path: str | None  # "" or "/schnell"; None when it has no run view
    stream_path: str | None  # "/stream", "/schnell/stream", …; None when it has no stream view
    doc: str  # the first paragraph of the docstring
    line: int  # where it is defined, for messages
    input_schema: Mapping[str, Any]  # JSON schema of the body; {"type": "object"} when it takes any
    item_schema: Mapping[str, Any]  # JSON schema of one event of the stream
    result_schema: Mapping[str, Any]  # JSON schema of the last item, which is run's answer

    @property
    def queue_path(self) -> str:
        """The path that a submit names below `/queue/{owner}/{alias}`: where it runs, else where it streams."""
        path = self.stream_path if self.run_path is None else self.run_path
        return path or ""


@dataclass(frozen=True, slots=True)
class AppSpec:
    """One app: its name, its knobs (fal's names and meanings) and its endpoints."""

    name: str  # "owner/alias", or "workflows/owner/alias"
    cls: str  # the class's name
    file: str
    line: int
    doc: str
    endpoints: tuple[EndpointSpec, ...]
    max_multiplexing: int = 1  # slots in one runner
    min_concurrency: int = 1  # runners kept up
    max_concurrency: int = 0  # runners at most, as requests wait; 0: as many as are kept up, and at least one
    keep_alive: float = 60.0  # seconds a runner beyond min_concurrency may be idle before it is stopped
    num_gpus: int = 0  # whole devices that each runner has to itself
    memory_limit: int = 0  # bytes of memory that a runner and what it started may hold; 0: no limit
    startup_timeout: float = 600.0  # seconds from the start of a runner to READY
    request_timeout: float = 3600.0  # seconds one request may run
    first_event_timeout: float = 0.0  # seconds from its slot to the first event of a stream; 0: no such deadline
    event_gap_timeout: float = 0.0  # seconds between two events of a stream; 0: no such deadline
    on_disconnect: str = "cancel"  # see core.disconnect
    log_items: bool = True  # whether items with `progress` or `message` are lines of a queued request's log
    stream_error_end: str = "cut"  # how the connection ends behind an error event: "cut" or "clean"

    @property
    def runners_max(self) -> int:
        """How many runners it may have at once."""
        return max(1, self.min_concurrency, self.max_concurrency)

    def to_wire(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, fields: Mapping[str, Any]) -> AppSpec:
        """Rebuild what `to_wire` returned."""
        endpoints = tuple(EndpointSpec(**endpoint) for endpoint in fields["endpoints"])
        return cls(**{**fields, "endpoints": endpoints})
