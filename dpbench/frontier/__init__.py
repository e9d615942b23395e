"""Up to which noise an attack is seen to get something, and from which on none of those tried is.

`frontier` measures both for a set of attacks, with error rates that hold at whatever moment it stops.
"""

from __future__ import annotations

from typing import Any

__all__ = ["frontier"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from dpbench.frontier.command import frontier

        return frontier
    raise AttributeError(f"module 'dpbench.frontier' has no attribute {name!r}")
