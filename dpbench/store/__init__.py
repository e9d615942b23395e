"""Results: their columns, and how they lie on disk."""

from dpbench.store.columns import Column, columns, conditions
from dpbench.store.floors import attach_floors
from dpbench.store.folder import Store, StoredCell, load, open_run
from dpbench.store.schema import Row

__all__ = [
    "Column",
    "Row",
    "Store",
    "StoredCell",
    "attach_floors",
    "columns",
    "conditions",
    "load",
    "open_run",
]
