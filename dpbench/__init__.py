"""dpbench: what a curious server can rebuild from one gradient, and what defences do about it.

Names load on first use (PEP 562): `attacks` imports `dpbench.protocol`, so importing them here would be a
circle.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = dict.fromkeys(("benchmark", "attack", "capture", "load"), "dpbench.api")
_HOMES |= {
    "Release": "dpbench.protocol",
    "InputError": "dpbench.protocol",
    "utility": "dpbench.accuracy.utility",
}
_MODULES = ("privacy", "metrics", "data", "victim", "assets", "frontier", "protocol", "store", "testing")
__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"dpbench.{name}")
    raise AttributeError(f"module 'dpbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
