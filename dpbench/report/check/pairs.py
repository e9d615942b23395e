"""Which row of a run is which row of the stored one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpbench.store.columns import columns, conditions

_KIND = ["attack", "defense"]
_PLACE = ["batch_size", "batch_seed", "image"]
_BUDGETS = ("eps", "eps_release", "noise_multiplier")
_DIGITS = 6
"""Digits of a setting that count: a budget that was computed twice is equal but for rounding."""


@dataclass(frozen=True)
class Pairs:
    """Rows of two tables that stand for the same.

    Attributes:
        there: labels of rows of the stored table, [n].
        here: labels of the rows of this one, [n], in the same order.
        only_there: labels of stored rows without a counterpart.
        only_here: labels of rows of this table without one.
        by: of each kind of row, (attack, defence), the settings that tell its rows apart.
    """

    there: list[Any]
    here: list[Any]
    only_there: list[Any]
    only_here: list[Any]
    by: dict[tuple[str, str], list[str]]


def settings_of(table: pd.DataFrame, asked: Mapping[str, Any]) -> list[str]:
    """The columns that may tell rows apart; what was asked for before what follows from it."""
    known = columns()
    names = ["attack_seed", *conditions()]
    names = [n for n in names if n in table and n not in (*_KIND, *_PLACE)]
    declared = [n for n in names if (known[n].symbol or n == "attack_seed") and n not in _BUDGETS]
    budgets = sorted((n for n in _BUDGETS if n in table), key=lambda n: not asked.get(n))
    return [*declared, *budgets, *(n for n in names if n not in (*declared, *budgets))]


def text(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The values of some columns as text of a few digits; a missing one is an empty text."""
    known, found = columns(), {}
    for name in names:
        numeric = name in known and known[name].dtype == "float64"
        words = {v: format(v, f".{_DIGITS}g") if numeric else str(v) for v in table[name].dropna().unique()}
        found[name] = [words.get(value, "") if value is not pd.NA else "" for value in table[name]]
    return pd.DataFrame(found, index=table.index, dtype=object)


def pair(there: pd.DataFrame, here: pd.DataFrame, asked: Mapping[str, Any]) -> Pairs:
    """Find the counterpart of every row.

    Rows of the same attack, defence and place in a batch are told apart by as few settings as it takes. So a
    setting that only one of the two runs knows, or whose default has changed, hides no pair: it is a
    difference of a pair. Rows that no setting tells apart are paired in order.

    Args:
        there: stored rows, with an index of its own.
        here: rows of this run, likewise.
        asked: configuration of the stored run.
    """
    names = [name for name in settings_of(there, asked) if name in here]
    a, b = (text(table, [*_KIND, *_PLACE, *names]) for table in (there, here))
    found = Pairs([], [], [], [], {})
    kinds = pd.concat([a[_KIND], b[_KIND]]).drop_duplicates()
    for kind in kinds.itertuples(index=False, name=None):
        mine, yours = (rows[(rows["attack"] == kind[0]) & (rows["defense"] == kind[1])] for rows in (a, b))
        by = found.by[kind] = _telling(mine, yours, names)
        mine, yours = (_keyed(rows, [*_PLACE, *by]) for rows in (mine, yours))
        both = mine.merge(yours, on="key", how="outer", suffixes=("_there", "_here"))
        matched = both["row_there"].notna() & both["row_here"].notna()
        found.there.extend(both.loc[matched, "row_there"])
        found.here.extend(both.loc[matched, "row_here"])
        found.only_there.extend(both.loc[both["row_here"].isna(), "row_there"])
        found.only_here.extend(both.loc[both["row_there"].isna(), "row_here"])
    return found


def _telling(mine: pd.DataFrame, yours: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The first settings that tell apart all rows of each table that any setting can."""
    by: list[str] = []
    reached = [len(rows[_PLACE].drop_duplicates()) for rows in (mine, yours)]
    for name in names:
        if reached == [len(mine), len(yours)]:
            break
        now = [len(rows[[*_PLACE, *by, name]].drop_duplicates()) for rows in (mine, yours)]
        if now != reached:
            by, reached = [*by, name], now
    return by


def _keyed(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    copy = rows.groupby(list(names)).cumcount()
    keys = pd.Series(list(zip(*(rows[name] for name in names), copy, strict=True)), index=rows.index)
    return pd.DataFrame({"key": keys.to_numpy(dtype=object), "row": rows.index})
