"""What was really run: the columns by which rows of several runs are of one setting, and their values.

A budget is a label: two trainings with one epsilon and other sample rates have other noise. So a setting has
sigma, sample rate, steps and clip norm, and no epsilon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from dpbench.privacy import Budget
from dpbench.privacy.rounding import up
from dpbench.protocol import parameters
from dpbench.report.naming import settings
from dpbench.store.columns import columns, conditions

LABELS = (*(each.column for each in parameters(Budget).values()), "eps_release", "eps_replace")
LABELS = (*LABELS, "rero_release", "adjacency")
"""Columns that say what a budget is, or follow from the noise; they count where no noise is known."""
SITUATION = ("threat_model", "labels", "bn_stats", "releases", "inclusion", "candidates")
"""What an attacker is given, as opposed to what it does with it."""
_FLOORS = ("floor", "floor_of")
_DIGITS = 6
"""Digits in which settings are compared: a sigma that was computed twice is equal but for rounding."""
_SPECIAL: dict[str, Callable[[Any], str]] = {
    "sample_rate": lambda rate: f"q={rate:.3g}",
    "steps": lambda steps: f"T={steps:,d}",
    "noise_multiplier": lambda sigma: f"σ={up(sigma)}",
    "releases": lambda count: f"{count} release{'s' if count > 1 else ''}",  # T means the steps here
    "adaptive": lambda does: "adaptive" if does else "not adaptive",
}
_BUDGETS = {"eps": "ε", "eps_release": "ε release"}


def really_run() -> tuple[str, ...]:
    """The columns of one setting but for its budgets: the batch, its defence and what the attacker has."""
    known = columns()
    found = (*conditions("batch", "defence"), *SITUATION)
    return tuple(name for name in found if name in known and name not in LABELS)


def of_attacks() -> tuple[str, ...]:
    """The columns that say what an attacker does."""
    return tuple(name for name in conditions("attack") if name not in (*SITUATION, *_FLOORS))


def canonical(table: pd.DataFrame) -> pd.DataFrame:
    """The values by which settings are compared, as text; an empty one is missing.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        The columns of `really_run`, `LABELS` and `of_attacks`, by the index of `table`.
    """
    found = {name: _text(table[name]) for name in (*really_run(), *LABELS, *of_attacks()) if name in table}
    found = pd.DataFrame(found, index=table.index, dtype=object)
    told = table["noise_multiplier"].notna() if "noise_multiplier" in table else False
    labels = [name for name in LABELS if name in found]
    found.loc[told | table["eps_release"].isna(), labels] = pd.NA
    return found


def _text(values: pd.Series) -> pd.Series:
    if values.isna().all():  # as of most columns
        return values.astype(object)
    known = columns()[values.name]
    spec = f".{_DIGITS}g" if known.dtype == "float64" else ""
    words = {value: format(value, spec) for value in values.dropna().unique()}
    return values.astype(object).map(words, na_action="ignore")


def named(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Settings with their values, sample rate and steps by their letters; empty ones are left out.

    Example:
        >>> named({"sample_rate": 0.0128, "steps": 2344, "delta": None}, ["sample_rate", "steps", "delta"])
        ['q=0.0128', 'T=2,344']
    """
    words = []
    for name in names:
        for text in settings(row, [name]):
            special = _SPECIAL.get(name)
            words.append(special(row[name]) if special else text)
    return words


def budgets(rows: pd.DataFrame) -> str:
    """The budgets by which these rows are labelled, such as `ε=1`; empty without a guarantee."""
    name = "eps" if "eps" in rows and rows["eps"].notna().any() else "eps_release"
    values = dict.fromkeys(up(value) for value in sorted(rows[name].dropna()))
    return f"{_BUDGETS[name]}={' and '.join(values)}" if values else ""
