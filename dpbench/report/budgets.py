"""What stands above a table of results: the training that each budget is for, and the noise that follows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dpbench.privacy.rounding import up
from dpbench.report.naming import number

MOST_PAIRS = 4
"""Pairs of sigma and epsilon in a line; of more, the first ones and the last."""
MOST_LINES = 4
_TRAINING = ("train_size", "train_batch_size", "sample_rate", "steps", "releases", "inclusion", "unit")


def budgets(attacked: pd.DataFrame) -> list[str]:
    """One line for each training, number of releases and delta that a budget was calibrated for.

    Args:
        attacked: summary of a sheet's results, floors left out.

    Returns:
        Lines without a full stop, `MOST_LINES` of them and how many more there are; none without a guarantee.
    """
    private = attacked[attacked["eps_release"].notna() & attacked["noise_multiplier"].notna()]
    filled = {name: private[name].fillna(value) for name, value in (("unit", "record"), ("inclusion", 1.0))}
    private = private.assign(**filled)
    said: dict[str, None] = {}
    several = private["delta"].nunique() > 1
    for _, rows in private.groupby([*_TRAINING, "delta"], dropna=False, sort=False):
        for of_training in (True, False):
            part = rows[rows["eps"].notna() == of_training]
            if len(part):
                delta = f" at δ = {up(part.iloc[0]['delta'])}" if several else ""
                said[f"{_what(part.iloc[0], of_training)}{delta}: {_noise(part, of_training)}"] = None
    lines = list(said)
    more = len(lines) - MOST_LINES
    return (
        lines if more <= 0 else [*lines[:MOST_LINES], f"and {more} more; each row of results.csv has its own"]
    )


def _what(row: pd.Series, of_training: bool) -> str:
    if not of_training:
        count = 1 if pd.isna(row["releases"]) else int(row["releases"])
        which = "the attacked release" if count == 1 else f"{count} releases"
        return f"budget of {which} (q = {up(row['inclusion'])})"
    words = ["budget of a training"]
    units, together = ("clients", "rounds") if row["unit"] == "user" else ("images", "batches")
    if not pd.isna(row["train_size"]):
        words.append(f"on {int(row['train_size']):,} {units}")
    if not pd.isna(row["train_batch_size"]):
        words.append(f"in {together} of {int(row['train_batch_size']):,}")
    return f"{' '.join(words)} (q = {number(row['sample_rate'], '.3g')}, T = {number(row['steps'], ',d')})"


def _noise(rows: pd.DataFrame, of_training: bool) -> str:
    """Which sigma is added at which epsilon, least epsilon first."""
    budget = "eps" if of_training else "eps_release"
    found: dict[tuple[str, str], Any] = {}
    for eps, sigma in sorted(zip(rows[budget], rows["noise_multiplier"], strict=True)):
        found[up(eps), up(sigma)] = None
    pairs = [f"σ = {sigma} at ε = {eps}" for eps, sigma in found]
    if len(pairs) > MOST_PAIRS:
        pairs = [*pairs[: MOST_PAIRS - 1], f"... {pairs[-1]}"]
    return ", ".join(pairs)
