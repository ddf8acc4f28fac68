"""Examples under a command's help."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """Return a help text's last paragraph. The backspace above it keeps its lines from being joined."""
    return "\n".join(("\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)))
