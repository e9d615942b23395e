"""What trainings under each defence reached: `utility.csv` of a run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dpbench.report.page.beside import from_csv
from dpbench.store import Store

FILE = "utility.csv"
_WORDS = ("defense", "utility_model", "status")
_NUMBERS = ("accuracy", "noise_multiplier", "sample_rate", "steps")


def trainings(store: Store) -> pd.DataFrame | None:
    """One row for each training; None where there is no such file, or it is another table."""
    table = from_csv(store.path / FILE)
    if table is None or not {*_WORDS, *_NUMBERS} <= set(table):
        return None
    for name in _NUMBERS:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table


def done(trained: pd.DataFrame) -> pd.DataFrame:
    """Those that ended well."""
    return trained[(trained["status"] == "ok") & trained["accuracy"].notna()]


def accuracies(row: Mapping[str, Any], trained: pd.DataFrame | None) -> dict[str, pd.Series]:
    """Model's name to the accuracies of its trainings with the defence, noise, rate and steps of `row`."""
    if trained is None:
        return {}
    same = done(trained)
    same = same[same["defense"] == row["defense"]]
    for name in ("noise_multiplier", "sample_rate", "steps"):
        if not pd.isna(row[name]):
            same = same[np.isclose(same[name], float(row[name]), rtol=1e-6, atol=0)]
    return {str(model): part["accuracy"] for model, part in same.groupby("utility_model")}


def without_defence(trained: pd.DataFrame, model: str) -> float | None:
    """Mean accuracy of the model's undefended trainings; None where there is none."""
    rows = done(trained)
    rows = rows[(rows["defense"] == "none") & (rows["utility_model"] == model)]
    return None if rows.empty else float(rows["accuracy"].mean())
