"""Results: their columns, and how they lie on disk."""

from dpbench.store.folder import Store, StoredCell, load, open_run
from dpbench.store.schema import COLUMNS, CONDITIONS, SCHEMA, Column, Row

__all__ = ["COLUMNS", "CONDITIONS", "SCHEMA", "Column", "Row", "Store", "StoredCell", "load", "open_run"]
