"""What a runner is told of files when it is set up: where they lie, and where inputs' URLs may lead. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.core.netguard import Policy


@dataclass(frozen=True, slots=True)
class FileRoom:
    """Where the files of a node are, for one of its runners."""

    folder: str
    outbound: Policy

    def to_wire(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "folder": self.folder,
            "allow_http": self.outbound.allow_http,
            "ports": sorted(self.outbound.ports),
            "networks": [str(network) for network in self.outbound.allowed],
        }

    @classmethod
    def from_wire(cls, fields: Mapping[str, Any]) -> FileRoom:
        """Read what `to_wire` wrote. Raises `ValueError`, `TypeError` or `KeyError`."""
        networks = tuple(ipaddress.ip_network(text) for text in fields["networks"])
        policy = Policy(bool(fields["allow_http"]), frozenset(map(int, fields["ports"])), networks)
        return cls(str(fields["folder"]), policy)
