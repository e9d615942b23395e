"""Stored results, and how images are counted in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import dpbench
from dpbench.cell import registered
from dpbench.privacy.intervals import clopper_pearson

HOME = Path(__file__).parents[1] / "results" / "reference"


def results(name: str) -> pd.DataFrame:
    """The rows of a stored run that ended well."""
    registered.load()
    table = dpbench.load(HOME / name)
    return table[table["status"] == "ok"]


def photographs(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each photograph and setting: a photograph in two batches is no new evidence."""
    names = ["original_index", "victim", "defense", "attack", "floor", "floor_of", "eps_release", "releases"]
    return table.drop_duplicates([name for name in names if name in table])


def share(successes: Any, trials: int) -> dict[str, Any]:
    """A count with its exact 95 % interval."""
    low, high = clopper_pearson(int(successes), trials)
    return {"count": int(successes), "of": trials, "low": low, "high": high}


def identified(rows: pd.DataFrame) -> dict[str, Any]:
    """How many photographs were identified."""
    rows = photographs(rows)
    return share(rows["identified"].sum(), len(rows))
