"""Results: their columns, and how they lie on disk.

Names load on first use (PEP 562): tables need pandas, the columns do not.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dpbench.store.columns import Column, columns, conditions

_HOMES = {
    "Row": "dpbench.store.schema",
    "Store": "dpbench.store.folder",
    "TABLES": "dpbench.store.folder",
    "StoredCell": "dpbench.store.cell_file",
    "attach_floors": "dpbench.store.floors",
    "is_begun": "dpbench.store.runs",
    "load": "dpbench.store.runs",
    "open_run": "dpbench.store.runs",
}
__all__ = [
    "TABLES",
    "Column",
    "Row",
    "Store",
    "StoredCell",
    "attach_floors",
    "columns",
    "conditions",
    "is_begun",
    "load",
    "open_run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dpbench.store' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
