"""`load`: a run's results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dpbench import store
from dpbench.cell import registered


def load(path: str | Path) -> pd.DataFrame:
    """Read a run's results; see `dpbench.store.load`."""
    registered.load()
    return store.load(path)
