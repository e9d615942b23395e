"""Values for an attack's parameters that do better than its defaults, under each defence (docs/tuning.md)."""

from __future__ import annotations

from typing import Any

__all__ = ["tune"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from dpbench.tune.command import tune

        return tune
    raise AttributeError(f"module 'dpbench.tune' has no attribute {name!r}")
