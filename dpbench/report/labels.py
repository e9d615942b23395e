"""How attacks, defences and numbers are called in tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from dpbench import schema

FLOOR = "floor:"
EMPTY = "—"

_IN_LABELS = {"attack", "floor_of", "adaptive", "defense", "eps", "eps_release", "max_grad_norm", "noise_std"}
_IN_LABELS |= {"prune_ratio", "prune_scope", "batch_size"}
# what follows from other columns
_DERIVED = {
    "noise_multiplier",
    "sample_rate",
    "steps",
    "adjacency",
    "rero_release",
    "victim_accuracy",
    "accountant",
}


def is_floor(table: pd.DataFrame) -> pd.Series:
    """Which rows are floors: what an attacker reaches without the gradient of these images."""
    return table["attack"].str.startswith(FLOOR).fillna(False).astype(bool)


def is_defended(table: pd.DataFrame) -> pd.Series:
    """Which rows are attacks on a defended gradient."""
    return ~is_floor(table) & (table["defense"].fillna("none") != "none")


def attack_label(row: Mapping[str, Any]) -> str:
    """Name a row's attack; a floor says which attack was fed noise, a defended row if it was not adaptive.

    Example:
        >>> attack_label({"attack": "dlg", "adaptive": False, "defense": "dp"})
        'dlg (not adaptive)'
        >>> attack_label({"attack": "floor:noise-gradient", "floor_of": "dlg"})
        'floor:noise-gradient (dlg)'
    """
    name = str(row["attack"])
    if name.startswith(FLOOR):
        return f"{name} ({row['floor_of']})" if _given(row, "floor_of") else name
    defended = _given(row, "defense") and row["defense"] != "none"
    return f"{name} (not adaptive)" if defended and _given(row, "adaptive") and not row["adaptive"] else name


def defense_label(row: Mapping[str, Any], *, eps: bool = True) -> str:
    """Name the defence of a row with the parameters it has.

    Args:
        row: of the results or the summary.
        eps: whether epsilon is part of the name; the training budget, or else the release's.

    Example:
        >>> defense_label({"defense": "dp+prune", "eps": 1.0, "max_grad_norm": 1.0, "prune_ratio": 0.9})
        'dp+prune ε=1 C=1 ratio=0.9'
    """
    if not _given(row, "defense") or row["defense"] == "none":
        return "none"
    words = [str(row["defense"])]
    budget = "eps" if _given(row, "eps") else "eps_release"
    if eps and _given(row, budget):
        words.append(f"ε={number(row[budget], 'g')}")
    for column, sign in (("max_grad_norm", "C"), ("noise_std", "std"), ("prune_ratio", "ratio")):
        if _given(row, column):
            words.append(f"{sign}={number(row[column], 'g')}")
    if _given(row, "prune_scope") and row["prune_scope"] != "layer":
        words.append(str(row["prune_scope"]))
    return " ".join(words)


def varying_conditions(table: pd.DataFrame) -> list[str]:
    """Conditions that differ between attacks and stand in no label and no heading."""
    attacked = table[~is_floor(table)]
    named = [name for name in schema.CONDITIONS if name not in _IN_LABELS | _DERIVED]
    return [name for name in named if attacked[name].nunique() > 1]


def conditions_label(row: Mapping[str, Any], names: Iterable[str]) -> str:
    """Name the conditions of a row.

    Example:
        >>> conditions_label({"model": "lenet", "labels": None}, ["model", "labels"])
        'model lenet'
    """
    return ", ".join(f"{name} {row[name]}" for name in names if _given(row, name)) or EMPTY


def distinguishing(table: pd.DataFrame) -> pd.DataFrame:
    """Empty what labels need not say in each row because it is the same in all: the one attack, the one C."""
    attacked = table[~is_floor(table)]
    if attacked["attack"].nunique() < 2:
        table = table.assign(floor_of=pd.NA)
    if attacked["max_grad_norm"].nunique() < 2:
        table = table.assign(max_grad_norm=float("nan"))
    return table


def number(value: Any, spec: str) -> str:
    """Format a number; a missing one is a dash.

    Example:
        >>> number(None, ".1f"), number(3.14, ".1f"), number(float("inf"), ".1f")
        ('—', '3.1', '∞')
    """
    if value is None or pd.isna(value):
        return EMPTY
    return "∞" if math.isinf(value) else format(value, spec)


def _given(row: Mapping[str, Any], column: str) -> bool:
    return column in row and row[column] is not None and not pd.isna(row[column])
