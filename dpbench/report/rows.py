"""Kinds of rows, and the order in which tables and pictures show them."""

from __future__ import annotations

import pandas as pd

from dpbench.protocol import ORACLES
from dpbench.store.columns import columns, conditions
from dpbench.system.once import once

WITHOUT_GRADIENT = ("deepinversion",)
"""Baselines that are told labels and statistics and read no gradient: floors by another name."""
_DIGITS = 6
"""Digits by which numbers are sorted: computed budgets are equal but for rounding."""


def ended_well(table: pd.DataFrame) -> pd.Series:
    """Which rows hold a result."""
    return (table["status"].fillna("ok") == "ok").astype(bool)


def is_guessed(table: pd.DataFrame) -> pd.Series:
    """Which rows are of images that a fishing server does not fish for.

    It hears nothing of them and hands back the public mean image in their place, so they say nothing of the
    attack. It fishes for the class `target`, or else for that of the first image of the batch.
    """
    fishing = (table["threat_model"] == "fishing").fillna(False).astype(bool)
    if not fishing.any():
        return fishing
    first = table["label"].where(table["image"] == 0).groupby(table["key"]).transform("first")
    wanted = table["target"].fillna(first) if "target" in table else first
    return fishing & (table["label"] != wanted).fillna(False).astype(bool)


def is_of_attack(table: pd.DataFrame) -> pd.Series:
    """Which rows hold a result of what was attacked: those that ended well, without what is guessed."""
    return ended_well(table) & ~is_guessed(table)


def is_floor(table: pd.DataFrame) -> pd.Series:
    """Which rows are floors: what an attacker reaches without the gradient of these images."""
    return table["floor"].notna()


def is_defended(table: pd.DataFrame) -> pd.Series:
    """Which rows are attacks on a defended gradient."""
    return ~is_floor(table) & (table["defense"].fillna("none") != "none")


def is_informed(table: pd.DataFrame) -> pd.Series:
    """Which rows are of the informed attacker, who picks a candidate and rebuilds no image."""
    return (table["threat_model"] == "informed").fillna(False).astype(bool)


def only(table: pd.DataFrame, wanted: pd.Series) -> pd.DataFrame:
    """The rows that are wanted; the table itself where all are, so that what is known of it holds on.

    Taking rows out of a hundred columns costs milliseconds, however few they are.

    Example:
        >>> table = pd.DataFrame({"psnr": [9.0, 20.0]})
        >>> only(table, table["psnr"] > 0) is table
        True
        >>> only(table, table["psnr"] > 10).index.tolist()
        [1]
    """
    if wanted.all():
        return table
    return table[wanted] if wanted.any() else table.iloc[:0]


def only_labels(table: pd.DataFrame) -> pd.Series:
    """Which rows are of an attack that rebuilds labels and no image, its floors among them."""
    attack = table["floor_of"].fillna(table["attack"])
    found = table[["label_correct", "psnr", "success"]].notna().groupby(attack).any()
    alone = found.index[found["label_correct"] & ~found["psnr"] & ~found["success"]]
    return attack.isin(alone).astype(bool)


def reads_no_gradient(table: pd.DataFrame) -> pd.Series:
    """Which rows are of an attack that reads no gradient (`WITHOUT_GRADIENT`), its floors among them."""
    return table["floor_of"].fillna(table["attack"]).isin(WITHOUT_GRADIENT).astype(bool)


@once
def of_pictures(table: pd.DataFrame) -> pd.DataFrame:
    """The rows about images that are rebuilt from a gradient, numbered from 0.

    Where all are, it is the table itself, so that what is known of it need not be computed again.

    Args:
        table: results with all columns, numbered from 0.
    """
    other = only_labels(table) | reads_no_gradient(table)
    return table[~other].reset_index(drop=True) if other.any() else table


def ordered(table: pd.DataFrame, *, batch_last: bool = False) -> pd.DataFrame:
    """Sort by batch size and batch; in each the floors first, then undefended, then defended rows.

    Within these by the columns of the defence and of the attack, in the order of the columns; words that a
    parameter chooses from are sorted as it declares them. Rows with a budget follow those without.

    Args:
        table: results or their summary.
        batch_last: sort by the batch after everything else, not before.
    """
    keys: dict[str, pd.Series] = {}
    batch = ("batch_size", *(c for c in conditions("batch") if c != "batch_size"))
    if not batch_last:
        _add_keys(keys, table, batch)
    keys["attacked"], keys["defended"] = ~is_floor(table), is_defended(table)
    keys["private"] = table["eps_release"].notna()
    _add_keys(keys, table, (*conditions("defence"), *conditions("attack")))
    if batch_last:
        _add_keys(keys, table, batch)
    found = pd.DataFrame(keys).reset_index(drop=True)
    return table.iloc[found.sort_values(list(keys), kind="stable").index]


def has_exact_chance(table: pd.DataFrame) -> pd.Series:
    """Whether a choice without the gradient is right in one of as many cases as there are choices.

    Whoever knows the label does better in a gallery that has images of other labels, too, and whoever knows
    the batch's own statistics does better in any.
    """
    choosing = table["candidates"].isna() & table["ranked_first"].isna()
    labels = (table["gallery_labels"] == "any") & (table["labels"] != "inferred")
    return ~(choosing & (labels | table["bn_stats"].isin(ORACLES)))


def _add_keys(keys: dict[str, pd.Series], table: pd.DataFrame, names: tuple[str, ...]) -> None:
    known = columns()
    for name in names:
        values = table[name]
        if values.nunique(dropna=False) < 2:
            continue
        if known[name].choices:
            place = {word: i for i, word in enumerate(known[name].choices)}
            values = values.map(lambda word, place=place: place.get(word, len(place)), na_action="ignore")
        elif known[name].dtype == "float64":
            values = values.map({number: float(f"{number:.{_DIGITS}g}") for number in values.unique()})
        keys[name] = values
